package event

import (
	"context"
	"iter"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// Method is what subscriptions are asked for by: one stream each, whose request
// is that of AppendRequest and whose messages are batches, until either side ends
// it.
const Method = "event"

// RPC is the bus over the connections that frontends have to workers anyway. A
// worker registers it and attaches publishers; a frontend needs no RPC, it has
// SubscribeRPC. It keeps nothing of its own: a subscriber's place is the stream's,
// and the stream's credit is what holds it back.
type RPC struct {
	find func(Source) *rpc.Peer

	mu struct {
		sync.Mutex
		sources     map[topicOf]*attached
		subscribers int
	}
}

// topicOf is what can be attached once.
type topicOf struct {
	topic  string
	worker dynamo.WorkerID
}

// attached is a publisher with its subscriptions.
type attached struct {
	p       *Publisher
	ctx     context.Context // ends with the attachment
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // subscriptions; Add under RPC.mu while it is in sources
}

var _ Bus = (*RPC)(nil)

// NewRPC returns a bus. Find returns the connection to a source's worker, for
// Subscribe; nil where nobody subscribes.
func NewRPC(find func(Source) *rpc.Peer) *RPC {
	b := &RPC{find: find}
	b.mu.sources = map[topicOf]*attached{}
	return b
}

// Register lets s answer subscriptions and questions, before it serves.
func (b *RPC) Register(s *rpc.Server) {
	s.Handle(Method, rpc.Endpoint{Serve: b.serve})
	s.Handle(AskMethod, rpc.Endpoint{Serve: b.answer})
}

// Attach makes p's events available to who is connected to this process.
func (b *RPC) Attach(p *Publisher) (detach func(), err error) {
	src := p.Source()
	k := topicOf{src.Topic, src.Worker}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.sources[k] != nil {
		return nil, invalid("worker " + src.Worker.String() + " publishes " + src.Topic + " events already")
	}
	a := &attached{p: p}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	b.mu.sources[k] = a
	return func() {
		b.mu.Lock()
		if b.mu.sources[k] == a {
			delete(b.mu.sources, k)
		}
		b.mu.Unlock()
		a.cancel(lost("the worker has stopped publishing " + src.Topic + " events"))
		a.running.Wait()
	}, nil
}

// enter finds what a subscription asks for.
func (b *RPC) enter(src Source) (*attached, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.mu.sources[topicOf{src.Topic, src.Worker}]
	switch {
	case a == nil:
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: "worker " + src.Worker.String() + " publishes no " + src.Topic + " events here"}
	case src.Epoch != 0 && src.Epoch != a.p.Source().Epoch:
		return nil, lost("the life of worker " + src.Worker.String() + " that is asked for is over")
	case b.mu.subscribers >= MaxSubscribers:
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the worker has as many subscribers of events as it can; put fewer frontends in front of it, or use --event-plane nats"}
	}
	b.mu.subscribers++
	a.running.Add(1)
	return a, nil
}

func (b *RPC) leave(a *attached) {
	b.mu.Lock()
	b.mu.subscribers--
	b.mu.Unlock()
	a.running.Done()
}

// serve is one subscription.
func (b *RPC) serve(ctx context.Context, s *rpc.Stream) error {
	src, at, err := ParseRequest(s.Request())
	if err != nil {
		return err
	}
	a, err := b.enter(src)
	if err != nil {
		return err
	}
	defer b.leave(a)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.ctx, func() {
		cancel(context.Cause(a.ctx))
		s.Cancel(context.Cause(a.ctx)) // it may be waiting for credit
	})()
	r := a.p.Reader(at)
	for batch, some := []byte(nil), false; ; {
		if batch, some = r.Fill(batch[:0], BatchBytes); some {
			if err := s.Send(batch); err != nil {
				return err
			}
			continue // until there is nothing left
		}
		if err := r.Wait(ctx); err != nil {
			return err
		}
	}
}

// Subscribe implements Bus; see SubscribeRPC.
func (b *RPC) Subscribe(ctx context.Context, src Source, from Position) iter.Seq2[Delivery, error] {
	if b.find != nil {
		if p := b.find(src); p != nil {
			return SubscribeRPC(ctx, p, src, from)
		}
	}
	return func(yield func(Delivery, error) bool) {
		yield(Delivery{}, lost("there is no connection to worker "+src.Worker.String()))
	}
}

// SubscribeRPC yields, in the caller's goroutine, the deliveries of src that lead
// on from a position, over the connection to its worker; it waits for that first.
// It ends with an error when the connection or the publisher is lost or ctx ends.
func SubscribeRPC(ctx context.Context, peer *rpc.Peer, src Source, from Position) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		if err := peer.Wait(ctx); err != nil {
			yield(Delivery{}, err)
			return
		}
		f := NewFeed(src, from)
		for again := 0; ; again++ {
			before := f.Cursor()
			err := subscribeOnce(ctx, peer, f, func(d Delivery) bool { return yield(d, nil) })
			switch {
			case err == errStopped:
				return
			case err == nil && f.Cursor() != before:
				again = 0
			case err == nil && again >= maxAsksInVain:
				err = corrupt("worker " + src.Worker.String() + " does not say what follows the position that it is asked for")
			}
			if err != nil {
				yield(Delivery{}, err)
				return
			}
		}
	}
}

// subscribeOnce reads one stream. It returns nil when something is missing and
// must be asked for.
func subscribeOnce(ctx context.Context, peer *rpc.Peer, f *Feed, yield func(Delivery) bool) error {
	s, err := peer.Open(ctx, rpc.Call{Method: Method, Request: AppendRequest(nil, f.src, f.Cursor())})
	if err != nil {
		return err
	}
	defer s.Cancel(errStopped) // says nothing to a stream that has ended
	for {
		batch, err := s.Recv()
		if err != nil {
			return err
		}
		p, err := f.Take(batch, yield)
		switch {
		case err != nil:
			return err
		case p == Missing:
			return nil
		case p == Stopped:
			return errStopped
		}
	}
}
