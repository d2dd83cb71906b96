package kvindex

import (
	"errors"
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Config describes an index.
type Config struct {
	// MaxBytes bounds the memory of the index; what does not fit is evicted and
	// counted, and makes its sources approximate. Default 1 GiB, some fifty million
	// blocks.
	MaxBytes int64
	// Seed goes into the placement of hashes in tables, so that nobody who does not
	// know it can choose blocks that meet in one place. Any value; default 0.
	Seed uint64
	// ExpectStep is the accuracy with which expectations end: they live up to one
	// step longer than asked for. Default 1 s.
	ExpectStep time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{MaxBytes: 1 << 30, ExpectStep: time.Second}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.MaxBytes < MinBytes || c.MaxBytes > MaxBytes {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(
			"the memory of the KV index is %d bytes; it must be %d to %d", c.MaxBytes, int64(MinBytes), int64(MaxBytes))})
	}
	if c.ExpectStep < MinExpectStep {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(
			"the accuracy of expectations is %v; it must be %v or more", c.ExpectStep, MinExpectStep)})
	}
	return errors.Join(faults...)
}
