package native

import (
	"time"

	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// The limits of this package, and what happens at each.
const (
	// MaxTopLogprobs is the largest number of alternatives beside an id's
	// log-probability; a request for more is refused.
	MaxTopLogprobs = 20
	// scoreTokens is the number of prompt positions whose logits are held at a
	// time; longer chunks of a request for prompt logprobs are computed in pieces.
	scoreTokens = 64
)

const (
	// measureTokens is the least number of tokens of a step that tells what it costs to
	// compute a prompt; measureSteps is the number of steps that is averaged over.
	measureTokens = 32
	measureSteps  = 8
	// touchBlocks is the number of blocks that a request fills before all of its blocks
	// count as used again.
	touchBlocks = 8
)

const (
	// maxHandoverBlocks bounds the blocks that a handover tells of, so that it stays below
	// engine.MaxHandoverBytes; what is behind them is computed again.
	maxHandoverBlocks = 4096
	// layerGroups is the number of parts in which the layers of a block travel and are
	// checked, at most: a step goes on as the parts come.
	layerGroups = tier.MaxGroups
	// leases is for how many Exchange.Lease a block is lent, from when somebody last needed
	// it lent; then it is closed, whatever the engine is at.
	leases = 2
	// partBytes is how much KV is asked for at once, and checked while more comes.
	partBytes = 4 << 20
	// partWindow is the number of those parts of a request that are on their way at once.
	partWindow = 2
	// awaitMax is how long a step may take until KV has come that was about to come; then
	// it goes on without the requests that need it, for which there will be another.
	awaitMax = 30 * time.Millisecond
	// minBandwidth is the bytes a second at which KV has to come, beyond Exchange.Timeout;
	// what comes slower is computed.
	minBandwidth = 256 << 20
	// linger is how long blocks stay open that nobody needs lent any more.
	linger = 20 * time.Millisecond
	// closeTimeout is how long an engine that ends waits for those that read its KV.
	closeTimeout = 2 * time.Second
	// populateBytes is how much of a cache's memory is taken from the system before it is
	// used, at most, and populatePiece how much at once.
	populateBytes = 128 << 20
	populatePiece = 4 << 20
	// maxPeers bounds the engines that are remembered; beyond it those go that were not
	// asked for KV for peerIdle.
	maxPeers = 64
	peerIdle = 5 * time.Minute
)
