package stats_test

import (
	"math"
	"testing"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// byHand is the interval of a quantile with every value of every draw drawn.
func byHand(values []float64, q float64, draws int, seed uint64) (low, high float64) {
	next := draw(seed)
	got := make([]float64, draws)
	again := make([]float64, len(values))
	for i := range got {
		for j := range again {
			again[j] = values[int(next()*float64(len(values)))]
		}
		got[i] = stats.Quantile(stats.NewExact(again), q)
	}
	s := stats.Sorted(got)
	return stats.Quantile(s, 0.025), stats.Quantile(s, 0.975)
}

// A quantile's draws come from two order statistics, not from n draws; the intervals
// are those of the bootstrap done by hand.
func TestQuantileIntervalIsTheBootstraps(t *testing.T) {
	values := latencies(200, 5)
	for _, q := range []float64{0.1, 0.5, 0.99} {
		got := stats.Bootstrap{Seed: 1, Resamples: 8000}.Interval(stats.NewExact(values), stats.AtQuantile(q))
		low, high := byHand(values, q, 2000, 77)
		if !near(got.Low, low, 0.06) || !near(got.High, high, 0.06) {
			t.Errorf("q=%v: got %v … %v, want %v … %v", q, got.Low, got.High, low, high)
		}
	}
}

// Of 95 % intervals of samples of one source, about 95 in 100 hold the truth.
func TestIntervalsCover(t *testing.T) {
	for name, stat := range map[string]stats.Statistic{"mean": stats.Mean(), "median": stats.AtQuantile(0.5), "p90": stats.AtQuantile(0.9)} {
		truth := stat.Of(stats.NewExact(latencies(200_000, 1)))
		held := 0
		for i := range 150 {
			s := stats.NewExact(latencies(300, uint64(i+100)*7919))
			if !(stats.Bootstrap{Seed: uint64(i), Resamples: 250}).Interval(s, stat).Excludes(truth) {
				held++
			}
		}
		if held < 132 || held > 149 {
			t.Errorf("%s: %d of 150 intervals hold the truth, want about 142", name, held)
		}
	}
}

func TestRatioSeesADifferenceAndNoneWhereThereIsNone(t *testing.T) {
	a, same, slower := latencies(20_000, 1), latencies(20_000, 2), latencies(20_000, 3)
	for i := range slower {
		slower[i] *= 1.3
	}
	b := stats.Bootstrap{Seed: 1}
	var binned stats.Histogram
	for _, v := range slower {
		binned.Record(v)
	}
	for _, q := range []float64{0.5, 0.9} {
		stat := stats.AtQuantile(q)
		if got := b.Ratio(stats.NewExact(a), stats.NewExact(same), stat); got.Excludes(1) {
			t.Errorf("q=%v: no difference, but got %+v", q, got)
		}
		exact := b.Ratio(stats.NewExact(a), stats.NewExact(slower), stat)
		if exact.Low < 1.05 || exact.Excludes(1.3) {
			t.Errorf("q=%v: 1.3 times, but got %+v", q, exact)
		}
		if got := b.Ratio(stats.NewExact(a), binned.Sample(), stat); !near(got.Low, exact.Low, 2e-3) || !near(got.High, exact.High, 2e-3) {
			t.Errorf("q=%v: got %+v of the histogram, %+v of the values", q, got, exact)
		}
		if again := b.Ratio(stats.NewExact(a), stats.NewExact(slower), stat); again != exact {
			t.Errorf("one seed, two results: %+v and %+v", exact, again)
		}
	}
}

// Pairs take out what makes requests differ: a difference of 2 % of values that spread
// over decades is seen.
func TestPairedRatios(t *testing.T) {
	from := latencies(2000, 1)
	to, next := make([]float64, len(from)), draw(8)
	for i := range to {
		to[i] = from[i] * (1.02 + 0.01*(next()-0.5))
	}
	b := stats.Bootstrap{Seed: 1, Resamples: 500}
	asked := []stats.Statistic{stats.Mean(), stats.AtQuantile(0.1), stats.AtQuantile(0.5), stats.AtQuantile(0.99), stats.AtQuantile(1)}
	for i, got := range b.PairedRatios(from, to, asked) {
		if got.Low < 1.005 || got.High > 1.035 {
			t.Errorf("statistic %d: got %+v, want about 1.02", i, got)
		}
	}
	if got := b.Ratio(stats.NewExact(from), stats.NewExact(to), stats.AtQuantile(0.5)); !(got.Low < 1 && got.High > 1) {
		t.Errorf("without pairs: got %+v, which is narrower than the data allow", got)
	}
}

func TestPairedQuantilesAreThoseOfAWeightedSample(t *testing.T) {
	// With one value many times, every draw is that value: whichever end the walk
	// starts from.
	for _, n := range []int{1, 2, 3, 100} {
		from, to := make([]float64, n), make([]float64, n)
		for i := range from {
			from[i], to[i] = 2, 3
		}
		for q := 0.0; q <= 1; q += 0.125 {
			got := stats.Bootstrap{Resamples: 50}.PairedRatios(from, to, []stats.Statistic{stats.AtQuantile(q)})[0]
			if got != (stats.Interval{Value: 1.5, Low: 1.5, High: 1.5}) {
				t.Errorf("n=%d q=%v: got %+v", n, q, got)
			}
		}
	}
	// Half of the draws from 1 and 3 hold both, with the median between them.
	two := stats.Bootstrap{Resamples: 2000, Confidence: 0.4}.PairedRatios([]float64{1, 1}, []float64{1, 3}, []stats.Statistic{stats.AtQuantile(0.5)})[0]
	if two != (stats.Interval{Value: 2, Low: 2, High: 2}) {
		t.Errorf("median of two: got %+v, want 2", two)
	}
	// The middle third of draws from 1, 3 and 5 has 3 and 5 at its upper two places.
	three := stats.Bootstrap{Resamples: 2000, Confidence: 0.1}.PairedRatios([]float64{1, 1, 1}, []float64{1, 3, 5}, []stats.Statistic{stats.AtQuantile(0.75)})[0]
	if three != (stats.Interval{Value: 4, Low: 4, High: 4}) {
		t.Errorf("upper quartile of three: got %+v, want 4", three)
	}
	// And its spread is that of the plain bootstrap when one side is constant.
	values, ones := latencies(300, 5), make([]float64, 300)
	for i := range ones {
		ones[i] = 1
	}
	for _, q := range []float64{0.2, 0.5, 0.95} {
		got := stats.Bootstrap{Seed: 3, Resamples: 2000}.PairedRatios(ones, values, []stats.Statistic{stats.AtQuantile(q)})[0]
		low, high := byHand(values, q, 2000, 78)
		if !near(got.Low, low, 0.07) || !near(got.High, high, 0.07) {
			t.Errorf("q=%v: got %+v, want %v … %v", q, got, low, high)
		}
	}
}

func TestBlockRatio(t *testing.T) {
	var from, to []float64
	for i := range 120 {
		wave := 100 + 20*math.Sin(float64(i)/5)
		from, to = append(from, wave), append(to, wave*1.3)
	}
	got := stats.Bootstrap{Seed: 1}.BlockRatio(from, to, 10)
	if got.Excludes(1.3) || got.Low < 1.1 {
		t.Errorf("got %+v, want about 1.3", got)
	}
	alike := stats.Bootstrap{Seed: 1}.BlockRatio(from, to, 1)
	if alike.High-alike.Low > got.High-got.Low {
		t.Errorf("single values give %+v, wider than blocks of neighbours that are alike: %+v", alike, got)
	}
}

func TestRatiosOfNothing(t *testing.T) {
	b, some, none := stats.Bootstrap{}, stats.NewExact([]float64{1}), stats.NewExact(nil)
	for name, got := range map[string]stats.Interval{
		"from": b.Ratio(none, some, stats.Mean()), "to": b.Ratio(some, none, stats.Mean()),
		"zero": b.Ratio(stats.NewExact([]float64{0}), some, stats.Mean()), "blocks": b.BlockRatio(nil, []float64{1}, 2),
		"pairs": b.PairedRatios(nil, nil, []stats.Statistic{stats.Mean()})[0],
	} {
		if !math.IsNaN(got.Value) || got.Excludes(1) {
			t.Errorf("%s: got %+v, want no number", name, got)
		}
	}
}

func BenchmarkRatioOfAMillion(b *testing.B) {
	from, to := stats.Sorted(latencies(1_000_000, 1)), stats.Sorted(latencies(1_000_000, 2))
	for b.Loop() {
		stats.Bootstrap{}.Ratio(from, to, stats.AtQuantile(0.99))
	}
}

func BenchmarkPairedRatios(b *testing.B) {
	from, to := latencies(10_000, 1), latencies(10_000, 2)
	for b.Loop() {
		stats.Bootstrap{Resamples: 1000}.PairedRatios(from, to, []stats.Statistic{stats.AtQuantile(0.5), stats.AtQuantile(0.99)})
	}
}
