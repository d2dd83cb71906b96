package selection

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// Config is what a Server needs to know.
type Config struct {
	// Key is what a request must bring (Authorization: Bearer KEY); empty lets
	// everybody in. (--api-key)
	Key string
	// Lease is how long a reservation stays booked after the last call about it.
	// Default 5 minutes. (--reservation-lease)
	Lease time.Duration
	// Reservations is how many are open at once; one more is refused with 429. Default
	// 100,000. (--max-reservations)
	Reservations int
	// DrainTimeout is how long Serve lets requests finish after its context ended.
	// Default 30 s. (--drain-timeout)
	DrainTimeout time.Duration
	// Addresses are where a worker is reached, as discovery has them; nil: nowhere.
	Addresses func(id dynamo.WorkerID, epoch uint64) []string
	// NewRouters makes the routers of a model that clients add workers of and AddModel
	// does not know, over those for answers and those for prompts alone; nil: clients
	// may add none.
	NewRouters func(model string) (answers, prompts *router.Router, err error)
	// Explain and State are what /v1/requests/{id}/explain and /v1/router answer; both
	// can be written as JSON.
	Explain func(dynamo.RequestID) (any, bool)
	State   func() any
	// Logger receives the log; nil discards it.
	Logger *slog.Logger
	// Registry receives the metrics and is served as /metrics; nil makes one.
	Registry *obs.Registry
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Lease: 5 * time.Minute, Reservations: 100_000, DrainTimeout: 30 * time.Second}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.Lease < time.Millisecond || c.Lease > maxLease {
		faults = append(faults, fmt.Errorf("--reservation-lease is %v; it must be 1ms to %v", c.Lease, maxLease))
	}
	if c.Reservations < 1 || c.Reservations > mostReservations {
		faults = append(faults, fmt.Errorf("--max-reservations is %d; it must be 1 to %d", c.Reservations, mostReservations))
	}
	if c.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("--drain-timeout is %v; it must be 0 or more", c.DrainTimeout))
	}
	return errors.Join(faults...)
}
