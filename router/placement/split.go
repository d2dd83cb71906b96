package placement

import (
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// SplitMode says who decides whether a prompt is computed apart from its answer.
type SplitMode uint8

// The modes.
const (
	SplitAuto   SplitMode = iota // what is predicted to cost less
	SplitAlways                  // apart, where there are workers for both parts
	SplitNever                   // where the answer is, where there are workers for it
)

var splitModes = []string{SplitAuto: "auto", SplitAlways: "always", SplitNever: "never"}

// String returns the mode's name.
func (m SplitMode) String() string { return splitModes[m] }

// ParseSplitMode reads a mode's name.
func ParseSplitMode(name string) (SplitMode, error) {
	if i := slices.Index(splitModes, name); i >= 0 {
		return SplitMode(i), nil
	}
	return 0, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%q is none of auto, always, never", name)}
}

// Quote is what a request, or a part of one, would cost at the worker that it would go to.
type Quote struct {
	// Found says that there is a worker that may take it; without, the rest is zero.
	Found  bool
	Worker dynamo.WorkerID
	Terms  Terms
	// New is how many tokens of the prompt the worker does not hold.
	New int
	// Known says that the worker's speed, or that of one like it, was measured.
	Known bool
}

// Quote is what the decision's winner makes of the request.
func (d *Decision) Quote() (q Quote) {
	if d.Winner == None {
		return q
	}
	held := 0
	for _, n := range d.held(d.Winner) {
		held += n
	}
	c := &d.Candidates[d.Winner]
	return Quote{Found: true, Worker: c.ID, Terms: d.Terms(d.Winner), New: max(d.Request.size()-held, 0), Known: c.known()}
}

// millis is what it costs the request, and others that are delayed by it.
func (q *Quote) millis() float64 {
	t := &q.Terms
	return t.Wait + t.Prefill + t.Load + t.Slowdown + t.Decode
}

// Parts are what is known when it is decided whether a request is split.
type Parts struct {
	Mode SplitMode
	// Asked is what the request itself says.
	Asked dynamo.RoutingMode
	// Whole is all of it at the workers that generate answers, Decode the answer alone
	// there, and Prefill the prompt at those that compute prompts.
	Whole, Prefill, Decode Quote
	// Handover is how long the KV takes from the one to the other, in milliseconds.
	Handover float64
}

// SplitReason says why a request was split or not.
type SplitReason uint8

// The reasons.
const (
	SplitUnasked   SplitReason = iota // nobody decided
	SplitByMode                       // SplitAlways or SplitNever says so
	SplitByRequest                    // the request says so
	SplitNoPrefill                    // no worker that computes prompts may take it
	SplitNoDecode                     // none that generates answers may take it whole
	SplitByCost                       // it costs less
	SplitShort                        // there is little to compute
	SplitUnknown                      // it may cost less; how fast the workers are is not known
)

// Split is the decision whether a prompt is computed apart from its answer. It has what it
// was decided by, in milliseconds.
type Split struct {
	Apart  bool
	Reason SplitReason
	Mode   SplitMode
	// Whole is the worker that all of it would go to, Prefill the one that the prompt
	// would.
	Whole, Prefill dynamo.WorkerID
	// WholeMillis is what it costs in one place; apart it costs PrefillMillis,
	// HandoverMillis and DecodeMillis together.
	WholeMillis, PrefillMillis, HandoverMillis, DecodeMillis float32
	// New are the tokens that would be computed where the answer is.
	New int32
}

// DecideSplit decides whether a request is split.
func DecideSplit(p *Parts) Split {
	s := Split{Mode: p.Mode, Whole: p.Whole.Worker, Prefill: p.Prefill.Worker, New: int32(clamp(p.Whole.New, 0, maxTokens))}
	switch {
	case p.Asked != dynamo.RoutingAny:
		s.Apart, s.Reason = p.Asked == dynamo.RoutingDisaggregated, SplitByRequest
	case p.Mode != SplitAuto:
		s.Apart, s.Reason = p.Mode == SplitAlways, SplitByMode
	case !p.Prefill.Found:
		s.Reason = SplitNoPrefill
	case !p.Whole.Found:
		s.Apart, s.Reason = true, SplitNoDecode
	case p.Whole.New < minSplitTokens:
		s.Reason = SplitShort
	default:
		s.Reason = SplitByCost
		s.WholeMillis, s.PrefillMillis = finite(p.Whole.millis()), finite(p.Prefill.millis())
		s.HandoverMillis, s.DecodeMillis = finite(p.Handover), finite(p.Decode.millis())
		s.Apart = s.PrefillMillis+s.HandoverMillis+s.DecodeMillis < s.WholeMillis
		if !p.Whole.Known || !p.Prefill.Known {
			s.Reason, s.Apart = SplitUnknown, s.safe()
		}
	}
	return s
}

// safe decides while it is not known how fast the workers are, as if they were very fast.
// On slower ones all that is computed takes longer by one factor, which the KV's way does
// not: so it is the ratio of what is computed that decides, without the hand-over. Where
// nothing runs at the worker for answers, one place is as good as two, and nothing is moved.
// Where answers run there, the prompt goes elsewhere: on a fast machine that costs the
// request too much by the milliseconds of a hand-over at most; on a slow one, a prompt among
// running answers holds all of them up for seconds.
func (s *Split) safe() bool { return s.PrefillMillis+s.DecodeMillis < clearly*s.WholeMillis }

// Words says what was decided and why; empty if nobody decided.
func (s *Split) Words() string {
	what := "prompt and answer on one worker"
	if s.Apart {
		what = "prompt computed apart from the answer"
	}
	switch s.Reason {
	case SplitByMode:
		return fmt.Sprintf("%s: --disaggregation %s", what, s.Mode)
	case SplitByRequest:
		return what + ": the request says so"
	case SplitNoPrefill:
		return what + ": no prefill worker may take it now"
	case SplitNoDecode:
		return what + ": no worker that generates answers has room for all of it"
	case SplitShort:
		return fmt.Sprintf("%s: %d tokens are to be computed at worker %s, which is little", what, s.New, s.Whole)
	case SplitUnknown:
		return fmt.Sprintf("%s: workers whose speed is not known yet are compared as if they were fast: %.1f ms on one worker (%s; %d tokens to compute), against %.1f ms of prefill (%s) and %.1f of decode, without the hand-over",
			what, s.WholeMillis, s.Whole, s.New, s.PrefillMillis, s.Prefill, s.DecodeMillis)
	case SplitByCost:
		return fmt.Sprintf("%s: %.1f ms on one worker (%s; %d tokens to compute), against %.1f ms of prefill (%s), %.1f of hand-over and %.1f of decode",
			what, s.WholeMillis, s.Whole, s.New, s.PrefillMillis, s.Prefill, s.HandoverMillis, s.DecodeMillis)
	}
	return ""
}
