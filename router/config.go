package router

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Config says how a Router chooses.
type Config struct {
	// Mode is the policy: "round-robin", "random", "least-loaded" or
	// "power-of-two". Default round-robin. (--router-mode)
	Mode string
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
	return Config{Mode: placement.RoundRobin.String(), Wait: 10 * time.Second, Queue: 1024}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if _, known := placement.ParsePolicy(c.Mode); !known {
		faults = append(faults, fmt.Errorf("--router-mode: %q is none of %s", c.Mode, strings.Join(placement.Policies(), ", ")))
	}
	if c.Wait < 0 {
		faults = append(faults, fmt.Errorf("--worker-wait is %v; it must be 0 or more", c.Wait))
	}
	if c.Queue < 0 {
		faults = append(faults, fmt.Errorf("the router's queue is %d; it must be 0 or more", c.Queue))
	}
	return errors.Join(faults...)
}
