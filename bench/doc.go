// Package bench puts load on an endpoint that speaks OpenAI's HTTP API, ours or
// anyone's, and measures it: `dynamo bench` and the tests of whole fleets use it.
//
// A Run takes requests from a plan (synthetic lengths or a trace), sends each when
// its schedule says so (closed loop, open loop, trace), and reports a Result whose
// metrics have the names and definitions of aiperf and genai-perf.
//
// It owns its HTTP client, which is small on purpose: HTTP/1.1 over a net.Conn, one
// request at a time on a connection, and a reader that looks at each event of a
// stream once, without allocating. What a load generator costs is taken from what
// it measures.
//
// Laws:
//   - Open loops and traces measure from when a request was due, not from when it
//     was sent: a client that falls behind, or a server that holds it up, shows in
//     the latencies (no coordinated omission).
//   - What a run asks for depends on its configuration and seed alone: request n is
//     the same in every schedule and however many connections there are.
//   - An answer counts as whole only if it was: every other end has a class
//     (errors.go), and no class ends the run but by MaxErrors.
//   - A figure that the client itself limited says so (ClientHealth).
//   - All bytes that come from outside have a bound (limits.go).
//
// # Time
//
// All times are offsets from the start of the measured part. The time of an event is
// when the read that brought it returned; events that came together have the same.
//
// # Goroutines
//
// Run owns all of them and returns after the last has ended: one for each
// connection, fed by an unbuffered channel (open loop, trace) or by the plan
// (closed loop); one sampler that runs once a second; one writer of records behind
// a channel of maxRecordsWaiting.
package bench
