package router

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Config says how a Router chooses.
type Config struct {
	// Mode is the policy, a name that placement.ParsePolicy knows. Default kv.
	// (--router-mode)
	Mode string
	// Params are the settings of the policies; the policy in it is Mode's. Default
	// placement's own.
	Params placement.Params
	// Shadow is another policy, which is asked at each decision what it would do; the
	// counts are in State. Empty: none. (--router-shadow)
	Shadow string
	// Approximate has the router's own decisions say what workers hold, instead of
	// their events, for ApproximateTTL after each. Defaults false and 2 minutes.
	// (--no-router-kv-events, --router-ttl-secs)
	Approximate    bool
	ApproximateTTL time.Duration
	// PredictTTL is how long a worker is expected to hold what it has been sent, until
	// its events say so; 0 expects nothing. Default 5 s. (--router-predicted-ttl-secs)
	PredictTTL time.Duration
	// IndexBytes bounds the memory of an index. Default 1 GiB. (--router-index-bytes)
	IndexBytes int64
	// Restored is what an earlier life of the process knew of workers' caches: each is
	// used until the worker itself has told what has changed since. Nil: nothing.
	Restored *Snapshot
	// PeerFetch has workers fetch KV that others hold, where that is predicted to be
	// quicker than to compute it. Default true. (--kv-peer-fetch)
	PeerFetch bool
	// Wait is how long a request waits for a worker that can take it, when all are
	// full or there is none; 0 refuses it at once. Default 10 s. (--worker-wait)
	Wait time.Duration
	// Queue is how many requests wait; one more is refused. Default 1024.
	Queue int
	// Model is the name that every worker's card must bear; empty asks nothing.
	Model string
	// Logger is told of the workers' states, and at its debug level of each choice;
	// nil discards.
	Logger *slog.Logger
	// Metrics counts; nil does not.
	Metrics *Metrics
	// Tracer makes a span of each choice; nil does not.
	Tracer *obs.Tracer
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Mode: placement.KV.String(), Params: placement.DefaultParams(placement.KV), Wait: 10 * time.Second, Queue: 1024,
		PeerFetch: true, ApproximateTTL: 2 * time.Minute, PredictTTL: 5 * time.Second, IndexBytes: kvindex.DefaultConfig().MaxBytes,
	}
}

// params are the policy with its settings.
func (c *Config) params() placement.Params {
	p := c.Params
	p.Policy, _ = placement.ParsePolicy(c.Mode)
	return p
}

// index configures an index.
func (c *Config) index() kvindex.Config {
	i := kvindex.DefaultConfig()
	i.MaxBytes = c.IndexBytes
	return i
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if _, known := placement.ParsePolicy(c.Mode); !known {
		faults = append(faults, fmt.Errorf("--router-mode: %q is none of %s", c.Mode, strings.Join(placement.Policies(), ", ")))
	}
	if _, known := placement.ParsePolicy(c.Shadow); !known && c.Shadow != "" {
		faults = append(faults, fmt.Errorf("--router-shadow: %q is none of %s", c.Shadow, strings.Join(placement.Policies(), ", ")))
	}
	p, i := c.params(), c.index()
	faults = append(faults, p.Validate(), i.Validate())
	if c.ApproximateTTL <= 0 {
		faults = append(faults, fmt.Errorf("--router-ttl-secs is %v; it must be more than 0", c.ApproximateTTL))
	}
	if c.PredictTTL < 0 {
		faults = append(faults, fmt.Errorf("--router-predicted-ttl-secs is %v; it must be 0 (off) or more", c.PredictTTL))
	}
	if c.Wait < 0 {
		faults = append(faults, fmt.Errorf("--worker-wait is %v; it must be 0 or more", c.Wait))
	}
	if c.Queue < 0 {
		faults = append(faults, fmt.Errorf("the router's queue is %d; it must be 0 or more", c.Queue))
	}
	return errors.Join(faults...)
}
