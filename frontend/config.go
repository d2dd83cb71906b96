package frontend

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Config is what a Server needs to know.
type Config struct {
	// APIKeys are the accepted keys; nil lets everybody in.
	APIKeys *Keys
	// ClusterKey keys the cache namespaces of tenants; at least 16 bytes if
	// APIKeys are given.
	ClusterKey []byte
	// BodyLimitBytes bounds a request's body; more is refused with 413. Default
	// 16 MiB, which holds the text of two million tokens.
	BodyLimitBytes int64
	// MaxRunning, MaxQueue and MaxWait bound the requests in progress and waiting,
	// for each model; see engine.AdmitConfig. A request counts as one however many
	// prompts and choices it has.
	MaxRunning, MaxQueue int
	MaxWait              time.Duration
	// RequestTimeout ends a request with 504 when it takes longer, its wait
	// included. Default 0: no limit.
	RequestTimeout time.Duration
	// WriteTimeout cuts off a client that does not take what one write gives it,
	// at most some 64 KiB, within that time. Default 1 minute.
	WriteTimeout time.Duration
	// DrainTimeout is how long Serve lets requests finish after its context ended.
	// Default 30 seconds.
	DrainTimeout time.Duration
	// TokenizerCacheBytes bounds the memory for encoded beginnings of
	// conversations. Default 16 MiB.
	TokenizerCacheBytes int
	// Pprof serves Go's profiles under /debug/pprof. Default false.
	Pprof bool
	// Version is what GET /version says. Default "devel".
	Version string
	// Logger receives the log; nil discards it.
	Logger *slog.Logger
	// Registry receives the metrics and is served as /metrics; nil makes one.
	Registry *obs.Registry
	// Tracer makes a span for each generating request; nil makes none, and the
	// trace context a client sends is passed on to the engine as it came.
	Tracer *obs.Tracer
	// Recorder is given every request once it has ended; nil records none. Its Run is
	// the caller's to call.
	Recorder *Recorder
	// TenantHeader is the header that says which tenant a request is for, where its
	// key says none: that of a gateway which has authenticated the tenant and which
	// nobody can go around, as whoever sends the header is believed. Empty trusts no
	// header. Default empty. (--trust-tenant-header)
	TenantHeader string
	// Explain says why the request with that id went where it went, as a value that
	// can be written as JSON, for GET /v1/requests/{id}/explain; false if it is not
	// kept. The id may be that of one prompt or choice ("id-1", "id/0"), and without
	// such an end it means all of the request's. Nil: there is no such route.
	Explain func(dynamo.RequestID) (any, bool)
	// ExplainKept is how many decisions Explain goes back. Default 0: unknown.
	ExplainKept int
	// RouterState is the state of the routers, as a value that can be written as
	// JSON, for GET /v1/router. Nil: there is no such route.
	RouterState func() any
	// RouterRecords are the records of the last decisions of all routers, as a value
	// that can be written as JSON, for GET /v1/router/records. Nil: there is no such
	// route.
	RouterRecords func() any
	// Instances lists who serves the models, for /health; nil lists nobody. It is
	// called for each of its requests and must not block.
	Instances func() []Instance
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	a := engine.DefaultAdmitConfig()
	return Config{
		BodyLimitBytes:      16 << 20,
		MaxRunning:          a.MaxRunning,
		MaxQueue:            a.MaxQueue,
		MaxWait:             a.MaxWait,
		WriteTimeout:        time.Minute,
		DrainTimeout:        30 * time.Second,
		TokenizerCacheBytes: 16 << 20,
		Version:             "devel",
	}
}

func (c Config) admit() engine.AdmitConfig {
	return engine.AdmitConfig{MaxRunning: c.MaxRunning, MaxQueue: c.MaxQueue, MaxWait: c.MaxWait}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	faults := []error{c.admit().Validate()}
	if c.BodyLimitBytes < 1 {
		faults = append(faults, fmt.Errorf("--body-limit is %d; it must be 1 or more", c.BodyLimitBytes))
	}
	if c.RequestTimeout < 0 {
		faults = append(faults, fmt.Errorf("--request-timeout is %v; it must be 0 (no limit) or more", c.RequestTimeout))
	}
	if c.WriteTimeout <= 0 {
		faults = append(faults, fmt.Errorf("the write time-out is %v; it must be positive", c.WriteTimeout))
	}
	if c.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("--drain-timeout is %v; it must be 0 or more", c.DrainTimeout))
	}
	if c.APIKeys != nil && len(c.ClusterKey) < 16 {
		faults = append(faults, errors.New("API keys are given without a cluster key of at least 16 bytes, which keeps the tenants' caches apart"))
	}
	if c.TenantHeader != "" && !headerName.MatchString(c.TenantHeader) {
		faults = append(faults, fmt.Errorf("--trust-tenant-header is %q; it must be the name of a header, such as X-Tenant-Id", c.TenantHeader))
	}
	if c.TenantHeader != "" && len(c.ClusterKey) < 16 {
		faults = append(faults, errors.New("--trust-tenant-header is given without a cluster key of at least 16 bytes, which keeps the tenants' caches apart"))
	}
	return errors.Join(faults...)
}
