package native

import (
	"math"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

const (
	// greedyBelow is the temperature under which drawing is greedy decoding:
	// dividing by less would only overflow.
	greedyBelow = 1e-5
	// groupIDs is the number of ids whose probabilities are summed together when
	// one is drawn.
	groupIDs = 512
	// negligible is the share of the likeliest id's probability below which a whole
	// group is left out; no random number of 53 bits reaches it.
	negligible = 1e-290
	// sortIDs is the number of candidates below which sorting them is the fastest
	// way to find a cut.
	sortIDs = 48
)

// sampler turns rows of logits into ids. It holds scratch memory only and belongs
// to the batch loop.
//
// An id is chosen in this order: logit bias; penalties (repetition, then
// frequency and presence); the ids that may not end the answer yet are taken out;
// greedy decoding ends here, with the lowest id of the largest logits. Otherwise
// the logits are divided by the temperature, min_p, top_k and top_p narrow the
// ids in this order, each on what the one before left, and one is drawn by walking
// the ids upwards until their share of the probability exceeds a random number.
// Where a cut falls among ids of equal logits, the lowest ids stay.
//
// No filter sorts a vocabulary: candidates are looked for near the top first, and
// probabilities are summed by the vector kernels.
//
// Law: the result is a function of the logits, the request and the position.
type sampler struct {
	kernels            *kernel.Kernels
	kept               field
	band, upper, lower field
	order              []candidate
	weights            []float64
}

// pick returns the id for the output position of q, or false if the logits hold
// no number to choose by. It changes row.
func (s *sampler) pick(q *query, row []float32, position int) (dynamo.TokenID, bool) {
	q.adjust(row, position)
	best := s.kernels.Argmax(row)
	top := row[best]
	if math.IsInf(float64(top), 0) || top != top {
		return 0, false
	}
	p := &q.r.Sampling
	if p.Temperature < greedyBelow {
		return dynamo.TokenID(best), true
	}
	if p.Temperature != 1 {
		inverse := 1 / p.Temperature
		for i, v := range row {
			row[i] = float32(v-top) * inverse
		}
		top = 0
	}
	u := uniform(p.Seed, q.r.Choice, position)
	if (p.TopK == 0 || p.TopK >= len(row)) && (p.TopP == 0 || p.TopP == 1) && p.MinP == 0 {
		i, ok := s.draw(row, top, u)
		return dynamo.TokenID(i), ok
	}
	if !s.narrow(p, row, top) {
		return 0, false
	}
	i, ok := s.draw(s.kept.logits, top, u)
	return dynamo.TokenID(s.kept.ids[i]), ok
}

// narrow leaves in s.kept what min_p, top_k and top_p keep. It reports false if
// the logits are no numbers.
func (s *sampler) narrow(p *dynamo.Sampling, row []float32, top float32) bool {
	k, share, floor := p.TopK, float64(p.TopP), math.Inf(1)
	if k == 0 || k > len(row) {
		k = len(row)
	}
	if share == 0 {
		share = 1
	}
	if p.MinP > 0 {
		floor = depth(float64(p.MinP))
	}
	if k == len(row) && p.MinP == 0 {
		return s.nucleus(row, top, share)
	}
	s.gather(row, top, k, floor)
	if share == 1 {
		return true
	}
	mass := s.mass(s.kept.logits, top)
	s.kept.keep(s.reach(&s.kept, top, float64(share*mass)))
	return mass == mass
}

// gather leaves in s.kept the first k ids no deeper than floor below top.
func (s *sampler) gather(row []float32, top float32, k int, floor float64) {
	for width := 4.0; ; width *= 2 {
		if k == len(row) || width > 64 {
			width = math.Inf(1)
		}
		s.kept.gather(row, float32(float64(top)-min(width, floor)))
		if len(s.kept.ids) >= k || width >= floor {
			break
		}
	}
	if len(s.kept.ids) > k {
		s.kept.keep(s.count(&s.kept, top, k))
	}
}

// nucleus leaves in s.kept the fewest ids, likeliest first, whose probabilities
// reach share.
func (s *sampler) nucleus(row []float32, top float32, share float64) bool {
	_, log := s.kernels.LogSumExp(row)
	if log != log {
		return false
	}
	spread := float64(log) - float64(top)
	mass := float64(share * exp64Any(spread))
	// The flatter the distribution, the deeper the nucleus.
	for width := 2 + spread; ; width += 3 {
		if width > 64 {
			width = math.Inf(1)
		}
		s.kept.gather(row, float32(float64(top)-width))
		if math.IsInf(width, 1) || s.mass(s.kept.logits, top) >= mass {
			break
		}
	}
	s.kept.keep(s.reach(&s.kept, top, mass))
	return true
}

// mass is the sum of the probabilities of the given logits, top's being 1.
func (s *sampler) mass(logits []float32, top float32) float64 {
	if len(logits) == 0 {
		return 0
	}
	_, log := s.kernels.LogSumExp(logits)
	return exp64Any(float64(log) - float64(top))
}

// reach returns the candidate of f at which the probabilities, likeliest first,
// reach mass, or the last one.
func (s *sampler) reach(f *field, top float32, mass float64) candidate {
	s.halve(f, top, func(upper *field) bool {
		m := s.mass(upper.logits, top)
		if m >= mass {
			return true
		}
		mass -= m
		return false
	})
	for _, c := range s.order {
		if mass -= exp64(float64(c.logit) - float64(top)); mass <= 0 {
			return c
		}
	}
	return s.order[len(s.order)-1]
}

// count returns the k-th candidate of f.
func (s *sampler) count(f *field, top float32, k int) candidate {
	s.halve(f, top, func(upper *field) bool {
		n := len(upper.ids)
		if n >= k {
			return true
		}
		k -= n
		return false
	})
	return s.order[k-1]
}

// halve narrows f down to a few candidates, which it leaves in s.order: it splits
// them by value, and within says whether what is looked for is in the upper part;
// if not, it is in the lower one. top is the largest logit.
func (s *sampler) halve(f *field, top float32, within func(upper *field) bool) {
	s.band.ids, s.band.logits = append(s.band.ids[:0], f.ids...), append(s.band.logits[:0], f.logits...)
	low, high := top, top
	for _, v := range f.logits {
		low = min(low, v)
	}
	for len(s.band.ids) > sortIDs {
		bound := float32(float64(low) + float64((float64(high)-float64(low))/2))
		if bound <= low || bound >= high {
			break // two values at most
		}
		s.band.split(bound, &s.upper, &s.lower)
		if len(s.upper.ids) > 0 && within(&s.upper) {
			s.band, s.upper, low = s.upper, s.band, bound
		} else {
			s.band, s.lower, high = s.lower, s.band, bound
		}
	}
	s.order = s.band.sorted(s.order[:0])
}

// draw returns the index of the logit at the share u of all probability: first a
// group, by sums the vector kernels take, then one of it.
func (s *sampler) draw(logits []float32, top float32, u float64) (int, bool) {
	s.weights = s.weights[:0]
	sum := 0.0
	for at := 0; at < len(logits); at += groupIDs {
		w := 0.0
		if best, log := s.kernels.LogSumExp(logits[at:min(at+groupIDs, len(logits))]); !math.IsInf(float64(best), -1) {
			w = exp64Any(float64(log) - float64(top))
		}
		if w < negligible {
			w = 0
		}
		s.weights = append(s.weights, w)
		sum += w
	}
	if sum != sum {
		return 0, false
	}
	target, group := float64(u*sum), -1
	for i, w := range s.weights {
		if w == 0 {
			continue
		}
		group = i
		if target < w {
			break
		}
		target -= w
	}
	share := min(target/s.weights[group], 1)
	at := group * groupIDs
	return at + s.drawOne(logits[at:min(at+groupIDs, len(logits))], top, share), true
}

// drawOne returns the index of the logit at the share u of the probability of all.
func (s *sampler) drawOne(logits []float32, top float32, u float64) int {
	s.weights = s.weights[:0]
	sum := 0.0
	for _, v := range logits {
		w := exp64(float64(v) - float64(top))
		s.weights = append(s.weights, w)
		sum += w
	}
	target, last := float64(u*sum), 0
	for i, w := range s.weights {
		if w == 0 {
			continue
		}
		if last = i; target < w {
			break
		}
		target -= w
	}
	return last
}

// logprob returns the log-probability of id under row, the model's logits as they
// are, with the n likeliest alternatives. It must run before pick changes the row.
func (s *sampler) logprob(row []float32, id dynamo.TokenID, n int) dynamo.TokenLogprob {
	top, sum := s.kernels.LogSumExp(row)
	out := dynamo.TokenLogprob{ID: id, Logprob: row[id] - sum}
	if n = min(n, len(row)); n == 0 {
		return out
	}
	s.gather(row, top, n, math.Inf(1))
	s.order = s.kept.sorted(s.order[:0])
	out.Top = make([]dynamo.TopLogprob, len(s.order))
	for i, c := range s.order {
		out.Top[i] = dynamo.TopLogprob{ID: dynamo.TokenID(c.id), Logprob: c.logit - sum}
	}
	return out
}
