package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// errStopped says that the consumer wants no more.
var errStopped = errors.New("the watch is stopped")

// watch follows one path for one consumer. It belongs to the consumer's
// goroutine.
type watch struct {
	s       *Store
	path    discovery.Path
	yield   func(discovery.Update) bool
	metrics *discovery.WatchMetrics

	known map[string]known
	// bad holds the revisions at which keys were reported as problems.
	bad   map[string]int64
	stale bool
}

// known is an instance of the view.
type known struct {
	value    string // as stored: a lease that changes is no news
	instance discovery.Instance
}

// Watch yields what is registered below p, and then what changes. When etcd
// cannot be followed at first it yields Stale, and the snapshot when it can.
func (s *Store) Watch(ctx context.Context, p discovery.Path) iter.Seq[discovery.Update] {
	return func(yield func(discovery.Update) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if !s.enlist(&cancel) {
			return
		}
		defer s.dismiss(&cancel)
		w := &watch{s: s, path: p, yield: yield, metrics: s.metrics.Watch(), known: map[string]known{}, bad: map[string]int64{}}
		defer w.metrics.End()
		w.run(ctx)
	}
}

// enlist has Close end a watch; false: the store is closed.
func (s *Store) enlist(cancel *context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closed {
		s.mu.watches[cancel] = struct{}{}
	}
	return !s.mu.closed
}

func (s *Store) dismiss(cancel *context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.watches, cancel)
}

// run follows until ctx ends or the consumer stops, through every loss.
func (w *watch) run(ctx context.Context) {
	for failures := 0; ; failures++ {
		followed, err := w.follow(ctx)
		if followed {
			failures = 0
		}
		if errors.Is(err, errStopped) || ctx.Err() != nil {
			return
		}
		if !w.stale {
			w.stale = true
			w.metrics.Stale(true)
			w.s.log.Warn("etcd cannot be followed; going on with the last view", obs.KeyError, err)
			if !w.yield(discovery.Update{Kind: discovery.Stale}) {
				return
			}
		}
		if !w.s.pause(ctx, backOff(failures, 0)) {
			return
		}
	}
}

// follow takes a snapshot and then every change, until that fails. followed says
// whether it got as far as the snapshot.
func (w *watch) follow(ctx context.Context) (followed bool, err error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	view, err := w.read(ctx)
	if err != nil {
		return false, err
	}
	responses, done, ask, err := w.open(ctx, view.Header.Revision)
	if err != nil {
		return false, err
	}
	defer func() { cancel(); <-done }()
	if err := w.snapshot(view); err != nil {
		return true, err
	}
	return true, w.deltas(ctx, responses, ask)
}

// read reads all entries below the path.
func (w *watch) read(ctx context.Context) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotMax)
	defer cancel()
	return w.s.client.Get(ctx, prefix(w.path), clientv3.WithPrefix())
}

// response is what the stream yields; an error is its last.
type response struct {
	*pb.WatchResponse
	err error
}

// open opens a stream of the changes after revision. It is the protocol's own
// stream and not the client library's watch, which hides every break and goes on
// at the revision it had: after a loss of etcd's data that is a revision that
// means something else. What open starts ends with ctx; then done is closed. ask
// asks for a sign of life.
func (w *watch) open(ctx context.Context, revision int64) (responses <-chan response, done <-chan struct{}, ask func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := pb.NewWatchClient(w.s.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(maxResponseBytes))
	if err != nil {
		cancel()
		return nil, nil, nil, err
	}
	c, ended := make(chan response, watchBuffer), make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		for {
			r, err := stream.Recv()
			select {
			case c <- response{r, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	from := prefix(w.path)
	create := &pb.WatchCreateRequest{Key: []byte(from), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(from)), StartRevision: revision + 1}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	if err == nil {
		err = created(ctx, c, revision)
	}
	if err != nil {
		cancel()
		<-ended
		return nil, nil, nil, err
	}
	ask = func() error {
		return stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	}
	return c, ended, ask, nil
}

// created waits until the server has taken the watch.
func created(ctx context.Context, c <-chan response, revision int64) error {
	timer := time.NewTimer(requestMax)
	defer timer.Stop()
	select {
	case r := <-c:
		if err := r.fault(); err != nil {
			return err
		}
		if r.Header.Revision < revision {
			return fmt.Errorf("etcd answers from revision %d, before the snapshot's %d", r.Header.Revision, revision)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("etcd has not answered within %v", requestMax)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fault returns what ends the stream, or nil.
func (r *response) fault() error {
	switch {
	case r.err != nil:
		return r.err
	case r.CompactRevision != 0:
		return fmt.Errorf("etcd has compacted its history up to revision %d", r.CompactRevision)
	case r.Canceled:
		return fmt.Errorf("etcd has ended the watch: %s", r.CancelReason)
	}
	return nil
}

// deltas yields changes until the stream fails or is silent.
func (w *watch) deltas(ctx context.Context, responses <-chan response, ask func() error) error {
	timer := time.NewTimer(probeEvery)
	defer timer.Stop()
	asked := false
	for {
		var r response
		select {
		case <-ctx.Done():
			return errStopped
		case r = <-responses:
		case <-timer.C:
			select { // what came while the consumer was busy is a sign of life
			case r = <-responses:
			default:
				if asked {
					return fmt.Errorf("etcd has been silent for %v", probeEvery+probeMax)
				}
				if err := ask(); err != nil {
					return err
				}
				asked = true
				timer.Reset(probeMax)
				continue
			}
		}
		if err := r.fault(); err != nil {
			return err
		}
		if err := w.apply(r.Events); err != nil {
			return err
		}
		asked = false
		timer.Reset(probeEvery)
	}
}

// snapshot makes what was read the view, and yields it.
func (w *watch) snapshot(view *clientv3.GetResponse) error {
	if w.stale {
		w.stale = false
		w.metrics.Stale(false)
		w.s.log.Info("etcd is followed again")
		if !w.yield(discovery.Update{Kind: discovery.Fresh}) {
			return errStopped
		}
	}
	w.known = make(map[string]known, len(view.Kvs))
	reported := w.bad
	w.bad = map[string]int64{}
	u := discovery.Update{Kind: discovery.Snapshot}
	for _, kv := range view.Kvs {
		if revision, ok := reported[string(kv.Key)]; ok {
			w.bad[string(kv.Key)] = revision
		}
		w.take(kv, &u)
	}
	return w.emit(u)
}

// apply yields the events as updates; those of one kind that follow each other
// are one.
func (w *watch) apply(events []*mvccpb.Event) error {
	var u discovery.Update
	turn := func(k discovery.Kind) error {
		if u.Kind == k {
			return nil
		}
		err := w.emit(u)
		u = discovery.Update{Kind: k}
		return err
	}
	for _, e := range events {
		key := string(e.Kv.Key)
		old, had := w.known[key]
		var next discovery.Update
		if e.Type == mvccpb.Event_PUT {
			if had && old.value == string(e.Kv.Value) {
				continue
			}
			delete(w.known, key)
			w.take(e.Kv, &next)
		} else {
			delete(w.known, key)
			delete(w.bad, key)
		}
		// What cannot be read any more is gone, and another life is another instance.
		if had && (len(next.Instances) == 0 || next.Instances[0].Epoch != old.instance.Epoch) {
			if err := turn(discovery.Delete); err != nil {
				return err
			}
			u.Instances = append(u.Instances, old.instance)
		}
		if len(next.Instances) == 0 && len(next.Problems) == 0 {
			continue
		}
		if err := turn(discovery.Put); err != nil {
			return err
		}
		u.Instances = append(u.Instances, next.Instances...)
		u.Problems = append(u.Problems, next.Problems...)
	}
	return w.emit(u)
}

// emit yields an update unless it is empty.
func (w *watch) emit(u discovery.Update) error {
	w.metrics.Instances(len(w.known))
	w.metrics.Problems(len(u.Problems))
	if u.Kind != discovery.Snapshot && len(u.Instances) == 0 && len(u.Problems) == 0 {
		return nil
	}
	if !w.yield(u) {
		return errStopped
	}
	return nil
}

// take adds an entry to the view and to u: as an instance, or as a problem if it
// was not reported before.
func (w *watch) take(kv *mvccpb.KeyValue, u *discovery.Update) {
	key := string(kv.Key)
	i, err := w.decode(key, kv.Value)
	if err == nil {
		delete(w.bad, key)
		if w.path.Covers(i.Path) {
			w.known[key] = known{value: string(kv.Value), instance: i}
			u.Instances = append(u.Instances, i)
		}
		return
	}
	if revision, reported := w.bad[key]; reported && revision == kv.ModRevision {
		return
	}
	w.bad[key] = kv.ModRevision
	u.Problems = append(u.Problems, err)
}

// decode reads an entry and checks that it stands under the key it should.
func (w *watch) decode(key string, value []byte) (discovery.Instance, error) {
	shown := strings.ToValidUTF8(key[:min(len(key), maxShownBytes)], "?")
	i, err := discovery.DecodeInstance(value)
	switch {
	case err != nil:
	case key != keyOf(i.Path, i.ID):
		err = &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("it holds the instance %v of %v, whose key is another", i.ID, i.Path)}
	case len(w.known) >= maxInstances:
		err = &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("there are more than %d instances", maxInstances)}
	default:
		return i, nil
	}
	return discovery.Instance{}, fmt.Errorf("pass over the entry %q of etcd at %s: %w", shown, w.s.where, err)
}
