package remoteapi_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// canned answers every request with the same bytes.
type canned string

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: io.NopCloser(strings.NewReader(string(c))),
	}, nil
}

// events is a stream of n events as vLLM sends them.
func events(n int) canned {
	const event = `data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion","created":1760000000,"model":"their/model","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}` + "\n\n"
	return canned(strings.Repeat(event, n) + strings.Replace(event, `_reason":null`, `_reason":"stop"`, 1) + "data: [DONE]\n\n")
}

func ask(t testing.TB, e *remoteapi.Engine) {
	for _, err := range e.Generate(t.Context(), &dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{1}, MaxTokens: 500}) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	measure := func(n int) float64 {
		e := open(t, http.NotFoundHandler(), func(c *remoteapi.Config) { c.Transport = events(n) })
		return testing.AllocsPerRun(20, func() { ask(t, e) })
	}
	// The texts of some eighty tokens share an allocation.
	if few, many := measure(100), measure(500); many > few+20 {
		t.Errorf("%v allocations for 500 tokens, %v for 100", many, few)
	}
}

// named answers a request with 50 events that repeat its id.
type named struct{}

func (named) RoundTrip(q *http.Request) (*http.Response, error) {
	event := `data: {"choices":[{"text":"` + q.Header.Get("X-Request-Id") + `,","finish_reason":null}]}` + "\n\n"
	end := `data: {"choices":[{"text":"","finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
	return canned(strings.Repeat(event, 50) + end).RoundTrip(q)
}

// TestAnswersApart: answers that are read at once, and one after another with the
// same memory, share no text, and what a chunk says outlives it.
func TestAnswersApart(t *testing.T) {
	e := open(t, http.NotFoundHandler(), func(c *remoteapi.Config) { c.Transport = named{} })
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for round := range 50 {
				id := fmt.Sprintf("%d-%d", i, round)
				var texts []string
				for chunk, err := range e.Generate(t.Context(), &dynamo.Request{ID: dynamo.RequestID(id), Tokens: []dynamo.TokenID{1}, MaxTokens: 100}) {
					if err != nil {
						t.Error(err)
						return
					}
					texts = append(texts, chunk.Text)
				}
				if got, want := strings.Join(texts, ""), strings.Repeat(id+",", 50); got != want {
					t.Errorf("got %q, want %q", got, want)
					return
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkGenerate(b *testing.B) {
	const n = 100
	e := open(b, http.NotFoundHandler(), func(c *remoteapi.Config) { c.Transport = events(n) })
	b.ReportAllocs()
	for b.Loop() {
		ask(b, e)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/token")
}
