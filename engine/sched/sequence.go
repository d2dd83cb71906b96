package sched

import (
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// phase is where a sequence is.
type phase uint8

const (
	phaseWaiting phase = iota // in the queue, without blocks
	phaseLoading              // running, but for KV that is being copied in
	phaseRunning              // computing: its tokens from computed on
)

// sequence is a request on its way.
type sequence struct {
	id  ID
	ref any
	// rank and order place it: lower is earlier. They never change.
	rank     int64
	order    uint64
	deadline time.Time
	hold     time.Duration

	promptLogits bool
	delivered    int // positions whose prompt logits were delivered
	external     int // leading tokens to be loaded
	asks         int // how often Config.External may still be asked in vain

	// What every step of a stretch looks at lies together.
	phase phase
	// ended: its Ended is out; it stays for what is still in flight.
	ended    bool
	lends    bool // its KV is of interest alone: see Lend
	arriving bool // in phaseLoading: it may be computed; see KVArriving
	void     bool // its tokens in flight count for nothing
	missing  bool // and what it was to be computed from will not come
	prompt   int  // tokens of the prompt
	maxLen   int  // tokens at which it ends
	computed int  // positions with KV
	inFlight int  // its tokens in the batch in flight
	behind   int  // steps of the stretch that it has accounted for
	chain    text // prompt and output

	// held, then loading, then open are its blocks in order; table has their ids.
	held    []kvbm.Held
	loading []kvbm.Loading
	open    []kvbm.Partial
	table   []int32

	admissions int
	blockedAt  int // blocks available when it last did not fit, or -1
	// guess is how many of its tokens were found in the pool when it was first counted
	// among those that wait, and -1 before that.
	guess int
	// waitIndex and deadlineIndex are its places in the heaps, or -1.
	waitIndex, deadlineIndex int
}

// before reports whether q comes before r in every order there is.
func (q *sequence) before(r *sequence) bool {
	if q.rank != r.rank {
		return q.rank < r.rank
	}
	return q.order < r.order
}

// compare orders sequences as before does.
func compare(q, r *sequence) int {
	if q.before(r) {
		return -1
	}
	if r.before(q) {
		return 1
	}
	return 0
}

// start makes q, new or used, the sequence of r.
func (q *sequence) start(r *Request, c *Config) {
	q.id, q.ref, q.deadline, q.hold = r.ID, r.Ref, r.Deadline, r.Hold
	q.prompt = r.length(c)
	q.maxLen = q.prompt + min(limitTokens(r.MaxTokens), c.maxLen()-q.prompt)
	n := q.prompt + len(r.Resumed)
	if c.HashOnly {
		q.chain.state(r, c.BlockSize)
		q.chain.reserve(q.maxLen)
	} else {
		q.chain.Reset(r.Root, c.BlockSize)
		q.chain.reserve(min(n+n/2+c.BlockSize, q.maxLen))
		q.chain.AppendKnown(r.Prompt, r.Blocks)
		q.chain.Append(r.Resumed...)
	}
	q.external = min(max(r.External, 0), n-1)
	q.promptLogits, q.delivered = r.PromptLogits, 0
	q.asks = 0
	if c.External != nil && c.PrefixCaching && r.External == 0 {
		q.asks = maxLoadFailures
	}
	if q.promptLogits {
		q.external, q.asks = 0, 0
	}
	q.phase, q.computed, q.admissions, q.blockedAt, q.guess = phaseWaiting, 0, 0, -1, -1
	q.inFlight, q.ended, q.lends, q.arriving, q.void, q.missing = 0, false, false, false, false, false
	q.waitIndex, q.deadlineIndex = -1, -1
}

// remaining is the number of tokens to compute before the next id.
func (q *sequence) remaining() int { return q.chain.Len() - q.computed }

// mayShare reports whether q may take blocks that others computed.
func (q *sequence) mayShare() bool { return !q.promptLogits || q.delivered >= q.prompt }

// query asks for the prefix q can use: at most its first blocks that leave one
// token to compute.
func (q *sequence) query(blockSize int) kvbm.Query {
	n := 0
	if q.mayShare() {
		n = (q.chain.Len() - 1) / blockSize
	}
	return kvbm.Query{Root: q.chain.Root(), Blocks: q.chain.Blocks()[:n], Tokens: q.chain.Tokens()}
}

// awaits reports whether r is about to compute blocks that q needs next, behind
// the found ones that it has: enough of them to be worth the wait.
func (q *sequence) awaits(r *sequence, found, blockSize int) bool {
	last := found + (shareTokens+blockSize-1)/blockSize - 1
	mine, theirs := q.chain.Blocks(), r.chain.Blocks()
	return last < (q.chain.Len()-1)/blockSize && last < len(theirs) && r.computed < (last+1)*blockSize &&
		mine[last].Hash == theirs[last].Hash
}

// awaitsLoad reports whether the block that q needs next, behind the found ones that it
// has, is being loaded for r.
func (q *sequence) awaitsLoad(r *sequence, found int) bool {
	mine, theirs := q.chain.Blocks(), r.chain.Blocks()
	return len(r.held) <= found && found < len(r.held)+len(r.loading) && found < len(mine) &&
		mine[found].Hash == theirs[found].Hash
}

// content names block i of q.
func (q *sequence) content(i int) kvbm.Content {
	return kvbm.Content{Root: q.chain.Root(), Block: q.chain.Blocks()[i], Tokens: q.chain.Block(i)}
}

// last returns the hold behind which the next block is registered.
func (q *sequence) last() kvbm.Held {
	if len(q.held) == 0 {
		return kvbm.Held{}
	}
	return q.held[len(q.held)-1]
}

// match takes the blocks of the prefix that the pool has just been asked for.
func (q *sequence) match(p *kvbm.Pool, blockSize int) {
	q.held = p.Take(q.held[:0])
	q.computed = len(q.held) * blockSize
	for _, h := range q.held {
		q.table = append(q.table, h.ID())
	}
}

// grow adds an open block.
func (q *sequence) grow(p *kvbm.Pool) bool {
	b, ok := p.Allocate()
	if ok {
		q.open = append(q.open, b)
		q.table = append(q.table, b.ID())
	}
	return ok
}

// seal offers the blocks that are computed to others.
func (q *sequence) seal(p *kvbm.Pool, blockSize int) {
	full := q.computed/blockSize - len(q.held)
	if full <= 0 {
		return
	}
	all := kvbm.Query{Root: q.chain.Root(), Blocks: q.chain.Blocks(), Tokens: q.chain.Tokens()}
	q.held = p.Seal(q.held, q.open[:full], all)
	q.open = slices.Delete(q.open, 0, full)
}

// release gives up the blocks of q, from its end.
func (q *sequence) release(p *kvbm.Pool) {
	for _, b := range slices.Backward(q.open) {
		p.Abort(b)
	}
	for _, b := range slices.Backward(q.loading) {
		p.Failed(b)
	}
	for _, h := range slices.Backward(q.held) {
		p.Release(h)
	}
	q.forget()
}

// lease hands the blocks of q over to a lease.
func (q *sequence) lease(p *kvbm.Pool, expires time.Time) {
	p.Lease(kvbm.LeaseID(q.id), q.held, q.open, expires)
	q.forget()
}

// forget empties the lists of blocks, which somebody else has. The table's memory
// stays as it is for the action that shows it.
func (q *sequence) forget() {
	q.held, q.loading, q.open, q.table = q.held[:0], q.loading[:0], q.open[:0], q.table[:0]
	q.computed = 0
}

// entry is q's share of a batch: its next n tokens.
func (q *sequence) entry(n int) Entry {
	e := Entry{
		ID: q.id, Ref: q.ref, Tokens: q.chain.part(q.computed, n), Count: n,
		Start: q.computed, Blocks: q.table[:len(q.table):len(q.table)],
	}
	if all := q.chain.Len(); q.computed+n == all {
		e.Sample, e.Logits = true, LogitsLast
		e.Output, e.Last = all-q.prompt, all+1 >= q.maxLen
	}
	if q.promptLogits && q.delivered < q.prompt && q.computed+n > q.delivered {
		e.Logits = LogitsAll
	}
	return e
}

// take accounts for the step that computed q's tokens in flight, and appends the
// id it gave, if it gave one.
func (q *sequence) take(e *Entry, id dynamo.TokenID) {
	q.computed += q.inFlight
	if q.promptLogits {
		q.delivered = max(q.delivered, q.computed)
	}
	q.inFlight = 0
	if e.Sample {
		q.chain.push(id)
	}
}
