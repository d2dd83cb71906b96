// Package daemon is the KV store of one host: a process that keeps KV blocks for the
// engines beside it, in tiers (kvbm/tier), and outlives them. Engines attach by a Unix
// socket and give it memory that both map; blocks are copied between that memory and
// the tiers. 'dynamo kvbm' runs a Daemon; Store is its client as a tier.Store, by which
// the embedded engine uses it; connectors/python has a client for other engines.
//
// # Protocol
//
// docs/kvbm.md describes it for those who write clients. Messages go both ways over a
// stream, little-endian:
//
//	 0  body length u32, at most MaxBody
//	 4  operation u8
//	 5  status u8, 0 in requests and good replies
//	 6  zero u16
//	 8  id u64, chosen by the client and repeated by the reply
//	16  body
//
// This is version 2; in version 1 hello ends with the content, and there are no
// fingerprints.
//
// Requests may be sent before earlier ones are answered, and are answered in any order.
// The body of a reply whose status is not 0 is a text for people.
//
//	1 hello   magic "dynKVMd1", lowest and highest version u16 u16, block bytes u32,
//	          block tokens u32, name, content and layout (kvbm/layout, or empty), each a
//	          length u16 and bytes, flags u16 (1: fingerprints)
//	          → version u16, requests in progress u16, items of a request u32,
//	          quota u64, memory u64 (bytes, 0: no bound), life u64
//	2 memory  length u64, and with it, as SCM_RIGHTS, a file that can be mapped and
//	          whose length is sealed
//	          → number u32
//	3 find    count u32, keys → number of leading ones that are there u32
//	4 put     count u32, then of each: key, key of the block before it, depth u32,
//	          memory u32, offset u64 → of each u8: 1 is there, 0 not taken
//	5 get     count u32, then of each: key, memory u32, zero u32, offset u64
//	          → number of leading ones that are in their places u32, and if hello asked
//	          for them as many fingerprints of 16 bytes (convert.go)
//	6 drop    count u32, keys → number of copies that were there u32
//	7 admin   tier.Command as JSON → Report as JSON; needs no hello. A process that keeps
//	          KV for itself alone (ServeAdmin) answers this and nothing else
//
// # Layouts
//
// A client that says its layout shares blocks with all clients of its content, however
// theirs lie and into how many shards they are split. What it puts is kept as it is, with
// the shard as part of the key; what it gets is that, or else made of the shards that
// others have put, which are loaded and checked as any block is, next to one another, and
// copied to where they belong (package layout). Clients of one content whose blocks cannot
// become one another's (another model, another KV type) are refused while the others are
// there. What a client gets may have a fingerprint, over what the keys of its blocks and
// its layout are and the bytes as they should arrive.
//
// # Ownership
//
// A client's memory is read during its put and written during its get, and at no other
// time: not after the reply, and not after the connection has ended and the daemon has
// noticed (the memory is the client's own until it unmaps it, so nothing is lost then).
// What a client holds, loads under way, places in queues, mapped memory, goes with its
// connection. What it put stays, within its quota.
//
// # Goroutines
//
// Daemon.Run owns one that accepts, for each connection one that reads and one that
// writes, for each request in progress one (MaxRequests of a connection at most; then
// the connection is not read), and for each content the Mover's. All end with Run.
package daemon
