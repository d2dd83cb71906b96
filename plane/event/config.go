package event

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/dynamo-go/dynamo"
)

// PublisherConfig configures a Publisher.
type PublisherConfig struct {
	Source Source
	// RingBytes and RingEvents bound what is kept for subscribers that lag or
	// come back (4 MiB and 65536). The oldest events go first.
	RingBytes  int
	RingEvents int
	// Snapshot returns the state that the events up to seq led to, in parts that
	// stay unchanged. Seq may be behind what is published since: events that are
	// in the snapshot already must not be delivered again, later ones must not be
	// in it. It is called from subscribers' goroutines, one at a time, never
	// under the publisher's lock. Nil: there is no state but the ring.
	Snapshot func() (seq uint64, parts [][]byte)
	// Answer, if it is not nil, answers a subscriber's question with any number of
	// messages; what the bytes mean is the topic's. It is called from subscribers'
	// goroutines, never under the publisher's lock.
	Answer  func(question []byte, send func([]byte) error) error
	Logger  *slog.Logger
	Metrics *Metrics // shared by all publishers of a process; nil counts nothing
}

// DefaultPublisherConfig returns the defaults for a source.
func DefaultPublisherConfig(src Source) PublisherConfig {
	return PublisherConfig{Source: src, RingBytes: defaultRingBytes, RingEvents: defaultRingEvents}
}

// Validate reports every fault of the configuration.
func (c PublisherConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	if !validTopic(c.Source.Topic) {
		bad("topic %q: use 1 to %d of a-z, 0-9, - and _", c.Source.Topic, MaxTopicBytes)
	}
	if c.Source.Worker == 0 || c.Source.Epoch == 0 {
		bad("a publisher's worker id and epoch must not be 0")
	}
	if c.RingBytes < 1 || c.RingBytes > MaxRingBytes {
		bad("ring of %d bytes: 1 to %d are possible", c.RingBytes, MaxRingBytes)
	}
	if c.RingEvents < 1 || c.RingEvents > MaxRingEvents {
		bad("ring of %d events: 1 to %d are possible", c.RingEvents, MaxRingEvents)
	}
	return errors.Join(errs...)
}
