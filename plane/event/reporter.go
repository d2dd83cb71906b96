package event

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// LoadConfig configures a LoadReporter.
type LoadConfig struct {
	// Worker and Epoch say whose load it is.
	Worker dynamo.WorkerID
	Epoch  uint64
	// Load tells the load; it is called in Run's goroutine.
	Load func() engine.Load
	// Every is the least time between two reports (50 ms), Heartbeat the longest
	// (1 s): that long after the last one a load is told although it is the same.
	Every, Heartbeat time.Duration
	Logger           *slog.Logger
	Metrics          *Metrics
}

// DefaultLoadConfig returns the defaults; Worker, Epoch and Load have none.
func DefaultLoadConfig() LoadConfig {
	return LoadConfig{Every: defaultLoadEvery, Heartbeat: defaultLoadHeartbeat}
}

// Validate reports every fault of the configuration.
func (c LoadConfig) Validate() error {
	var errs []error
	if c.Load == nil {
		errs = append(errs, invalid("a load reporter needs the load"))
	}
	if c.Every <= 0 || c.Heartbeat < c.Every {
		errs = append(errs, invalid("loads must be told every so often, and at each heartbeat, which must not come faster than that"))
	}
	return errors.Join(append(errs, c.publisher().Validate())...)
}

func (c LoadConfig) publisher() PublisherConfig {
	p := DefaultPublisherConfig(Source{TopicLoad, c.Worker, c.Epoch})
	p.RingBytes, p.RingEvents = loadRingEvents*(maxLoadBytes+1), loadRingEvents
	p.Logger, p.Metrics = c.Logger, c.Metrics
	return p
}

// LoadReporter publishes an engine's load: soon after it changes, and never more
// often than subscribers need.
type LoadReporter struct {
	config LoadConfig
	p      *Publisher
	// dirty says that wake holds a token or that Run is about to look.
	dirty atomic.Bool
	wake  chan struct{}

	mu struct {
		sync.Mutex
		seq  uint64
		load []byte // as published with seq; never changed
	}
}

// NewLoadReporter returns a reporter; Run makes it work.
func NewLoadReporter(c LoadConfig) (*LoadReporter, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &LoadReporter{config: c, wake: make(chan struct{}, 1)}
	pc := c.publisher()
	pc.Snapshot = r.snapshot
	var err error
	r.p, err = NewPublisher(pc)
	return r, err
}

// Publisher returns what to attach to a bus.
func (r *LoadReporter) Publisher() *Publisher { return r.p }

// Wake says that the load may have changed, and costs a few nanoseconds when it
// has been said since the last report. It never waits.
func (r *LoadReporter) Wake() {
	if r.dirty.Load() || r.dirty.Swap(true) {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends, and returns its cause.
func (r *LoadReporter) Run(ctx context.Context) error {
	var last engine.Load
	var at time.Time // of the last report
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.wake:
			timer.Reset(r.config.Every - time.Since(at)) // at once, if that is past
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-timer.C:
			}
		case <-timer.C:
		}
		r.dirty.Store(false) // before the look: a change after it wakes again
		if l := r.config.Load(); l != last || time.Since(at) >= r.config.Heartbeat {
			r.report(l)
			last, at = l, time.Now()
		}
		timer.Reset(r.config.Heartbeat - time.Since(at))
	}
}

func (r *LoadReporter) report(l engine.Load) {
	b := AppendLoad(nil, l)
	seq := r.p.Publish(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.seq, r.mu.load = seq, b
}

// snapshot is the newest load.
func (r *LoadReporter) snapshot() (seq uint64, parts [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.seq, [][]byte{r.mu.load}
}
