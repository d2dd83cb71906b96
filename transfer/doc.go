// Package transfer moves bytes between memories of processes: KV blocks from a
// prefill worker to a decode worker, from a tier to an engine, from one host to
// another. An Agent registers memories, tells peers of them by metadata, prepares
// lists of scattered descriptors, and posts them to be read or written. kvbm's
// tiers, disagg and the engines use it; it knows nothing of blocks or tokens.
//
// # Use
//
//	a, err := transfer.New(cfg)                 // starts nothing
//	go a.Run(ctx); <-a.Ready()
//	m, err := a.Register(transfer.Section{Name: "kv", Shared: s, PageBytes: block})
//	blob := a.Export()                          // to the peer, by whatever way
//	p, err := a.Import(theirs)
//	l, err := a.Prepare(p, local, remote)       // neighbours are joined
//	t, err := a.Post(l, transfer.Read, transfer.Options{Notify: []byte("have it")})
//	err = t.Wait(ctx)
//
// # Paths
//
// A list goes by the fastest path that both sides have and that serves the media
// of its memories; when a path fails (KindUnavailable) the next one takes the
// whole transfer over, which does no harm because it writes the same bytes to the
// same places.
//
//	local  between agents of one Process, by copying
//	shm    into memory of NewShared of another process of this host: the peer's
//	       memory is mapped, and who posts copies
//	tcp    to anywhere, over several connections
//	ucx    the same by libucp (RDMA, RoCE, its own tcp), in binaries built with the tag dl
//	       and with Config.UCX
//	file   between plain memory and a file of OpenFile, of agents of one Process
//	object the same with objects of a store: each page is one
//
// A path is a backend: a file with a type that implements backend (what this agent
// tells of itself; the rail to a peer) and rail (serves, move, close), and a row in
// New's list, in order of preference. move runs in a goroutine of the transfer,
// blocks until nothing touches local memory any more, and returns KindUnavailable
// to let the next rail try. A rail that can do a few bytes without waiting is an
// inliner; one that brings notifications is a carrier. A new kind of memory is a
// Medium, of which a rail says in serves whether it moves it. Where bytes lie in
// something that is read and written by calls it is a store, which the path stored
// moves: it cuts a list into calls, keeps the fences, and compares.
//
// # Zero-copy
//
// To copy what is sent into the kernel is a good part of what sending costs. Where it pays (see
// ZeroCopy, and worthLending), the path tcp lends a frame's payload to the kernel instead,
// by io_uring's SENDMSG_ZC: Linux 6.2, no TLS, another host. The kernel reads the pages
// until the peer's has acknowledged them, and then gives them back by a notification; until
// then the bytes count as touched, by the transfer that writes or by the access that a peer
// reads by. So a connection that is given up while it has something lent is reset, which
// drops its queue, and its goroutine waits for the notifications. Where the kernel says of
// lentCopied sends in a row that it has copied all the same, the connection goes back to
// plain writes; where the system has no io_uring for this process (a container's seccomp
// profile, the sysctl kernel.io_uring_disabled), all do. Each connection that lends has one
// ring, made when it first does; what it was lent is looked after by whoever sends or
// waits, and by a goroutine that the ring wakes only while somebody waits. MSG_ZEROCOPY
// itself is not used: it tells of completions by EPOLLERR, which makes a connection
// useless to Go's poller.
//
// # Laws
//
//  1. When Done is closed, the transfer touches local memory no more, nor does the kernel
//     on its behalf.
//  2. A page that was lent is its owner's again when Lease.Done is closed, and not
//     before: after acknowledgement, revocation or expiry, once it is proved that
//     no peer touches it. See fence for the proof.
//  3. What arrives under a token that is not valid any more, or never was, is
//     refused: CodeFenced.
//  4. Notifications of a peer come in the order of its posts, each once, and after
//     the bytes of their transfer. A transfer that fails notifies nothing.
//  5. With Options.Checksum a difference between what left one memory and what is
//     in the other is KindCorrupt, and names the descriptor. Files and objects are
//     read once more for it.
//  6. An agent that has nothing to do uses no CPU: no goroutine of it polls.
//  7. No lock is held over I/O, a channel or a copy.
//
// # What is proved when a peer falls silent
//
// On tcp the owner's own goroutine does the writing, so the owner knows: a lease
// that has ended closes its pages, and a connection that is in the middle of a
// segment leaseGrace later is cut, or lentGrace later if the kernel has still not given
// back what was lent to it. On shm each copy announces its pages in a word
// that the owner sees; the owner waits for that word. A process that dies loses
// its connection only after its last thread has stopped, so the end of the
// connection proves as much. A process that is stopped in the middle of a copy
// (SIGSTOP) proves nothing: its pages stay fenced until it goes on or dies. Peers
// are those that hold the cluster key; a peer that maps a memory and breaks the
// protocol on purpose is not defended against, one on tcp is.
package transfer
