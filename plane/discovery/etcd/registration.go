package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// errLost says that the entry is not there under the lease that should hold it.
var errLost = errors.New("the entry is lost")

// registration keeps one instance in etcd. Its fields are set once.
type registration struct {
	s       *Store
	key     string
	owner   discovery.Instance // as it was registered: path, id and epoch stay
	updates chan change
	cancel  context.CancelFunc // ends keep
	done    chan struct{}      // closed when keep has returned
	revoke  func()             // takes the entry back, once; after done
}

var _ discovery.Registration = (*registration)(nil)

// change is an Update on its way to the goroutine that does it.
type change struct {
	value []byte
	done  chan error // buffered
}

// entry is what the keeping goroutine knows of its key.
type entry struct {
	value []byte
	lease clientv3.LeaseID // 0: none
	ttl   time.Duration    // of the lease, as granted
	held  bool             // the key was there, under the lease, when last seen
	dirty bool             // value is not yet what the key holds
	beat  beat
}

// Register makes i visible. While a predecessor with the same id may be alive it
// waits, for as long as that one's lease goes on without being renewed.
func (s *Store) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	value, err := discovery.EncodeInstance(i)
	if err != nil {
		return nil, err
	}
	if s.closed() {
		return nil, closedError()
	}
	r := &registration{s: s, key: keyOf(i.Path, i.ID), owner: i, updates: make(chan change), done: make(chan struct{})}
	e := &entry{value: value}
	r.revoke = sync.OnceFunc(func() { r.takeBack(e) })
	if err := r.claim(ctx, e); err != nil {
		r.revoke()
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	s.mu.Lock()
	closed := s.mu.closed
	if !closed {
		s.mu.registrations[r] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		cancel()
		r.revoke()
		return nil, closedError()
	}
	go r.keep(life, e)
	return r, nil
}

// Update replaces what others see.
func (r *registration) Update(ctx context.Context, i discovery.Instance) error {
	if i.Path != r.owner.Path || i.ID != r.owner.ID || i.Epoch != r.owner.Epoch {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("an update of %v at %v cannot change its path, id or epoch", r.owner.ID, r.owner.Path)}
	}
	value, err := discovery.EncodeInstance(i)
	if err != nil {
		return err
	}
	c := change{value: value, done: make(chan error, 1)}
	select {
	case r.updates <- c:
	case <-r.done:
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the registration is closed"}
	case <-ctx.Done():
		return ended(ctx)
	}
	select {
	case err = <-c.done:
	case <-ctx.Done():
		return ended(ctx)
	}
	if err != nil {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err,
			Message: fmt.Sprintf("etcd at %s does not take the update now; it is written when etcd is back", r.s.where)}
	}
	return nil
}

// Close takes the entry back. If etcd cannot be reached the lease does that when
// it ends, so that is no error.
func (r *registration) Close() error {
	r.cancel()
	<-r.done
	r.revoke()
	return nil
}

// claim makes the entry for the first time.
func (r *registration) claim(ctx context.Context, e *entry) error {
	var p predecessor
	for {
		var holder *mvccpb.KeyValue
		err := r.s.insist(ctx, func(ctx context.Context) (err error) {
			holder, err = r.put(ctx, e)
			return err
		})
		if err != nil || holder == nil {
			return err
		}
		alive, err := r.observe(ctx, &p, holder)
		if err != nil {
			return err
		}
		if alive {
			return r.taken(holder)
		}
		if !sleep(ctx, pollEvery) {
			return ended(ctx)
		}
	}
}

// predecessor is what claim knows of the one that holds its key.
type predecessor struct {
	lease    int64
	ttl      int64     // seconds left when last asked
	deadline time.Time // when it is gone if nobody renews it
}

// observe reports whether the holder shows that it is alive: it renews its lease,
// or took the key while we waited for another.
func (r *registration) observe(ctx context.Context, p *predecessor, holder *mvccpb.KeyValue) (alive bool, err error) {
	var left int64
	err = r.s.insist(ctx, func(ctx context.Context) error {
		l, err := r.s.client.TimeToLive(ctx, clientv3.LeaseID(holder.Lease))
		if err == nil {
			left = l.TTL
		}
		return err
	})
	if err != nil {
		return false, err
	}
	first := p.deadline.IsZero()
	renewed := !first && (left > p.ttl || holder.Lease != p.lease || time.Now().After(p.deadline))
	if first {
		p.deadline = time.Now().Add(time.Duration(max(left, 0)+1)*time.Second + expiryMax)
	}
	p.lease, p.ttl = holder.Lease, left
	return renewed, nil
}

func (r *registration) taken(holder *mvccpb.KeyValue) error {
	i, err := discovery.DecodeInstance(holder.Value)
	if err != nil {
		return discovery.Taken(r.owner, nil) // alive, in a form that is not known here
	}
	return discovery.Taken(r.owner, &i)
}

// put tries once to make the entry, under a lease of its own. It returns whoever
// holds the key instead, or nil when the entry is made.
func (r *registration) put(ctx context.Context, e *entry) (holder *mvccpb.KeyValue, err error) {
	if e.lease == 0 {
		seconds := max(1, int64(math.Ceil(r.s.ttl.Seconds())))
		l, err := r.s.client.Grant(ctx, seconds)
		if err != nil {
			return nil, err
		}
		e.lease, e.ttl = l.ID, time.Duration(l.TTL)*time.Second
	}
	holder, err = r.swap(ctx, e, clientv3.Compare(clientv3.CreateRevision(r.key), "=", 0))
	if err == nil && holder != nil && (holder.Lease == 0 || holder.Lease == int64(e.lease)) {
		// Nobody keeps it alive, or an attempt has succeeded whose answer was lost.
		holder, err = r.swap(ctx, e, clientv3.Compare(clientv3.ModRevision(r.key), "=", holder.ModRevision))
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		e.lease = 0
	}
	if err != nil || holder != nil {
		return holder, err
	}
	e.held, e.dirty = true, false
	return nil, nil
}

// swap writes the entry if the condition holds; otherwise it returns the holder.
func (r *registration) swap(ctx context.Context, e *entry, condition clientv3.Cmp) (*mvccpb.KeyValue, error) {
	answer, err := r.s.client.Txn(ctx).If(condition).
		Then(clientv3.OpPut(r.key, string(e.value), clientv3.WithLease(e.lease))).
		Else(clientv3.OpGet(r.key)).Commit()
	if err != nil || answer.Succeeded {
		return nil, err
	}
	if kvs := answer.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0], nil
	}
	return nil, errLost // gone between the two conditions: the next attempt finds it absent
}

// keep keeps the entry until ctx ends. Until it returns, e belongs to it.
func (r *registration) keep(ctx context.Context, e *entry) {
	defer close(r.done)
	defer r.forget()
	defer e.beat.close()
	log := r.s.log.With(obs.KeyWorker, r.owner.ID)
	timer := time.NewTimer(e.ttl / 3)
	defer timer.Stop()
	for failures := 0; ; {
		var c change
		select {
		case <-ctx.Done():
			return
		case c = <-r.updates:
			e.value, e.dirty = c.value, true
		case <-timer.C:
		}
		err := r.refresh(ctx, e)
		if c.done != nil {
			c.done <- err
		}
		if err != nil {
			if failures == 0 && ctx.Err() == nil {
				log.Warn("registered instance cannot be kept in etcd; trying on", obs.KeyError, err)
			}
			timer.Reset(backOff(failures, uint64(r.owner.ID)))
			failures++
			continue
		}
		if failures > 0 {
			log.Info("registered instance is in etcd again")
		}
		failures = 0
		timer.Reset(e.ttl / 3)
	}
}

// refresh renews the lease and sees to it that the key holds the value.
func (r *registration) refresh(ctx context.Context, e *entry) error {
	if e.held {
		err := r.s.once(ctx, func(ctx context.Context) error { return r.renew(ctx, e) })
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			e.held, e.lease = false, 0
		case errors.Is(err, errLost):
			e.held = false
		default:
			return err
		}
	}
	var holder *mvccpb.KeyValue
	err := r.s.once(ctx, func(ctx context.Context) (err error) {
		holder, err = r.put(ctx, e)
		return err
	})
	if err != nil {
		return err
	}
	if holder != nil {
		return r.taken(holder)
	}
	r.s.metrics.Reregistered()
	return nil
}

// renew renews the lease, and checks the key or writes it.
func (r *registration) renew(ctx context.Context, e *entry) error {
	left, err := e.beat.renew(ctx, r.s.client.ActiveConnection(), e.lease)
	switch {
	case err != nil:
		return err
	case left == 0:
		return rpctypes.ErrLeaseNotFound
	}
	txn := r.s.client.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(r.key), "=", e.lease))
	if e.dirty {
		txn = txn.Then(clientv3.OpPut(r.key, string(e.value), clientv3.WithLease(e.lease)))
	}
	result, err := txn.Commit()
	switch {
	case err != nil:
		return err
	case !result.Succeeded:
		return errLost
	}
	e.dirty = false
	return nil
}

// takeBack ends the lease, and with it the entry.
func (r *registration) takeBack(e *entry) {
	if e.lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeMax)
	defer cancel()
	if _, err := r.s.client.Revoke(ctx, e.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.s.log.Info("entry could not be taken back from etcd; it ends with its lease",
			obs.KeyWorker, r.owner.ID, obs.KeyDuration, e.ttl, obs.KeyError, err)
	}
}

// forget takes the registration off the store's list.
func (r *registration) forget() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	delete(r.s.mu.registrations, r)
}
