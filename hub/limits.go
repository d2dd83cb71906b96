package hub

import "time"

// What a server or a file may claim is bounded by these; each of them is far
// above what published models need.
const (
	maxConnections  = 64
	maxRepoFiles    = 20_000         // files in a repository listing
	maxListingBytes = 32 << 20       // the listing itself
	maxFileBytes    = int64(4) << 40 // one file
	maxMarkerBytes  = 8 << 20        // a marker or a resume record
	maxStderrBytes  = 8 << 10        // what is kept of pip's complaints
	maxRedirects    = 10
	maxKeyLength    = 200 // of a cache folder's name
)

const (
	// pieceBytes is the unit of ranged requests and of what a cut download may
	// have to fetch again.
	pieceBytes = 16 << 20
	// spareBytes stay free on the disk beside what a download needs.
	spareBytes = 64 << 20

	connectTimeout = 5 * time.Second
	tlsTimeout     = 10 * time.Second
	headerTimeout  = 30 * time.Second
	stallTimeout   = 30 * time.Second // without a byte, a request is given up and tried again
	maxAttempts    = 5                // in a row without progress
	firstBackoff   = 300 * time.Millisecond
	maxBackoff     = 5 * time.Second

	pipTimeout      = 20 * time.Minute
	pipStallTimeout = 4 * time.Minute // pip's own read time-out may be set to minutes

	progressEvery = 100 * time.Millisecond
	saveEvery     = 2 * time.Second
	lockPoll      = 100 * time.Millisecond
)
