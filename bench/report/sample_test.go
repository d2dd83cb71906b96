package report_test

import (
	"fmt"
	"math"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// sample is a run of n requests as a server might answer it: a latency that grows with
// a queue in the middle, lengths that spread, a few errors. Factor makes all of it
// slower.
func sample(n int, seed uint64, factor float64) (*bench.Result, []bench.Record) {
	state := seed * 0xd1342543de82ef95
	next := func() float64 {
		state += 0x9e3779b97f4a7c15
		x := (state ^ state>>32) * 0xd6e8feb86659fd93
		x = (x ^ x>>32) * 0xd6e8feb86659fd93
		return (float64((x^x>>32)>>12) + 0.5) / (1 << 52)
	}
	normal := func() float64 { return math.Sqrt(-2*math.Log(next())) * math.Cos(2*math.Pi*next()) }
	const rate = 50.0
	r := &bench.Result{
		Config:  map[string]string{"url": "http://127.0.0.1:8000", "model": "qwen3-8b", "request-rate": "50", "arrival": "poisson", "seed": "1", "input-tokens": "1024"},
		Started: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Machine: "2 × Intel Xeon, linux/amd64", Version: "0.4.0",
		Errors: map[string]int{}, ErrorDetails: map[string]string{}, TokensFrom: "usage",
		GoodputTargets: map[string]time.Duration{"ttft": 200 * time.Millisecond, "itl": 15 * time.Millisecond},
		Client:         bench.ClientHealth{CPUSeconds: 3.1, CPUShare: 0.03, LateP99: 400 * time.Microsecond},
		Processes:      []bench.ProcessUse{{Name: "dynamo frontend", PID: 4711, CPUSeconds: 8.25, RSSBytes: 61 << 20, PeakBytes: 74 << 20}},
		TTFTHist:       new(stats.Histogram), ITLHist: new(stats.Histogram), ICLHist: new(stats.Histogram), E2EHist: new(stats.Histogram),
		InputHist: new(stats.Histogram), OutputHist: new(stats.Histogram),
	}
	var records []bench.Record
	seconds := map[int]*struct{ s bench.Second }{}
	at := func(ns int64) *bench.Second {
		i := int(ns / 1e9)
		if seconds[i] == nil {
			seconds[i] = &struct{ s bench.Second }{bench.Second{At: i}}
		}
		return &seconds[i].s
	}
	ttfts, itls := map[int][]float64{}, map[int][]float64{}
	last := int64(0)
	good := 0
	for i := range n {
		t := float64(i) / rate
		load := 1 + 2*math.Exp(-math.Pow((t-30)/8, 2))
		rec := bench.Record{Index: i, Scheduled: int64(t * 1e9), Status: 200}
		rec.Input = int(math.Exp(6.5 + 0.9*normal()))
		rec.Output = 20 + int(300*next()*next())
		rec.Sent = rec.Scheduled + int64(2e5*next())
		at(rec.Sent).Started++
		ttft := (0.02 + float64(rec.Input)*4e-5) * load * factor * math.Exp(0.3*normal())
		itl := 0.008 * math.Sqrt(load) * factor * math.Exp(0.08*normal())
		rec.First = rec.Scheduled + int64(ttft*1e9)
		rec.Last = rec.First + int64(itl*float64(rec.Output-1)*1e9)
		rec.End = rec.Last + 1e5
		if next() < 0.004*load {
			rec.Error, rec.Status = "http_503", 503
			r.Errors[rec.Error]++
			r.ErrorDetails[rec.Error] = `{"error":{"message":"no worker <b>free</b>"}}`
			at(rec.End).Errors++
			records = append(records, rec)
			continue
		}
		r.Requests++
		r.TTFTHist.Record(rec.TTFT())
		v, _ := rec.ITL()
		r.ITLHist.Record(v)
		for range rec.Output - 1 {
			r.ICLHist.Record(itl * math.Exp(0.2*normal()))
		}
		r.E2EHist.Record(rec.E2E())
		r.InputHist.Record(float64(rec.Input))
		r.OutputHist.Record(float64(rec.Output))
		if rec.TTFT() <= 0.2 && v <= 0.015 {
			good++
		}
		s := at(rec.End)
		s.Finished++
		s.Tokens += rec.Output
		k := int(rec.End / 1e9)
		ttfts[k], itls[k] = append(ttfts[k], rec.TTFT()), append(itls[k], v)
		rec.Cached = rec.Input / 3
		r.CachedTokens += int64(rec.Cached)
		last = max(last, rec.End)
		records = append(records, rec)
	}
	open := 0
	for i := range int(last/1e9) + 1 {
		s := at(int64(i) * 1e9)
		open += s.Started - s.Finished - s.Errors
		s.InFlight = open
		s.TTFTP50, s.TTFTP99 = stats.Quantile(stats.NewExact(ttfts[i]), 0.5), stats.Quantile(stats.NewExact(ttfts[i]), 0.99)
		s.ITLP50 = stats.Quantile(stats.NewExact(itls[i]), 0.5)
		r.Series = append(r.Series, *s)
	}
	r.Duration = time.Duration(last)
	r.TTFT, r.ITL, r.ICL, r.E2E = r.TTFTHist.Summary(), r.ITLHist.Summary(), r.ICLHist.Summary(), r.E2EHist.Summary()
	r.InputTokens, r.OutputTokens = r.InputHist.Summary(), r.OutputHist.Summary()
	d := r.Duration.Seconds()
	r.RequestThroughput, r.OutputThroughput, r.InputThroughput = float64(r.Requests)/d, r.OutputHist.Sum()/d, r.InputHist.Sum()/d
	r.Goodput = float64(good) / d
	r.Config["requests"] = fmt.Sprint(n)
	return r, records
}
