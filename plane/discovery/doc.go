// Package discovery tells the processes of a cluster of each other: a worker
// registers an Instance with the card of its model, a frontend watches them. It
// is used by worker, which registers, and by node, which follows; it owns the
// form in which instances are stored, the cluster key, and two stores: Mem, for
// one process and for simulations, and File, a directory that processes share.
// The third is package discovery/etcd; discoverytest holds the laws of all.
//
// Laws:
//   - One live instance per path and worker id. A second one is refused with
//     CodeTaken while the first lives, and takes its place at once when it is
//     dead.
//   - A watch yields the whole set first and then what changes, in order for each
//     instance; changes that follow each other closely may arrive as one. An
//     instance that comes back with another epoch is first deleted.
//   - A store that cannot be read makes watches Stale, once. Nobody is deleted
//     meanwhile: the last view stays in force. When the store is back there is
//     Fresh, then a Snapshot.
//   - Registrations outlive the store: what it has lost is registered again,
//     without the registrant's doing.
//   - What cannot be read as an instance is passed over and reported once.
//   - Mem and File turn what they read into updates with the same Follower.
//   - Watches run in their caller's goroutine. A registration may own one, which
//     ends with its Close.
package discovery
