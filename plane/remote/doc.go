// Package remote makes an engine on a worker look like one in this process: the
// Engine here is the client, Service the server, and both stand side by side so
// that what one writes the other is seen to read. Frontends hold an Engine per
// worker (package node builds them), package worker registers the Service.
//
// It owns the wire form of requests and of pieces of answers (wire.go), and of
// the questions beside them: status, the files of a model by digest, and the
// request to drain. Connections, credit, cancellation and deadlines are those of
// package plane/rpc.
//
// Laws:
//   - The Engine obeys the laws of engine.Engine and passes the suite of what it
//     wraps. It owns no goroutine: a request runs in its caller's.
//   - When the sequence has ended, the worker's engine has ended the request too,
//     or its connection is gone, or it has not answered for CancelWait.
//   - A worker that fails gives an error with a code of package engine (CodeLost,
//     CodeDraining, CodeRefused), so that the request may go on elsewhere; what
//     the worker's engine says of the request itself arrives as it was said.
//   - Time travels as what is left of it, never as a date: clocks may differ.
//   - A message costs memory in proportion to its bytes, whatever they say.
package remote
