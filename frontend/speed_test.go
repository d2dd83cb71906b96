package frontend

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
)

// instant is an engine that yields n tokens, one a chunk, in no time.
type instant struct{ n int }

// Generate implements engine.Engine.
func (e instant) Generate(_ context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		ids := []dynamo.TokenID{'x'}
		for i := range e.n {
			c := dynamo.Chunk{Tokens: ids}
			if i == e.n-1 {
				c.Finish = dynamo.FinishLength
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// sink is a connection that takes everything.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) Write(p []byte) (int, error) { return len(p), nil }
func (s sink) WriteHeader(int)             {}
func (s sink) Flush()                      {}

// TestStreamAllocatesNothingPerToken compares a short stream with a long one.
func TestStreamAllocatesNothingPerToken(t *testing.T) {
	allocs := func(n int) float64 {
		s, err := New(DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		m := testModel(t, instant{n})
		if err := s.AddModel(m); err != nil {
			t.Fatal(err)
		}
		body := chatBody(`"stream":true,"stop":["zz"]`)
		return testing.AllocsPerRun(20, func() {
			s.Handler().ServeHTTP(sink{http.Header{}}, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)))
		})
	}
	short, long := allocs(50), allocs(5050)
	if perToken := (long - short) / 5000; perToken > 0.01 {
		t.Errorf("%.3f allocations per token (%v for 50 tokens, %v for 5050)", perToken, short, long)
	}
	t.Logf("%v allocations for a streamed chat of 50 tokens", short)
}

// BenchmarkStreamedChat is a short streamed chat over loopback with an engine
// that takes no time: what a request costs here, client included, and when its
// first content arrives. (scripts/figures measures the server alone.)
func BenchmarkStreamedChat(b *testing.B) {
	c := serve(b, instant{16}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	body := chatBody(`"stream":true,"max_tokens":16,"stream_options":{"include_usage":true}`)
	request := fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	r := bufio.NewReaderSize(conn, 64<<10)
	var first time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		var buf [512]byte
		if _, err := io.ReadFull(resp.Body, buf[:]); err != nil {
			b.Fatal(err)
		}
		first += time.Since(start)
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(first.Microseconds())/float64(b.N), "µs-to-first")
}

// BenchmarkStreamedBurst is a long answer from an engine that is faster than its
// client: what its events cost, the connection left out.
func BenchmarkStreamedBurst(b *testing.B) {
	const n = 256
	s, err := New(DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	if err := s.AddModel(testModel(b, instant{n})); err != nil {
		b.Fatal(err)
	}
	body := chatBody(`"stream":true`)
	b.ReportAllocs()
	for b.Loop() {
		s.Handler().ServeHTTP(sink{http.Header{}}, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/token")
}

// TestStreamsApart: streams at once, and one after another with the same buffers,
// share nothing.
func TestStreamsApart(t *testing.T) {
	s, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 64; n *= 4 {
		m := testModel(t, instant{n})
		m.Card.Model = fmt.Sprint("m", n)
		if err := s.AddModel(m); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for n := 1; n <= 64; n *= 4 {
		all.Go(func() {
			for range 30 {
				model := fmt.Sprint("m", n)
				w := httptest.NewRecorder()
				body := fmt.Sprintf(`{"model":%q,"stream":true,"prompt":"a"}`, model)
				s.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body)))
				text := w.Body.String()
				if own, x, events := strings.Count(text, `"model":"`+model+`"`), strings.Count(text, `"text":"x"`), strings.Count(text, "data: "); x != n || events != own+1 || !strings.HasSuffix(text, "data: [DONE]\n\n") {
					t.Errorf("%d texts of %d, %d events of %d are this model's", x, n, own, events)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestLargeLastChunk: an answer whose only chunk is larger than what may wait to be
// written ends all the same.
func TestLargeLastChunk(t *testing.T) {
	s, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	m := testModel(t, instant{1})
	m.Card.ContextLength = 1 << 20
	if err := s.AddModel(m); err != nil {
		t.Fatal(err)
	}
	prompt := strings.Repeat("a", 2*maxOutboxBytes)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(`{"model":"org/m","stream":true,"echo":true,"max_tokens":1,"prompt":"`+prompt+`"}`)))
	if text := w.Body.String(); !strings.Contains(text, prompt) || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("an answer of %d bytes that ends in %q", len(text), text[max(0, len(text)-40):])
	}
}
