package kvwire

import "time"

// The limits, and what happens at each of them.
const (
	// MaxPayloadBytes bounds a payload: a longer one is KindCorrupt for the decoder
	// and ends the connection it comes from.
	MaxPayloadBytes = 8 << 20
	// MaxBatchEvents bounds the events of a batch; more are KindCorrupt.
	MaxBatchEvents = 1 << 17
	// MaxBlockTokens bounds the tokens in a block; a larger block is KindCorrupt.
	MaxBlockTokens = 1 << 16
	// MaxNameBytes bounds names (adapters, salts, media); longer is KindCorrupt.
	MaxNameBytes = 4096

	maxNames       = 1024    // names that a decoder keeps; it forgets them all when full
	maxExtraKeys   = 1 << 16 // blocks with extra keys in a batch; more are KindCorrupt
	maxKeysOfBlock = 1 << 10
	maxRank        = 1<<16 - 1
	maxGroups      = 64 // KV cache groups; events of others are not counted
	maxTopicBytes  = 1024

	maxFrames       = 8       // of a message; more end the connection
	maxCommandBytes = 4096    // of a ZMTP command; a longer one ends the connection
	readStep        = 4 << 10 // by which a connection's buffer grows, then by what it holds

	// What a Translator holds. At maxEntries further blocks are ignored and counted;
	// of pending events the oldest are dropped.
	maxEntries       = 4 << 20
	maxPendingEvents = 4096
	maxPending       = 8 << 20 // words of four bytes

	// The defaults of Config.
	retryMin       = 50 * time.Millisecond
	retryMax       = 2 * time.Second
	handshakeTime  = 5 * time.Second
	replayTime     = 5 * time.Second
	checkAfter     = time.Second
	pingEvery      = 10 * time.Second
	deadAfter      = 30 * time.Second
	replayAttempts = 3 // without progress, then the gap is not repairable

	// What a Publisher holds of messages for one subscriber; further ones are
	// dropped, which the subscriber sees as a gap.
	publisherQueue = 1024
)
