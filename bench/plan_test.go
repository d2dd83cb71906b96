package bench_test

import (
	"errors"
	"iter"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/trace"
)

// quick answers at once.
func quick(w http.ResponseWriter, q question) { stream(w, q, 0, even(0)) }

// prompts are what was asked, sorted.
func (s *server) prompts() []string {
	var all []string
	for _, q := range s.asked() {
		all = append(all, q.body)
	}
	slices.Sort(all)
	return all
}

// TestSameRequests wants the requests to depend on the seed alone, not on the
// schedule.
func TestSameRequests(t *testing.T) {
	run := func(change func(c *bench.Config)) (all []string) {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, quick)
			c := s.config()
			c.Requests, c.Input, c.Output = 40, bench.Lengths{Mean: 30, StdDev: 10}, bench.Lengths{Mean: 5, StdDev: 2}
			change(&c)
			if _, err := bench.Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			all = s.prompts()
		})
		return all
	}
	closed := run(func(c *bench.Config) { c.Concurrency = 3 })
	open := run(func(c *bench.Config) { c.Arrival.Process, c.Arrival.Rate = "gamma", 100; c.Arrival.CV = 2 })
	other := run(func(c *bench.Config) { c.Concurrency, c.Seed = 3, 2 })
	if !slices.Equal(closed, open) {
		t.Error("a closed and an open loop ask for different things")
	}
	for _, p := range other {
		if _, shared := slices.BinarySearch(closed, p); shared {
			t.Fatalf("another seed asks the same: %s", p)
		}
	}
}

// TestOpenLoop wants a stall of the server to show in every request that was due
// meanwhile, even where no connection was free to send it.
func TestOpenLoop(t *testing.T) {
	for _, connections := range []int{1000, 1} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			s := serve(t, func(w http.ResponseWriter, q question) {
				if now := time.Since(begin); now < 1500*time.Millisecond && now > 500*time.Millisecond {
					time.Sleep(1500*time.Millisecond - now) // it answers nobody for a second
				}
				quick(w, q)
			})
			c := s.config()
			c.Arrival.Process, c.Arrival.Rate, c.Requests, c.Connections, c.Output.Mean = "constant", 100, 200, connections, 1
			r, err := bench.Run(t.Context(), c)
			if err != nil || r.Requests != 200 {
				t.Fatalf("%d requests, %v: %v", r.Requests, r.ErrorDetails, err)
			}
			// Half of the requests wait, up to a second, evenly.
			if got := r.TTFT; math.Abs(got.P50) > 0.02 || math.Abs(got.P75-0.5) > 0.03 || math.Abs(got.Max-1) > 0.02 {
				t.Errorf("%d connections: TTFT p50 %v, p75 %v, max %v; want 0, 0.5, 1", connections, got.P50, got.P75, got.Max)
			}
			if r.Client.Bottleneck != (connections == 1) || r.Client.Bottleneck != strings.Contains(r.Client.Why, "--connections") {
				t.Errorf("%d connections: bottleneck %v: %s", connections, r.Client.Bottleneck, r.Client.Why)
			}
		})
	}
}

// TestArrivals sends at the rate asked for.
func TestArrivals(t *testing.T) {
	for _, tt := range []struct {
		process string
		change  func(*trace.Arrival)
		n       float64 // in 10 s
	}{
		{"poisson", func(*trace.Arrival) {}, 500},
		{"constant", func(*trace.Arrival) {}, 500},
		{"gamma", func(a *trace.Arrival) { a.CV = 3 }, 500},
		{"ramp", func(a *trace.Arrival) { a.To, a.Period = 150, 10*time.Second }, 1000},
		{"sine", func(a *trace.Arrival) { a.Amplitude, a.Period = 0.8, 5*time.Second }, 500},
	} {
		t.Run(tt.process, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, quick)
				c := s.config()
				c.Arrival.Process, c.Arrival.Rate, c.Duration, c.Output.Mean, c.Input.Mean = tt.process, 50, 10*time.Second, 1, 1
				tt.change(&c.Arrival)
				r, err := bench.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if got := float64(r.Requests); math.Abs(got-tt.n) > 0.3*tt.n {
					t.Errorf("%v requests in 10 s, want about %v", got, tt.n)
				}
				if r.Client.LateP99 != 0 {
					t.Errorf("sent late by %v", r.Client.LateP99)
				}
			})
		})
	}
}

func TestRampUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) { stream(w, q, time.Hour, even(0)) })
		c := s.config()
		c.Concurrency, c.RampUp, c.Duration, c.Grace, c.Timeout = 10, 10*time.Second, 5500*time.Millisecond, 0, 2*time.Hour
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Errors[bench.ClassCut] != 6 {
			t.Errorf("errors %v, %v; want 6 open requests after 5.5 s of a ramp of one a second", r.Errors, err)
		}
	})
}

func of(list ...trace.Request) iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		for _, q := range list {
			if q.BlockSize == 0 {
				q.BlockSize = 4
			}
			if !yield(q, nil) {
				return
			}
		}
	}
}

// TestTrace plays a trace: single requests at their times, turns after the answers
// before them, agents after those they wait for.
func TestTrace(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	list := []trace.Request{
		{At: 0, Input: 4, Output: 1, Session: "a"},
		{At: ms(10), Input: 5, Output: 1},
		{At: ms(20), Input: 6, Output: 1, Session: "a", Turn: 1, Delay: ms(40)}, // after 0 ends at 100
		{At: ms(30), Input: 7, Output: 1, ID: "root"},
		{At: ms(40), Input: 8, Output: 1, ID: "x", After: []string{"root"}, Delay: ms(20)}, // after 130
		{At: ms(50), Input: 9, Output: 1, ID: "y", After: []string{"root"}},                // after 130
		{At: ms(60), Input: 10, Output: 1, After: []string{"x", "y"}, Delay: ms(5)},        // after 250 and 230
		{At: ms(900), Input: 11, Output: 1, Session: "a", Turn: 2},                         // at its own time
		{At: ms(901), Input: 12, Output: 1, Session: "a", Turn: 3, Delay: ms(1)},           // after 1000
	}
	want := map[int]time.Duration{4: 0, 5: ms(10), 6: ms(140), 7: ms(30), 8: ms(150), 9: ms(130), 10: ms(255), 11: ms(900), 12: ms(1001)}
	for _, speedup := range []float64{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, q question) {
				stream(w, q, time.Duration(float64(ms(100))/speedup), nil)
			})
			c := s.config()
			c.Trace, c.Speedup = of(list...), speedup
			got := map[int]int64{}
			c.Record = func(r *bench.Record) error { got[r.Index+4] = r.Sent; return nil }
			r, err := bench.Run(t.Context(), c)
			if err != nil || r.Requests != len(list) {
				t.Fatalf("%d requests, %v: %v", r.Requests, r.ErrorDetails, err)
			}
			for input, at := range want {
				if d := time.Duration(got[input]) - time.Duration(float64(at)/speedup); d < 0 || d > 10*time.Microsecond {
					t.Errorf("speed %v: the request of %d tokens was sent at %v, want %v", speedup, input, time.Duration(got[input]), time.Duration(float64(at)/speedup))
				}
			}
			if r.TTFT.Max > 0.1001/speedup {
				t.Errorf("speed %v: TTFT of %v s at most, want 0.1: a turn is due after the one before", speedup, r.TTFT.Max)
			}
		})
	}
}

// TestTraceInClosedLoop keeps the order within sessions and takes no times.
func TestTraceInClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []trace.Request
		for i := range 30 {
			list = append(list, trace.Request{At: time.Duration(i) * time.Hour, Input: 1 + i, Output: 1, Session: string(rune('a' + i%3)), Turn: i / 3})
		}
		s := serve(t, func(w http.ResponseWriter, q question) { stream(w, q, 10*time.Millisecond, nil) })
		c := s.config()
		c.Trace, c.Concurrency = of(list...), 10
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Requests != 30 {
			t.Fatalf("%d requests: %v", r.Requests, err)
		}
		if d := r.Duration.Round(time.Millisecond); d != 100*time.Millisecond {
			t.Errorf("it took %v, want ten turns of 10 ms", d)
		}
	})
}

// TestSharedPrefixes wants prompts to share what their hashes share, and nothing
// else, and the synthetic groups to be shared in the number asked for.
func TestSharedPrefixes(t *testing.T) {
	content := func(t *testing.T, change func(*bench.Config)) (all []question) {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, quick)
			c := s.config()
			c.Concurrency, c.Output.Mean = 1, 1
			change(&c)
			if _, err := bench.Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			all = s.asked()
		})
		return all
	}
	words := func(q question) []string { return strings.Fields(q.Messages[len(q.Messages)-1].Content) }
	got := content(t, func(c *bench.Config) {
		c.Trace = of(trace.Request{Input: 10, Hashes: []uint64{1, 2, 3}}, trace.Request{Input: 11, Hashes: []uint64{1, 2, 4}}, trace.Request{Input: 4, Hashes: []uint64{5}})
	})
	a, b, o := words(got[0]), words(got[1]), words(got[2])
	if len(a) != 10 || len(b) != 11 || len(o) != 4 {
		t.Errorf("prompts of %d, %d and %d words, want 10, 11, 4", len(a), len(b), len(o))
	}
	if !slices.Equal(a[:8], b[:8]) || slices.Equal(a[8:], b[8:10]) || slices.Equal(a[:4], o) {
		t.Errorf("prompts share the wrong parts:\n%v\n%v\n%v", a, b, o)
	}

	prefixes, systems := map[string]int{}, 0
	for _, q := range content(t, func(c *bench.Config) {
		c.Requests, c.PrefixGroups, c.PrefixTokens, c.PrefixSystem, c.Input.Mean = 200, 7, 20, true, 50
	}) {
		systems += len(q.Messages) - 1
		prefixes[q.Messages[0].Content]++
		if n := len(strings.Fields(q.Messages[0].Content)); n != 20 || len(words(q)) != 30 {
			t.Fatalf("a prompt of %d and %d words, want 20 and 30", n, len(words(q)))
		}
	}
	if len(prefixes) != 7 || systems != 200 {
		t.Errorf("%d prefixes and %d system messages, want 7 and 200", len(prefixes), systems)
	}
}

// TestBody shows what is sent: extra members go before ours, headers and key are
// there, ids are exact.
func TestBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, quick)
		c := s.config()
		c.URLs = []string{"http://server/v1/"}
		c.Completions, c.PromptIDs, c.FirstID, c.LastID, c.Input.Mean, c.IgnoreEOS = true, true, 500, 599, 33, true
		c.Extra, c.Headers, c.APIKey = []byte(`{"max_tokens":3,"temperature":0.5,"nested":{"a":[1]}}`), []string{"X-Test: yes"}, "secret"
		c.Concurrency, c.Requests = 1, 1
		if r, err := bench.Run(t.Context(), c); err != nil || r.Requests != 1 {
			t.Fatalf("%v, %v", r.ErrorDetails, err)
		}
		q := s.asked()[0]
		var ids []int
		if err := json.Unmarshal(q.Prompt, &ids); err != nil || len(ids) != 33 || slices.Min(ids) < 500 || slices.Max(ids) > 599 {
			t.Errorf("prompt %s, %v; want 33 ids within 500 and 599", q.Prompt, err)
		}
		if q.MaxTokens != 3 || strings.Count(q.body, "max_tokens") != 1 || !strings.Contains(q.body, `"temperature":0.5`) || !strings.Contains(q.body, `"nested":{"a":[1]}`) || !strings.Contains(q.body, `"min_tokens":64`) {
			t.Errorf("body %s", q.body)
		}
		if q.header.Get("X-Test") != "yes" || q.header.Get("Authorization") != "Bearer secret" {
			t.Errorf("headers %v", q.header)
		}
	})
}

func TestTools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) {
			w.Header().Set("Content-Type", "text/event-stream")
			time.Sleep(30 * time.Millisecond)
			_, _ = w.Write([]byte("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n"))
		})
		c := s.config()
		c.Tools, c.ToolChoice, c.Concurrency, c.Requests = 3, "required", 1, 1
		var finish string
		c.Record = func(r *bench.Record) error { finish = r.Finish; return nil }
		r, err := bench.Run(t.Context(), c)
		if err != nil || finish != "tool_calls" || math.Abs(r.TTFT.P50-0.03) > 1e-9 {
			t.Errorf("finish %q, TTFT %v, %v, %v; want a call after 30 ms", finish, r.TTFT.P50, r.ErrorDetails, err)
		}
		var body struct {
			Tools  []any  `json:"tools"`
			Choice string `json:"tool_choice"`
		}
		if err := json.Unmarshal([]byte(s.asked()[0].body), &body); err != nil || len(body.Tools) != 3 || body.Choice != "required" {
			t.Errorf("body %s, %v", s.asked()[0].body, err)
		}
	})
}

func TestUnary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) {
			time.Sleep(time.Duration(1+q.n) * time.Millisecond)
			_, _ = w.Write([]byte(`{"choices":[{"message":{"role":"assistant","content":"a b c"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}`))
		})
		c := s.config()
		c.Unary, c.Concurrency, c.Requests = true, 1, 100
		c.Goodput = map[string]time.Duration{"e2e": 50 * time.Millisecond}
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Requests != 100 {
			t.Fatalf("%v, %v", r.ErrorDetails, err)
		}
		if r.TTFT.Count != 0 || r.ITL.Count != 0 || math.Abs(r.E2E.P50-0.0505) > 1e-9 || r.OutputTokens.Mean != 3 || r.InputTokens.Mean != 9 {
			t.Errorf("%+v", r)
		}
		if want := 50 / r.Duration.Seconds(); math.Abs(r.Goodput-want) > 1e-9 {
			t.Errorf("goodput %v, want %v: half of the requests kept the target", r.Goodput, want)
		}
	})
}

// TestTraceFault reports what is wrong with a trace and no figures.
func TestTraceFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, quick)
		c := s.config()
		bad := errors.New("line 2: timestamp: no number")
		c.Trace = func(yield func(trace.Request, error) bool) {
			_ = yield(trace.Request{Input: 1, Output: 1, BlockSize: 4}, nil) && yield(trace.Request{}, bad)
		}
		if _, err := bench.Run(t.Context(), c); !errors.Is(err, bad) {
			t.Errorf("%v, want %v", err, bad)
		}
	})
}
