// Package router stands in front of the workers of one model: an Engine that takes
// one plan for each request, books it, and hands the request to the worker's own
// Engine. Package node makes one for each model and tells it what discovery, the
// connections and the workers' reports say; package placement decides.
//
// It owns the set of workers, the bookings, the index of what they hold, what it has
// learned of their speed, the queue of requests that no worker can take at the moment,
// and the records of the last decisions.
//
// Laws:
//   - A booking begins before the worker is asked and ends once, after its sequence
//     has ended, however that was: an end, an error, a broken loop, a panic. So
//     nothing is booked when nothing runs.
//   - A worker that refuses, leaves or is lost before the first chunk costs the
//     request nothing: the next candidate is asked at once. After the first chunk
//     its error is the caller's, as whatever stands above knows what has come.
//   - Requests that wait are served in their order, woken by what may let them
//     through. Nothing polls, and no goroutine is held.
//   - Between worker and caller there is an iterator call per chunk and no more.
//   - Where the workers' cards differ, a request goes to those alone that can do what it
//     asks for. What none can do is refused at once. An answer that a worker began goes
//     on in the same arithmetic as long as such a worker is left, and never where it
//     would go on otherwise (engine.GoesOn).
//   - Where another worker holds more of a prompt than the one that is chosen, and fetching
//     that is predicted to be quicker than to compute it, the other is asked to lend it until
//     the first token has come. That may fail in any way, and takes as long as part of what
//     it would have saved: then the worker computes. A request costs one goroutine for it,
//     which ends before its sequence does.
//   - Why a worker failed is for those who run it: the log and WorkerStats. A client is
//     told since when nobody answers.
//
// Who holds what (prefixes) is looked up without a lock, beside whoever writes.
//
// Locks: a Reservation's before Router.mu, and Router.mu before that of prefixes, which
// is held while events are applied. Nothing else is called while one is held but
// placement and kvindex, which are pure.
package router
