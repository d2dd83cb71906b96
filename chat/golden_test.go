package chat_test

import (
	"compress/bzip2"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/chat"
)

// goldenFile is what scripts/chat/golden.py writes.
type goldenFile struct {
	MadeBy  map[string]string                     `json:"made_by"`
	Now     string                                `json:"now"`
	Vars    map[string]string                     `json:"vars"`
	Cases   map[string]goldenCase                 `json:"cases"`
	Results map[string]map[string]json.RawMessage `json:"results"`
}

type goldenCase struct {
	Messages  json.RawMessage `json:"messages"`
	Tools     json.RawMessage `json:"tools"`
	Documents json.RawMessage `json:"documents"`
	Kwargs    json.RawMessage `json:"kwargs"`
	Generate  bool            `json:"add_generation_prompt"`
	Continue  bool            `json:"continue_final_message"`
}

// outcome is a prompt, or the error in its place.
type outcome struct {
	text    string
	Kind    string `json:"error"`
	Message string `json:"message"`
	Raised  bool   `json:"raised"`
}

func readOutcome(t *testing.T, raw json.RawMessage) (o outcome) {
	t.Helper()
	into := any(&o)
	if raw[0] == '"' {
		into = &o.text
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
	return o
}

func readGolden(t testing.TB, name string, into any) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := json.NewDecoder(bzip2.NewReader(f)).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func parse(t testing.TB, data json.RawMessage) chat.Value {
	t.Helper()
	if data == nil {
		return chat.Value{}
	}
	v, err := chat.ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// input makes the input of a case.
func (g *goldenFile) input(t testing.TB, c goldenCase) *chat.Input {
	t.Helper()
	now, err := time.Parse("2006-01-02T15:04:05.999999", g.Now)
	if err != nil {
		t.Fatal(err)
	}
	vars := chat.NewDict(8)
	for name, v := range g.Vars {
		vars.Set(name, chat.String(v))
	}
	if d, ok := parse(t, c.Kwargs).AsDict(); ok {
		for i := range d.Len() {
			k, v := d.At(i)
			name, _ := k.AsString()
			vars.Set(name, v)
		}
	}
	return &chat.Input{
		Messages: parse(t, c.Messages), Tools: parse(t, c.Tools), Documents: parse(t, c.Documents),
		AddGenerationPrompt: c.Generate, ContinueFinalMessage: c.Continue, Vars: vars, Now: now,
	}
}

func readTemplates(t testing.TB) map[string]*chat.Template {
	t.Helper()
	paths, err := filepath.Glob("testdata/templates/*.jinja")
	if err != nil || len(paths) < 70 {
		t.Fatalf("%d templates, %v", len(paths), err)
	}
	all := map[string]*chat.Template{}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := chat.Compile(string(source))
		if err != nil {
			// A template that does not compile fails with every conversation.
			t.Logf("%s: %v", path, err)
		}
		all[filepath.Base(path)] = compiled
	}
	return all
}

// TestGolden renders every published template with every conversation and
// compares with what transformers made of them.
func TestGolden(t *testing.T) {
	var g goldenFile
	readGolden(t, "golden.json.bz2", &g)
	templates := readTemplates(t)
	var names []string
	for name := range g.Cases {
		names = append(names, name)
	}
	sort.Strings(names)
	renders, failures, sameMessage := 0, 0, 0
	for _, name := range names {
		in := g.input(t, g.Cases[name])
		for template, raw := range g.Results[name] {
			want := readOutcome(t, raw)
			tmpl := templates[template]
			if tmpl == nil {
				if want.Kind == "" {
					t.Errorf("%s × %s: does not compile", template, name)
				}
				continue
			}
			renders++
			got, err := tmpl.Render(nil, in, chat.DefaultLimits())
			var cause *chat.TemplateError
			errors.As(err, &cause)
			switch {
			case want.Kind == "" && err != nil:
				t.Errorf("%s × %s: %v", template, name, err)
			case want.Kind == "" && string(got) != want.text:
				t.Errorf("%s × %s: %s", template, name, firstDifference(string(got), want.text))
			case want.Kind != "" && err == nil:
				t.Errorf("%s × %s: got a prompt, want %s: %s", template, name, want.Kind, want.Message)
			case want.Kind != "":
				failures++
				if cause != nil && cause.Message == want.Message {
					sameMessage++
				} else if testing.Verbose() {
					t.Logf("%s × %s: message %q, want %q", template, name, err, want.Message)
				}
				if want.Raised && (cause == nil || !cause.Raised || cause.Message != want.Message) {
					t.Errorf("%s × %s: %v, want the template's own %q", template, name, err, want.Message)
				}
			}
		}
	}
	if failures-sameMessage > failures/100 {
		t.Errorf("%d of %d errors have another message than transformers'", failures-sameMessage, failures)
	}
	t.Logf("%d renders by %v; %d of them errors, %d with the same message", renders, g.MadeBy, failures, sameMessage)
}

// firstDifference shows where two prompts part.
func firstDifference(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, min(i, len(s))-60):min(len(s), i+60)] }
	return "got …" + quote(cut(got)) + ", want …" + quote(cut(want))
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
