package native

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// fetcher takes KV that other engines keep for requests. Each block is checked against
// its fingerprint when it is here; what is not as it should be is computed.
type fetcher struct {
	x    *exchange
	wake func()

	open map[*loop.Task]*fetch // the loop's
	told atomic.Pointer[string]
	*pace
	mu struct {
		sync.Mutex
		ended    []*fetch
		arriving []*fetch
		peers    map[transfer.AgentID]*peer
	}
}

// peer is an engine that KV was taken from, and when.
type peer struct {
	*transfer.Peer
	used time.Time
}

// source is where the KV of a request is.
type source struct {
	*handover
	peer     *transfer.Peer
	identity uint64
	asked    bool // it was, and is not there any more
}

var _ loop.Transfers = (*fetcher)(nil)

var errCorrupt = errors.New("a block is not what it was when it was lent")

func newFetcher(x *exchange) *fetcher {
	f := &fetcher{x: x, open: map[*loop.Task]*fetch{}, pace: newPace()}
	f.mu.peers = map[transfer.AgentID]*peer{}
	return f
}

// read reads where the KV of r is; nil: nowhere, or where this engine can make no use of
// it. It is called in the goroutine of the request's caller.
func (f *fetcher) read(r *dynamo.Request) *source {
	if len(r.Handover) == 0 || r.Sampling.PromptLogprobs {
		return nil
	}
	s, err := f.source(r)
	if err != nil {
		f.x.Metrics.took(tookRefused, 0, 0)
		f.refused(r, err)
		return nil
	}
	return s
}

func (f *fetcher) source(r *dynamo.Request) (*source, error) {
	h, err := readHandover(r.Handover)
	if err != nil {
		return nil, err
	}
	p, err := f.meet(h.Agent)
	if err != nil {
		return nil, err
	}
	if h.Groups != f.x.groups() {
		return nil, errors.New("its layers are grouped otherwise")
	}
	if h.Tokens > len(r.Tokens)+len(r.Resume) {
		return nil, errors.New("it is of a longer sequence")
	}
	prompt, resumed := r.Tokens[:min(h.Tokens, len(r.Tokens))], r.Resume[:max(h.Tokens-len(r.Tokens), 0)]
	return &source{handover: h, peer: p, identity: identity(f.x.content, r.Root, prompt, resumed)}, nil
}

// meet makes an agent known by its metadata. Those that were not asked for a while are
// forgotten when there are many.
func (f *fetcher) meet(metadata []byte) (*transfer.Peer, error) {
	p, err := f.x.Agent.Import(metadata)
	if err != nil {
		return nil, err
	}
	var old []*peer
	f.mu.Lock()
	now := time.Now()
	f.mu.peers[p.ID()] = &peer{p, now}
	if len(f.mu.peers) > maxPeers {
		for _, q := range f.mu.peers {
			if now.Sub(q.used) > peerIdle {
				old = append(old, q)
			}
		}
		slices.SortFunc(old, func(a, b *peer) int { return cmp.Or(a.used.Compare(b.used), 0) })
		old = old[:min(len(old), len(f.mu.peers)-maxPeers)]
		for _, q := range old {
			delete(f.mu.peers, q.ID())
		}
	}
	f.mu.Unlock()
	for _, q := range old {
		q.Close()
	}
	return p, nil
}

// refused tells why KV is of no use here, once where it is the same again and again.
func (f *fetcher) refused(r *dynamo.Request, err error) {
	text := err.Error()
	if last := f.told.Swap(&text); last != nil && *last == text {
		f.x.log.Debug("KV of another engine is of no use; the prompt is computed here", obs.KeyRequest, r.ID, obs.KeyError, err)
		return
	}
	f.x.log.Warn("KV of another engine is of no use; the prompt is computed here", obs.KeyRequest, r.ID, obs.KeyError, err)
}

// External implements loop.Transfers.
func (f *fetcher) External(t *loop.Task) int {
	if s := t.State.(*query).source; s != nil {
		return s.Tokens
	}
	return 0
}

// Begin implements loop.Transfers.
func (f *fetcher) Begin(t *loop.Task, a *sched.Action, now time.Time) {
	x := newFetch(f, t, a, now)
	f.open[t] = x
	f.x.lender.written(a.Blocks)
	go f.bring(x) // ends with the transfers, which have a deadline
}

// over puts a fetch among those that have ended.
func (f *fetcher) over(x *fetch, err error) {
	outcome, bytes := tookTaken, 0
	switch {
	case err == nil:
		x.ok, bytes = true, len(x.blocks)*f.x.cache.BlockBytes()
	case x.given.Load():
		outcome = tookGivenUp
	case errors.Is(err, errCorrupt):
		outcome = tookCorrupt
		f.x.log.Error("KV of another engine is damaged; it is computed here", obs.KeyRequest, x.t.Request.ID, "from", x.s.peer.Name(), obs.KeyError, err)
	default:
		outcome = tookLost
		f.x.log.Debug("KV of another engine has not come; it is computed here", obs.KeyRequest, x.t.Request.ID, "from", x.s.peer.Name(), obs.KeyError, err)
	}
	f.x.Metrics.took(outcome, bytes, time.Since(x.began))
	f.mu.Lock()
	f.mu.ended = append(f.mu.ended, x)
	f.mu.Unlock()
	f.wake()
}

// Cancel implements loop.Transfers.
func (f *fetcher) Cancel(t *loop.Task, _ time.Time) {
	x := f.open[t]
	if x == nil {
		return
	}
	f.forget(x)
	x.given.Store(true)
	x.cancel()
	<-x.done
}

// forget takes a fetch out of those that are of interest.
func (f *fetcher) forget(x *fetch) {
	delete(f.open, x.t)
	x.t.State.(*query).arriving = nil
}

// Ended implements loop.Transfers.
func (f *fetcher) Ended(time.Time) (*loop.Task, bool) {
	for x := f.take(&f.mu.ended); x != nil; x = f.take(&f.mu.ended) {
		if f.open[x.t] == x { // not given up in the meantime
			f.forget(x)
			return x.t, x.ok
		}
	}
	return nil, false
}

// Arriving implements loop.Transfers.
func (f *fetcher) Arriving() *loop.Task {
	for x := f.take(&f.mu.arriving); x != nil; x = f.take(&f.mu.arriving) {
		if f.open[x.t] == x {
			x.t.State.(*query).arriving = &x.arrival
			return x.t
		}
	}
	return nil
}

// take takes the first of a list.
func (f *fetcher) take(list *[]*fetch) (x *fetch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(*list) > 0 {
		x = (*list)[0]
		*list = append((*list)[:0], (*list)[1:]...)
	}
	return x
}

// Next implements loop.Transfers: what ends wakes the loop.
func (f *fetcher) Next() (time.Time, bool) { return time.Time{}, false }

// close gives up all that is on its way: the cache is written to no more.
func (f *fetcher) close() {
	for t := range f.open {
		f.Cancel(t, time.Time{})
	}
}
