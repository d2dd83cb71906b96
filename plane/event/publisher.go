package event

import (
	"context"
	"log/slog"
	"sync"
	"weak"

	"golang.org/x/sync/singleflight"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Publisher numbers events and keeps the newest for its subscribers, each of
// which reads at its own pace by a Reader. It is safe for concurrent use.
type Publisher struct {
	config PublisherConfig
	logger *slog.Logger
	count  *counters
	flight singleflight.Group // one Snapshot at a time

	mu struct {
		sync.Mutex
		ring ring
		// shared is the snapshot that readers have in hand: it lives for as long
		// as one of them needs it.
		shared weak.Pointer[snapshot]
	}
	published sync.Cond
}

// snapshot is a state in parts, up to an event.
type snapshot struct {
	seq   uint64
	parts [][]byte
}

// NewPublisher returns a publisher; it starts nothing and needs no end.
func NewPublisher(c PublisherConfig) (*Publisher, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Publisher{config: c, logger: obs.For(c.Logger, "event"), count: c.Metrics.of(c.Source.Topic)}
	p.mu.ring = newRing(c.RingBytes, c.RingEvents)
	p.published.L = &p.mu
	return p, nil
}

// Source returns what the publisher publishes.
func (p *Publisher) Source() Source { return p.config.Source }

// Position returns where the newest event is.
func (p *Publisher) Position() Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Position{p.config.Source.Epoch, p.mu.ring.last()}
}

// Publish copies payload into the ring and returns the event's number, the first
// being 1. It never waits for subscribers: who is too slow for the ring gets a
// snapshot. A payload above MaxPayloadBytes or the ring takes a number and is
// dropped, which all subscribers see as a gap.
func (p *Publisher) Publish(payload []byte) uint64 {
	p.mu.Lock()
	seq := p.mu.ring.append(payload)
	p.mu.Unlock()
	p.published.Broadcast()
	p.count.publish()
	return seq
}

// Answer answers a subscriber's question with any number of messages, for carriers. A
// publisher that has no answers is KindNotFound.
func (p *Publisher) Answer(question []byte, send func([]byte) error) error {
	if p.config.Answer == nil {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: "nothing can be asked about " + p.config.Source.Topic + " events"}
	}
	return p.config.Answer(question, send)
}

// wait blocks until there is an event after seq, or ctx ends.
func (p *Publisher) wait(ctx context.Context, seq uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ring.last() > seq {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock() // so that the waiter is not between its check and its wait
		defer p.mu.Unlock()
		p.published.Broadcast()
	})
	defer stop()
	for p.mu.ring.last() <= seq && ctx.Err() == nil {
		p.published.Wait()
	}
	return context.Cause(ctx)
}

// oldest returns the number of the oldest event that is kept.
func (p *Publisher) oldest() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.ring.first
}

// snapshot returns a state that the ring leads on from: one that another reader
// has in hand if possible. Nil is none.
func (p *Publisher) snapshot() *snapshot {
	if p.config.Snapshot == nil {
		return nil
	}
	if s := p.sharedSnapshot(); s != nil {
		return s
	}
	v, _, _ := p.flight.Do("", func() (any, error) {
		seq, parts := p.config.Snapshot()
		if len(parts) == 0 {
			parts = [][]byte{nil}
		}
		s := &snapshot{seq, parts}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mu.shared = weak.Make(s)
		return s, nil
	})
	s := v.(*snapshot)
	if reason := s.fault(); reason != "" {
		p.logger.Error("snapshot dropped: subscribers begin without one",
			"topic", p.config.Source.Topic, "reason", reason)
		return nil
	}
	return s
}

func (p *Publisher) sharedSnapshot() *snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.shared.Value()
	if s == nil || s.seq+1 < p.mu.ring.first || s.fault() != "" {
		return nil
	}
	return s
}

// fault says which limit the snapshot breaks, if any.
func (s *snapshot) fault() string {
	if len(s.parts) > MaxSnapshotParts {
		return "too many parts"
	}
	for _, part := range s.parts {
		if len(part) > MaxPayloadBytes {
			return "a part is too large"
		}
	}
	return ""
}
