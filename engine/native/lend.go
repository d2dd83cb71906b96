package native

import (
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// lender gives the KV of requests to engines that go on with them. Requests share blocks,
// so each block is lent on its own, once, for as long as any request needs it lent.
//
// A block's sum is taken when the step that fills it is over, while its bytes are in the
// CPU's cache, and is good until the block is written again.
type lender struct {
	x    *exchange
	wake func()

	loans map[*loop.Task]*loan // the loop's
	lent  map[int32]*lent      // the loop's
	sums  []blockSum           // the loop's, by block

	over    chan struct{} // closed when the engine has ended
	waiting sync.WaitGroup
	mu      struct {
		sync.Mutex
		expired  []*loan
		returned []*loop.Task
	}
}

type blockSum struct {
	sums  sums
	known bool
}

// loan is what is lent for one request.
type loan struct {
	t        *loop.Task
	blocks   []int32
	timer    *time.Timer
	touches  uint64 // of its leases, when its time was last over
	recalled bool
}

type lent struct {
	lease *transfer.Lease
	uses  int
}

var _ loop.Loans = (*lender)(nil)

func newLender(x *exchange) *lender {
	return &lender{x: x, loans: map[*loop.Task]*loan{}, lent: map[int32]*lent{}, sums: make([]blockSum, x.cache.Blocks()), over: make(chan struct{})}
}

// handOver implements loop.Config.Handover.
func (l *lender) handOver(t *loop.Task, kept *sched.Action) []byte {
	n := min(kept.Tokens, maxHandoverBlocks*model.BlockSize)
	h := handover{Engine: engineName, Version: handoverVersion, Agent: l.x.Agent.Export(), Memory: l.x.memory.ID(), Tokens: n, Groups: l.x.groups()}
	h.Blocks = make([]byte, 0, blocksOf(n)*h.perBlock())
	id := identity(l.x.content, t.Request.Root, kept.IDs[:n])
	o := &loan{t: t}
	for i, block := range kept.Blocks[:blocksOf(n)] {
		b := l.lend(block)
		if b == nil { // what comes before it is of use all the same
			h.Tokens = i * model.BlockSize
			id = identity(l.x.content, t.Request.Root, kept.IDs[:h.Tokens])
			break
		}
		o.blocks = append(o.blocks, block)
		o.touches += b.lease.Touches() // for somebody else's sake
		h.add(place{block: block, token: b.lease.Token()})
	}
	if h.Tokens == 0 {
		return nil
	}
	l.seal(&h, id)
	l.loans[t] = o
	o.timer = time.AfterFunc(l.x.Lease, func() { l.expire(o) })
	l.x.Metrics.gave()
	return h.write()
}

// seal fills the fingerprints in.
func (l *lender) seal(h *handover, id uint64) {
	all := h.Blocks
	h.Blocks = make([]byte, 0, len(all))
	for i := range len(all) / h.perBlock() {
		p := (&handover{Groups: h.Groups, Blocks: all}).place(i)
		s := &l.sums[p.block]
		if !s.known {
			*s = blockSum{l.x.sums(p.block), true}
		}
		for g := range h.Groups {
			p.fingerprints[g] = fingerprint(id, s.sums[g], i, g)
		}
		h.add(p)
	}
}

// lend opens a block to peers; nil: it cannot be, as one may be reading what was lent
// before.
func (l *lender) lend(block int32) *lent {
	if b := l.lent[block]; b != nil {
		if !b.lease.Extend(leases * l.x.Lease) {
			return nil
		}
		b.uses++
		return b
	}
	size := int64(l.x.cache.BlockBytes())
	lease, err := l.x.memory.Lend(transfer.Range{Offset: int64(block) * size, Length: size}, false, leases*l.x.Lease)
	if err != nil {
		l.x.log.Debug("a block is not lent", obs.KeyError, err)
		return nil
	}
	b := &lent{lease: lease, uses: 1}
	l.lent[block] = b
	return b
}

// expire runs in the timer's goroutine.
func (l *lender) expire(o *loan) {
	l.mu.Lock()
	l.mu.expired = append(l.mu.expired, o)
	l.mu.Unlock()
	l.wake()
}

// Recall implements loop.Loans. Who has read all it wanted may be about to let go, and
// another request about to lend the same blocks: they stay open for a moment.
func (l *lender) Recall(t *loop.Task) {
	if o := l.loans[t]; o != nil && !o.recalled {
		o.timer.Stop()
		o.recalled, o.timer = true, time.AfterFunc(linger, func() { l.expire(o) })
	}
}

// Returned implements loop.Loans.
func (l *lender) Returned() *loop.Task {
	l.mu.Lock()
	expired := l.mu.expired
	l.mu.expired = nil
	l.mu.Unlock()
	for _, o := range expired {
		if l.loans[o.t] != o {
			continue // its time was over when it was recalled
		}
		if !o.recalled && l.renew(o) {
			continue
		}
		if !o.recalled {
			l.x.Metrics.forgotten()
			l.x.log.Debug("nobody came for the KV of a request in time", obs.KeyRequest, o.t.Request.ID)
		}
		l.end(o)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.returned) == 0 {
		return nil
	}
	t := l.mu.returned[0]
	l.mu.returned = append(l.mu.returned[:0], l.mu.returned[1:]...)
	return t
}

// renew gives o its time anew where somebody has read of it in the time that is over: a
// slow link holds up a transfer that goes on, and does not end it.
func (l *lender) renew(o *loan) bool {
	touches := uint64(0)
	for _, block := range o.blocks {
		touches += l.lent[block].lease.Touches()
	}
	if touches == o.touches {
		return false
	}
	o.touches = touches
	for _, block := range o.blocks {
		if !l.lent[block].lease.Extend(leases * l.x.Lease) {
			return false
		}
	}
	o.timer.Reset(l.x.Lease)
	return true
}

// end closes what is lent for o alone. It has returned once no peer reads it.
func (l *lender) end(o *loan) {
	delete(l.loans, o.t)
	o.timer.Stop()
	var open []*transfer.Lease
	for _, block := range o.blocks {
		b := l.lent[block]
		if b.uses--; b.uses > 0 {
			continue
		}
		delete(l.lent, block)
		b.lease.Revoke()
		select {
		case <-b.lease.Done():
		default:
			open = append(open, b.lease)
		}
	}
	if len(open) == 0 {
		l.returned(o.t)
		return
	}
	l.waiting.Go(func() { // ends when the readers have, or the engine
		for _, lease := range open {
			select {
			case <-lease.Done():
			case <-l.over:
				return
			}
		}
		l.returned(o.t)
		l.wake()
	})
}

func (l *lender) returned(t *loop.Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.returned = append(l.mu.returned, t)
}

// computed hears of a batch that was computed: of what was written, the sums are taken
// that are wanted soon.
func (l *lender) computed(b *sched.Batch) {
	for i := range b.Entries {
		e := &b.Entries[i]
		end := e.Start + len(e.Tokens)
		soon := e.Ref.(*loop.Task).Request.Prefill
		l.x.ahead.reach(int(slices.Max(e.Blocks)) + 1)
		for k := e.Start / model.BlockSize; k < blocksOf(end); k++ {
			block := e.Blocks[k]
			if l.sums[block] = (blockSum{}); soon && (k+1)*model.BlockSize <= end {
				l.sums[block] = blockSum{l.x.sums(block), true}
			}
		}
	}
}

// written hears that blocks are written to otherwise.
func (l *lender) written(blocks []int32) {
	for _, block := range blocks {
		l.sums[block] = blockSum{}
		l.x.ahead.reach(int(block) + 1)
	}
}

// close ends what is lent; the loop is over.
func (l *lender) close() {
	for _, o := range l.loans {
		o.timer.Stop()
		for _, block := range o.blocks {
			l.lent[block].lease.Revoke()
		}
	}
	close(l.over)
	l.waiting.Wait()
}
