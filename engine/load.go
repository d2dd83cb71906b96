package engine

// Load is what an engine says of its own fill at one moment. Workers push it to
// routers; it is never scraped.
type Load struct {
	// Running requests are in the batch, Waiting ones are not yet; MaxRunning
	// bounds the former, 0 if nothing does.
	Running, Waiting, MaxRunning int
	// KVBlocks is the size of the KV cache in blocks, KVUsed those that requests
	// hold; both 0 for an engine without one.
	KVBlocks, KVUsed int
	// Detailed says that PrefillTokens is known: tokens of prompts that are still to be
	// computed, of requests that wait and that run.
	Detailed      bool
	PrefillTokens int
	// Steps counts batches computed since the engine began; two equal counts with
	// Running above zero tell of an engine that is stuck.
	Steps uint64
	// Down says that the engine answers nothing for the moment and is expected back.
	Down bool
}
