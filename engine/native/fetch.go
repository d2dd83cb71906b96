package native

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/model"
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
	mu   struct {
		sync.Mutex
		ended []*fetch
		peers map[transfer.AgentID]*peer
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

// fetch is blocks on their way to a task, in parts: what has come of one is checked while
// the next one comes.
type fetch struct {
	t     *loop.Task
	s     *source
	began time.Time
	parts []part
	given atomic.Bool   // up
	done  chan struct{} // closed when nobody reads or writes the blocks
	ok    bool
}

// part is some of the blocks of a fetch, from block first of the sequence on.
type part struct {
	first    int
	blocks   []int32
	transfer *transfer.Transfer
}

var _ loop.Transfers = (*fetcher)(nil)

var errCorrupt = errors.New("a block is not what it was when it was lent")

func newFetcher(x *exchange) *fetcher {
	f := &fetcher{x: x, open: map[*loop.Task]*fetch{}}
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
	x := &fetch{t: t, s: t.State.(*query).source, began: now, done: make(chan struct{})}
	f.open[t] = x
	f.x.lender.written(a.Blocks)
	err := f.post(x, a.Start/model.BlockSize, a.Blocks)
	if err != nil {
		x.cancel()
	}
	go func() { // ends with the transfers, which have a deadline
		for i := range x.parts {
			if e := f.check(x, &x.parts[i]); err == nil {
				err = e
			}
			if err != nil {
				x.cancel()
			}
		}
		close(x.done)
		f.over(x, len(a.Blocks), err)
	}()
}

// post begins to read blocks of a sequence, from its block first on.
func (f *fetcher) post(x *fetch, first int, blocks []int32) error {
	if x.s.asked {
		return errors.New("it was asked for before")
	}
	x.s.asked = true
	size := int64(f.x.cache.BlockBytes())
	each := max(int(partBytes/size), 1)
	patience := f.x.Timeout + time.Duration(float64(len(blocks))*float64(size)/minBandwidth*float64(time.Second))
	options := transfer.Options{Deadline: x.began.Add(patience)}
	for piece := range slices.Chunk(blocks, each) {
		local, remote := make([]transfer.Descriptor, len(piece)), make([]transfer.Descriptor, len(piece))
		for i, block := range piece {
			p := x.s.place(first + i)
			local[i] = f.x.memory.At(int64(block)*size, size)
			remote[i] = transfer.Descriptor{Memory: x.s.Memory, Offset: int64(p.block) * size, Length: size, Token: p.token}
		}
		list, err := f.x.Agent.Prepare(x.s.peer, local, remote)
		if err != nil {
			return err
		}
		tr, err := f.x.Agent.Post(list, transfer.Read, options)
		if err != nil {
			return err
		}
		x.parts = append(x.parts, part{first, piece, tr})
		first += len(piece)
	}
	return nil
}

// check waits for a part and compares what has come with what was lent.
func (f *fetcher) check(x *fetch, p *part) error {
	<-p.transfer.Done()
	if _, err := p.transfer.Poll(); err != nil {
		return err
	}
	for i, block := range p.blocks {
		if x.given.Load() {
			return context.Canceled
		}
		if fingerprint(x.s.identity, f.x.sum(block), p.first+i) != x.s.place(p.first+i).fingerprint {
			return errCorrupt
		}
	}
	return nil
}

// cancel ends the transfers that have not ended.
func (x *fetch) cancel() {
	for i := range x.parts {
		x.parts[i].transfer.Cancel()
	}
}

// over puts a fetch among those that have ended.
func (f *fetcher) over(x *fetch, blocks int, err error) {
	outcome, bytes := tookTaken, 0
	switch {
	case err == nil:
		x.ok, bytes = true, blocks*f.x.cache.BlockBytes()
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
	delete(f.open, t)
	x.given.Store(true)
	x.cancel()
	<-x.done
}

// Ended implements loop.Transfers.
func (f *fetcher) Ended(time.Time) (*loop.Task, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.mu.ended) > 0 {
		x := f.mu.ended[0]
		f.mu.ended = append(f.mu.ended[:0], f.mu.ended[1:]...)
		if f.open[x.t] == x { // not given up in the meantime
			delete(f.open, x.t)
			return x.t, x.ok
		}
	}
	return nil, false
}

// Next implements loop.Transfers: what ends wakes the loop.
func (f *fetcher) Next() (time.Time, bool) { return time.Time{}, false }

// close gives up all that is on its way: the cache is written to no more.
func (f *fetcher) close() {
	for t := range f.open {
		f.Cancel(t, time.Time{})
	}
}
