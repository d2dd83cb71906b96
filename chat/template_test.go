package chat_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
)

// TestContentParts holds the look at a template's text against what the
// template did with lists of parts when transformers rendered it.
func TestContentParts(t *testing.T) {
	var g goldenFile
	readGolden(t, "golden.json.bz2", &g)
	templates := readTemplates(t)
	for name, raw := range g.Results["parts+gen"] {
		o := readOutcome(t, raw)
		takes := o.Kind == "" && strings.Contains(o.text, "see") && !strings.Contains(o.text, "'type'") && !strings.Contains(o.text, `"type"`)
		if tmpl := templates[name]; tmpl != nil && tmpl.ContentParts() != takes {
			t.Errorf("%s: got %v, want %v: with parts it made %q", name, tmpl.ContentParts(), takes, o.text)
		}
	}
}

func TestSet(t *testing.T) {
	const plain, tools = `plain {{ messages[0].content }}`, `tools {{ tools|length }}`
	list := `[{"name": "default", "template": "` + plain + `"}, {"name": "tool_use", "template": "` + tools + `"}]`
	object := `{"default": "` + plain + `", "tool_use": "` + tools + `"}`
	oneTool := parse(t, json.RawMessage(`[{}]`))
	for _, test := range []struct {
		name, data string
		tools      chat.Value
		want       string // an error if it begins with a !
	}{
		{"a string", `"` + plain + `"`, chat.Value{}, "plain hello"},
		{"a string, tools", `"` + plain + `"`, oneTool, "plain hello"},
		{"a list", list, chat.Value{}, "plain hello"},
		{"a list, tools", list, oneTool, "tools 1"},
		{"a list, no tools in a list", list, chat.List(), "tools 0"},
		{"a list, none", list, chat.None(), "plain hello"},
		{"an object, tools", object, oneTool, "tools 1"},
		{"no default", `[{"name": "rag", "template": "x"}]`, chat.Value{}, "!none called default (it has rag)"},
		{"no default, tools", `[{"name": "tool_use", "template": "x"}]`, oneTool, "x"},
		{"an empty list", `[]`, chat.Value{}, "!must be a string or a list"},
		{"a number", `1`, chat.Value{}, "!must be a string or a list"},
		{"null", `null`, chat.Value{}, "!must be a string or a list"},
		{"a list of strings", `["x"]`, chat.Value{}, "!must be a string or a list"},
		{"no JSON", `x`, chat.Value{}, "!not valid JSON"},
		{"a wrong template", `[{"name": "default", "template": "a\n{% if %}"}]`, chat.Value{}, `!chat template "default": the chat template does not compile: Expected an expression, got 'end of statement block' (template line 2)`},
	} {
		set, err := chat.ParseSet([]byte(test.data))
		var got []byte
		if err == nil {
			in := oneMessage(t)
			in.Tools = test.tools
			got, err = set.Render(nil, in, chat.DefaultLimits())
		}
		if want, fails := strings.CutPrefix(test.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), want) || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%s: %v, want %s", test.name, err, want)
			}
		} else if err != nil || string(got) != test.want {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}

// TestErrors checks what a caller sees of a template's refusal.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		source, message string
		raised          bool
		line            int
	}{
		{"{{ raise_exception('roles must alternate') }}", "roles must alternate", true, 1},
		{"a\nb\n{{ messages.x.y }}", "'list object' has no attribute 'x'", false, 3},
		{"{% macro f() %}\n{{ 1 + 'a' }}{% endmacro %}\n\n{{ f() }}", "unsupported operand type(s) for +: 'int' and 'str'", false, 2},
	} {
		tmpl, err := chat.Compile(test.source)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.Render([]byte("kept"), oneMessage(t), chat.DefaultLimits())
		var e *dynamo.Error
		var cause *chat.TemplateError
		if !errors.As(err, &e) || !errors.As(err, &cause) {
			t.Fatalf("%s: %v", test.source, err)
		}
		if e.Kind != dynamo.KindInvalid || e.Code != chat.CodeTemplate || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: %v of kind %v and code %s", test.source, err, e.Kind, e.Code)
		}
		if cause.Message != test.message || cause.Raised != test.raised || cause.Line != test.line {
			t.Errorf("%s: %+v, want %+v", test.source, cause, test)
		}
		if string(got) != "kept" {
			t.Errorf("%s: destination %q", test.source, got)
		}
	}
}

// TestInputs checks what is refused before a template sees it.
func TestInputs(t *testing.T) {
	tmpl, err := chat.Compile("{{ messages|length }}")
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*chat.Input){
		"messages must be a list":         func(in *chat.Input) { in.Messages = chat.Value{} },
		"messages must be objects":        func(in *chat.Input) { in.Messages = chat.List(chat.String("x")) },
		"empty conversation":              func(in *chat.Input) { in.Messages = chat.List() },
		"tools must be a list":            func(in *chat.Input) { in.Tools = chat.Int(1) },
		"tools must be a list of objects": func(in *chat.Input) { in.Tools = chat.List(chat.None()) },
		"documents must be a list":        func(in *chat.Input) { in.Documents = chat.Bool(true) },
		"are not compatible":              func(in *chat.Input) { in.AddGenerationPrompt, in.ContinueFinalMessage = true, true },
		"not an accepted field":           func(in *chat.Input) { in.ContinueFinalMessage = true },
		"has no \"content\" to continue":  func(in *chat.Input) { in.ContinueFinalMessage, in.Messages = true, chat.List(chat.NewDict(0).Value()) },
	} {
		in := oneMessage(t)
		change(in)
		if _, err := tmpl.Render(nil, in, chat.DefaultLimits()); err == nil || !strings.Contains(err.Error(), want) || dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestParseJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for data, want := range map[string]string{
		`{"b": 1, "a": {"z": [], "y": {}}, "b": 2}`:                 `{"b": 2, "a": {"z": [], "y": {}}}`,
		`[1.0, 1e2, 1E400, -0, -0.0, 0.1, 10000000000000000000000]`: `[1.0, 100.0, Infinity, 0, -0.0, 0.1, 10000000000000000000000]`,
		`"\u00e9\ud83d\ude00\n\u0000"`:                              `"é😀\n\u0000"`,
		` [ true , false , null ] `:                                 `[true, false, null]`,
		deep(200):                                                   deep(200),
		deep(201):                                                   "!more than 200",
		strings.Repeat("[", 1_000_000):                              "!more than 200",
		`"\ud800"`:                                                  "!not valid JSON",
		"\"\xff\"":                                                  "!not valid JSON",
		`{"a": 1`:                                                   "!not valid JSON",
		`{"a": 1} {}`:                                               "!more than one value",
		`[1,]`:                                                      "!not valid JSON",
		`NaN`:                                                       "!not valid JSON",
		``:                                                          "!not valid JSON",
		strings.Repeat("9", 5000):                                   "!digits",
	} {
		v, err := chat.ParseJSON([]byte(data))
		if want, fails := strings.CutPrefix(want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), want) || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%.60s: %v, want %s", data, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.60s: %v", data, err)
			continue
		}
		tmpl, err := chat.Compile("{{ v|tojson }}")
		if err != nil {
			t.Fatal(err)
		}
		limits := chat.DefaultLimits()
		limits.Depth = 300
		in := oneMessage(t)
		in.Vars = chat.NewDict(1).Set("v", v)
		if got, err := tmpl.Render(nil, in, limits); err != nil || string(got) != want {
			t.Errorf("%.60s: %s, %v, want %s", data, got, err, want)
		}
	}
}

// TestInputUntouched checks that a render leaves its input alone, and that one
// template and one input serve many renders at once.
func TestInputUntouched(t *testing.T) {
	source := `{% set ns = namespace(d=messages[0], l=messages) %}{% set ns.d = 1 %}{% set messages = messages + [1] %}` +
		`{% for k, v in documents[0]|dictsort(reverse=true) %}{{ k }}{{ v }}{% endfor %}{{ (tools|sort(attribute='n'))|tojson }}{{ tools|reverse|list|length }}{{ tools[0].l|sort }}`
	tmpl, err := chat.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	in := &chat.Input{
		Messages:  parse(t, json.RawMessage(`[{"role": "user", "content": null, "reasoning": "r"}]`)),
		Tools:     parse(t, json.RawMessage(`[{"n": 2, "l": [3, 1]}, {"n": 1}]`)),
		Documents: parse(t, json.RawMessage(`[{"a": 1, "b": 2}]`)),
	}
	const want = `b2a1[{"n": 1}, {"n": 2, "l": [3, 1]}]2[1, 3]`
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if got, err := tmpl.Render(nil, in, chat.DefaultLimits()); err != nil || string(got) != want {
					t.Errorf("%s, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	show, err := chat.Compile("{{ m|tojson }}{{ tools|tojson }}")
	if err != nil {
		t.Fatal(err)
	}
	in.Vars = chat.NewDict(1).Set("m", in.Messages)
	got, err := show.Render(nil, in, chat.DefaultLimits())
	if want := `[{"role": "user", "content": null, "reasoning": "r"}][{"n": 2, "l": [3, 1]}, {"n": 1}]`; err != nil || string(got) != want {
		t.Errorf("afterwards the input is %s, %v", got, err)
	}
}

// TestValues covers the constructors and accessors a caller builds with.
func TestValues(t *testing.T) {
	d := chat.NewDict(2).Set("a", chat.String("x")).Set("b", chat.List(chat.Int(1), chat.Float(2), chat.Bool(true), chat.None())).Set("a", chat.String("y"))
	for i := range 30 {
		d.Set(strings.Repeat("k", i+1), chat.Int(int64(i)))
	}
	if v, ok := d.Get("kkk"); !ok || d.Len() != 32 {
		t.Errorf("%v, %v, %d entries", v, ok, d.Len())
	}
	if k, v := d.At(0); !is(k, "a") || !is(v, "y") {
		t.Error("the first entry is not a: y")
	}
	if _, ok := d.Get("nothing"); ok {
		t.Error("found nothing")
	}
	v, _ := d.Get("b")
	if items, ok := v.AsList(); !ok || len(items) != 4 || !items[3].IsNone() || items[0].IsNone() {
		t.Error("the list is not as it was made")
	}
	if back, ok := d.Value().AsDict(); !ok || back != d {
		t.Error("a dict does not come back from its value")
	}
	if !(chat.Value{}).IsZero() || chat.None().IsZero() {
		t.Error("IsZero")
	}
}

func is(v chat.Value, want string) bool {
	s, ok := v.AsString()
	return ok && s == want
}

// TestAllocations bounds what a render of an ordinary chat allocates.
func TestAllocations(t *testing.T) {
	var g goldenFile
	readGolden(t, "golden.json.bz2", &g)
	templates := readTemplates(t)
	for _, bench := range benchmarks[:4] {
		tmpl, in := templates[bench.template], g.input(t, g.Cases[bench.conversation])
		out := make([]byte, 0, 8192)
		allocs := testing.AllocsPerRun(20, func() {
			if _, err := tmpl.Render(out, in, chat.DefaultLimits()); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 60 {
			t.Errorf("%s: %.0f allocations", bench.name, allocs)
		}
	}
}
