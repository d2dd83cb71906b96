package node

import "time"

// The files of a model beside its weights are bounded by these; published ones
// stay far below.
const (
	maxTokenizerBytes = 256 << 20 // Gemma 3's has 33 MB
	maxConfigBytes    = 16 << 20
	maxTemplateBytes  = 4 << 20
	maxKeysBytes      = 64 << 20
	maxRecordKey      = 4 << 10
)

// What a node keeps of a cluster.
const (
	// maxWeightsID bounds --weights-id, in bytes.
	maxWeightsID = 128
	// maxHosted bounds the workers of one process (--num-workers).
	maxHosted = 10_000
	// hostedRing is what the event rings of all workers of a process may take
	// together; each has at least minRing. A subscriber that is too slow for its ring
	// gets a snapshot.
	hostedRing, minRing = 64 << 20, 64 << 10
	// minMockWords and maxMockWords bound the vocabulary of mocked answers.
	minMockWords, maxMockWords = 16, 4096
	// prefillWait is how long a request waits for a prefill worker that has room; then
	// the prompt is computed where the answer is.
	prefillWait = time.Second
	// maxRemoteBlocks is what is known at most of a remote KV store whose budget is not
	// given; of what is more, the least recently used is forgotten.
	maxRemoteBlocks = 1 << 20
	// bucketLanes is the number of blocks read from an object store, and written to it, at
	// once.
	bucketLanes = 16
	// maxDiskFolders bounds the processes of one model that share a --kvbm-disk-dir.
	maxDiskFolders = 256
	// maxSocketDir bounds the name of a run directory in which sockets can be made.
	maxSocketDir = 70
	// maxStagger bounds --stagger-delay.
	maxStagger = time.Minute
	// maxConnections bounds --rpc-connections.
	maxConnections = 64
	// modelGrace is how long a model without workers, or an adapter that only workers
	// had which are gone, stays known: its requests wait for one, and new ones are told
	// that it is a matter of time.
	modelGrace = 30 * time.Second
	// adaptersEvery is how often the engines of this process are asked which adapters
	// they have.
	adaptersEvery = time.Second
	// artifactTimeout bounds the fetch of a tokenizer or template from a worker.
	artifactTimeout = 30 * time.Second
	// artifactSettle is how long after a worker was asked for a file the memory that
	// reading it took is given back.
	artifactSettle = 10 * time.Second
	// systemTimeout bounds a request to a worker's health and metrics server.
	systemTimeout = 10 * time.Second
	// statusTimeout bounds how long a worker is waited for by Status.
	statusTimeout = 2 * time.Second
	// maxSweep bounds the sockets in the run directory that a new worker looks at,
	// and sweepTimeout each look.
	maxSweep     = 1000
	sweepTimeout = 100 * time.Millisecond
	// snapshotWait is how long workers of the router's snapshot are waited for, and
	// snapshotStop how long writing it at the stop of the process may take; one that
	// nobody has completed for snapshotUnfinished is left over, and removed.
	snapshotWait, snapshotStop = time.Minute, 5 * time.Second
	snapshotUnfinished         = 10 * time.Minute
	// minSnapshotEvery and maxSnapshotEvery bound --router-snapshot-secs.
	minSnapshotEvery, maxSnapshotEvery = 5 * time.Second, 24 * time.Hour
	// maxAsking bounds the workers of a model that are asked for its tokenizer at once;
	// the others wait until it is here.
	maxAsking = 3
	// A worker whose tokenizer cannot be had is asked again after publishMin,
	// then twice that, up to publishMax.
	publishMin, publishMax = 100 * time.Millisecond, 5 * time.Second
)
