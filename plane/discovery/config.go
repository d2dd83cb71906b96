package discovery

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Config configures a store.
type Config struct {
	// Dir is the directory of "file". No default. (--run-dir)
	Dir string
	// TTL is how long an owner that cannot be asked counts as alive after its last
	// sign of life. Default 10 s.
	TTL     time.Duration
	Logger  *slog.Logger // nil discards
	Metrics *Metrics     // nil counts nothing
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{TTL: defaultTTL} }

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	if c.TTL < MinTTL || c.TTL > MaxTTL {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("a lease of %v: it must be %v to %v", c.TTL, MinTTL, MaxTTL)}
	}
	return nil
}
