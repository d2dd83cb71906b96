package frontend

import (
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/chat"
)

// TestTemplateInput wants what a template can see of a request to arrive there.
func TestTemplateInput(t *testing.T) {
	const plain = `"messages":[{"role":"user","content":"hi"}]`
	tests := []struct{ template, fields, want string }{
		{`{{ bos_token }}{{ messages[0].content }}`, plain, "<s>hi"},
		{`{{ enable_thinking }}|{{ bos_token }}`, `"chat_template_kwargs":{"enable_thinking":false,"bos_token":"b"},` + plain, "False|b"},
		{`{{ reasoning_effort }}`, `"reasoning_effort":"low",` + plain, "low"},
		{`{{ documents[0].text }}`, `"documents":[{"text":"d"}],` + plain, "d"},
		{`{{ documents is none }}{{ tools is none }}`, plain, "TrueTrue"},
		{`{{ messages[1].tool_calls[0].function.arguments.a }}`,
			`"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 7}"}}]}]`, "7"},
		{`{{ messages[1].tool_calls[0].function.arguments }}`,
			`"messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"not json"}}]}]`, "not json"},
		{`{% for p in messages[0].content %}[{{ p.type }}:{{ p.text }}]{% endfor %}`, `"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`, "[text:a][text:b]"},
		{`{{ messages[0].content }}`, `"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]`, "a\nb"},
		{`{{ messages[0].name }}`, `"messages":[{"role":"user","content":"x","name":"n"}]`, "n"},
		{`{{ add_generation_prompt }}`, `"add_generation_prompt":false,` + plain, "False"},
		{`{{ add_generation_prompt }}{% for m in messages %}{{ m.content }}{% endfor %}<end>`, `"continue_final_message":true,` + plain, "Falsehi"},
	}
	for _, tt := range tests {
		e := &fake{answer: says("x")}
		c := serve(t, e, func(_ *Config, m *Model) {
			var err error
			if m.Template, err = chat.NewSet(tt.template); err != nil {
				t.Fatal(err)
			}
			m.Vars = chat.NewDict(1).Set("bos_token", chat.String("<s>"))
		})
		c.ask("/v1/chat/completions", `{"model":"org/m",`+tt.fields+`}`)
		if got := c.server.mu.models["org/m"].Tokenizer.Decode(e.requests()[0].Tokens, false); got != tt.want {
			t.Errorf("%s with %s:\ngot  %q\nwant %q", tt.template, tt.fields, got, tt.want)
		}
	}
}

// TestTemplateRefuses wants the template's own words in a 400.
func TestTemplateRefuses(t *testing.T) {
	c := serve(t, &fake{answer: says("x")}, func(_ *Config, m *Model) {
		var err error
		if m.Template, err = chat.NewSet(`{% if messages[0].role != 'user' %}{{ raise_exception('Roles must alternate') }}{% endif %}`); err != nil {
			t.Fatal(err)
		}
	})
	resp, body := c.do("POST", "/v1/chat/completions", `{"model":"org/m","messages":[{"role":"system","content":"x"}]}`)
	if a := parse(t, body); resp.StatusCode != 400 || a.Error.Param != "messages" || !strings.Contains(a.Error.Message, "Roles must alternate") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
