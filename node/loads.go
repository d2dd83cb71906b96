package node

import (
	"context"
	"iter"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/event/nats"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
)

// openBus connects to the NATS server if that is the event plane; nil is the
// plane over the request connections.
func (n *Node) openBus() (*nats.Bus, error) {
	if n.cfg.Cluster.EventPlane != eventNATS {
		return nil, nil
	}
	c := nats.DefaultConfig(n.cfg.Cluster.NATSServer, n.cfg.Cluster.Namespace)
	c.Dial, c.Logger = n.cfg.Cluster.Dial, n.cfg.Logger
	return nats.Open(c)
}

// followLoad hands report what a worker says of its load, until ctx ends.
func (n *Node) followLoad(ctx context.Context, bus *nats.Bus, peer *rpc.Peer, id dynamo.WorkerID, epoch uint64, report func(engine.Load)) {
	c := event.DefaultFollowConfig(event.Source{Worker: id, Epoch: epoch}, n.subscriber(bus, peer))
	c.Logger, c.Metrics = n.cfg.Logger, n.metrics.event
	_ = event.FollowLoad(ctx, c, report) // its error is that ctx has ended
}

// followKV hands a router what a worker says of its KV cache, until ctx ends.
func (n *Node) followKV(ctx context.Context, bus *nats.Bus, peer *rpc.Peer, id dynamo.WorkerID, epoch uint64, r *router.Router) {
	c := event.DefaultFollowConfig(event.Source{Topic: event.TopicKV, Worker: id, Epoch: epoch}, n.subscriber(bus, peer))
	c.Logger, c.Metrics = n.cfg.Logger, n.metrics.event
	ask := func(ctx context.Context, src event.Source, question []byte, take func([]byte) error) error {
		return event.AskRPC(ctx, peer, src, question, take)
	}
	_ = r.FollowKV(ctx, c, ask) // its error is that ctx has ended
}

// subscriber is how events are asked for.
func (n *Node) subscriber(bus *nats.Bus, peer *rpc.Peer) event.SubscribeFunc {
	subscribe := func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		return event.SubscribeRPC(ctx, peer, src, from)
	}
	if bus != nil {
		subscribe = bus.Subscribe
	}
	if tap := n.cfg.Cluster.Tap; tap != nil {
		return tap(subscribe)
	}
	return subscribe
}
