package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Select, Reserve and Survey are for those who send requests to the workers
// themselves: they choose as Generate does, and ask no worker for anything. What a
// Reservation books counts as any request in progress does, from Reserve to its end,
// which comes once: by Release or, if nobody calls that, when its lease is over.

// Ask is a request that is to be placed.
type Ask struct {
	// Request says what is to be placed. Its Tokens may be missing where Hashes are
	// there.
	Request *dynamo.Request
	// Hashes are those of the prompt's full blocks of BlockSize tokens, chained, and
	// Length is the length of the prompt; they stand in for its tokens.
	Hashes            []dynamo.BlockHash
	BlockSize, Length int
	// Allowed are the only workers that may be chosen, unless it is empty; Excluded
	// may not be. With Wait they hold for the workers of the moment it is over.
	Allowed, Excluded []dynamo.WorkerID
	// Wait has Reserve wait for a worker as Generate does; without, a request that no
	// worker can take at once is refused.
	Wait bool
}

// Choice is the worker that a request should go to.
type Choice struct {
	Model  string
	Worker dynamo.WorkerID
	Epoch  uint64
	// Rank is the data-parallel rank that was asked for, or that holds most of the
	// prompt; nil: any will do.
	Rank *int
	// Policy is what chose it, and Decision the number of the decision.
	Policy   string
	Decision uint64
	// PromptTokens is the length of the prompt. Of it the worker is thought to hold
	// Held[t] leading tokens in tier t or a faster one, and to compute NewTokens.
	// BlockSize is the worker's; 0 is unknown.
	PromptTokens, NewTokens, BlockSize int
	Held                               [4]int
	// Predicted is the time to the first token, from now; 0: nobody has predicted it.
	Predicted time.Duration
	// Waited is how long it took until there was a place.
	Waited time.Duration
}

// End is how a reserved request ended.
type End uint8

// The ends.
const (
	Completed End = iota // with its answer
	Failed               // by an error of its own
	Cancelled            // by its client
	Expired              // nobody said: its lease is over
	Refused              // the worker was full and did not take it
	Lost                 // the worker was gone
	Stalled              // the worker sent nothing
	Leaving              // the worker drains, and did not take it
)

var ends = [...]string{
	Completed: "completed", Failed: "failed", Cancelled: "cancelled", Expired: "expired", Refused: "refused", Lost: "lost",
	Stalled: "stalled", Leaving: "draining",
}

// Ends lists the names that End.String prints.
func Ends() []string { return slices.Clone(ends[:]) }

// String returns the end's name.
func (e End) String() string { return ends[e] }

// ParseEnd reads what String prints.
func ParseEnd(name string) (End, bool) {
	i := slices.Index(ends[:], name)
	return End(max(i, 0)), i >= 0
}

// errReported stands for the word of a worker that somebody else has heard.
var errReported = errors.New("a client of the selection service lost a request there")

// ending is what the router learns from an end.
func (e End) ending(began bool) ending {
	x := ending{began: began, outcome: completed}
	switch e {
	case Completed:
	case Failed:
		x.outcome = failed
	case Cancelled, Expired:
		x.outcome = abandoned
	case Refused:
		x.outcome, x.code = refused, engine.CodeRefused
	case Leaving:
		x.outcome, x.code = refused, engine.CodeDraining
	case Lost:
		x.outcome, x.code, x.fault = lost, engine.CodeLost, errReported
	case Stalled:
		x.outcome, x.code = lost, engine.CodeStalled
	}
	if x.outcome == refused && began {
		x.outcome = lost // it had taken it
	}
	return x
}

// Select says where a request should go and books nothing. It counts as a turn of the
// worker's, and its decision can be explained.
func (r *Router) Select(ctx context.Context, a *Ask) (Choice, error) {
	c, err := r.ask(a)
	if err != nil {
		return Choice{}, err
	}
	defer c.look.done()
	now := time.Now()
	r.mu.Lock()
	m, number, err := r.selectLocked(ctx, c, now)
	r.mu.Unlock()
	if err != nil {
		r.complain(ctx, err)
		return Choice{}, err
	}
	return r.choice(c, m, number, now), nil
}

// selectLocked decides for c, and keeps the decision.
func (r *Router) selectLocked(ctx context.Context, c *call, now time.Time) (*member, uint64, error) {
	if err := r.endedLocked(ctx, c, now); err != nil {
		return nil, 0, err
	}
	d := r.decideLocked(c, now)
	if r.mu.retired || d.Winner == placement.None {
		return nil, 0, r.nowhereLocked(c, &d)
	}
	m := r.mu.list[d.Winner]
	number := r.mu.journal.keep(&d, c)
	c.held = c.look.held(&d.Request, d.Winner)
	c.load.New = max(d.Request.Tokens-c.held, 0)
	t := d.Terms(d.Winner)
	c.predicted = t.Wait + t.Prefill + t.Load
	r.mu.stats.Decisions++
	r.mu.fleet.Touch(d.Winner).Turn = r.mu.stats.Decisions
	if e := r.mu.journal.at(number); e != nil {
		e.held = c.held
	}
	if mm := r.config.Metrics; mm != nil {
		mm.decisions[decidedFree].Inc()
	}
	return m, number, nil
}

// Reservation is a booking for a request that somebody else sends to its worker.
// Its methods may be called at once and in any order; those that come too late, or a
// second time, change nothing and say so.
type Reservation struct {
	// Choice is the worker that it is booked at.
	Choice Choice

	r     *Router
	c     *call
	b     booking
	lease time.Duration
	ended func(*Reservation, End)

	// mu is taken before Router.mu.
	mu struct {
		sync.Mutex
		over  bool
		began bool
		until time.Time
		timer *time.Timer
	}
}

// Reserve chooses a worker for a request and books it there until Release, or for
// lease after the last sign of life: PrefillDone and Grow are such. ended is told of
// the end, once, outside of any lock and maybe before Reserve returns; nil is nobody.
func (r *Router) Reserve(ctx context.Context, a *Ask, lease time.Duration, ended func(*Reservation, End)) (*Reservation, error) {
	c, err := r.ask(a)
	if err != nil {
		return nil, err
	}
	defer func() {
		c.look.done()
		c.look = nil
	}()
	var b booking
	if a.Wait {
		b, err = r.place(ctx, c)
	} else {
		b, err = r.placeNow(ctx, c)
	}
	if err != nil {
		r.complain(ctx, err)
		return nil, err
	}
	r.expect(c, b)
	v := &Reservation{Choice: r.choice(c, b.m, b.decision, c.dispatch), r: r, c: c, b: b, lease: lease, ended: ended}
	if v.Choice.Rank == nil && b.rank >= 0 {
		v.Choice.Rank = &b.rank
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.until = time.Now().Add(lease)
	v.mu.timer = time.AfterFunc(lease, v.expire)
	return v, nil
}

// placeNow books c where there is room for it at once.
func (r *Router) placeNow(ctx context.Context, c *call) (booking, error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.endedLocked(ctx, c, now); err != nil {
		return booking{}, err
	}
	r.wakeLocked(now) // those that wait come first
	d := r.decideLocked(c, now)
	if r.mu.retired || d.Winner == placement.None {
		return booking{}, r.nowhereLocked(c, &d)
	}
	return r.bookLocked(c, &d), nil
}

// PrefillDone says that the first token has come, and how many tokens of the prompt
// the worker had in its cache; negative is unknown. It reports whether that was news.
func (v *Reservation) PrefillDone(cached int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.over || v.mu.began {
		return false
	}
	v.mu.began = true
	v.renewLocked()
	if cached < 0 {
		cached = v.c.held // as good as anybody's guess
	}
	v.r.started(v.c, v.b, &dynamo.Chunk{Cached: min(cached, v.Choice.PromptTokens)}, 0)
	return true
}

// Grow says that the answer has grown by n tokens. It reports whether it was booked
// still.
func (v *Reservation) Grow(n int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.over {
		return false
	}
	v.renewLocked()
	if v.mu.began { // tokens before the first one are not held to be any
		v.r.grown(v.c, v.b, n)
	}
	return true
}

// Release ends the booking, and reports whether this call did. tokens is the length of
// the answer if that is known, and otherwise 0.
func (v *Reservation) Release(ctx context.Context, end End, tokens int) bool {
	v.mu.Lock()
	if v.mu.over {
		v.mu.Unlock()
		return false
	}
	v.endLocked()
	if v.mu.began && tokens > 0 && end == Completed {
		v.r.started(v.c, v.b, &dynamo.Chunk{Finish: dynamo.FinishStop, Usage: dynamo.Usage{Completion: tokens}}, 0)
	}
	began := v.mu.began
	v.mu.Unlock()
	v.close(ctx, end, began)
	return true
}

// Until is when the lease ends, if nobody calls before.
func (v *Reservation) Until() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.until
}

// Began reports whether the first token has come.
func (v *Reservation) Began() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.began
}

// expire runs in the timer's goroutine, and ends.
func (v *Reservation) expire() {
	now := time.Now()
	v.mu.Lock()
	if v.mu.over {
		v.mu.Unlock()
		return
	}
	if left := v.mu.until.Sub(now); left > 0 { // it was renewed while the timer ran out
		v.mu.timer.Reset(left)
		v.mu.Unlock()
		return
	}
	v.endLocked()
	began := v.mu.began
	v.mu.Unlock()
	v.close(context.Background(), Expired, began)
}

func (v *Reservation) renewLocked() {
	v.mu.until = time.Now().Add(v.lease)
	v.mu.timer.Reset(v.lease)
}

func (v *Reservation) endLocked() {
	v.mu.over = true
	v.mu.timer.Stop()
}

// close ends the booking; its caller has found out that it is the one to.
func (v *Reservation) close(ctx context.Context, end End, began bool) {
	e := end.ending(began)
	v.r.release(ctx, v.c, v.b, &e)
	if v.ended != nil {
		v.ended(v, end)
	}
}

// ask begins the placing of a request.
func (r *Router) ask(a *Ask) (*call, error) {
	q := a.Request
	if len(q.Tokens) == 0 {
		own := *q
		own.Tokens = make([]dynamo.TokenID, a.Length) // only their number counts
		q = &own
	}
	c := &call{q: q, arrived: time.Now(), params: r.params, cached: -1}
	c.excluded = c.room[:0]
	if len(a.Allowed)+len(a.Excluded) > 0 {
		c.lists = a
	}
	if err := c.override(); err != nil {
		return nil, err
	}
	switch {
	case !c.params.Policy.UsesOverlap():
	case len(a.Request.Tokens) > 0:
		c.look = r.prefixes.look(q, c.arrived)
	default:
		c.look = r.prefixes.lookHashes(a.Hashes, a.BlockSize, c.arrived)
	}
	return c, nil
}

// lookHashes finds out who holds the beginning of a prompt whose blocks of one size
// somebody has hashed. Of workers with blocks of another size nothing is known.
func (p *prefixes) lookHashes(hashes []dynamo.BlockHash, blockSize int, now time.Time) *lookup {
	l := lookups.Get().(*lookup)
	all := *p.all.Load()
	for len(l.parts) < len(all) {
		l.parts = append(l.parts, part{})
	}
	l.parts = l.parts[:len(all)]
	for i, z := range all {
		part := &l.parts[i]
		part.at, part.hashes = z, part.hashes[:0]
		if z.blockSize == blockSize {
			part.hashes = append(part.hashes, hashes...)
		}
	}
	p.expire(now)
	l.find()
	return l
}

// unlistedLocked are the workers that may not be chosen for c: those that have refused
// it, and those that its lists leave out. What the latter could do better than the
// others does not count: kinds of which nobody is listed are as good as unable.
func (r *Router) unlistedLocked(c *call, ranks []placement.Rank) ([]placement.Key, []placement.Rank) {
	all, a := slices.Clone(c.excluded), c.lists
	var among []placement.Rank
	for range ranks {
		among = append(among, placement.Unable)
	}
	for _, m := range r.mu.list {
		switch {
		case len(a.Allowed) > 0 && !slices.Contains(a.Allowed, m.ID) || slices.Contains(a.Excluded, m.ID):
			all = append(all, m.key())
		case m.kind < len(ranks):
			among[m.kind] = ranks[m.kind]
		}
	}
	return all, among
}

// nowhereLocked is the error of a request that no worker can take at once. It counts
// as a request that was refused.
func (r *Router) nowhereLocked(c *call, d *placement.Decision) error {
	switch g := c.q.Routing; {
	case r.mu.retired:
		return r.refuseLocked(c, noWorker, engine.CodeReplaced)
	case g != nil && g.Worker != 0 && !r.knownLocked(g.Worker):
		r.countLocked(failed)
		return unknownWorker(g.Worker, len(r.mu.list))
	case !r.listedLocked(c.q.Adapter):
		return r.refuseLocked(c, noWorker, engine.CodeNoWorker)
	case len(r.mu.list) > 0 && !r.mu.kinds.able(r.mu.kinds.rank(c)):
		if err := r.mu.kinds.refusal(c); err != nil {
			r.countLocked(failed)
			return err
		}
	}
	r.mu.journal.keep(d, c)
	if d.Outcome() == placement.IsFull {
		return r.refuseLocked(c, exhausted, "queue_full")
	}
	err := r.refuseLocked(c, noWorker, engine.CodeNoWorker)
	var e *dynamo.Error
	if len(d.Scores) > 0 && errors.As(err, &e) {
		e.Message = fmt.Sprintf("none of the %d workers of model %s may take this request: %s", len(d.Scores), c.q.Model, verdicts(d.Scores))
	}
	return err
}

// verdicts counts why workers may not be chosen.
func verdicts(scores []placement.Score) string {
	n := map[placement.Verdict]int{}
	for i := range scores {
		n[scores[i].Verdict]++
	}
	var words []string
	for _, v := range slices.Sorted(maps.Keys(n)) {
		words = append(words, fmt.Sprintf("%d %v", n[v], v))
	}
	return strings.Join(words, ", ")
}

// choice describes the worker that c has been placed at.
func (r *Router) choice(c *call, m *member, number uint64, now time.Time) Choice {
	x := Choice{
		Model: m.Card.Model, Worker: m.ID, Epoch: m.Epoch, Policy: c.params.Policy.String(), Decision: number,
		PromptTokens: len(c.q.Tokens) + len(c.q.Resume), BlockSize: m.Card.BlockSize, NewTokens: c.load.New,
		Predicted: time.Duration(c.predicted * float64(time.Millisecond)), Waited: now.Sub(c.arrived),
	}
	held, rank := r.prefixes.heldBy(c.look, m)
	x.Held = capped(held, x.PromptTokens)
	if g := c.q.Routing; g != nil && g.Worker != 0 && g.Rank != nil {
		x.Rank = g.Rank
	} else if rank >= 0 {
		x.Rank = &rank
	}
	return x
}

func capped(tokens [4]int, most int) [4]int {
	for t := range tokens {
		tokens[t] = min(tokens[t], most)
	}
	return tokens
}

// heldBy is how many leading tokens m was found to hold, by the slowest tier that they
// are in, and which of its ranks holds most; -1: none holds any.
func (p *prefixes) heldBy(l *lookup, m *member) (tokens [4]int, rank int) {
	rank = -1
	if l == nil {
		return tokens, rank
	}
	most := uint32(0)
	for i := range l.parts {
		part := &l.parts[i]
		owners := *part.at.owners.Load()
		for _, o := range part.found {
			if int(o.Source) >= len(owners) || owners[o.Source].m != m {
				continue
			}
			for t, blocks := range o.Blocks {
				tokens[t] = max(tokens[t], int(blocks)*part.at.blockSize)
			}
			if n := o.Blocks[len(o.Blocks)-1] * uint32(part.at.blockSize); n > most {
				most, rank = n, p.rankOf(m, part.at, uint32(o.Source))
			}
		}
	}
	return tokens, rank
}

// rankOf is the rank that a source of m's is of; -1 if it is m's no longer.
func (p *prefixes) rankOf(m *member, at *sized, id uint32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.mu.caches[m.key()]; c != nil {
		for _, s := range c.sources {
			if s.at == at && uint32(s.id) == id {
				return s.rank
			}
		}
	}
	return -1
}

// Outlook is what is known of a worker and, in a Survey for a request, what sending it
// there would mean.
type Outlook struct {
	Worker dynamo.WorkerID
	Epoch  uint64
	State  placement.State
	Labels map[string]string
	// MaxRunning and MaxQueue are the requests it takes, KVBlocks and BlockSize what its
	// cache holds; 0 is unknown.
	MaxRunning, MaxQueue, KVBlocks, BlockSize int
	// Booked are the requests that this router has booked there and BookedTokens what
	// they may come to hold; PrefillTokens is what of their prompts is to be computed
	// still, and KVTokens what those past that hold.
	Booked, BookedTokens, PrefillTokens, KVTokens int
	// Load is its last report, which came at Reported; zero if none did.
	Load     engine.Load
	Reported time.Time

	// What follows is about the request. Verdict says whether the worker could be
	// chosen, Cost what the policy makes of it; Held and NewTokens are as in Choice.
	Verdict    placement.Verdict
	Cost       float64
	Held       [4]int
	NewTokens  int
	Prompt     int
	Predicted  time.Duration
	Considered bool
}

// Survey looks at all workers, in the order of their ids, with a request in mind; nil
// is none. It decides and counts nothing.
func (r *Router) Survey(a *Ask) ([]Outlook, error) {
	var c *call
	if a != nil {
		var err error
		if c, err = r.ask(a); err != nil {
			return nil, err
		}
		defer c.look.done()
	}
	now := time.Now()
	r.mu.Lock()
	all := make([]Outlook, len(r.mu.list))
	list := slices.Clone(r.mu.list)
	for i, m := range list {
		cand := &r.mu.fleet.Candidates()[i]
		all[i] = Outlook{
			Worker: m.ID, Epoch: m.Epoch, State: cand.State, Labels: m.Labels, MaxRunning: m.MaxRunning, MaxQueue: m.MaxQueue,
			KVBlocks: m.KVBlocks, BlockSize: m.Card.BlockSize, Booked: cand.Booked, BookedTokens: cand.BookedTokens,
			PrefillTokens: cand.PrefillTokens, KVTokens: cand.KVTokens, Load: m.load, Reported: cand.Report.At,
		}
	}
	if c != nil {
		d := r.decideLocked(c, now)
		for i := range all {
			x, t := &all[i], d.Terms(i)
			x.Considered, x.Verdict, x.Cost, x.Prompt = true, d.Scores[i].Verdict, float64(d.Scores[i].Cost), d.Request.Tokens
			x.NewTokens = max(d.Request.Tokens-c.look.held(&d.Request, i), 0)
			x.Predicted = time.Duration((t.Wait + t.Prefill + t.Load) * float64(time.Millisecond))
		}
	}
	r.mu.Unlock()
	for i, m := range list {
		if c != nil {
			held, _ := r.prefixes.heldBy(c.look, m)
			all[i].Held = capped(held, all[i].Prompt)
		}
	}
	slices.SortFunc(all, func(a, b Outlook) int { return cmp.Compare(a.Worker, b.Worker) })
	return all, nil
}
