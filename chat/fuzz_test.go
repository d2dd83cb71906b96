package chat_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo/chat"
)

// fuzzLimits keep one input short.
var fuzzLimits = chat.Limits{Steps: 20_000, Depth: 60, OutputBytes: 1 << 18}

// FuzzTemplate compiles and renders anything: it must neither panic nor fail to
// end, and an error leaves the destination alone.
func FuzzTemplate(f *testing.F) {
	var g struct {
		Context  json.RawMessage      `json:"context"`
		Snippets [][2]json.RawMessage `json:"snippets"`
	}
	readGolden(f, "snippets.json.bz2", &g)
	for _, s := range g.Snippets {
		var source string
		if err := json.Unmarshal(s[0], &source); err != nil {
			f.Fatal(err)
		}
		f.Add(source)
	}
	for _, t := range readTemplates(f) {
		if t != nil {
			f.Add(t.Source())
		}
	}
	vars, _ := parse(f, g.Context).AsDict()
	in := &chat.Input{
		Messages: parse(f, json.RawMessage(`[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"é"}]},
			{"role":"assistant","content":"a","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"x":[1,null]}}}]},{"role":"tool","content":"r"}]`)),
		Tools: parse(f, json.RawMessage(`[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"x":{"type":"array"}}}}}]`)),
		Vars:  vars, AddGenerationPrompt: true,
	}
	f.Fuzz(func(t *testing.T, source string) {
		tmpl, err := chat.Compile(source)
		if err != nil {
			return
		}
		got, err := tmpl.Render([]byte("before"), in, fuzzLimits)
		if err != nil && string(got) != "before" {
			t.Fatalf("after an error: %q", got)
		}
		if err == nil && (len(got) < 6 || string(got[:6]) != "before" || len(got) > fuzzLimits.OutputBytes+6) {
			t.Fatalf("%d bytes", len(got))
		}
		if err == nil && utf8.ValidString(source) && !utf8.Valid(got) {
			t.Fatalf("valid text became invalid: %q from %q", got, source)
		}
	})
}

// FuzzParseJSON reads anything: it must not panic, and what it reads, tojson
// writes in a form that reads as the same.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,-0,1e400,"\u00e9\ud83d\ude00",null,true]}`, `[[[[]]]]`, `12345678901234567890`, `{"a":1,"a":2}`, `"\ud800"`, `1 2`, ``, `nul`} {
		f.Add([]byte(s))
	}
	write, err := chat.Compile(`{{ v|tojson }}`)
	if err != nil {
		f.Fatal(err)
	}
	messages := parse(f, json.RawMessage(`[{}]`))
	text := func(t *testing.T, v chat.Value) string {
		got, err := write.Render(nil, &chat.Input{Messages: messages, Vars: chat.NewDict(1).Set("v", v)}, chat.DefaultLimits())
		if err != nil {
			t.Skip(err) // beyond the limits
		}
		return string(got)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := chat.ParseJSON(data)
		if err != nil {
			return
		}
		first := text(t, v)
		again, err := chat.ParseJSON([]byte(first))
		if err != nil {
			return // NaN and infinities are not JSON
		}
		if second := text(t, again); second != first {
			t.Fatalf("%q, then %q", first, second)
		}
	})
}
