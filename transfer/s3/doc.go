// Package s3 is a client of one bucket of an S3 object store: what transfer's object
// memories and the remote KV tier need of one, and no more. Objects are put whole,
// if need be only where none is yet, read by ranges, asked for, deleted and listed.
//
// Every request is signed (Signature Version 4) and has a time; what a server or the
// network failed is tried again after a growing, scattered pause, a few times. When
// operations go on failing the store is left alone for a while: then they fail at
// once with KindUnavailable, and one at a time tries whether it is back (breaker). It
// is logged when that begins and when it ends. So a store that is down costs its
// users no time.
//
// # Laws
//
//  1. When a call has returned, the caller's bytes are not touched any more, even if
//     the network still is at them.
//  2. Get fills all it was asked for or fails; a store whose object is shorter than
//     that is KindCorrupt. That the bytes are the right ones is for the caller to
//     check: a store is not believed.
//  3. An object is seen whole or not at all: large ones are put in parts, which are
//     given up when one fails.
//
// The requests themselves are made by minio-go, each once: what is tried again, for how
// long and when not at all is decided here, for all kinds of them alike.
package s3
