package remoteapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// TestForms: events that look like the one before them are read as if they were
// read whole, above all where they only look so.
func TestForms(t *testing.T) {
	const end = `{"choices":[{"text":"","finish_reason":"stop"}]}`
	plain := func(s string) string { return `{"choices":[{"text":` + s + `,"finish_reason":null}]}` }
	for _, c := range []struct {
		name   string
		events []string
		want   string
	}{
		{"escapes", []string{plain(`"a"`), plain(`"\n\u00e9\""`), plain(`""`), plain(`"b"`)}, "a\né\"b"},
		{"two texts in one", []string{plain(`"a"`), plain(`"b","text":"c"`), plain(`"d"`)}, "abcd"},
		{"an end within the text's place", []string{plain(`"a"`), plain(`"b","finish_reason":"stop","x":"y"`)}, "ab"},
		{"a quote that ends too early", []string{plain(`"a"`), plain(`"b\\"`), plain(`"c"`)}, "ab\\c"},
		{"an end of the same length", []string{plain(`"a"`), `{"choices":[{"text":"b","finish_reason":"ok"}]}`, plain(`"c"`)}, "ab"},
		{"null", []string{plain(`"a"`), plain(`null`), plain(`"b"`)}, "ab"},
		{"text beside the choices", []string{`{"text":"no","choices":[{"text":"a"}]}`, `{"text":"no","choices":[{"text":"b"}]}`}, "ab"},
		{"shorter than the form", []string{plain(`"abc"`), `{}`, plain(`"d"`)}, "abcd"},
	} {
		body := ""
		for _, e := range c.events {
			body += "data: " + e + "\n\n"
		}
		text, _, err := collect(t, open(t, answers(200, stream, body+"data: "+end+"\n\ndata: [DONE]\n\n"), nil), request())
		if err != nil || text != c.want {
			t.Errorf("%s: got %q, error %v; want %q", c.name, text, err, c.want)
		}
	}
}

// FuzzStream feeds a stream of anything: it must end, lawfully, and where every
// event is an object as servers send them the text must be what encoding/json
// finds in it.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		event("a") + event("b\n") + "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
		"data: {\"error\":{\"message\":\"no\",\"code\":429}}\n\n", "data: {\"usage\":{\"prompt_tokens\":1e99}}\n\n", ": x\n\ndata: [\n\n",
	} {
		f.Add([]byte(s), "text", "te\"xt")
	}
	f.Fuzz(func(t *testing.T, raw []byte, first, second string) {
		c := remoteapi.DefaultConfig()
		c.URL, c.Name, c.ContextLength, c.VocabSize, c.Transport = "http://test", "m", 100, 100, canned(raw)
		run(t, c)
		var good bytes.Buffer
		want := ""
		for _, s := range []string{first, second, first + second} {
			quoted, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var back string
			if err := json.Unmarshal(quoted, &back); err != nil {
				t.Fatal(err)
			}
			want += back
			fmt.Fprintf(&good, "data: {\"choices\":[{\"index\":0,\"text\":%s,\"finish_reason\":null}]}\n\n", quoted)
		}
		good.WriteString("data: {\"choices\":[{\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n")
		c.Transport = canned(good.String())
		if text, err := run(t, c); err != nil || text != want {
			t.Errorf("got %q, error %v; want %q", text, err, want)
		}
	})
}

// run asks and checks the laws of the sequence.
func run(t *testing.T, c remoteapi.Config) (text string, err error) {
	e, err := remoteapi.New(c)
	if err != nil {
		t.Fatal(err)
	}
	over := false
	for chunk, failed := range e.Generate(t.Context(), &dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{1, 2}, MaxTokens: 50}) {
		if over {
			t.Fatal("a pair after the end")
		}
		over, err = failed != nil || chunk.Finish != dynamo.FinishNone, failed
		if u := chunk.Usage; u.Cached > u.Prompt || u.Completion > 50 || u.Completion < 0 {
			t.Fatalf("usage %+v", u)
		}
		text += chunk.Text
	}
	if !over {
		t.Fatal("no end")
	}
	return text, err
}
