// Package kvwire reads the KV cache events of foreign engines (vLLM, SGLang) and
// says in this system's hashes what they tell. The engine adapters use it; it
// knows nothing of the planes.
//
// Its parts, from the wire inwards: a ZMTP 3.0 connection (zmtp.go); Subscribe,
// which turns an engine's PUB and ROUTER sockets into one stream without holes
// (subscribe.go); Decoder, which reads the MessagePack payloads of every version
// (decode.go); Translator, which maps engine hashes to ours (translate.go); and
// Hasher, which computes vLLM's own block hashes (hash.go). Publisher is the
// engine's side, for tests and protocol servers (server.go).
//
// Laws:
//
//  1. What comes from an engine is not trusted: every length is checked against
//     the bytes that are there before memory is taken, and every number that
//     grows has a bound in limits.go.
//  2. A stream has no holes: what is missing is replayed, or a Reset says that
//     what was learned must be forgotten. Nothing is delivered twice.
//  3. The view may lack blocks that the engine has; it does not hold blocks that
//     the engine has told are gone, nor blocks whose content the token ids do not
//     determine.
//  4. The package starts no goroutine but those of a Publisher; a Decoder and a
//     Translator reuse their memory and belong to one goroutine.
package kvwire
