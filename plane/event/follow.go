package event

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// SubscribeFunc is Bus.Subscribe of some carrier.
type SubscribeFunc func(ctx context.Context, src Source, from Position) iter.Seq2[Delivery, error]

// FollowConfig says what Follow follows, and how.
type FollowConfig struct {
	Source Source
	// Subscribe is a carrier's: a Bus's, or SubscribeRPC bound to a peer.
	Subscribe SubscribeFunc
	// From is how far the consumer is already; zero: it begins.
	From Position
	// RetryMin and RetryMax bound the pause before the next attempt after one that
	// ended; it doubles while nothing is delivered (20 ms and 1 s).
	RetryMin, RetryMax time.Duration
	Logger             *slog.Logger
	Metrics            *Metrics
}

// DefaultFollowConfig returns the defaults for a source.
func DefaultFollowConfig(src Source, subscribe SubscribeFunc) FollowConfig {
	return FollowConfig{Source: src, Subscribe: subscribe, RetryMin: retryMin, RetryMax: retryMax}
}

// Follow hands apply, in the caller's goroutine, what a source delivers until ctx
// ends, and returns its cause. Subscriptions that end are begun again where the
// last one was. An error of apply says that what is known of the source can no
// longer be trusted: it is begun anew, with a Reset.
func Follow(ctx context.Context, c FollowConfig, apply func(Delivery) error) error {
	logger := obs.For(c.Logger, "event").With("topic", c.Source.Topic, obs.KeyWorker, c.Source.Worker)
	count := c.Metrics.of(c.Source.Topic)
	// Subscribers of one source do not come back in step, and one alone does the
	// same each time.
	jitter := rand.New(rand.NewPCG(uint64(c.Source.Worker), c.Source.Epoch))
	at := c.From
	pause, told := c.RetryMin, ""
	for {
		moved, err := followOnce(ctx, c, &at, count, apply)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if moved {
			pause, told = c.RetryMin, ""
		}
		if kind := dynamo.KindOf(err).String(); kind != told {
			told = kind // each kind of failure once
			logger.Log(ctx, level(err), "subscription ended; it is begun again", obs.KeyError, err)
		}
		wait := time.NewTimer(pause/2 + time.Duration(jitter.Int64N(int64(pause/2)+1)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
		pause = min(2*pause, c.RetryMax)
	}
}

// level says how loud the end of a subscription is: a worker that is gone is told
// of elsewhere.
func level(err error) slog.Level {
	switch dynamo.KindOf(err) {
	case dynamo.KindUnavailable, dynamo.KindCancelled, dynamo.KindDeadline:
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// followOnce follows one subscription and keeps the position.
func followOnce(ctx context.Context, c FollowConfig, at *Position, count *counters, apply func(Delivery) error) (moved bool, err error) {
	for d, err := range c.Subscribe(ctx, c.Source, *at) {
		if err != nil {
			return moved, err
		}
		count.deliver(d.Kind)
		if err := apply(d); err != nil {
			*at = Position{}
			return false, err
		}
		*at, moved = at.After(d), moved || d.Kind != Gap
	}
	return moved, errors.New("the subscription ended")
}

// FollowLoad hands report the loads of a worker until ctx ends, as Follow does.
// The source's topic is TopicLoad.
func FollowLoad(ctx context.Context, c FollowConfig, report func(engine.Load)) error {
	c.Source.Topic = TopicLoad
	return Follow(ctx, c, func(d Delivery) error {
		if len(d.Payload) == 0 {
			return nil // a Gap or a Reset, or no load yet: what is known ages by itself
		}
		l, _, err := ParseLoad(d.Payload)
		if err != nil {
			return err
		}
		report(l)
		return nil
	})
}
