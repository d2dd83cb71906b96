package stats_test

import (
	"math"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// draw is a stream of numbers in (0, 1), the same each time.
func draw(seed uint64) func() float64 {
	seed *= 0xd1342543de82ef95
	return func() float64 {
		seed += 0x9e3779b97f4a7c15
		x := (seed ^ seed>>32) * 0xd6e8feb86659fd93
		x = (x ^ x>>32) * 0xd6e8feb86659fd93
		return (float64((x^x>>32)>>12) + 0.5) / (1 << 52)
	}
}

// latencies are n values spread over four decades, as those of a loaded server are.
func latencies(n int, seed uint64) []float64 {
	next := draw(seed)
	out := make([]float64, n)
	for i := range out {
		out[i] = 1e-4 * math.Pow(10, 4*next()*next())
	}
	return out
}

func near(got, want, relative float64) bool {
	return math.Abs(got-want) <= relative*math.Abs(want)
}

// The wanted values are numpy 2.x: np.mean, np.percentile, np.std.
func TestSummarize(t *testing.T) {
	values := []float64{15, 20, 35, 40, 50, 1, 7.5}
	got := stats.Summarize(stats.NewExact(values))
	want := stats.Summary{Count: 7, Mean: 24.071428571428573, Std: 16.695655062296407, Min: 1,
		P25: 11.25, P50: 20, P75: 37.5, P90: 44, P95: 47, P99: 49.4, P999: 49.94, Max: 50}
	figures := func(s stats.Summary) []float64 {
		return []float64{float64(s.Count), s.Mean, s.Std, s.Min, s.P25, s.P50, s.P75, s.P90, s.P95, s.P99, s.P999, s.Max}
	}
	for i, g := range figures(got) {
		if w := figures(want)[i]; !near(g, w, 1e-12) {
			t.Errorf("figure %d: got %v, want %v", i, g, w)
		}
	}
	if values[0] != 15 {
		t.Error("NewExact sorted the caller's values")
	}
	if got := stats.Summarize(stats.NewExact(nil)); got != (stats.Summary{}) {
		t.Errorf("summary of nothing: got %+v", got)
	}
	if got := stats.Quantile(stats.NewExact([]float64{3}), 0.99); got != 3 {
		t.Errorf("quantile of one value: got %v, want 3", got)
	}
}

func TestHistogramIsWithinATenthOfAPercent(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 1000, 100_000} {
		values := latencies(n, uint64(n))
		var h stats.Histogram
		for _, v := range values {
			h.Record(v)
		}
		exact, got := stats.NewExact(values), h.Summary()
		for q := 0.0; q <= 1; q += 1.0 / 512 {
			if g, w := h.Quantile(q), stats.Quantile(exact, q); !near(g, w, 1e-3) {
				t.Errorf("n=%d q=%v: got %v, want %v", n, q, g, w)
			}
		}
		want := stats.Summarize(exact)
		if got.Count != n || got.Min != want.Min || got.Max != want.Max || !near(got.Mean, want.Mean, 1e-9) || !near(got.Std, want.Std, 1e-6) {
			t.Errorf("n=%d: got %+v, want %+v", n, got, want)
		}
	}
}

func TestHistogramTakesAnyValue(t *testing.T) {
	for _, v := range []float64{0, -1, math.NaN(), math.Inf(-1), 5e-324, 1e-12, 1e300, math.Inf(1)} {
		var h stats.Histogram
		h.Record(1)
		h.Record(v)
		if s := h.Summary(); s.Count != 2 || math.IsNaN(s.Mean+s.Std+s.P50+s.Max) || math.IsInf(s.Mean+s.Std, 0) {
			t.Errorf("%v: got %+v", v, s)
		}
	}
	var empty stats.Histogram
	if got := empty.Summary(); got != (stats.Summary{}) {
		t.Errorf("summary of nothing: got %+v", got)
	}
}

// The standard deviation of values that hardly differ does not drown in their mean.
func TestHistogramStdOfCloseValues(t *testing.T) {
	var a, b, whole stats.Histogram
	for i := range 1000 {
		v := 1e6 + float64(i%2)*1e-3
		whole.Record(v)
		if i < 300 {
			a.Record(v)
		} else {
			b.Record(v + 0)
		}
	}
	a.Merge(&b)
	for _, h := range []*stats.Histogram{&whole, &a} {
		if !near(h.Std(), 5e-4, 1e-3) {
			t.Errorf("got %v, want 0.0005", h.Std())
		}
	}
}

func TestMergeIsRecordingAll(t *testing.T) {
	var parts [4]stats.Histogram
	var whole, merged stats.Histogram
	for i, v := range append(latencies(5000, 3), 0, 0, 1e9) {
		parts[i%3].Record(v) // the last stays empty
		whole.Record(v)
	}
	for i := range parts {
		merged.Merge(&parts[i])
	}
	merged.Merge(nil)
	got, want := slices.Collect(merged.Buckets()), slices.Collect(whole.Buckets())
	if !slices.Equal(got, want) {
		t.Errorf("%d buckets differ from %d", len(got), len(want))
	}
	if !near(merged.Std(), whole.Std(), 1e-9) || !near(merged.Sum(), whole.Sum(), 1e-9) || merged.Min() != whole.Min() || merged.Max() != whole.Max() {
		t.Errorf("got %+v, want %+v", merged.Summary(), whole.Summary())
	}
	var low, high, both stats.Histogram
	for i := range 100 {
		low.Record(1 + float64(i%2))
		high.Record(5 + float64(i%2))
	}
	both.Merge(&low)
	both.Merge(&high)
	if got, want := both.Std(), math.Sqrt(4+0.25); !near(got, want, 1e-12) {
		t.Errorf("std of both: got %v, want %v", got, want)
	}
	merged.Reset()
	if merged.Count() != 0 || merged.Summary() != (stats.Summary{}) {
		t.Errorf("after Reset: %+v", merged.Summary())
	}
}

func TestBucketsHoldTheirValues(t *testing.T) {
	for _, v := range latencies(2000, 9) {
		var h stats.Histogram
		h.Record(v)
		for b := range h.Buckets() {
			if v < b.Lower || v >= b.Upper || b.Upper-b.Lower > b.Lower/1000 {
				t.Fatalf("%v is in [%v, %v)", v, b.Lower, b.Upper)
			}
		}
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var h stats.Histogram
	h.Record(0.012)
	if got := testing.AllocsPerRun(100, func() { h.Record(0.0121) }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestHistogramJSON(t *testing.T) {
	var h, back stats.Histogram
	for _, v := range append(latencies(300, 4), 0) {
		h.Record(v)
	}
	text, err := h.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	back.Record(7)
	if err := back.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Collect(back.Buckets()), slices.Collect(h.Buckets()); !slices.Equal(got, want) {
		t.Errorf("buckets: got %v, want %v", got, want)
	}
	if got, want := back.Summary(), h.Summary(); got.P99 != want.P99 || !near(got.Mean, want.Mean, 1e-12) || !near(got.Std, want.Std, 1e-9) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	one := stats.Histogram{}
	one.Record(1.5)
	if text, _ := one.MarshalJSON(); string(text) != `{"count":1,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[31232,1]]}` {
		t.Errorf("got %s", text)
	}
}

func FuzzHistogramJSON(f *testing.F) {
	var h stats.Histogram
	for _, v := range latencies(20, 4) {
		h.Record(v)
	}
	text, _ := h.MarshalJSON()
	f.Add(text)
	f.Add([]byte(`{"count":1,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[31232,1]]}`))
	f.Add([]byte(`{"count":2,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[31232,1]]}`))
	f.Add([]byte(`{"count":1,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[99999999,1]]}`))
	f.Add([]byte(`{"count":18446744073709551615,"zeros":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h stats.Histogram
		if h.UnmarshalJSON(data) != nil {
			return
		}
		s := h.Summary()
		if s.P50 < s.Min || s.P50 > s.Max || math.IsNaN(s.Mean+s.Std+s.P999) {
			t.Errorf("got %+v", s)
		}
		if _, err := h.MarshalJSON(); err != nil {
			t.Error(err)
		}
	})
}

func TestUnmarshalRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"count":   `{"count":2,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[31232,1]]}`,
		"order":   `{"count":2,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[31232,1],[31231,1]]}`,
		"bucket":  `{"count":1,"zeros":0,"mean":1.5,"std":0,"min":1.5,"max":1.5,"buckets":[[62464,1]]}`,
		"min":     `{"count":1,"zeros":0,"mean":1.5,"std":0,"min":2,"max":2,"buckets":[[31232,1]]}`,
		"no JSON": `{"count":`,
	} {
		var h stats.Histogram
		if err := h.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	values := latencies(1024, 1)
	var h stats.Histogram
	for i := 0; b.Loop(); i++ {
		h.Record(values[i&1023])
	}
}

func BenchmarkSummaryOfAMillion(b *testing.B) {
	values := latencies(1_000_000, 1)
	for b.Loop() {
		stats.Summarize(stats.NewExact(values))
	}
}
