package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// WorkerStatus is what is known of one worker.
type WorkerStatus struct {
	Instance discovery.Instance
	// Status is the worker's own word; empty if Err says why it gave none.
	Status remote.Status
	Err    error
}

// Cluster looks at a cluster from outside, for people. It uses of the
// configuration what says how to find and reach the workers.
type Cluster struct {
	node   *Node
	store  discovery.Store
	client *rpc.Client
}

// OpenCluster reads the cluster key and opens the store.
func OpenCluster(c Config) (*Cluster, error) {
	if err := c.Cluster.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: c}
	store, err := n.openStore()
	if err != nil {
		return nil, err
	}
	v := &Cluster{node: n, store: store}
	key, err := n.clusterKey(store)
	if err == nil {
		rc := n.rpcConfig(key)
		if rc.TLS, err = c.Cluster.tlsConfig(); err == nil {
			v.client, err = rpc.NewClient(rc)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the cluster: %w", joined(err, store.Close()))
	}
	return v, nil
}

func joined(err, second error) error {
	if second == nil {
		return err
	}
	return fmt.Errorf("%w; then: %w", err, second)
}

// Close gives the store back.
func (v *Cluster) Close() error { return v.store.Close() }

// Workers lists the workers of the store with what each says of itself.
func (v *Cluster) Workers(ctx context.Context) (all []WorkerStatus, problems []error, err error) {
	found, problems, err := v.find(ctx)
	if err != nil {
		return nil, problems, err
	}
	all = make([]WorkerStatus, len(found))
	var asking sync.WaitGroup
	for i := range found {
		all[i].Instance = found[i]
		asking.Go(func() {
			all[i].Err = v.with(ctx, &found[i], func(ctx context.Context, p *rpc.Peer) (err error) {
				all[i].Status, err = remote.FetchStatus(ctx, p)
				return err
			})
		})
	}
	asking.Wait()
	return all, problems, nil
}

// find reads the store once.
func (v *Cluster) find(ctx context.Context) (found []discovery.Instance, problems []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	for u := range v.store.Watch(ctx, discovery.Path{Namespace: v.node.cfg.Cluster.Namespace}) {
		problems = append(problems, u.Problems...)
		if u.Kind != discovery.Snapshot {
			continue
		}
		found = slices.Clone(u.Instances)
		slices.SortFunc(found, func(a, b discovery.Instance) int { return strings.Compare(a.ID.String(), b.ID.String()) })
		return found, problems, nil
	}
	return nil, problems, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("the store %s does not answer; check --discovery-backend", v.node.cfg.Cluster.Discovery)}
}

// with connects to one worker for the time of a call.
func (v *Cluster) with(ctx context.Context, i *discovery.Instance, call func(context.Context, *rpc.Peer) error) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return v.reach(ctx, rpc.PeerConfig{Addresses: reachable(*i), Worker: i.ID, Epoch: i.Epoch}, call)
}

// reach connects to a peer for the time of a call.
func (v *Cluster) reach(ctx context.Context, pc rpc.PeerConfig, call func(context.Context, *rpc.Peer) error) error {
	var mu sync.Mutex
	var last error
	pc.Changed = func(_ bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			last = err
		}
	}
	p := v.client.Peer(pc)
	running, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() { _ = p.Run(running) }) // ends with running
	defer g.Wait()
	defer stop()
	if err := p.Wait(ctx); err != nil {
		mu.Lock()
		defer mu.Unlock()
		if last != nil {
			return last
		}
		return fmt.Errorf("connect to %s: %w", strings.Join(pc.Addresses, " "), err)
	}
	return call(ctx, p)
}

// Drain asks the worker whose name begins with prefix to leave, and returns when
// it has left the store.
func (v *Cluster) Drain(ctx context.Context, prefix string) (dynamo.WorkerID, error) {
	found, _, err := v.find(ctx)
	if err != nil {
		return 0, err
	}
	matching := named(found, prefix)
	switch len(matching) {
	case 0:
		return 0, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("no worker's name begins with %q; 'dynamo status' lists them", prefix)}
	case 1:
	default:
		return 0, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%d workers' names begin with %q; give more of it", len(matching), prefix)}
	}
	i := matching[0]
	if err := v.with(ctx, &i, remote.Drain); err != nil {
		return i.ID, fmt.Errorf("ask worker %s to drain: %w", i.ID, err)
	}
	return i.ID, v.gone(ctx, i)
}

// named finds the workers that a person means by a name: the one with that id,
// leading zeros or not, or else those whose names begin so.
func named(found []discovery.Instance, name string) []discovery.Instance {
	id, _ := dynamo.ParseWorkerID(name) // 0 is nobody's
	if i := slices.IndexFunc(found, func(i discovery.Instance) bool { return i.ID == id }); i >= 0 {
		return found[i : i+1]
	}
	return slices.DeleteFunc(slices.Clone(found), func(i discovery.Instance) bool { return !strings.HasPrefix(i.ID.String(), strings.ToLower(name)) })
}

// gone returns when the store has lost i.
func (v *Cluster) gone(ctx context.Context, i discovery.Instance) error {
	same := func(o discovery.Instance) bool { return o.ID == i.ID && o.Epoch == i.Epoch }
	for u := range v.store.Watch(ctx, i.Path) {
		if u.Kind == discovery.Snapshot && !slices.ContainsFunc(u.Instances, same) || u.Kind == discovery.Delete && slices.ContainsFunc(u.Instances, same) {
			return nil
		}
	}
	return fmt.Errorf("wait for worker %s to leave: %w", i.ID, context.Cause(ctx))
}
