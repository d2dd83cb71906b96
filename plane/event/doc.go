// Package event is the event plane: what a worker has to tell to whoever wants to
// know, in order, without ever holding the worker up. Workers publish their load
// and what their KV caches store and remove; frontends and routers follow them.
//
// A Publisher numbers the events of one source (a topic of a worker) within one
// life of it, the epoch, and keeps the newest in a ring. A subscriber reads at its
// own pace by a Reader at the publisher's side, which fills batches, and a Feed at
// its own, which turns them into deliveries. In between lies a carrier, a Bus: RPC
// over the connections that are there anyway, or the one of package nats below
// this one. Carriers move bytes and know nothing of events; package eventtest
// holds them to the laws below. Follow is what consumers use: it subscribes, goes
// on where it was after a loss, and begins anew when its consumer cannot go on.
//
// LoadReporter publishes engine.Load, KVSource the changes of KV caches.
//
// Laws:
//
//   - A publisher never waits: Publish copies into the ring, and whoever is too
//     slow for it is told so and begins anew with a snapshot.
//   - Events of one life come in order, each once, with no hole but where a Reset
//     stands. Between sources there is no order.
//   - What is missing is visible: a Gap comes as soon as the hole is noticed, then
//     the missing events from the ring, or a Reset with a snapshot. There is no
//     silent drift.
//   - A snapshot is the state that the events up to its number led to, no more and
//     no less; it comes in parts, and half of it is none: whoever loses the
//     connection in between begins it anew.
//   - Another life of a source begins with a Reset: numbers of one life say nothing
//     about another.
//   - Subscriptions run in their consumer's goroutine. What a subscriber costs a
//     publisher is a Reader, a batch and, over rpc, a goroutine; a snapshot is made
//     once for all who need it at the time and lives as long as they do.
//   - Bytes from outside are decoded within fixed bounds: a batch, a payload of at
//     most MaxPayloadBytes, never what a length claims.
//
// The wire formats stand in wire.go (batches and requests), load.go and kv.go.
//
// Locks: KVSource's before Publisher's; no other pair is held at once.
package event
