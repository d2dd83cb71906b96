package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
)

// attachment is a publisher on the bus: one goroutine sends what it publishes, one
// answers questions. Both end at detach.
type attachment struct {
	b         *Bus
	key       string
	p         *event.Publisher
	src       event.Source
	questions [2]*nats.Subscription // of its own life, and of any
	ask       chan *nats.Msg        // what both hear
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup
	// kept holds on to the snapshot that subscribers are asking about; answer's own.
	kept *event.Reader
}

// Attach implements event.Bus. The publisher's subscribers are served while there
// is a server.
func (b *Bus) Attach(p *event.Publisher) (detach func(), err error) {
	src := p.Source()
	a := &attachment{b: b, key: src.Topic + "." + src.Worker.String(), p: p, src: src, ask: make(chan *nats.Msg, pendingQuestions)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if err := b.enter(a); err != nil {
		return nil, err
	}
	for i, epoch := range []string{life(src.Epoch), anyLife} {
		if a.questions[i], err = b.conn.ChanSubscribe(b.subject("ask", src, epoch), a.ask); err != nil {
			b.detach(a)
			return nil, lost("the NATS connection is closed", err)
		}
	}
	if b.conn.IsConnected() {
		// So that whoever hears of the worker finds it; a loss now heals later.
		_ = b.conn.FlushTimeout(b.config.Answer)
	}
	tail := p.Tail()
	a.running.Go(func() { a.push(tail) })
	a.running.Go(a.answer)
	return func() { b.detach(a) }, nil
}

func (b *Bus) enter(a *attachment) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.attached[a.key] != nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "worker " + a.src.Worker.String() + " publishes " + a.src.Topic + " events already, or the bus is closed"}
	}
	b.mu.attached[a.key] = a
	return nil
}

// detach ends a and waits for its goroutines; a second time does nothing.
func (b *Bus) detach(a *attachment) {
	a.cancel()
	for _, s := range a.questions {
		if s != nil {
			_ = s.Unsubscribe() // fails only where there is none any more
		}
	}
	a.running.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.attached[a.key] == a {
		delete(b.mu.attached, a.key)
	}
}

// push sends what is published. What the server does not take is not sent again:
// subscribers ask.
func (a *attachment) push(tail *event.Reader) {
	subject := a.b.subject("event", a.src, life(a.src.Epoch))
	failing := false
	var batch []byte
	for {
		ctx, cancel := context.WithTimeout(a.ctx, a.b.config.Heartbeat)
		_ = tail.Wait(ctx) // an end is a heartbeat or the end of a.ctx
		cancel()
		if a.ctx.Err() != nil {
			break
		}
		batch, _ = tail.Fill(batch[:0], a.b.batchBytes())
		err := a.b.conn.Publish(subject, batch)
		if err != nil && !failing && !errors.Is(err, nats.ErrReconnectBufExceeded) {
			a.b.logger.Warn("events are not sent; subscribers will ask for them", "topic", a.src.Topic, obs.KeyError, err)
		}
		failing = err != nil
	}
	// A farewell; who does not hear it notices the silence.
	if a.b.conn.Publish(subject, nil) == nil {
		_ = a.b.conn.FlushTimeout(a.b.config.Answer)
	}
}

// answer answers questions, one batch each, and keeps the snapshot that the last
// ones were about while more may follow.
func (a *attachment) answer() {
	forget := time.NewTimer(keepSnapshot)
	defer forget.Stop()
	var batch []byte
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-forget.C:
			a.kept = nil
		case m := <-a.ask:
			src, at, err := event.ParseRequest(m.Data)
			if err != nil || m.Reply == "" || src.Topic != a.src.Topic || src.Worker != a.src.Worker || src.Epoch != 0 && src.Epoch != a.src.Epoch {
				continue // nobody of ours asks so
			}
			r := a.p.Reader(at)
			batch, _ = r.Fill(batch[:0], a.b.batchBytes())
			if r.InSnapshot() {
				a.kept = r
				forget.Reset(keepSnapshot)
			}
			_ = m.Respond(batch) // who does not get it asks again
		}
	}
}
