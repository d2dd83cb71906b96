package native

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

func newTestSampler(t testing.TB) *sampler {
	t.Helper()
	k, err := kernel.New(kernel.Best())
	if err != nil {
		t.Fatal(err)
	}
	return &sampler{kernels: k}
}

// randomRow returns logits as a model might: a few high ones, ties, a long tail.
func randomRow(random *rand.Rand, n int, spread float64) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = float32(random.NormFloat64() * spread)
		if random.IntN(10) == 0 {
			row[i] = row[random.IntN(i+1)]
		}
	}
	return row
}

// distribution is the definition of sampling in float64: the probability of each
// id, in the documented order of the steps.
func distribution(r *dynamo.Request, stops []dynamo.TokenID, output []dynamo.TokenID, logits []float32) []float64 {
	p := &r.Sampling
	x := make([]float64, len(logits))
	for i, v := range logits {
		x[i] = float64(v)
	}
	for _, b := range p.LogitBias {
		x[b.ID] += float64(b.Bias)
	}
	if p.RepetitionPenalty != 0 {
		for id := range x {
			if t := dynamo.TokenID(id); slices.Contains(r.Tokens, t) || slices.Contains(output, t) {
				if x[id] > 0 {
					x[id] /= float64(p.RepetitionPenalty)
				} else {
					x[id] *= float64(p.RepetitionPenalty)
				}
			}
		}
	}
	for id := range x {
		times := 0
		for _, o := range output {
			if o == dynamo.TokenID(id) {
				times++
			}
		}
		x[id] -= float64(times) * float64(p.FrequencyPenalty)
		if times > 0 {
			x[id] -= float64(p.PresencePenalty)
		}
	}
	if len(output)+1 < r.MinTokens {
		for _, id := range stops {
			x[id] = math.Inf(-1)
		}
	}
	if p.Temperature > 0 {
		for i := range x {
			x[i] /= float64(p.Temperature)
		}
	}
	return filtered(p, x)
}

func filtered(p *dynamo.Sampling, x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(x[b], x[a]), cmp.Compare(a, b)) })
	prob, top, sum := make([]float64, len(x)), x[order[0]], 0.0
	for i := range x {
		prob[i] = math.Exp(x[i] - top)
	}
	if p.Temperature == 0 {
		clear(prob)
		prob[order[0]] = 1
		return prob
	}
	for rank, i := range order {
		if p.MinP > 0 && prob[i] < float64(p.MinP) || p.TopK > 0 && rank >= p.TopK {
			prob[i] = 0
		}
		sum += prob[i]
	}
	if p.TopP > 0 {
		mass := 0.0
		for _, i := range order {
			w := prob[i]
			if mass >= float64(p.TopP)*sum {
				prob[i] = 0
			}
			mass += w
		}
	}
	sum = 0
	for _, w := range prob {
		sum += w
	}
	for i := range prob {
		prob[i] /= sum
	}
	return prob
}

func randomSampling(random *rand.Rand, vocab int) dynamo.Sampling {
	p := dynamo.Sampling{Temperature: 0.2 + 1.5*random.Float32(), Seed: random.Uint64()}
	maybe := func(set func()) {
		if random.IntN(3) == 0 {
			set()
		}
	}
	maybe(func() { p.Temperature = 0 })
	maybe(func() { p.Temperature = 1 })
	maybe(func() { p.TopK = 1 + random.IntN(vocab+10) })
	maybe(func() { p.TopK = 1 + random.IntN(8) })
	maybe(func() { p.TopP = 0.05 + 0.95*random.Float32() })
	maybe(func() { p.MinP = random.Float32() * 0.3 })
	maybe(func() { p.FrequencyPenalty = random.Float32()*3 - 1 })
	maybe(func() { p.PresencePenalty = random.Float32()*3 - 1 })
	maybe(func() { p.RepetitionPenalty = 0.5 + random.Float32()*1.5 })
	maybe(func() {
		for range 5 {
			p.LogitBias = append(p.LogitBias, dynamo.LogitBias{ID: dynamo.TokenID(random.IntN(vocab)), Bias: random.Float32()*8 - 4})
		}
	})
	return p
}

// TestSamplerDefinition compares each drawn id with the one the float64
// definition draws for the same random number.
func TestSamplerDefinition(t *testing.T) {
	s := newTestSampler(t)
	close, total := 0, 0
	for i := range 2500 {
		random := rand.New(rand.NewPCG(11, uint64(i)))
		vocab := 2 + random.IntN(2000)
		ids := func(n int) (out []dynamo.TokenID) {
			for range random.IntN(n) {
				out = append(out, dynamo.TokenID(random.IntN(vocab)))
			}
			return out
		}
		r := &dynamo.Request{Tokens: ids(20), Resume: ids(10), StopTokens: ids(2), MinTokens: random.IntN(12), Sampling: randomSampling(random, vocab), Choice: random.IntN(3)}
		row := randomRow(random, vocab, []float64{0.1, 1, 3, 10}[i%4])
		want := distribution(r, r.StopTokens, r.Resume, row)
		q := newQuery(r, nil)
		got, ok := s.pick(&q, row, len(r.Resume))
		if !ok {
			t.Fatalf("case %d: no id", i)
		}
		u := uniform(r.Sampling.Seed, r.Choice, len(r.Resume))
		low, high := 0.0, 0.0
		for id := range got + 1 {
			low, high = high, high+want[id]
		}
		total++
		// float32 rounding moves the borders of an id's share a little.
		const slack = 3e-5
		if u < low-slack || u > high+slack {
			t.Fatalf("case %d: drew %d, whose share is [%v, %v), for %v; %+v", i, got, low, high, u, r.Sampling)
		}
		if want[got] == 0 {
			close++
		}
	}
	if close > total/500 {
		t.Errorf("%d of %d ids are outside the definition's support", close, total)
	}
}

// TestSamplerDistribution is a chi-square test over many positions of one seed.
func TestSamplerDistribution(t *testing.T) {
	s := newTestSampler(t)
	const draws = 15000
	for i, p := range []dynamo.Sampling{
		{Temperature: 1}, {Temperature: 0.7}, {Temperature: 1.3, TopK: 20}, {Temperature: 1, TopP: 0.8}, {Temperature: 1, MinP: 0.05},
		{Temperature: 0.9, TopK: 30, TopP: 0.9, MinP: 0.01},
	} {
		random := rand.New(rand.NewPCG(5, uint64(i)))
		const vocab = 1500
		logits := randomRow(random, vocab, 2.5)
		p.Seed = 77
		r := &dynamo.Request{Sampling: p, Tokens: []dynamo.TokenID{0}}
		want := distribution(r, nil, nil, logits)
		q := newQuery(r, nil)
		counts, row := make([]int, vocab), make([]float32, vocab)
		for position := range draws {
			copy(row, logits)
			id, ok := s.pick(&q, row, position)
			if !ok {
				t.Fatal("no id")
			}
			counts[id]++
		}
		chi, freedom, rest, restCount := 0.0, -1.0, 0.0, 0
		for id, w := range want {
			if e := w * draws; e < 5 {
				rest, restCount = rest+e, restCount+counts[id]
			} else {
				chi += (float64(counts[id]) - e) * (float64(counts[id]) - e) / e
				freedom++
			}
		}
		if rest > 0 {
			chi += (float64(restCount) - rest) * (float64(restCount) - rest) / rest
			freedom++
		}
		// Four standard deviations of the chi-square distribution.
		if limit := freedom + 4*math.Sqrt(2*freedom); chi > limit {
			t.Errorf("%+v: chi-square is %.0f with %.0f degrees of freedom, limit %.0f", p, chi, freedom, limit)
		}
	}
}

func TestSamplerGreedyTie(t *testing.T) {
	s := newTestSampler(t)
	row := slices.Repeat([]float32{1}, 1000)
	row[3], row[700], row[999] = 5, 5, 5
	for _, p := range []dynamo.Sampling{{}, {Temperature: 1, TopK: 1}, {Temperature: 1, TopP: 1e-6}, {Temperature: 1e-9}} {
		q := newQuery(&dynamo.Request{Sampling: p}, nil)
		if id, ok := s.pick(&q, slices.Clone(row), 0); !ok || id != 3 {
			t.Errorf("%+v: got %d, want the lowest of equal ids", p, id)
		}
	}
}

func TestSamplerNoNumbers(t *testing.T) {
	s := newTestSampler(t)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, row := range [][]float32{{nan, nan}, {inf, 0}, {-inf, -inf}} {
		q := newQuery(&dynamo.Request{Sampling: dynamo.Sampling{Temperature: 1}}, nil)
		if id, ok := s.pick(&q, row, 0); ok {
			t.Errorf("%v: drew %d", row, id)
		}
	}
}

func TestSamplerExtremes(t *testing.T) {
	s := newTestSampler(t)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		row := randomRow(random, 3000, 1e4)
		if i%3 == 0 {
			for j := range row {
				if random.IntN(3) > 0 {
					row[j] = float32(math.Inf(-1))
				}
			}
			row[random.IntN(len(row))] = 3e38
		}
		p := randomSampling(random, len(row))
		p.LogitBias = nil
		q := newQuery(&dynamo.Request{Sampling: p}, nil)
		if id, ok := s.pick(&q, row, i); !ok || int(id) >= len(row) {
			t.Fatalf("%+v: got %d, %t", p, id, ok)
		}
	}
}

func TestLogprob(t *testing.T) {
	s := newTestSampler(t)
	random := rand.New(rand.NewPCG(2, 2))
	for _, vocab := range []int{1, 7, 1000, 50000} {
		row := randomRow(random, vocab, 4)
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		for _, n := range []int{0, 1, 5, 20} {
			id := dynamo.TokenID(random.IntN(vocab))
			got := s.logprob(row, id, n)
			if want := float64(row[id]) - math.Log(sum); got.ID != id || math.Abs(float64(got.Logprob)-want) > 1e-5 {
				t.Fatalf("logprob of %d is %v, want %v", id, got.Logprob, want)
			}
			order := make([]dynamo.TokenID, vocab)
			for i := range order {
				order[i] = dynamo.TokenID(i)
			}
			slices.SortFunc(order, func(a, b dynamo.TokenID) int { return cmp.Or(cmp.Compare(row[b], row[a]), cmp.Compare(a, b)) })
			if len(got.Top) != min(n, vocab) {
				t.Fatalf("got %d alternatives, want %d", len(got.Top), min(n, vocab))
			}
			for i, a := range got.Top {
				if want := float64(row[order[i]]) - math.Log(sum); a.ID != order[i] || math.Abs(float64(a.Logprob)-want) > 1e-5 {
					t.Fatalf("alternative %d is %v, want id %d with %v", i, a, order[i], want)
				}
			}
		}
	}
}

func TestExp64(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for range 100000 {
		x := -random.Float64() * math.Pow(10, float64(random.IntN(6)-3))
		if x < -600 {
			continue
		}
		if got, want := exp64(x), math.Exp(x); math.Abs(got/want-1) > 1e-10 {
			t.Fatalf("exp(%v) is %v, want %v", x, got, want)
		}
	}
	if exp64(0) != 1 || exp64(-1e300) != 0 || exp64(math.Inf(-1)) != 0 {
		t.Errorf("got %v, %v, %v at the edges", exp64(0), exp64(-1e300), exp64(math.Inf(-1)))
	}
}

// TestPhilox checks the known answers of the generator's authors (Random123,
// kat_vectors).
func TestPhilox(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     uint64
		want    [4]uint32
	}{
		{[4]uint32{}, 0, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}, math.MaxUint64, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0_a4093822, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(c.counter, c.key); got != c.want {
			t.Errorf("philox(%x, %x) is %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	random := rand.New(rand.NewPCG(4, 4))
	logits := randomRow(random, 49152, 3)
	for _, c := range []struct {
		name string
		p    dynamo.Sampling
	}{
		{"greedy", dynamo.Sampling{}}, {"T=1", dynamo.Sampling{Temperature: 1}}, {"T=0.7", dynamo.Sampling{Temperature: 0.7}}, {"top_p=0.95", dynamo.Sampling{Temperature: 1, TopP: 0.95}},
		{"T=0.7,top_k=50,top_p=0.9", dynamo.Sampling{Temperature: 0.7, TopK: 50, TopP: 0.9}}, {"min_p=0.05", dynamo.Sampling{Temperature: 1, MinP: 0.05}},
	} {
		b.Run(fmt.Sprint(c.name), func(b *testing.B) {
			s := newTestSampler(b)
			q := newQuery(&dynamo.Request{Sampling: c.p}, nil)
			row, n := make([]float32, len(logits)), 0
			b.ReportAllocs()
			for b.Loop() {
				copy(row, logits)
				s.pick(&q, row, n)
				n++
			}
		})
	}
}
