package event_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
)

// attempts is a carrier that says no, and notes when it was asked.
type attempts struct {
	at   []time.Duration
	from []event.Position
	// give is what attempt n delivers before it ends.
	give func(n int) []event.Delivery
	err  error
}

func (a *attempts) subscribe(start time.Time) func(context.Context, event.Source, event.Position) iter.Seq2[event.Delivery, error] {
	return func(_ context.Context, _ event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		return func(yield func(event.Delivery, error) bool) {
			n := len(a.at)
			a.at, a.from = append(a.at, time.Since(start)), append(a.from, from)
			if a.give != nil {
				for _, d := range a.give(n) {
					if !yield(d, nil) {
						return
					}
				}
			}
			yield(event.Delivery{}, a.err)
		}
	}
}

func TestFollowBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		src := event.Source{Topic: "test", Worker: 1, Epoch: 2}
		a := &attempts{err: &dynamo.Error{Kind: dynamo.KindNotFound, Message: "nobody is there"}}
		c := event.DefaultFollowConfig(src, a.subscribe(time.Now()))
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := event.Follow(ctx, c, func(event.Delivery) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if n := len(a.at); n < 20 || n > 60 {
			t.Errorf("%d attempts in 20 s, want 20 to 60: %v", n, a.at)
		}
		for i := 1; i < len(a.at); i++ {
			if pause := a.at[i] - a.at[i-1]; pause < 10*time.Millisecond || pause > time.Second {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if got := strings.Count(log.String(), "\n"); got != 1 {
			t.Errorf("%d lines of log for one fault, want 1:\n%s", got, &log)
		}
	})
}

// The position goes on over attempts, and begins anew when the consumer cannot.
func TestFollowPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := event.Source{Topic: "test", Worker: 1, Epoch: 2}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a := &attempts{err: &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "lost"}}
		a.give = func(n int) []event.Delivery {
			switch n {
			case 0:
				return []event.Delivery{{Source: src, Kind: event.Reset, Seq: 10}, {Source: src, Kind: event.Snapshot, Seq: 10}}
			case 1:
				return []event.Delivery{{Source: src, Kind: event.Reset, Seq: 10}, {Source: src, Kind: event.Snapshot, Seq: 10, Last: true}}
			case 2:
				return []event.Delivery{{Source: src, Seq: 11}, {Source: src, Kind: event.Gap, Seq: 20}}
			case 3:
				return []event.Delivery{{Source: src, Seq: 12}, {Source: src, Seq: 13, Payload: []byte("bad")}, {Source: src, Seq: 14}}
			}
			cancel()
			return nil
		}
		_ = event.Follow(ctx, event.DefaultFollowConfig(src, a.subscribe(time.Now())), func(d event.Delivery) error {
			if string(d.Payload) == "bad" {
				return errors.New("cannot go on")
			}
			if d.Seq == 14 {
				t.Error("went on after an error")
			}
			return nil
		})
		want := []event.Position{{}, {}, {Epoch: 2, Seq: 10}, {Epoch: 2, Seq: 11}, {}}
		if !slices.Equal(a.from, want) {
			t.Errorf("asked from %v, want %v", a.from, want)
		}
	})
}
