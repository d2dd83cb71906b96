// Package cluster runs whole clusters in one process under virtual time: real
// nodes (package node) with real HTTP and rpc over an in-memory network, a
// discovery store in memory and echo engines or mockers, inside a testing/synctest
// bubble, while a schedule of faults that a seed determines happens to them. Its tests
// are its only users.
//
// Laws checked after each schedule, numbered as in ARCHITECTURE.md:
//   - I1: each request ends exactly once, and its usage is what was delivered; what a
//     frontend that was killed has cut is answered by another one.
//   - I2: no token is lost, repeated or reordered: the text is that of an
//     undisturbed run, wherever the request was served.
//   - I3: at quiesce the index of every frontend is what the workers' KV caches hold,
//     whatever events were lost.
//   - I4: at quiesce the mockers' KV caches are sound, and hold nothing but blocks that
//     may be found again.
//   - I5: no queue exceeds its limit.
//   - I6: after a drain no goroutine, connection or registration is left.
//   - I8: with a healthy worker every request ends in time.
//
// Virtual time is not determinism: events of one instant run in any order. So
// invariants are checked and traces are not compared, and what is random is keyed
// by the seed and by who asks, never drawn from a shared stream.
package cluster
