package placement

import (
	"math"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// Estimator follows one worker: how long its steps take, from what requests took
// there, and how far predictions were off.
type Estimator struct {
	online *perfmodel.Online
	error  Calibration
	// prompts are those of the last step that computed any.
	prompts Sample
	timed   int // steps with prompts that were learned from
	chunk   [1]perfmodel.Chunk
}

// NewEstimator returns an Estimator that believes prior, as of a worker of the same
// fleet, until it knows better; the zero model is for none.
func NewEstimator(prior perfmodel.ClosedForm) *Estimator {
	c := perfmodel.DefaultOnlineConfig()
	// A router sees requests, not steps: a few hundred of them tell of the present.
	c.Forgetting = 0.995
	if prior == (perfmodel.ClosedForm{}) {
		prior = neutral
	}
	c.Prior, c.PriorSteps = prior, 0.05
	online, err := perfmodel.NewOnline(c)
	if err != nil {
		c.Prior = neutral
		if online, err = perfmodel.NewOnline(c); err != nil {
			panic("BUG: the neutral model is refused: " + err.Error())
		}
	}
	return &Estimator{online: online}
}

// Sample is a time that was measured at a candidate, and what was done in it.
type Sample struct {
	// New tokens of prompts were computed, with Pairs of one of them and one that it
	// attends to, in steps of at most StepTokens; 0 is unknown.
	New        int
	Pairs      float64
	StepTokens int
	// Decodes sequences ran beside, and held KVTokens between them.
	Decodes, KVTokens int
	// Took is the time.
	Took time.Duration
}

// Running is the sample of a step of those that run alone, which took so long: the time
// between two tokens of a sequence while no prompt was pending.
func (c *Candidate) Running(took time.Duration) Sample {
	return Sample{Decodes: max(c.Booked-c.Prefills, 1), KVTokens: c.KVTokens, Took: took}
}

// First takes in what Started has returned, and how long the first token took of that
// request, which was predicted to take so many milliseconds. What cannot be is left
// out.
func (e *Estimator) First(s Sample, predictedMS float64, ttft time.Duration) {
	e.error.Observe(predictedMS, ttft.Seconds()*1e3)
	if s.New <= 0 {
		return
	}
	// Prompts of one step have their first tokens at once: they are one sample.
	if s.Took*sameStep < e.prompts.Took {
		e.prompts.New += s.New
		e.prompts.Pairs += s.Pairs
		e.prompts.Took += max(s.Took, 0)
		return
	}
	e.observe(&e.prompts)
	e.prompts = s
}

// Gap takes in what Running has made.
func (e *Estimator) Gap(s Sample) { e.observe(&s) }

// observe learns from a sample, if it is one. A prompt of several steps counts as their
// mean.
func (e *Estimator) observe(s *Sample) {
	steps := 1.0
	b := perfmodel.Batch{Decodes: clamp(s.Decodes, 0, maxRequests), KVTokens: clamp(s.KVTokens, 0, maxTokens)}
	if n := float64(clamp(s.New, 0, maxTokens)); n > 0 {
		e.timed++
		if s.StepTokens > 0 {
			steps = math.Ceil(n / float64(s.StepTokens))
		}
		each := math.Ceil(n / steps)
		context := clampFloat(s.Pairs/n-each/2, 0, maxTokens)
		e.chunk[0] = perfmodel.Chunk{New: int(each), Context: int(context)}
		b.Chunks = e.chunk[:]
	}
	_ = e.online.Observe(&b, s.Took.Seconds()/steps) // it refuses what is no step and no duration
}

// Known reports whether the model is more than the prior: it has seen enough.
func (e *Estimator) Known() bool { return e.online.Count() >= enoughSamples }

// Timed reports whether the model knows of computing prompts, too: it has seen enough.
func (e *Estimator) Timed() bool { return e.Known() && e.timed >= enoughPrompts }

// Model is the present estimate, the prior at first.
func (e *Estimator) Model() perfmodel.ClosedForm { return e.online.Model() }

// Calibration is how far predictions were off.
func (e *Estimator) Calibration() *Calibration { return &e.error }

// Calibration follows by which factor observed times differ from predicted ones. It
// keeps a histogram of the logarithm that forgets slowly, so its quantiles are those
// of the last few hundred. The zero Calibration is empty.
type Calibration struct {
	counts [ratioBins]float32
	weight float64
	all    uint64
}

const (
	// Ratios from 1/16 to 16, eight bins an octave; what is beyond is in the outermost.
	ratioOctaves, ratioSteps = 4, 8
	ratioBins                = 2*ratioOctaves*ratioSteps + 1
	ratioMemory              = 0.995 // what a count keeps per later one
)

// Observe takes in a time that was predicted and then observed. What is not positive
// and finite is left out.
func (c *Calibration) Observe(predicted, observed float64) {
	ratio := observed / predicted
	if !(ratio > 0) || !(predicted > 0) || math.IsInf(ratio, 0) {
		return
	}
	for i := range c.counts {
		c.counts[i] *= ratioMemory
	}
	at := int(math.Round(clampFloat(math.Log2(ratio), -ratioOctaves, ratioOctaves)*ratioSteps)) + ratioOctaves*ratioSteps
	c.counts[at]++
	c.weight = c.weight*ratioMemory + 1
	c.all++
}

// Count is how many were taken in.
func (c *Calibration) Count() uint64 { return c.all }

// Ratio is a quantile, in 0…1, of observed over predicted, to about 5 %; 1 where nothing
// is known.
func (c *Calibration) Ratio(quantile float64) float64 {
	if c.weight == 0 {
		return 1
	}
	left := clampFloat(quantile, 0, 1) * c.weight
	for i, n := range c.counts {
		if left -= float64(n); left <= 0 && n > 0 || i == ratioBins-1 {
			// Within a bin the counts are taken to lie evenly.
			part := 0.0
			if n > 0 {
				part = clampFloat(1+left/float64(n), 0, 1) - 0.5
			}
			return math.Exp2((float64(i-ratioOctaves*ratioSteps) + part) / ratioSteps)
		}
	}
	return 1
}

// Confidence is how far predictions can be relied on, in 0…1: the part of the recent
// ones within a quarter of what was observed, one more that was not counted in.
func (c *Calibration) Confidence() float64 {
	good := 0.0
	for i := -2; i <= 2; i++ { // 2^(±2.5/8) is 0.8 and 1.24
		good += float64(c.counts[ratioOctaves*ratioSteps+i])
	}
	return good / (c.weight + 1)
}

// Shadow makes the decisions of another policy from the same inputs, and counts where
// they differ and what that costs. It changes nothing, and is not for use by two
// goroutines at once.
type Shadow struct {
	// Params are those of the other policy.
	Params Params
	stats  ShadowStats
	scores []Score
}

// ShadowStats are the counts of a Shadow.
type ShadowStats struct {
	// Decisions were made twice; in Disagreements of them the winners differ.
	Decisions, Disagreements uint64
	// Better and Worse count those in which the other policy's winner is predicted to
	// cost less, or more, by the terms of the policy kv; Saved and Lost are the
	// milliseconds between the two.
	Better, Worse uint64
	SavedMS       float64
	LostMS        float64
}

// RegretMS is how many milliseconds a decision the policy in use costs more than the
// other one would; less than zero speaks for the policy in use.
func (s ShadowStats) RegretMS() float64 {
	if s.Decisions == 0 {
		return 0
	}
	return (s.SavedMS - s.LostMS) / float64(s.Decisions)
}

// Observe makes a decision again by the other policy. It returns the winner. Decisions
// without a winner are not counted.
func (s *Shadow) Observe(d *Decision) int {
	if d.Winner == None {
		return None
	}
	other := Decision{Params: s.Params, Request: d.Request, Candidates: d.Candidates}
	if s.Params.Prior == d.Params.Prior {
		other.table, other.now = d.table, d.now // they are worked out alike
	}
	other.Scores = slices.Grow(s.scores[:0], len(d.Candidates))[:len(d.Candidates)]
	s.scores = other.Scores
	other.make()
	if other.Winner == None { // a policy that wants more of a request
		return None
	}
	s.stats.Decisions++
	if other.Winner == d.Winner {
		return other.Winner
	}
	s.stats.Disagreements++
	saved := d.Terms(d.Winner).total() - d.Terms(other.Winner).total()
	switch {
	case saved > 0:
		s.stats.Better++
		s.stats.SavedMS += saved
	case saved < 0:
		s.stats.Worse++
		s.stats.LostMS -= saved
	}
	return other.Winner
}

// Stats returns the counts so far.
func (s *Shadow) Stats() ShadowStats { return s.stats }
