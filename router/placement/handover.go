package placement

import (
	"container/list"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Pair is who computed a prompt and who went on with its KV.
type Pair struct{ Prefill, Decode dynamo.WorkerID }

// HandoverTimes learns how long handovers take from each worker to each other: what is on
// the way between two of them, a link or shared memory, is another between others. Of a
// pair that has seen little, what all pairs have seen counts. It remembers the pairs that
// were seen last, maxPairs of them. The zero value has seen nothing.
type HandoverTimes struct {
	all   HandoverTime
	pairs map[Pair]*list.Element // of pairTime
	order list.List              // the last seen first
}

type pairTime struct {
	pair Pair
	time HandoverTime
}

// Observe takes in one handover.
func (h *HandoverTimes) Observe(p Pair, tokens int, took time.Duration) {
	h.all.Observe(tokens, took)
	e := h.pairs[p]
	switch {
	case e != nil:
		h.order.MoveToFront(e)
	case len(h.pairs) >= maxPairs:
		e = h.order.Back()
		delete(h.pairs, e.Value.(*pairTime).pair)
		e.Value = &pairTime{pair: p}
		h.order.MoveToFront(e)
		h.pairs[p] = e
	default:
		if h.pairs == nil {
			h.pairs = map[Pair]*list.Element{}
		}
		e = h.order.PushFront(&pairTime{pair: p})
		h.pairs[p] = e
	}
	e.Value.(*pairTime).time.Observe(tokens, took)
}

// Millis is how long the handover of so many tokens takes.
func (h *HandoverTimes) Millis(p Pair, tokens int) float64 {
	all := h.all.line(assumed, assumedWeight)
	if e := h.pairs[p]; e != nil {
		return e.Value.(*pairTime).time.line(all, pairWeight).millis(tokens)
	}
	return all.millis(tokens)
}

// HandoverTime learns how long it takes until an answer goes on with KV from elsewhere: a
// fixed time and one for each token, fitted to what was seen lately and, a little, to what
// is assumed. The zero value has seen nothing.
type HandoverTime struct{ n, tokens, seconds, square, product float64 }

// line is a time that grows with the tokens, in seconds.
type line struct{ fixed, each float64 }

// What is assumed counts as assumedWeight handovers of no tokens and as many of
// assumedTokens; for a pair, what all have seen counts as pairWeight of each.
const (
	assumedWeight = 0.1
	pairWeight    = 0.2
	assumedTokens = 4096
	// handoverMemory is how much what was seen before counts with each one more.
	handoverMemory = 0.98
)

// assumed is of a handover of which nothing is known.
var assumed = line{fixed: 3e-3, each: 5e-6}

// Observe takes in one handover.
func (h *HandoverTime) Observe(tokens int, took time.Duration) {
	for _, v := range []*float64{&h.n, &h.tokens, &h.seconds, &h.square, &h.product} {
		*v *= handoverMemory
	}
	h.add(1, float64(clamp(tokens, 0, maxTokens)), max(took.Seconds(), 0))
}

func (h *HandoverTime) add(weight, tokens, seconds float64) {
	h.n += weight
	h.tokens += weight * tokens
	h.seconds += weight * seconds
	h.square += weight * tokens * tokens
	h.product += weight * tokens * seconds
}

// line is fitted to what was seen and to a prior of that weight.
func (h HandoverTime) line(prior line, weight float64) line {
	h.add(weight, 0, prior.fixed)
	h.add(weight, assumedTokens, prior.fixed+assumedTokens*prior.each)
	l := line{each: (h.n*h.product - h.tokens*h.seconds) / (h.n*h.square - h.tokens*h.tokens)}
	l.fixed = (h.seconds - l.each*h.tokens) / h.n
	switch {
	case l.each < 0:
		l = line{fixed: h.seconds / h.n}
	case l.fixed < 0:
		l = line{each: h.product / h.square}
	}
	return l
}

func (l line) millis(tokens int) float64 {
	return 1e3 * (l.fixed + l.each*float64(clamp(tokens, 0, maxTokens)))
}
