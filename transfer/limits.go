package transfer

import "time"

// The limits of the package, and what happens at each. Those that can be
// configured stand in Config.
const (
	// MinKeyBytes is the least a cluster key may have; less is invalid.
	MinKeyBytes = 16
	// MaxConnections, MaxCopyWorkers, MaxActiveTransfers and MaxQueuedTransfers
	// bound what Config may ask for.
	MaxConnections     = 16
	MaxCopyWorkers     = 64
	MaxActiveTransfers = 4096
	MaxQueuedTransfers = 1 << 20
	// MaxMemories bounds the memories of an agent; more are refused.
	MaxMemories = 4096
	// MaxDescriptors bounds a list; a longer one is invalid.
	MaxDescriptors = 1 << 20
	// MaxNotifyBytes bounds a notification; a longer one is invalid.
	MaxNotifyBytes = 16 << 10
	// MaxMetadataBytes bounds what Import reads; more is invalid.
	MaxMetadataBytes = 1 << 20
	// DefaultPageBytes is the page of a section that names none.
	DefaultPageBytes = 64 << 10

	// inlineBytes is the most that Post copies itself.
	inlineBytes = 4 << 10
	// segmentBytes bounds a segment: longer runs of bytes are cut, so that a fence
	// waits for no longer copy and several goroutines share a large one.
	segmentBytes = 1 << 20
	// chunkBytes is what a chunk of a list has, unless one segment has more.
	chunkBytes = 128 << 10
	// frameBytes is what a frame of the path tcp carries, unless one chunk has more: each
	// is a system call, an answer and two wakes, and what is summed is still in a core's
	// second cache when it is sent. frameSegments bounds its table, and a chunk.
	frameBytes    = 512 << 10
	frameSegments = 1024
	// maxFrameSegments and maxFrameBytes bound what a peer's frame may announce; a
	// peer that announces more loses its connection.
	maxFrameSegments = 4096
	maxFrameBytes    = 4 << 20
	// laneBytes is what makes a further goroutine worth while in a copy.
	laneBytes = 512 << 10
	// pieceBytes is received and summed at a time, while it is in the cache, and
	// copyBytes copied and compared, while it is in the innermost one.
	pieceBytes = 64 << 10 // part of the protocol: see sum
	copyBytes  = 16 << 10
	// fileBytes is what one call on a file moves at most, in maxParts parts at most;
	// directBytes is the least that goes past the page cache by a buffer, where it is
	// not aligned as it is. directAlign is what direct I/O wants addresses, offsets and
	// lengths to be multiples of.
	fileBytes   = 1 << 20
	maxParts    = 256
	directBytes = 64 << 10
	directAlign = 4096
	// bufferBytes is the size of aligned buffers, of which keptBuffers are kept for
	// later; further ones are made anew.
	bufferBytes = fileBytes + 2*directAlign
	keptBuffers = 8
	// fileLanes and objectLanes are the calls of one transfer on a file and on objects
	// at once; the rest wait.
	fileLanes   = 4
	objectLanes = 8
	// maxObjectBytes bounds the pages of objects; larger ones are invalid.
	maxObjectBytes = 1 << 30
	// lendBytes is the least payload of a frame that is lent to the kernel, and
	// lendSegment what its segments have at least on average. To pin pages and to be told
	// that they are free costs as much as to copy 10 KB, as the kernel's documentation of
	// MSG_ZEROCOPY has it, for each frame, and more where segments fill no whole pages.
	lendBytes   = 64 << 10
	lendSegment = 16 << 10
	// lentParts bounds what the kernel has of a connection's, in requests; what would be
	// more is copied. A frame is one request, or several where the queue is full.
	lentParts = 64
	// maxRings bounds the rings of an agent, each of two descriptors and a few pages;
	// further connections copy.
	maxRings = 512
	// lentCopied is how many notifications in a row say that the kernel has copied
	// before a connection lends nothing more.
	lentCopied = 8
	// depth is how many frames of a transfer a connection has in flight.
	depth = 2
	// beginWaiting bounds the requests on a connection beside which Post sends one
	// itself.
	beginWaiting = 8
	// readBytes is the buffer of a connection's reader; what is larger goes straight
	// into its memory.
	readBytes = 8 << 10

	// maxTextBytes bounds each text in a hello, in metadata, and in an error that
	// comes back; what is longer is invalid or cut.
	maxTextBytes = 512
	// maxAddressBytes bounds an address in metadata; longer ones are invalid.
	maxAddressBytes = 4096
	// maxPeers bounds the peers of an agent, and maxServed the connections it
	// serves; more are refused. maxStrangers bounds the connections whose peer has
	// not proved itself; the newest is dropped.
	maxPeers     = 4096
	maxServed    = 4096
	maxStrangers = 64
	// maxInbox bounds the notifications that nobody has fetched; a peer that sends
	// more is told to repeat them later.
	maxInbox = 16 << 10
	// maxUnsent bounds the notifications of a peer that wait for their transfers or
	// for the peer; a Post with one more is refused. maxUnacknowledged bounds those
	// on the way.
	maxUnsent         = 4096
	maxUnacknowledged = 256

	// attachSlots is how many processes map one memory at a time; a further one
	// takes another path. hazards is how many copies each has in progress; more wait.
	attachSlots = 64
	hazards     = 16

	// handshakeTimeout bounds a handshake on either side, and dialTimeout the whole
	// of a connection's making.
	handshakeTimeout = 5 * time.Second
	dialTimeout      = 5 * time.Second
	// stallTimeout is how long a peer that owes something may do nothing before its
	// connection is given up; one that takes nothing may for up to twice as long.
	stallTimeout = 2 * time.Second
	// cancelGrace is how long a cancelled transfer waits for a copy in progress
	// before it gives up the connection, and leaseGrace the same for a lease that
	// has ended.
	cancelGrace = 20 * time.Millisecond
	leaseGrace  = 5 * time.Millisecond
	// lentGrace is what both are for bytes that were sent, and which the kernel reads until
	// the peer's kernel has acknowledged them: that may take a round trip and the 40 ms by which
	// acknowledgements are delayed, and to give the connection up fails other transfers.
	lentGrace = 250 * time.Millisecond
	// drainPoll is the first and drainPollMax the longest pause between two looks at
	// a peer that still copies after its lease has ended.
	drainPoll    = time.Millisecond
	drainPollMax = 50 * time.Millisecond
	// pathBackoff is how long a path that could not be connected is left alone.
	pathBackoff = time.Second
	// notifyTimeout is how long notifications of an unreachable peer are tried
	// again, after pauses from notifyPause to notifyPauseMax; then they are dropped
	// and counted.
	notifyTimeout  = 10 * time.Second
	notifyPause    = 5 * time.Millisecond
	notifyPauseMax = 200 * time.Millisecond
)
