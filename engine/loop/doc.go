// Package loop is what engines have in common that schedule for themselves: the
// way of a request from Generate through the scheduler (engine/sched) and back, KV
// events, counts, drain and end. What differs is how a batch is computed and its
// ids are chosen: a Computer does that, by a model (engine/native) or by a table of
// times (engine/mocker). So both form the same batches from the same requests.
//
// An Engine owns one goroutine's worth of work, which Run is: the batch loop.
// Callers of Generate submit a task to it and read the task's mail in their own
// goroutines; the loop never waits for a reader.
//
// KV that a request needs and the pool has not may come from elsewhere: from another
// engine's hand-over (Transfers), or from below the pool (Tiers), which in turn hears of
// every batch and keeps what it will. Either is asked by the loop and tells it by Wake;
// the loop goes on with others meanwhile.
//
// Laws, beside those of engine.Engine:
//   - When Generate's sequence has ended, for whatever reason, the engine holds
//     neither a block nor a place in a queue for it (I6), but for blocks that were lent
//     and are read still (Loans).
//   - Every request ends exactly once (I1), also when a step panics or Run ends.
package loop
