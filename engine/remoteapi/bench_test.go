package remoteapi_test

import (
	"io"
	"net/http"
	"strings"
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
	// A token costs its text.
	if few, many := measure(100), measure(200); many > few+110 {
		t.Errorf("%v allocations for 200 tokens, %v for 100", many, few)
	}
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
