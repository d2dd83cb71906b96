package nats

import (
	"context"
	"errors"
	"iter"

	"github.com/nats-io/nats.go"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
)

// subscription is what one Subscribe does, in its caller's goroutine.
type subscription struct {
	b     *Bus
	src   event.Source
	sub   *nats.Subscription
	feed  *event.Feed
	yield func(event.Delivery) bool
}

// Subscribe implements event.Bus.
func (b *Bus) Subscribe(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
	return func(yield func(event.Delivery, error) bool) {
		s := &subscription{b: b, src: src, feed: event.NewFeed(src, from)}
		s.yield = func(d event.Delivery) bool { return yield(d, nil) }
		err := s.run(ctx)
		switch {
		case err == errStopped:
			return
		case ctx.Err() != nil:
			err = engine.ContextError(ctx)
		}
		yield(event.Delivery{}, err)
	}
}

// run listens first and asks then, so that nothing falls in between.
func (s *subscription) run(ctx context.Context) error {
	epoch := "*"
	if s.src.Epoch != 0 {
		epoch = life(s.src.Epoch)
	}
	var err error
	if s.sub, err = s.b.conn.SubscribeSync(s.b.subject("event", s.src, epoch)); err != nil {
		return lost("the NATS connection is closed", err)
	}
	defer func() { _ = s.sub.Unsubscribe() }() // fails where it is gone already
	if err := s.sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		return lost("the NATS connection is closed", err)
	}
	defer context.AfterFunc(ctx, func() { _ = s.sub.Unsubscribe() })() // ends listen
	for {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		if err := s.listen(); err != nil {
			return err
		}
	}
}

// catchUp asks until nothing is missing.
func (s *subscription) catchUp(ctx context.Context) error {
	for vain := 0; ; {
		before := s.feed.Cursor()
		answer, err := s.ask(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return lost("worker "+s.src.Worker.String()+" publishes no "+s.src.Topic+" events, or no such life of it does", err)
		case err != nil && vain >= maxAsks:
			return lost("worker "+s.src.Worker.String()+" does not answer over NATS", err)
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			vain++
			if !s.b.conn.IsConnected() {
				return lost("the NATS server is lost", err)
			}
			continue
		}
		progress, err := s.feed.Take(answer, s.yield)
		switch {
		case err != nil:
			return err
		case progress == event.Stopped:
			return errStopped
		case progress == event.Current:
			return nil
		case s.feed.Cursor() != before:
			vain = 0
		case vain >= maxAsks:
			return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "worker " + s.src.Worker.String() + " does not say what follows the position that it is asked for"}
		default:
			vain++
		}
	}
}

// ask asks for what follows the cursor.
func (s *subscription) ask(ctx context.Context) ([]byte, error) {
	epoch := anyLife
	if s.src.Epoch != 0 {
		epoch = life(s.src.Epoch)
	}
	ctx, cancel := context.WithTimeout(ctx, s.b.config.Answer)
	defer cancel()
	m, err := s.b.conn.RequestWithContext(ctx, s.b.subject("ask", s.src, epoch), event.AppendRequest(nil, s.src, s.feed.Cursor()))
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

// listen takes what the publisher sends and returns nil when something is missing.
func (s *subscription) listen() error {
	for {
		m, err := s.sub.NextMsg(s.b.config.Silence)
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			return nil // the last message that there is may be among what was dropped
		case errors.Is(err, nats.ErrTimeout):
			return lost("nothing is heard of worker "+s.src.Worker.String()+" over NATS", err)
		case err != nil:
			return lost("the NATS connection is closed", err)
		case len(m.Data) == 0 && m.Subject == s.b.subject("event", s.src, life(s.feed.Cursor().Epoch)):
			return lost("worker "+s.src.Worker.String()+" has stopped publishing "+s.src.Topic+" events", nil)
		case len(m.Data) == 0:
			continue // another life's farewell
		}
		progress, err := s.feed.Take(m.Data, s.yield)
		switch {
		case err != nil:
			return err
		case progress == event.Stopped:
			return errStopped
		case progress == event.Missing:
			return nil
		}
	}
}
