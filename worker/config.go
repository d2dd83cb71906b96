package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// Config describes a worker.
type Config struct {
	// Instance is what the store is told. Its card is the engine's.
	Instance discovery.Instance

	// Engine is what the worker hosts, and EngineRun its loop, which runs until
	// its context ends; nil for an engine without one.
	Engine    engine.Engine
	EngineRun func(context.Context) error
	// HandOver has the engine give up what it can with its KV, when the worker drains and
	// requests have not ended in time; it must not block. Nil: they go on without.
	HandOver func()
	// Load says how full the engine is; it must not block. Nil: the worker counts
	// its own requests.
	Load func() engine.Load
	// KV answers operators about the KV tiers below the engine's cache, both sides in
	// tier's JSON. Nil: there are none.
	KV func(ctx context.Context, command []byte) ([]byte, error)
	// Adapters says which adapters the engine has by now, sorted; it must not block.
	// What changes is told to the store. Nil: those of the card, for good.
	Adapters func() []string

	// Store is where the worker registers; it is not closed by the worker.
	Store discovery.Store
	// Server answers on Listeners; the worker ends both.
	Server    *rpc.Server
	Listeners []net.Listener
	// Artifacts are the model's files by the SHA-256 of their bytes, in
	// hexadecimal, that frontends may ask for.
	Artifacts map[string]func() ([]byte, error)

	// Publishers are attached to the worker's event bus beside the load, such as
	// the one of KV events. Default none.
	Publishers []*event.Publisher
	// Bus carries load and Publishers beside the worker's own bus over rpc, as
	// NATS does. Nil: there is none.
	Bus event.Bus
	// EventMetrics counts the worker's load events; nil counts nothing.
	EventMetrics *event.Metrics

	// MaxRunning and MaxQueue bound the requests that are accepted at once, as
	// their sum; further ones are refused before any work. Defaults 64 and 1024.
	// (--max-running, --max-queue)
	MaxRunning, MaxQueue int
	// CanaryTimeout is how long the first, trial generation may take. Default 60 s.
	CanaryTimeout time.Duration
	// DrainTimeout is how long requests in progress may take to end in a drain;
	// those left are handed over. Default 30 s. (--drain-timeout)
	DrainTimeout time.Duration
	// Ready is called once requests are served and the store knows. May be nil.
	Ready func()

	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
	// Metrics counts; the workers of a process share it. Nil counts nothing.
	Metrics *Metrics
	// Tracer records a span for each request; nil records none.
	Tracer *obs.Tracer
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{MaxRunning: 64, MaxQueue: 1024, CanaryTimeout: time.Minute, DrainTimeout: 30 * time.Second}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	if c.Engine == nil || c.Instance.Card == nil {
		fault("a worker needs an engine and its card")
	}
	if c.Store == nil || c.Server == nil || len(c.Listeners) == 0 {
		fault("a worker needs a store, a server and a listener for it")
	}
	if c.Instance.ID == 0 || c.Instance.Epoch == 0 || len(c.Instance.Addresses) == 0 {
		fault("a worker needs an id, an epoch and an address to be reached at")
	}
	if c.MaxRunning < 1 || c.MaxRunning > maxRequests {
		fault("--max-running is %d; it must be 1 to %d", c.MaxRunning, maxRequests)
	}
	if c.MaxQueue < 0 || c.MaxQueue > maxRequests {
		fault("--max-queue is %d; it must be 0 to %d", c.MaxQueue, maxRequests)
	}
	if c.CanaryTimeout <= 0 {
		fault("the trial generation may take %v; give it more than 0", c.CanaryTimeout)
	}
	if c.DrainTimeout < 0 {
		fault("--drain-timeout is %v; it must be 0 or more", c.DrainTimeout)
	}
	return errors.Join(faults...)
}
