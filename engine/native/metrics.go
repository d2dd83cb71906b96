package native

import "github.com/dynamo-go/dynamo/engine/sched"

// Stats are counts of an engine at the end of its last step.
type Stats struct {
	// Scheduler has the sequences waiting and running, the steps and their tokens,
	// the preemptions, the ends by reason, and (in KV) the blocks by state and the
	// prefix cache's hits.
	Scheduler sched.Stats
	// Submitted requests wait for the loop to take them in.
	Submitted int
	// PromptTokens, CachedTokens and OutputTokens count tokens of requests: prompts
	// admitted, the part of them found in the cache, ids generated.
	PromptTokens, CachedTokens, OutputTokens uint64
	// Panics counts steps that panicked; each failed all requests of its moment.
	Panics uint64
}

// Busy is the number of requests the engine holds anything for.
func (s Stats) Busy() int {
	return s.Submitted + s.Scheduler.Waiting + s.Scheduler.Running + s.Scheduler.Loading
}
