// Package rpc is the request plane: streams of messages between processes of a
// cluster, many at a time over one connection, between peers that prove to each
// other that they hold the cluster key. plane/remote carries engines over it,
// plane/event its feeds, worker serves it, node wires both ends. It owns
// connections, their three goroutines each (reader, writer, keeper), streams and
// their buffers, and nothing of what the messages mean.
//
// Laws:
//
//   - The connection's reader waits for nobody: what it reads goes into the
//     stream's inbox, whose size is bounded by the credit its receiver gave. A
//     slow reader holds up its own stream only.
//   - One writer a connection sends everything that is queued when it wakes, so
//     that the messages of one engine step travel in one write. Senders wait when
//     the queue is full; control frames do not.
//   - Every opened stream gets exactly one END from the server, or loses its
//     connection. A refusal is an END that comes before any work.
//   - What has arrived is delivered: a failed write ends writing, and the reader
//     goes on to the end of what the peer sent. A side that ends a connection in
//     good order lets the peer read all of it and close first, for a second.
//   - A Peer says that it is down before any stream of the lost connection fails.
//   - Before a peer has proved itself it costs a goroutine, a few hundred bytes
//     and five seconds at most, and the oldest of too many such peers is dropped.
//   - No lock is held over I/O, a channel, a callback or a sleep, and no time is
//     read but through package time: everything works in a testing/synctest
//     bubble over an injected network.
//
// Who is authenticated is the connection: after the handshake its bytes are
// protected against others by TLS only, if it is configured, and the handshake
// is bound to that TLS session.
package rpc
