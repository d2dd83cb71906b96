package placement_test

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

func TestCalibration(t *testing.T) {
	var c placement.Calibration
	if c.Ratio(0.5) != 1 || c.Confidence() != 0 {
		t.Errorf("nothing is known: got the ratio %v, confidence %v", c.Ratio(0.5), c.Confidence())
	}
	for _, bad := range [][2]float64{{0, 1}, {1, 0}, {-1, 1}, {math.NaN(), 1}, {1, math.Inf(1)}, {math.Inf(1), 1}} {
		c.Observe(bad[0], bad[1])
	}
	if c.Count() != 0 {
		t.Errorf("%d were counted that are no times", c.Count())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		c.Observe(100, 100*math.Exp2(rng.Float64())) // from 1 to 2, evenly in the logarithm
	}
	for q, want := range map[float64]float64{0.1: math.Exp2(0.1), 0.5: math.Sqrt2, 0.9: math.Exp2(0.9)} {
		if got := c.Ratio(q); got < want*0.94 || got > want*1.06 {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if got := c.Confidence(); got < 0.2 || got > 0.45 {
		t.Errorf("a third is within a quarter: got the confidence %v", got)
	}
	for range 2000 { // predictions have become right
		c.Observe(100, 101)
	}
	if p50, p90 := c.Ratio(0.5), c.Ratio(0.9); p50 < 0.95 || p90 > 1.08 || c.Confidence() < 0.95 {
		t.Errorf("got the ratios %v and %v, confidence %v", p50, p90, c.Confidence())
	}
	c = placement.Calibration{}
	c.Observe(1, 1e9)
	c.Observe(1e9, 1)
	if got := c.Ratio(1); got > 17 {
		t.Errorf("the largest ratio there is: got %v", got)
	}
}

// TestEstimator: the model of a machine is found from what requests took at it.
func TestEstimator(t *testing.T) {
	truth := perfmodel.ClosedForm{PrefillFixedSeconds: 20e-3, PrefillSecondsPerToken: 60e-6, PrefillSecondsPerPair: 4e-9, DecodeFixedSeconds: 15e-3, DecodeSecondsPerSequence: 10e-6, DecodeSecondsPerKVToken: 90e-9}
	e := placement.NewEstimator(perfmodel.ClosedForm{})
	if e.Known() {
		t.Error("it is known before anything happened")
	}
	rng := rand.New(rand.NewPCG(4, 4))
	for range 400 {
		n, context, decodes := 100+rng.IntN(6000), rng.IntN(8000), rng.IntN(30)
		b := perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: n, Context: context}}, Decodes: decodes, KVTokens: decodes * 1500}
		took := time.Duration(truth.StepSeconds(&b) * (0.97 + 0.06*rng.Float64()) * 1e9)
		e.First(placement.Sample{New: n, Pairs: float64(n) * (float64(context) + float64(n)/2), Decodes: decodes, KVTokens: decodes * 1500, Took: took}, 100, took)
		g := perfmodel.Batch{Decodes: decodes + 1, KVTokens: (decodes + 1) * (500 + rng.IntN(2000))}
		e.Gap(placement.Sample{Decodes: g.Decodes, KVTokens: g.KVTokens, Took: time.Duration(truth.StepSeconds(&g) * 1e9)})
	}
	m := e.Model()
	for _, b := range []perfmodel.Batch{{Chunks: []perfmodel.Chunk{{New: 3000}}}, {Chunks: []perfmodel.Chunk{{New: 500, Context: 6000}}, Decodes: 20, KVTokens: 30000}, {Decodes: 20, KVTokens: 30000}} {
		if got, want := m.StepSeconds(&b), truth.StepSeconds(&b); math.Abs(got-want) > 0.05*want {
			t.Errorf("%+v: got %v s, want %v", b, got, want)
		}
	}
	if !e.Known() || e.Calibration().Count() != 400 {
		t.Errorf("known %t, %d predictions", e.Known(), e.Calibration().Count())
	}
	// Nonsense changes nothing but is survived.
	e.First(placement.Sample{New: -5, Took: -time.Second}, math.NaN(), -time.Second)
	e.Gap(placement.Sample{Decodes: -1, KVTokens: math.MinInt, Took: 1000 * time.Hour})
}

// Prompts that are computed in one step have their first tokens at once: the step is
// learned from, not that the second took no time.
func TestEstimatorOneStep(t *testing.T) {
	truth := perfmodel.ClosedForm{PrefillFixedSeconds: 20e-3, PrefillSecondsPerToken: 60e-6}
	e := placement.NewEstimator(perfmodel.ClosedForm{})
	rng := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		all, together := 0, 1+rng.IntN(3)
		var prompts []int
		for range together {
			prompts = append(prompts, 100+rng.IntN(2000))
			all += prompts[len(prompts)-1]
		}
		took := time.Duration(truth.StepSeconds(&perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: all}}}) * 1e9)
		for i, n := range prompts {
			s := placement.Sample{New: n, Took: took}
			if i > 0 {
				s.Took = 10 * time.Microsecond
			}
			e.First(s, 0, took)
		}
	}
	m := e.Model()
	for _, n := range []int{500, 4000} {
		b := perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: n}}}
		if got, want := m.StepSeconds(&b), truth.StepSeconds(&b); math.Abs(got-want) > 0.1*want {
			t.Errorf("%d tokens: got %v s, want %v", n, got, want)
		}
	}
}

// loop is a small closed loop: machines that compute prompts one after another and
// answers beside, whose speeds the router knows, learns, or never finds out.
type loop struct {
	f      placement.Fleet
	truth  []perfmodel.ClosedForm
	learn  []*placement.Estimator
	busy   []time.Time
	events loopEvents
	ttft   []time.Duration
	e2e    []time.Duration
}

type loopEvent struct {
	at, arrived time.Time
	kind        int // arrive, first token, end
	worker      int
	predicted   float64
	gap         time.Duration
	running     placement.Sample
	b           *placement.Booking
}

type loopEvents []loopEvent

func (l loopEvents) Len() int           { return len(l) }
func (l loopEvents) Less(i, j int) bool { return l[i].at.Before(l[j].at) }
func (l loopEvents) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *loopEvents) Push(x any)        { *l = append(*l, x.(loopEvent)) }
func (l *loopEvents) Pop() any {
	last := len(*l) - 1
	x := (*l)[last]
	*l = (*l)[:last]
	return x
}

const answerTokens = 60

func (l *loop) run(p placement.Params, requests int, gap time.Duration) {
	rng := rand.New(rand.NewPCG(7, 7))
	at := begin
	for range requests {
		at = at.Add(time.Duration(rng.ExpFloat64() * float64(gap)))
		heap.Push(&l.events, loopEvent{at: at, arrived: at})
	}
	for n := uint64(0); l.events.Len() > 0; {
		switch e := heap.Pop(&l.events).(loopEvent); e.kind {
		case 0:
			n++
			q := placement.Request{Seed: placement.Seed("", 0, int(n)), Now: e.at, Tokens: 500 + rng.IntN(6000), BlockSize: 16, Expected: answerTokens}
			d := l.f.Decide(p, q)
			terms := d.Terms(d.Winner)
			e.predicted, e.worker = terms.Wait+terms.Prefill, d.Winner
			c, m := l.f.Touch(d.Winner), &l.truth[d.Winner]
			c.Turn = n
			e.b = &placement.Booking{Tokens: q.Tokens + answerTokens, Prompt: q.Tokens, New: q.Tokens}
			running := c.Booked - c.Prefills
			c.Book(e.b, e.at)
			start := e.at
			if l.busy[d.Winner].After(start) {
				start = l.busy[d.Winner]
			}
			step := perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: q.Tokens}}, Decodes: running, KVTokens: c.KVTokens}
			e.at, e.kind = start.Add(time.Duration(m.StepSeconds(&step)*1e9)), 1
			l.busy[d.Winner] = e.at
			heap.Push(&l.events, e)
		case 1:
			c := l.f.Touch(e.worker)
			s := c.Started(e.b, e.at)
			took := e.at.Sub(e.arrived)
			l.ttft = append(l.ttft, took)
			step := perfmodel.Batch{Decodes: c.Booked - c.Prefills, KVTokens: c.KVTokens}
			e.gap = time.Duration(l.truth[e.worker].StepSeconds(&step) * 1e9)
			e.running = c.Running(e.gap)
			if l.learn != nil {
				l.learn[e.worker].First(s, e.predicted, took)
				l.teach(e.worker)
			}
			e.at, e.kind = e.at.Add(e.gap*answerTokens), 2
			heap.Push(&l.events, e)
		case 2:
			l.f.Touch(e.worker).Release(e.b, e.at)
			l.e2e = append(l.e2e, e.at.Sub(e.arrived))
			if l.learn != nil {
				l.learn[e.worker].Gap(e.running)
			}
		}
	}
}

// teach hands a worker's model to the router once it is one.
func (l *loop) teach(worker int) {
	if e := l.learn[worker]; e.Known() {
		_ = l.f.Touch(worker).SetModel(e.Model())
	}
}

// TestUnequal: over machines of which some are five times as slow as others, the
// policy kv finds out how fast each is, without being told anything, and then does
// nearly as well as if it had known; and much better than policies that do not look.
func TestUnequal(t *testing.T) {
	fast := perfmodel.ClosedForm{PrefillFixedSeconds: 8e-3, PrefillSecondsPerToken: 20e-6, PrefillSecondsPerPair: 1.6e-9, DecodeFixedSeconds: 5e-3, DecodeSecondsPerSequence: 4e-6, DecodeSecondsPerKVToken: 45e-9}
	slow := perfmodel.ClosedForm{PrefillFixedSeconds: 40e-3, PrefillSecondsPerToken: 100e-6, PrefillSecondsPerPair: 8e-9, DecodeFixedSeconds: 25e-3, DecodeSecondsPerSequence: 20e-6, DecodeSecondsPerKVToken: 225e-9}
	run := func(p placement.Policy, known, learn bool) (p50, p99, mean float64, l *loop) {
		l = &loop{truth: []perfmodel.ClosedForm{fast, slow, fast, slow}, busy: make([]time.Time, 4)}
		for i, m := range l.truth {
			c := placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(i + 1), Epoch: 1}, State: placement.Up}
			if known {
				c.Model = m
			}
			l.f.Add(c)
			if learn {
				l.learn = append(l.learn, placement.NewEstimator(perfmodel.ClosedForm{}))
			}
		}
		l.run(placement.DefaultParams(p), 8000, 42*time.Millisecond)
		half := func(all []time.Duration) []time.Duration { return slices.Sorted(slices.Values(all[len(all)/4:])) }
		first, whole := half(l.ttft), half(l.e2e)
		for i := range l.f.Len() {
			if c := &l.f.Candidates()[i]; c.Booked != 0 || c.PrefillTokens != 0 || c.KVTokens != 0 {
				t.Errorf("all is over, and booked is %+v", c)
			}
		}
		sum := 0.0
		for _, d := range whole {
			sum += d.Seconds()
		}
		return first[len(first)/2].Seconds(), first[len(first)*99/100].Seconds(), sum / float64(len(whole)), l
	}
	// LeastLoaded is quick for those that it sends to the fast ones, and slow for the
	// others: what it does worse shows in the tail and in the mean.
	know50, know99, knowAll, _ := run(placement.KV, true, false)
	learn50, learn99, learnAll, l := run(placement.KV, false, true)
	turn50, turn99, turnAll, _ := run(placement.RoundRobin, false, false)
	load50, load99, loadAll, _ := run(placement.LeastLoaded, false, false)
	t.Logf("TTFT p50, p99, e2e mean in s: known %.3f %.3f %.3f, learned %.3f %.3f %.3f, in turn %.3f %.3f %.3f, least loaded %.3f %.3f %.3f",
		know50, know99, knowAll, learn50, learn99, learnAll, turn50, turn99, turnAll, load50, load99, loadAll)
	if learn50 > 1.1*know50 || learn99 > 1.15*know99 || learnAll > 1.1*knowAll {
		t.Error("what it learns is worth much less than knowing")
	}
	if learn50 > 0.8*turn50 || learn99 > 0.8*turn99 || learn99 > 0.7*load99 {
		t.Error("it is not better than policies that do not look")
	}
	for i, e := range l.learn {
		c := e.Calibration()
		if p50, p90 := c.Ratio(0.5), c.Ratio(0.9); p50 < 0.8 || p50 > 1.25 || p90 > 2 {
			t.Errorf("worker %d: observed over predicted is %.2f in the middle, %.2f at the ninth decile", i, p50, p90)
		}
	}
}

func TestShadow(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	same, other := placement.Shadow{Params: placement.DefaultParams(placement.KV)}, placement.Shadow{Params: placement.DefaultParams(placement.RoundRobin)}
	turned := placement.Shadow{Params: placement.DefaultParams(placement.KV)}
	const n = 500
	for i := range n {
		cs := busy(8, rng)
		q := ask(i, 8, rng)
		d := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
		if same.Observe(&d) != d.Winner {
			t.Fatal("the same policy disagrees with itself")
		}
		other.Observe(&d)
		r := placement.Decide(placement.DefaultParams(placement.RoundRobin), q, cs, nil)
		turned.Observe(&r)
	}
	if s := same.Stats(); s.Decisions != n || s.Disagreements != 0 || s.RegretMS() != 0 {
		t.Errorf("the same policy: %+v", s)
	}
	o, u := other.Stats(), turned.Stats()
	if o.Disagreements < n/2 || o.Better > 0 || o.Worse != o.Disagreements || o.RegretMS() >= 0 {
		t.Errorf("round-robin in the shadow of kv: %+v", o)
	}
	if u.Disagreements != o.Disagreements || u.Worse > 0 || math.Abs(u.RegretMS()+o.RegretMS()) > 1e-6*u.RegretMS() {
		t.Errorf("kv in the shadow of round-robin: %+v, and the other way round %+v", u, o)
	}
}
