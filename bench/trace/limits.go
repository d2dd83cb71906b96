package trace

// The limits of the package, and what happens at each.
const (
	// maxLineBytes bounds a line, or an element of a JSON array; a longer one is a
	// fault of the file. A prompt of 16 million tokens in blocks of 16 fits.
	maxLineBytes = 32 << 20
	// MaxTokens bounds the lengths of a request; more is a fault of the file.
	MaxTokens = 1 << 27
	// maxMillis bounds times: ten years.
	maxMillis = 10 * 365 * 24 * 3600 * 1000
	// maxName bounds names of sessions, requests and models in bytes, and maxWaits
	// the requests one may wait for; more is a fault of the file.
	maxName  = 256
	maxWaits = 4096
	// maxSessions bounds the sessions that are followed while reading, and those that
	// are told apart in a description. Beyond it the turns of further sessions are not
	// counted, lines that need their session's past are a fault, and a description says
	// so.
	maxSessions = 1 << 20
	// maxRequests bounds the requests that Synth makes at most, and maxOpen those
	// it has planned ahead; more is a mistake in the configuration.
	maxRequests = 1 << 32
	maxOpen     = 1 << 22
	// maxTreeNodes bounds roots, depth and branching of a synthetic prefix tree.
	maxTreeNodes = 1 << 20
	// maxLiked and maxLikedHashes bound what is kept of a trace that another is made
	// after; the rest of it is left out, which Like reports.
	maxLiked       = 1 << 20
	maxLikedHashes = 1 << 26
	// maxNumbered bounds the hashes that Renumber remembers; further ones stay as
	// they are.
	maxNumbered = 1 << 24
	// DefaultSortBytes is how much a Sorter keeps in memory, by its own estimate,
	// before it writes a sorted run; maxRuns bounds the runs, so that 256 MiB of
	// memory sort 64 GiB.
	DefaultSortBytes = 256 << 20
	maxRuns          = 256
	// defaultBlocks is how many distinct blocks a description remembers; at the
	// limit the least recently used quarter is forgotten, and what is said of larger
	// caches is a lower bound.
	defaultBlocks = 1 << 23
)

// DefaultBlockSize is the block of Mooncake's published traces, in tokens.
const DefaultBlockSize = 512
