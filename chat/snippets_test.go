package chat_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/chat"
)

// TestSnippets compares small templates, each for one rule of the language,
// with jinja2.
func TestSnippets(t *testing.T) {
	var g struct {
		MadeBy   map[string]string    `json:"made_by"`
		Context  json.RawMessage      `json:"context"`
		Snippets [][2]json.RawMessage `json:"snippets"`
	}
	readGolden(t, "snippets.json.bz2", &g)
	vars, _ := parse(t, g.Context).AsDict()
	in := &chat.Input{
		Messages: parse(t, json.RawMessage(`[{"role": "user", "content": "x"}]`)),
		Vars:     vars, Now: time.Date(2025, 3, 9, 7, 5, 2, 45000, time.UTC),
	}
	failures, same := 0, 0
	for _, s := range g.Snippets {
		source := readOutcome(t, s[0]).text
		want := readOutcome(t, s[1])
		var got []byte
		tmpl, err := chat.Compile(source)
		if err == nil {
			got, err = tmpl.Render(nil, in, chat.DefaultLimits())
		}
		var cause *chat.TemplateError
		errors.As(err, &cause)
		switch {
		case strings.Contains(want.text, " at 0x"):
			// Nobody can rely on an address.
		case want.Kind == "" && err != nil:
			t.Errorf("%s: %v, want %q", source, err, want.text)
		case want.Kind == "" && string(got) != want.text:
			t.Errorf("%s: %q, want %q", source, got, want.text)
		case want.Kind != "" && err == nil:
			t.Errorf("%s: %q, want %s: %s", source, got, want.Kind, want.Message)
		case want.Kind != "":
			failures++
			if cause != nil && strings.TrimSpace(cause.Message) == strings.TrimSpace(want.Message) {
				same++
			} else if testing.Verbose() {
				t.Logf("%s: message %q, want %q", source, err, want.Message)
			}
		}
	}
	// Messages are compared too, but Python's wording of its own errors is not
	// law: most are the same.
	if failures-same > failures/8 {
		t.Errorf("%d of %d errors have another message than jinja2's", failures-same, failures)
	}
	t.Logf("%d snippets by %v; %d of them errors, %d with the same message", len(g.Snippets), g.MadeBy, failures, same)
}
