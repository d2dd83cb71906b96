// Package sim plays a trace against a simulated fleet: one goroutine, one heap of
// events, a virtual clock. What decides is what decides in production - kvindex who
// holds what, placement which worker, sched what is in a batch, kvbm which block
// where - and perfmodel says how long a batch takes. 'dynamo replay' runs it.
//
// Of a request only lengths and block hashes exist: schedulers run with
// sched.Config.HashOnly, so that no token id is made, copied or hashed. The blocks of
// an answer match nobody's, as in a load run on real processes, whose prompts are
// made of the trace's hashes.
//
// # Time
//
// A request is sent when it is due, reaches its decision Ingress later, its worker
// Dispatch after that; an answer's tokens reach router and client Return after the
// step that made them, KV events the index EventDelay after it. Events of one moment
// are taken in a fixed order (kind, then number), so that the same configuration and
// trace give the same outcome, whose hash Result.Hash is.
//
// # Stretches
//
// While the running sequences of a worker only decode, and nobody waits whom it could
// admit, its next steps are known. Up to the next one in which a sequence takes or
// fills a block they are one event: the clock is advanced by the sum of their times,
// step by step, and a request that arrives meanwhile cuts the stretch at the end of
// the step it falls into. Config.Stepwise makes each step an event; the outcome is
// the same to the bit.
//
// # What the index is told
//
// Workers' events about blocks that no further request has, which are answers' and, when
// the trace can be gone through beforehand, most of the prompts' own, do not reach the
// index: nobody would look for them, so the outcome is the same to the bit.
// Config.Check has the index told of all.
//
// # Prefill and decode workers
//
// With workers of placement.Prefill in the fleet there are two routers, as in package
// node, and placement.DecideSplit says which requests are served in two parts: prompt and
// first token by the one worker, which then keeps the KV; the rest by another, to whose
// pool the KV comes over a link of modelled bandwidth. What the prefill side refuses the
// other side serves whole. A worker learns Dispatch after the first token of the second
// part has reached the router that what it keeps is needed no more.
//
// # Invariants
//
// I1 each accepted request ends exactly once with as many tokens as were delivered;
// I2 its tokens come in order; I3 in the end the index holds what the workers hold;
// I4 every pool balances, and KV comes from blocks that are kept for it; I5 no queue is
// above its limit; I8 in the end nobody waits. Those that cost nothing are always checked,
// Config.Check checks all of them as it goes. A broken one ends the run with an error that
// names it.
package sim
