package bench_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
	"github.com/dynamo-go/dynamo/internal/testnet"
)

// question is what a test's server reads of a request.
type question struct {
	Model     string `json:"model"`
	Stream    bool   `json:"stream"`
	MaxTokens int    `json:"max_tokens"`
	Messages  []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	Prompt jsontext.Value `json:"prompt"`

	n      int // in the order of arrival
	at     time.Time
	body   string
	header http.Header
}

// server is an HTTP server on a network in memory, for a synctest bubble. It keeps
// what was asked.
type server struct {
	net *testnet.Network
	mu  struct {
		sync.Mutex
		asked []question
	}
}

func serve(t *testing.T, answer func(w http.ResponseWriter, q question)) *server {
	t.Helper()
	s := &server{net: testnet.New()}
	l, err := s.net.Host("server").Listen(":80")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		b, err := io.ReadAll(r.Body)
		q := question{header: r.Header, at: time.Now(), body: string(b)}
		if err == nil {
			err = json.Unmarshal(b, &q)
		}
		if err != nil {
			t.Errorf("read the request %.300q: %v", b, err)
		}
		s.mu.Lock()
		q.n = len(s.mu.asked)
		s.mu.asked = append(s.mu.asked, q)
		s.mu.Unlock()
		answer(w, q)
	})}
	go func() { _ = h.Serve(l) }()
	t.Cleanup(func() { _ = h.Close(); open.Wait() })
	return s
}

func (s *server) asked() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.asked
}

// config is a run against the server.
func (s *server) config() bench.Config {
	c := bench.DefaultConfig()
	c.URLs, c.Model, c.Dial = []string{"http://server"}, "m", s.net.Host("client").Dial
	return c
}

// stream answers with tokens at the given gaps, the first after ttft, and usage.
func stream(w http.ResponseWriter, q question, ttft time.Duration, gap func(i int) time.Duration) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := w.(http.Flusher).Flush
	fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n")
	flush()
	time.Sleep(ttft)
	for i := range q.MaxTokens {
		if i > 0 {
			time.Sleep(gap(i))
		}
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n")
		flush()
	}
	fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\ndata: [DONE]\n\n", q.words()+10, q.MaxTokens)
}

func (q *question) words() int {
	n := 0
	for _, m := range q.Messages {
		n += len(strings.Fields(m.Content))
	}
	return n
}

func even(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// near compares a summary with the exact one of the values the server was told to
// make.
func near(t *testing.T, name string, got stats.Summary, values []float64) {
	t.Helper()
	want := stats.Summarize(stats.NewExact(values))
	if got.Count != want.Count {
		t.Errorf("%s: %d values, want %d", name, got.Count, want.Count)
	}
	for _, p := range []struct {
		name      string
		got, want float64
	}{
		{"mean", got.Mean, want.Mean}, {"min", got.Min, want.Min}, {"p50", got.P50, want.P50}, {"p90", got.P90, want.P90},
		{"p95", got.P95, want.P95}, {"p99", got.P99, want.P99}, {"max", got.Max, want.Max}, {"std", got.Std, want.Std},
	} {
		if math.Abs(p.got-p.want) > 0.002*p.want+1e-9 { // the histogram's precision
			t.Errorf("%s %s: %.6f s, want %.6f s", name, p.name, p.got, p.want)
		}
	}
}

// TestAccuracy compares every latency with what the server did, in virtual time.
func TestAccuracy(t *testing.T) {
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { accuracy(t, mode) }) })
	}
}

func accuracy(t *testing.T, mode string) {
	first := []time.Duration{5, 8, 13, 21, 34, 55, 89, 144, 233, 1000}
	between := []time.Duration{1, 2, 3, 5, 40}
	var mu sync.Mutex
	var ttft, itl, icl, e2e []float64
	s := serve(t, func(w http.ResponseWriter, q question) {
		f := first[q.n*7%len(first)] * time.Millisecond
		total := time.Duration(0)
		var gaps []float64
		stream(w, q, f, func(i int) time.Duration {
			d := between[(q.n+i*i)%len(between)] * time.Millisecond
			total += d
			gaps = append(gaps, d.Seconds())
			return d
		})
		mu.Lock()
		defer mu.Unlock()
		ttft, e2e = append(ttft, f.Seconds()), append(e2e, (f+total).Seconds())
		icl = append(icl, gaps...)
		if q.MaxTokens > 1 {
			itl = append(itl, total.Seconds()/float64(q.MaxTokens-1))
		}
	})
	c := s.config()
	c.Output, c.Requests = bench.Lengths{Mean: 20, StdDev: 6}, 500
	if mode == "closed" {
		c.Concurrency = 7
	} else {
		c.Arrival.Process, c.Arrival.Rate = "poisson", 50
	}
	r, err := bench.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 500 || len(r.Errors) != 0 {
		t.Fatalf("%d requests and errors %v, want 500 and none: %v", r.Requests, r.Errors, r.ErrorDetails)
	}
	near(t, "TTFT", r.TTFT, ttft)
	near(t, "ITL", r.ITL, itl)
	near(t, "TPOT", r.TPOT, itl)
	near(t, "ICL", r.ICL, icl)
	near(t, "E2E", r.E2E, e2e)
	if got, want := r.OutputThroughput*r.Duration.Seconds(), r.OutputTokens.Mean*500; math.Abs(got-want) > 1e-6*want {
		t.Errorf("%v tokens by throughput, %v by lengths", got, want)
	}
	if r.CachedTokens != 1500 || r.TokensFrom != "usage" {
		t.Errorf("%d cached tokens, lengths from %q", r.CachedTokens, r.TokensFrom)
	}
	sum := bench.Second{}
	for _, s := range r.Series {
		sum.Started, sum.Finished, sum.Tokens = sum.Started+s.Started, sum.Finished+s.Finished, sum.Tokens+s.Tokens
	}
	if sum.Started != 500 || sum.Finished != 500 || int64(sum.Tokens) != r.Chunks {
		t.Errorf("the series has %d started, %d finished, %d tokens; want 500, 500, %d", sum.Started, sum.Finished, sum.Tokens, r.Chunks)
	}
}
