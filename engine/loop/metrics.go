package loop

import (
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
)

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

// Add adds the counts of another engine, save those by reason.
func (s *Stats) Add(o *Stats) {
	s.Submitted += o.Submitted
	s.PromptTokens += o.PromptTokens
	s.CachedTokens += o.CachedTokens
	s.OutputTokens += o.OutputTokens
	s.Panics += o.Panics
	a, b := &s.Scheduler, &o.Scheduler
	a.Running, a.Waiting, a.Loading = a.Running+b.Running, a.Waiting+b.Waiting, a.Loading+b.Loading
	a.Uncomputed += b.Uncomputed
	a.Steps, a.Tokens, a.Preemptions = a.Steps+b.Steps, a.Tokens+b.Tokens, a.Preemptions+b.Preemptions
	k, l := &a.KV, &b.KV
	k.Capacity, k.Free, k.Idle, k.Leases = k.Capacity+l.Capacity, k.Free+l.Free, k.Idle+l.Idle, k.Leases+l.Leases
	k.Partial, k.Complete, k.Held, k.Loading = k.Partial+l.Partial, k.Complete+l.Complete, k.Held+l.Held, k.Loading+l.Loading
}

// Load says how full an engine with these counts is; maxRunning bounds its batch.
func (s *Stats) Load(maxRunning int) engine.Load {
	kv := &s.Scheduler.KV
	return engine.Load{
		Running: s.Scheduler.Running, Waiting: s.Scheduler.Waiting + s.Scheduler.Loading + s.Submitted, MaxRunning: maxRunning,
		KVBlocks: kv.Capacity, KVUsed: kv.Partial + kv.Complete + kv.Held + kv.Loading, Steps: s.Scheduler.Steps,
		Detailed: true, PrefillTokens: s.Scheduler.Uncomputed,
	}
}
