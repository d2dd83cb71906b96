package rpc

import "time"

// The limits of the plane, and what happens at each. Those that can be
// configured stand in Config.
const (
	// MinKeyBytes is the least a cluster key may have; less is invalid.
	MinKeyBytes = 16
	// MaxConnections bounds Config.Connections.
	MaxConnections = 64
	// MinWindowBytes and MaxWindowBytes bound Config.WindowBytes and what a peer
	// may announce in its handshake.
	MinWindowBytes = 4 << 10
	MaxWindowBytes = 64 << 20
	// MaxMessageBytes bounds Config.MaxMessageBytes, and MaxStreams
	// Config.MaxStreams.
	MaxMessageBytes = 1 << 30
	MaxStreams      = 1 << slotBits
	// MaxMethodBytes and MaxTraceBytes bound what the header of a stream carries
	// beside the request; a longer method is invalid, a longer trace context is
	// left out.
	MaxMethodBytes = 128
	MaxTraceBytes  = 255

	// maxFrameBytes bounds the payload of a frame. Longer messages travel in
	// several; a peer that announces more loses its connection.
	maxFrameBytes = 16 << 10
	// queueBytes is how much may wait for a connection's writer; then senders
	// wait, first come, first served, and passesPerWrite of them go on with each
	// write.
	queueBytes     = 256 << 10
	passesPerWrite = 32
	// hardQueueBytes bounds what control frames, which do not wait, may add to
	// that; a peer that does not read so many loses its connection.
	hardQueueBytes = 16 << 20
	// firstReadBytes is the read buffer of a new connection; it grows to
	// maxReadBytes while reads fill it, and shrinks again after smallReads reads
	// that need less. idleQueueBytes is what an idle writer
	// keeps of its buffers.
	firstReadBytes = 32 << 10
	maxReadBytes   = 256 << 10
	smallReads     = 256
	idleQueueBytes = 64 << 10
	// firstBufferBytes is the size of a new buffer between the reader and a
	// receiver; larger ones than keptBufferBytes are not used again.
	firstBufferBytes = 1 << 10
	keptBufferBytes  = 64 << 10
	// keptMessageBytes is the buffer for joining fragments that a stream keeps
	// from one message to the next.
	keptMessageBytes = 256 << 10

	// maxErrorText bounds each text of an error on the wire; the rest is cut.
	maxErrorText = 4 << 10
	// maxRefusalText bounds the text of a refused handshake.
	maxRefusalText = 512
	// maxHelloBytes bounds the hello of any version; a longer one is garbage.
	maxHelloBytes = 1 << 10

	// handshakeTimeout is how long a server lets a peer take to prove itself, and
	// dialTimeout what a client gives each address, the handshake included.
	handshakeTimeout = 5 * time.Second
	dialTimeout      = 3 * time.Second
	// maxStrangers bounds the connections of a server that have not proved
	// themselves; one more drops the oldest, so that silent ones do not keep out
	// those that speak.
	maxStrangers = 512
	// maxPeers bounds the connections of a server; more are refused in the
	// handshake.
	maxPeers = 4096
	// writeTimeout bounds one write; a peer that lives and does not read for so
	// long loses its connection.
	writeTimeout = 10 * time.Second
	// drainTimeout is what a connection that ends in good order is given: for
	// writing what is queued, and for the peer to read it and close its side. It
	// also bounds how long one that cannot be written to is read, and the wait for
	// the answer of a handshake that was refused. Then it is closed as it is.
	drainTimeout = time.Second

	// A lost connection is tried again after firstBackoff, doubling to
	// maxBackoff; one that was refused in the handshake after refusedBackoff.
	// Half of each is jitter.
	firstBackoff   = 20 * time.Millisecond
	maxBackoff     = time.Second
	refusedBackoff = 4 * time.Second
	// acceptBackoff is the pause after a failed accept.
	acceptBackoff = 50 * time.Millisecond
	// logEvery bounds the log lines about refused strangers.
	logEvery = time.Second
)
