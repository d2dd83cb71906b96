// Package obs is the vocabulary of observability: the logger every component
// receives in its Config, the keys log records use, the registry that metrics
// are defined in, the tracer that spans come from, and the handler of a
// process's system port. Everything that logs, counts or traces uses it; it has
// no global state, and its only goroutine is a Tracer's.
//
// Laws: messages are constant and what varies is an attribute under one of the
// keys below; a component names itself once, with For, and the filter decides
// by that name what is written; label sets of metrics are closed, so no metric
// grows with what clients send; a context carries the trace it belongs to as a
// W3C traceparent, whether or not anything is recorded here.
package obs

// The keys of log records, so that one search finds a thing wherever it is
// mentioned.
const (
	KeyTarget   = "target" // the component that speaks; set by For
	KeyRequest  = "req"
	KeyModel    = "model"
	KeyWorker   = "worker"
	KeyBlock    = "block"
	KeyTier     = "tier"
	KeyBytes    = "bytes"
	KeyDuration = "dur"
	KeyError    = "err"
	KeyTenant   = "tenant"
	KeyTokens   = "tokens"
	KeyStatus   = "status"
	KeyAddress  = "addr"
)
