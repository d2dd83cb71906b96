package chat_test

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
)

// oneMessage is the shortest conversation.
func oneMessage(t testing.TB) *chat.Input {
	return &chat.Input{Messages: parse(t, json.RawMessage(`[{"role":"user","content":"hello"}]`))}
}

// hostileTemplates are made to run forever or to eat memory.
func hostileTemplates() map[string]string {
	loops := func(n int, body string) string {
		return strings.Repeat("{% for x in range(100000) %}", n) + body + strings.Repeat("{% endfor %}", n)
	}
	const blow = "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(100) %}{% set ns.s = "
	return map[string]string{
		"nested loops":        loops(4, ""),
		"empty output":        loops(3, strings.Repeat("{{ '' }}", 1000)),
		"long body":           loops(2, strings.Repeat("{% if a %}{% endif %}", 20_000)),
		"output":              loops(2, "0123456789abcdef"),
		"captured output":     loops(2, "{% set x %}"+strings.Repeat("y", 10_000)+"{% endset %}"),
		"doubling by ~":       blow + "ns.s ~ ns.s %}{% endfor %}",
		"doubling by +":       blow + "ns.s + ns.s %}{% endfor %}",
		"doubling by sums":    blow + "ns.s + ns.s + ns.s %}{% endfor %}",
		"doubling by *":       blow + "ns.s * 2 %}{% endfor %}",
		"doubling by replace": blow + "ns.s|replace('0', ns.s) %}{% endfor %}",
		"doubling by join":    blow + "[ns.s, ns.s]|join %}{% endfor %}",
		"doubling by %":       blow + "'%s%s' % (ns.s, ns.s) %}{% endfor %}",
		"doubling by format":  blow + "'{0}{0}'.format(ns.s) %}{% endfor %}",
		"doubling by escape":  "{% set ns = namespace(s='&') %}{% for i in range(100000) %}{% set ns.s = (ns.s ~ ns.s)|forceescape %}{% endfor %}",
		"huge product":        "{{ 'a' * 9999999999 }}",
		"huge product of 0":   "{% for i in range(100000) %}{% for i in range(100000) %}{{ [] * 9223372036854775807 }}{% endfor %}{% endfor %}",
		"huge list":           "{{ [1] * 99999999999 }}",
		"overflowing product": "{{ 'ab' * 9223372036854775807 }}",
		"huge width":          "{{ '%99999999999d' % 1 }}",
		"huge star width":     "{{ '%*d' % (99999999999, 1) }}",
		"huge precision":      "{{ '%.99999999f' % 1.5 }}",
		"huge format":         "{{ '{:99999999999}'.format(1) }}",
		"huge center":         "{{ 'a'.center(99999999999) }}",
		"huge center filter":  "{{ 'a'|center(99999999999) }}",
		"huge indent":         "{{ 'a\n'|indent(99999999999) }}",
		"huge json indent":    "{{ [1]|tojson(indent=99999999999) }}",
		"huge tabs":           "{{ '\t'.expandtabs(99999999999) }}",
		"huge batch":          "{{ [1]|batch(99999999999, 0)|list }}",
		"huge slice":          "{{ [1]|slice(99999999999, 0)|list }}",
		"huge range":          "{{ range(99999999999)|list }}",
		"huge power":          "{{ 10 ** 99999999999 }}",
		"towers":              "{{ 9 ** 9 ** 9 ** 9 ** 9 ** 9 }}",
		"squares":             "{% set ns = namespace(n=3) %}{% for i in range(100000) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
		"wide division":       "{% set a = 7 ** 5000 %}{% set b = 3 ** 4000 %}" + loops(2, "{% if a // b %}{% endif %}"),
		"recursion":           "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"deep frames":         "{% macro f() %}{{ f()" + strings.Repeat(" + ''", 450) + " }}{% endmacro %}{{ f() }}",
		"deep lists":          "{% macro f() %}{{ " + strings.Repeat("[", 40) + "f()" + strings.Repeat("]", 40) + " }}{% endmacro %}{{ f() }}",
		"recursion by call":   "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}",
		"recursion in two":    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
		"recursive loop":      "{% set ns = namespace(l=[1]) %}{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"wide recursion":      "{% macro f(n) %}{% if n %}{% for x in range(100) %}{{ f(n - 1) }}{% endfor %}{% endif %}{% endmacro %}{{ f(50) }}",
		"cycle printed":       "{% set ns = namespace() %}{% set ns.n = ns %}{{ ns }}",
		"cycle compared":      "{% set a = namespace() %}{% set a.n = [a] %}{% for i in range(300) %}{% set a.n = [a.n] %}{% endfor %}{{ a.n == [a.n] }}{{ a }}",
		"tree printed":        "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
		"tree to JSON":        "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|tojson }}",
		"tree compared":       "{% set ns = namespace(a=[], b=[]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
		"tree hashed":         "{% set ns = namespace(a=()) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {ns.a: 1} }}",
		"growing lists":       "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
		"sums of lists":       "{% set l = [[1] * 1000] * 1000 %}" + loops(2, "{% if l|sum(start=[]) %}{% endif %}"),
		"sorting":             loops(2, "{% if range(100000)|sort(reverse=true) %}{% endif %}"),
		"long strips":         "{% set s = ' ' * 9999999 %}" + loops(2, "{{ s.strip() }}"),
		"long search":         "{% set s = 'a' * 9999999 %}" + loops(2, "{{ s.find('b') }}"),
		"long contains":       "{% set s = 'a' * 9999999 %}" + loops(2, "{% if 'ab' in s %}{% endif %}"),
		"long index":          "{% set s = 'é' * 999999 %}" + loops(2, "{% if s[-1] %}{% endif %}"),
		"long key":            "{% set s = 'a' * 9999999 %}" + loops(2, "{% if s in {'a': 1} %}{% endif %}"),
		"long lower":          "{% set s = 'a' * 9999999 %}" + loops(2, "{% if s is lower %}{% endif %}"),
		"many parts":          "{% set s = 'a ' * 9999999 %}{{ s.split()|length }}",
		"many parts by comma": "{% set s = 'a,' * 9999999 %}{{ s.split(',')|length }}",
		"many parts from end": "{% set s = 'a,' * 9999999 %}{{ s.rsplit(',')|length }}",
		"many lines":          "{% set s = 'a\n' * 9999999 %}{{ s.splitlines()|length }}",
		"many lines indented": "{% set s = 'a\n' * 9999999 %}{{ s|indent|length }}",
		"number keys":         "{% set l = range(100000)|batch(1)|list %}" + loops(1, "{% if dict(l|map('list')|zip) %}{% endif %}"),
		"numbers made unique": loops(1, "{% if range(100000)|unique|list %}{% endif %}"),
		"keyword flood":       "{% macro f() %}{{ kwargs }}{% endmacro %}{% set d = dict.fromkeys(range(100000)|map('string')) %}" + loops(2, "{{ f(**d) }}"),
		"endless cycle":       "{% set c = cycler(1) %}" + loops(3, "{{ c.next() }}"),
		"format of format":    "{{ ('{' * 1000) ~ '0' ~ ('}' * 1000) }}{{ (('{0:' * 100) ~ ('}' * 100)).format(1) }}",
	}
}

// TestHostileTemplates renders templates that would not end, or not in memory.
// Each has to end, within a few seconds even on a busy machine, in an error.
func TestHostileTemplates(t *testing.T) {
	// A fraction of the steps that are allowed by default keeps the test short.
	limits := chat.DefaultLimits()
	limits.Steps /= 8
	for name, source := range hostileTemplates() {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			tmpl, err := chat.Compile(source)
			if err == nil {
				var got []byte
				got, err = tmpl.Render([]byte("kept"), oneMessage(t), limits)
				if string(got) != "kept" {
					t.Errorf("the destination holds %d bytes after an error", len(got))
				}
			}
			if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("got %v, want an error of kind invalid", err)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestHostileSources compiles texts made to break a parser.
func TestHostileSources(t *testing.T) {
	deep := func(n int, open, inner, shut string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	const n = 100_000
	tests := map[string]string{
		"brackets":     "{{ " + deep(n, "(", "1", ")") + " }}",
		"lists":        "{{ " + deep(n, "[", "1", "]") + " }}",
		"dicts":        "{{ " + deep(n, "{1:", "1", "}") + " }}",
		"ifs":          deep(20_000, "{% if 1 %}", "x", "{% endif %}"),
		"fors":         deep(20_000, "{% for x in y %}", "x", "{% endfor %}"),
		"sums":         "{{ 1" + strings.Repeat("+1", n) + " }}",
		"ands":         "{{ 1" + strings.Repeat(" and 1", n) + " }}",
		"nots":         "{{ " + strings.Repeat("not ", n) + "1 }}",
		"minuses":      "{{ " + strings.Repeat("- ", n) + "1 }}",
		"powers":       "{{ 1" + strings.Repeat("**1", n) + " }}",
		"filters":      "{{ 1" + strings.Repeat("|e", n) + " }}",
		"tests":        "{{ 1" + strings.Repeat(" is odd", n) + " }}",
		"attributes":   "{{ a" + strings.Repeat(".a", n) + " }}",
		"subscripts":   "{{ a" + strings.Repeat("[0]", n) + " }}",
		"calls":        "{{ a" + strings.Repeat("()", n) + " }}",
		"conditions":   "{{ 1" + strings.Repeat(" if 1 else 1", n/2) + " }}",
		"comparisons":  "{{ 1" + strings.Repeat("<1", n) + " }}",
		"filter block": "{% filter e" + strings.Repeat("|e", n) + " %}{% endfilter %}",
		"elses":        "{% if 1 %}" + strings.Repeat("{% else %}", 100),
		"digits":       "{{ " + strings.Repeat("9", n) + " }}",
		"name":         "{{ " + strings.Repeat("a", n) + " }}",
		"parameters":   "{% macro f(" + strings.Repeat("a,", n) + "b) %}{% endmacro %}",
		"arguments":    "{{ f(" + strings.Repeat("a=1,", n) + ") }}",
		"bytes":        strings.Repeat("x", 2<<20),
		"not UTF-8":    "{{ \xff }}",
		"comment":      strings.Repeat("{#", n),
		"raw":          "{% raw %}" + strings.Repeat("{%", n),
		"towers":       "{{ " + deep(100, "(1"+strings.Repeat("+1", 400)+"+", "1", ")") + " }}",
	}
	for name, source := range tests {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			_, err := chat.Compile(source)
			if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("got %v, want an error of kind invalid", err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestLargeSources compiles valid templates as large as they may be.
func TestLargeSources(t *testing.T) {
	var names strings.Builder
	for i := range 20_000 {
		names.WriteString("{% set a" + strconv.Itoa(i) + "=1 %}")
	}
	for name, source := range map[string]string{
		"names and branches": names.String() + strings.Repeat("{% if a %}{% set b=1 %}{% endif %}", 10_000),
		"elifs":              "{% if a %}" + strings.Repeat("{% elif a %}{% set b=1 %}", 30_000) + "{% endif %}",
		"roles":              strings.Repeat("{% set a = b %}{% set b = c %}{% set c = messages %}{% for b in a %}{% endfor %}", 9_000),
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			if _, err := chat.Compile(source); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestLimits checks that each limit has its own effect and message.
func TestLimits(t *testing.T) {
	source := "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{% for i in range(100) %}{{ i }},{% endfor %}{{ f(10) }}"
	tmpl, err := chat.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	enough := chat.Limits{Steps: 10_000, Depth: 12, OutputBytes: 400}
	if _, err := tmpl.Render(nil, oneMessage(t), enough); err != nil {
		t.Errorf("within the limits: %v", err)
	}
	value, err := chat.Compile("{% set x = 'a' * 401 %}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := value.Render(nil, oneMessage(t), enough); err == nil || !strings.Contains(err.Error(), "larger value") {
		t.Errorf("a value beyond the limit: %v", err)
	}
	for want, change := range map[string]func(*chat.Limits){
		"steps": func(l *chat.Limits) { l.Steps = 100 },
		"nests": func(l *chat.Limits) { l.Depth = 5 },
		"text":  func(l *chat.Limits) { l.OutputBytes = 100 },
	} {
		l := enough
		change(&l)
		_, err := tmpl.Render(nil, oneMessage(t), l)
		var e *dynamo.Error
		if !errors.As(err, &e) || e.Code != chat.CodeLimit || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
