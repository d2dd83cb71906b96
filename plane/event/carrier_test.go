package event_test

import (
	"context"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/event/eventtest"
)

// direct is a carrier without a wire between: readers are read by the subscribers
// themselves. It can lose batches, as a datagram would be lost, and its batches
// may be small.
type direct struct {
	size int     // of a batch
	loss float64 // how many of the batches are lost

	mu struct {
		sync.Mutex
		sources map[string]*directSource
		up      context.Context // ends at a cut
		cut     context.CancelFunc
	}
}

type directSource struct {
	p   *event.Publisher
	ctx context.Context
}

func newDirect(size int, loss float64) *direct {
	b := &direct{size: size, loss: loss}
	b.mu.sources = map[string]*directSource{}
	b.mend()
	return b
}

func (b *direct) mend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.up, b.mu.cut = context.WithCancel(context.Background())
}

func (b *direct) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.cut()
}

func unavailable(message string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: message}
}

func (b *direct) Attach(p *event.Publisher) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	topic := p.Source().Topic
	if b.mu.sources[topic] != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "twice"}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.mu.sources[topic] = &directSource{p, ctx}
	return func() {
		b.mu.Lock()
		delete(b.mu.sources, topic)
		b.mu.Unlock()
		cancel()
	}, nil
}

func (b *direct) Subscribe(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
	return func(yield func(event.Delivery, error) bool) {
		b.mu.Lock()
		s, up := b.mu.sources[src.Topic], b.mu.up
		b.mu.Unlock()
		if s == nil || up.Err() != nil || src.Epoch != 0 && src.Epoch != s.p.Source().Epoch {
			yield(event.Delivery{}, unavailable("nobody is there"))
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(s.ctx, func() { cancel(unavailable("detached")) })()
		defer context.AfterFunc(up, func() { cancel(unavailable("cut")) })()
		if err := b.read(ctx, s.p, src, from, yield); err != nil {
			yield(event.Delivery{}, err)
		}
	}
}

// read is one subscription; it returns nil when the subscriber has had enough.
func (b *direct) read(ctx context.Context, p *event.Publisher, src event.Source, from event.Position, yield func(event.Delivery, error) bool) error {
	f := event.NewFeed(src, from)
	r := p.Reader(f.Cursor())
	draw := rand.New(rand.NewPCG(1, 2))
	for {
		batch, some := r.Fill(nil, b.size)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		progress := event.Current
		if draw.Float64() >= b.loss {
			var err error
			if progress, err = f.Take(batch, func(d event.Delivery) bool { return yield(d, nil) }); err != nil {
				return err
			}
		}
		switch {
		case progress == event.Stopped:
			return nil
		case progress == event.Missing:
			r = p.Reader(f.Cursor())
		case !some && progress == event.Current && f.Cursor().Position == p.Position():
			if err := r.Wait(ctx); err != nil {
				return err
			}
		}
	}
}

func TestDirect(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		loss float64
	}{
		{"plain", event.BatchBytes, 0},
		{"small", event.MinBatchBytes, 0},
		{"lossy", 2000, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			eventtest.RunBubble(t, func(t *testing.T) eventtest.Fixture {
				b := newDirect(c.size, c.loss)
				return eventtest.Fixture{Worker: 7, Publish: b, Subscribe: b, Cut: b.cut, Mend: b.mend}
			})
		})
	}
}
