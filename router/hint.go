package router

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/placement"
)

// A worker that holds more of a prompt than the one that is chosen may lend it the KV: the
// router asks it to (dynamo.Request.Lend), and sends the request on with word of where the
// KV is (dynamo.Request.Handover). Whatever goes wrong with that, the worker computes.

// hint says which worker lends a call what the one it is booked at lacks.
type hint struct {
	placement.Fetch
	from    *member
	blocks  int     // that it is to lend, of the worker's own
	rest    float64 // milliseconds to the first token that are predicted for all else
	asked   time.Duration
	outcome lending
}

// lending is what became of KV that a worker was to lend.
type lending uint8

const (
	lendUnasked lending = iota // the request ended before
	lendFetched                // it was brought
	lendGone                   // the worker has it no more, or has no room to keep it
	lendRefused                // the worker is leaving, full or lost
	lendSlow                   // it did not say in time
	lendLost                   // it was lent, and computed all the same
)

var lendings = [...]string{lendUnasked: "unasked", lendFetched: "fetched", lendGone: "gone", lendRefused: "refused", lendSlow: "slow", lendLost: "lost"}

// borrows reports whether KV may be fetched for q.
func (r *Router) borrows(q *dynamo.Request) bool {
	return r.config.PeerFetch && len(q.Handover) == 0 && !q.Lend && !q.Sampling.PromptLogprobs
}

// lenderLocked is the worker that can lend most of a prompt.
func (r *Router) lenderLocked(q *placement.Request) (p placement.Peer) {
	var best *member
	for k := range q.Overlaps {
		o := &q.Overlaps[k]
		m := r.mu.list[o.Candidate]
		// What a lender has in host memory it brings to its device first.
		if n := o.Blocks[dynamo.TierHost]; n > p.Blocks && m.lendsLocked(q) {
			best, p.Candidate, p.Blocks = m, o.Candidate, n
		}
	}
	if best != nil {
		p.Seconds, p.SecondsPerToken = best.link.Times(q.Now)
	}
	return p
}

// lendsLocked reports whether m may be asked to lend.
func (m *member) lendsLocked(q *placement.Request) bool {
	return m.Card.Lends && m.up && !m.draining && m.lending < maxLending && !q.Now.Before(m.lendsAgain) && !slices.Contains(q.Excluded, m.key())
}

// hintLocked says what the winner of d had better fetch; nil: nothing.
func (r *Router) hintLocked(c *call, d *placement.Decision) *hint {
	f, ok := d.Fetch()
	if !ok {
		return nil
	}
	t := d.Terms(d.Winner)
	h := &hint{Fetch: f, from: r.mu.list[f.From], rest: max(t.Wait+t.Prefill+t.Load-1e3*f.Seconds, 0)}
	h.blocks = f.Lacks / max(h.from.Card.BlockSize, 1)
	h.from.lending++
	c.load.New = max(c.load.Prompt-f.Tokens, 0)
	return h
}

// unhintLocked ends what hintLocked began, and notes what became of it.
func (r *Router) unhintLocked(c *call, b booking) {
	h := c.hint
	if h == nil {
		return
	}
	c.hint = nil
	h.from.lending--
	if e := r.mu.journal.at(b.decision); e != nil {
		e.fetch = h.explain()
	}
	if mm := r.config.Metrics; mm != nil {
		mm.fetches[h.outcome].Inc()
		if h.outcome == lendFetched {
			mm.fetchedTokens.Add(float64(h.Lacks))
		}
		if h.asked > 0 {
			mm.lendSeconds.Observe(h.asked.Seconds())
		}
	}
}

// lent is what a worker says to the wish that it lend.
type lent struct {
	where []byte
	err   error
}

// borrow asks for the KV that c's hint tells of, and returns the request as it is sent
// on. enough tells the lender that it is needed no more, and done does so and returns when
// the lender has let go, or is known not to answer.
func (r *Router) borrow(ctx context.Context, c *call, q *dynamo.Request) (next *dynamo.Request, enough, done func()) {
	h := c.hint
	wish := *q
	wish.Lend, wish.Prefill, wish.MaxTokens, wish.MinTokens = true, false, 0, 0
	wish.Sampling, wish.Guided, wish.StopTokens = dynamo.Sampling{}, dynamo.Guided{}, nil
	began := time.Now()
	asking, cancel := context.WithCancelCause(ctx)
	answer, ended := make(chan lent, 2), make(chan struct{}) // where it is, and the end
	go func() {                                              // ends when the lender has let go, or is known not to answer
		defer close(ended)
		answer <- hear(asking, h.from.Engine, &wish, answer)
	}()
	enough = sync.OnceFunc(func() { cancel(errEnough) })
	done = func() {
		enough()
		<-ended
	}
	timer := time.NewTimer(h.patience())
	defer timer.Stop()
	select {
	case a := <-answer:
		switch {
		case a.err != nil:
			h.outcome = lendRefused
			r.log.LogAttrs(ctx, slog.LevelDebug, "no KV is lent; the prompt is computed", slog.String(obs.KeyRequest, string(q.ID)), slog.String(obs.KeyWorker, h.from.ID.String()), slog.Any(obs.KeyError, a.err))
		case len(a.where) == 0:
			h.outcome = lendGone
		default:
			h.outcome = lendLost // until it is there
			copied := *q
			copied.Handover, q = a.where, &copied
		}
	case <-timer.C:
		h.outcome = lendSlow
	case <-ctx.Done():
	}
	h.asked = time.Since(began)
	if len(q.Handover) == 0 {
		enough()
	}
	r.hold(h)
	return q, enough, done
}

// hear tells word of where the KV is as soon as it comes, and then waits for the
// lender's end; it returns what there is to tell then.
func hear(ctx context.Context, e engine.Engine, wish *dynamo.Request, answer chan<- lent) lent {
	told := false
	for chunk, err := range e.Generate(ctx, wish) {
		if err != nil {
			return lent{err: err}
		}
		if len(chunk.Handover) > 0 && !told {
			told = true
			answer <- lent{where: slices.Clone(chunk.Handover)}
		}
	}
	return lent{}
}

// errEnough is why a lender is told to let go.
var errEnough = &dynamo.Error{Kind: dynamo.KindCancelled, Message: "what was lent is needed no more"}

// patience is how long a lender may take to answer: part of what its KV saves.
func (h *hint) patience() time.Duration {
	if !h.Known {
		return unknownPatience
	}
	return min(max(time.Duration(h.Saves/2*float64(time.Second)), minPatience), maxPatience)
}

// hold has a lender that did not answer, or not well, not asked for a while.
func (r *Router) hold(h *hint) {
	if h.outcome != lendRefused && h.outcome != lendSlow {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h.from.lendsAgain = time.Now().Add(lendHold)
}

// fetchedLocked learns from the first token of a request whose KV was lent, which took so
// long and came with word of how much was found.
func (h *hint) fetchedLocked(c *call, cached int, took time.Duration, now time.Time) {
	switch {
	case h.outcome != lendLost:
		return
	case cached <= c.held:
		h.from.lendsAgain = now.Add(lendHold)
		return
	}
	h.outcome = lendFetched
	if !h.Known {
		return // nor is what else it took known
	}
	h.from.link.Observe(h.Lacks, max(took-time.Duration(h.rest*float64(time.Millisecond)), h.asked), now)
}

// FetchExplanation is about KV that another worker was to lend.
type FetchExplanation struct {
	// From is the worker, Blocks how many it was to lend of those that the request's
	// worker lacked, and Outcome what became of that.
	From    string `json:"from"`
	Blocks  int    `json:"blocks"`
	Tokens  int    `json:"tokens"`
	Outcome string `json:"outcome"`
	// PredictedMillis is how long it was thought to take, AskedMillis how long the
	// worker took to say where the KV is.
	PredictedMillis float64 `json:"predicted_ms"`
	AskedMillis     float64 `json:"asked_ms"`
}

func (h *hint) explain() *FetchExplanation {
	return &FetchExplanation{h.from.ID.String(), h.blocks, h.Lacks, lendings[h.outcome], 1e3 * h.Seconds, milliseconds(h.asked)}
}

// words says it in a sentence; empty where there is nothing to say.
func (f *FetchExplanation) words() string {
	if f == nil {
		return ""
	}
	if f.Outcome == lendings[lendFetched] {
		return fmt.Sprintf("fetched %d blocks from worker %s instead of computing %d tokens; it was asked for %.1f ms, and %.1f ms were predicted in all", f.Blocks, f.From, f.Tokens, f.AskedMillis, f.PredictedMillis)
	}
	return fmt.Sprintf("%d blocks were to be fetched from worker %s, and were not: %s", f.Blocks, f.From, f.Outcome)
}
