// Package testnet is a network in memory for tests: hosts with names, listeners,
// dialled connections, and faults between hosts. Only test files and simulators
// import it; a component meets it through an injected dial function and an
// injected net.Listener, and cannot tell it from TCP.
//
// Laws:
//
//  1. It behaves as TCP looks from outside. Bytes arrive whole, once and in
//     order, or the connection fails. A direction holds at most BufferBytes that
//     the reader has not taken; a writer blocks beyond that. A partition is
//     silence: bytes wait for the heal, closes and resets too, and without
//     acknowledgements the sender's buffer stays full.
//  2. It decides nothing by chance and starts no goroutine. What happens follows
//     from the calls made and from the clock.
//  3. It works in a testing/synctest bubble: every wait is on a channel made in
//     the bubble, and no lock is held over one.
//  4. A host is a process and its machine at once. Kill ends it and everything
//     made through its *Host; Host with the same name afterwards is a new process
//     at the same address.
//
// The network owns every connection until both ends are closed or it is reset.
package testnet
