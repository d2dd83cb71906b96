// Package etcd keeps instances in etcd, for clusters that run one anyway. It is
// a discovery.Store; nodes open it by its name, "etcd" or "etcd://HOST:PORT,…".
// It speaks to etcd 3.4 and later.
//
// An instance is one key, holding what discovery.EncodeInstance writes, bound to
// a lease of its own:
//
//	/dynamo/instances/NAMESPACE/COMPONENT/ENDPOINT/ID
//
// with ID as 16 hexadecimal digits. Nothing else is kept there; the cluster key
// in particular is not, because everybody who may read the instances could then
// pose as one.
//
// Each registration owns a goroutine, from Register until its Close or the
// store's, that renews the lease; each Watch owns one that receives, while it is
// followed. Close leaves none.
//
// Laws:
//  1. A key changes owner only in a transaction that found it absent, bound to
//     the new owner's lease, or to none.
//  2. A registration outlives every loss of the store: when its lease or its key
//     is gone it takes new ones, for as long as it is not closed.
//  3. A watch never goes on where it cannot know what it missed. Whatever ends
//     the stream (the connection, a compaction, a member without a leader, more
//     silence than limits.go allows) makes it stale, and a snapshot follows.
//  4. Silence is found by asking: gRPC's own keep-alive has a floor of 10 s, and
//     servers refuse clients that ping more often than every 5 s.
package etcd
