package placement

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Explanation says in words why a request went where it did. It is made from a
// record alone.
type Explanation struct {
	// Decision names the winner, or says why there is none, and what was known of the
	// request.
	Decision string
	// Reason is what told the winner from the others: its cost, the draw, the group, or
	// the key that tells equal costs apart.
	Reason string
	// Candidates has a line for each of the best: its cost and the terms of it.
	Candidates []string
	// Otherwise says for each of those that lost by their cost what would have made
	// it the winner.
	Otherwise []string
	// Rest bounds those that are not listed; empty if there are none.
	Rest string
}

// String joins all of it, a line each.
func (x Explanation) String() string {
	lines := append([]string{x.Decision, x.Reason}, x.Candidates...)
	lines = append(lines, x.Otherwise...)
	return strings.Join(append(lines, x.Rest), "\n")
}

// Explain puts a record into words.
func Explain(r *Record) Explanation {
	var x Explanation
	x.Decision = r.decision()
	for i := range r.Best {
		x.Candidates = append(x.Candidates, r.describe(&r.Best[i]))
	}
	if !r.won {
		return x
	}
	x.Reason = r.reason()
	for i := 1; i < len(r.Best); i++ {
		if words := r.otherwise(&r.Best[i]); words != "" {
			x.Otherwise = append(x.Otherwise, words)
		}
	}
	if left := r.Fit - len(r.Best); left > 0 {
		x.Rest = fmt.Sprintf("%d more could have taken it", left)
		if !math.IsInf(r.Bound, 0) {
			x.Rest += fmt.Sprintf("; none of them costs less than %s", r.amount(r.Bound))
		}
	}
	return x
}

func (r *Record) decision() string {
	var b strings.Builder
	if r.won {
		fmt.Fprintf(&b, "%v won by %v, of %d that could take it and %d in all", r.Best[0].name(), r.Policy, r.Fit, r.Candidates)
	} else {
		fmt.Fprintf(&b, "none of %d could take it (%v)", r.Candidates, r.Outcome)
	}
	fmt.Fprintf(&b, "; prompt of %d tokens in blocks of %d, answer taken to be %d", r.Tokens, r.BlockSize, r.Expected)
	if r.Waited > 0 {
		fmt.Fprintf(&b, "; queued for %v", r.Waited)
	}
	return b.String()
}

// name is what an entry is called: the worker, and its rank if it is not the first.
func (e *Entry) name() string {
	if e.Rank == 0 {
		return "worker " + e.Worker.String()
	}
	return fmt.Sprintf("worker %v rank %d", e.Worker, e.Rank)
}

// amount is a cost with its unit.
func (r *Record) amount(cost float64) string {
	switch r.Policy {
	case KV, Sticky:
		return milliseconds(cost)
	case Reference:
		return fmt.Sprintf("%.4g blocks", cost)
	}
	return fmt.Sprintf("%.4g", cost)
}

func milliseconds(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f ms", v)
	case v >= 10:
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%.2f ms", v)
}

func (r *Record) reason() string {
	if r.Group {
		return "it serves the request's group"
	}
	if len(r.Best) == 1 {
		return "there was no other"
	}
	w, second := &r.Best[0], &r.Best[1]
	switch {
	case w.Doubted != second.Doubted:
		return "the others have stalled on a request"
	case w.Aside != second.Aside:
		return r.aside()
	case r.rule.draws:
		return fmt.Sprintf("it was drawn, at temperature %.3g: a lower cost is likelier and not sure", r.rule.temperature)
	case w.Cost != second.Cost:
		return fmt.Sprintf("it costs %s less than the next", r.amount(second.Cost-w.Cost))
	case w.contender.second != second.contender.second:
		return "equal costs were told apart by the tokens that each has in progress"
	case r.Policy == Session:
		return "the session's hash puts it first"
	}
	return fmt.Sprintf("equal costs were told apart by a key of seed %016x and the worker: %08x is less than %08x", r.Seed, w.contender.tie, second.contender.tie)
}

// aside says what sets the others aside.
func (r *Record) aside() string {
	switch r.Policy {
	case PowerOfTwo:
		return "it is one of the two that were drawn"
	case Sticky:
		return "it holds enough of the prompt to be kept to"
	}
	return "the others hold more than their share"
}

// describe is the line of one candidate.
func (r *Record) describe(e *Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.name(), r.amount(e.Cost))
	if r.terms {
		sep := " = "
		for _, t := range []struct {
			name  string
			value float64
		}{{"wait", e.Terms.Wait}, {"prefill", e.Terms.Prefill}, {"load", e.Terms.Load}, {"slowdown of others", e.Terms.Slowdown}, {"answer", e.Terms.Decode}, {"lateness", e.Terms.Late}} {
			if t.value > 0 {
				fmt.Fprintf(&b, "%s%s %s", sep, t.name, milliseconds(t.value))
				sep = " + "
			}
		}
	} else {
		fmt.Fprintf(&b, ", %d %s", e.Load, plural(e.Load, "request"))
	}
	fmt.Fprintf(&b, "; holds %d blocks", e.Held)
	if e.Slower > 0 {
		fmt.Fprintf(&b, " and %d in slower tiers", e.Slower)
	}
	switch {
	case e.ReportAge < 0:
		b.WriteString("; has not reported")
	default:
		fmt.Fprintf(&b, "; reported %v ago", e.ReportAge.Round(time.Millisecond))
	}
	if r.terms && !e.Known {
		b.WriteString("; its speed is not known yet")
	}
	if e.Doubted {
		b.WriteString("; has stalled")
	}
	if e.Aside {
		b.WriteString("; set aside")
	}
	return b.String()
}

// otherwise says what would have made e the winner; empty where no single thing would.
func (r *Record) otherwise(e *Entry) string {
	w := &r.Best[0]
	gap := e.Cost - w.Cost
	if r.Group || e.Doubted != w.Doubted || e.Aside != w.Aside || r.rule.draws || !(gap > 0) {
		return ""
	}
	var ways []string
	if blocks, ok := r.blocks(e, gap); ok {
		ways = append(ways, fmt.Sprintf("%d more cached %s", blocks, plural(blocks, "block")))
	}
	switch {
	case r.terms && e.lessWait(gap) < e.Terms.Wait:
		ways = append(ways, milliseconds(e.lessWait(gap))+" less wait")
	case r.terms && e.Terms.Slowdown > gap:
		ways = append(ways, milliseconds(gap)+" less slowdown of others")
	case (r.Policy == LeastLoaded || r.Policy == PowerOfTwo) && e.Load > 0:
		// The cost is (load+1)/capacity.
		fewer := int(gap*float64(e.Load+1)/e.Cost) + 1
		if fewer <= e.Load {
			ways = append(ways, fmt.Sprintf("%d %s less", fewer, plural(fewer, "request")))
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return fmt.Sprintf("%s would have won with %s", e.name(), strings.Join(ways, " or "))
}

// lessWait is how much less wait makes up for gap; rather too much than too little.
func (e *Entry) lessWait(gap float64) float64 {
	first, late := e.Terms.first(), e.Terms.Late*0.94 // which the record has to a few percent
	if !(late > 0) || !(first > 0) {
		return gap
	}
	// Lateness falls by as large a part at least as the time to the first token does.
	return gap / (1 + late/first)
}

// blocks is how many more cached blocks make up for gap; a few too many rather than
// too few. Where some lie in slower tiers the next block saves less than those after
// it, and nothing is said.
func (r *Record) blocks(e *Entry, gap float64) (int, bool) {
	if !(e.PerBlock > 0) || r.BlockSize == 0 || e.Slower > 0 {
		return 0, false
	}
	n := blocksFor(gap, e.PerBlock)
	return n, n <= r.Tokens/r.BlockSize-e.Held
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
