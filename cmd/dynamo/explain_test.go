package main

import (
	"strings"
	"testing"
)

// record is a request that was tried twice.
const record = `{"request":"chatcmpl-1/2","model":"tiny","attempts":[
 {"at":"2026-03-04T12:00:00.1Z","attempt":1,"policy":"kv","seed":18446744073709551615,"queue_ms":0.1,"prompt_tokens":700,"blocks":43,"block_size":16,"winner":"a1b2c3d4e5f60001","tie":"","sticky":false,
  "candidates":[
   {"worker":"a1b2c3d4e5f60001","rank":0,"verdict":"fit","overlap":{"device":12,"host":14,"disk":14,"remote":14},"terms":{"wait_ms":1.5,"prefill_ms":20.1,"load_ms":0,"slowdown_ms":0.3,"evict_ms":0},"cost":21.9,"load":3,"report_age_ms":12,"confidence":0.8},
   {"worker":"a1b2c3d4e5f60002","rank":1,"verdict":"full","overlap":{"device":0,"host":0,"disk":0,"remote":0},"terms":{"wait_ms":120,"prefill_ms":40.2,"load_ms":0,"slowdown_ms":1,"evict_ms":0},"cost":161.2,"load":8,"report_age_ms":1400,"confidence":0.6,"topology":"other host"}],
  "others":{"count":56,"best_cost":30.2},"words":["Worker a1b2c3d4e5f60001 holds 12 of 43 blocks.","Another would have won had it held 31 blocks more of this prompt or 2 requests fewer, whichever came first."],"predicted_ttft_ms":21.9,"outcome":"refused"},
 {"at":"2026-03-04T12:00:00.2Z","attempt":2,"policy":"kv","seed":7,"queue_ms":0,"prompt_tokens":700,"blocks":43,"block_size":16,"winner":"a1b2c3d4e5f60003","tie":"fewest requests, of 2","sticky":true,
  "candidates":[{"worker":"a1b2c3d4e5f60003","rank":0,"verdict":"fit","overlap":{"device":3,"host":3,"disk":3,"remote":3},"terms":{"wait_ms":0,"prefill_ms":30.1},"cost":30.1,"load":0,"report_age_ms":5,"confidence":1}],
  "predicted_ttft_ms":30.1,"observed_ttft_ms":29.0,"outcome":"completed","shadow":{"policy":"p2c","agrees":false}}]}`

func TestExplain(t *testing.T) {
	s := frontendOf(t, "", nil)
	got, err := command(t, "explain", "chatcmpl-1/2", "--url", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain-plain", strings.Split(strings.TrimRight(got, "\n"), "\n"))
	got, err = command(t, "explain", "chatcmpl-1/2", "--json", "--url", s.URL)
	if err != nil || !strings.Contains(got, `"seed": 18446744073709551615`) {
		t.Errorf("--json: %v\n%s", err, got)
	}
	if _, err = command(t, "explain", "chatcmpl-9", "--url", s.URL); err == nil || !strings.Contains(err.Error(), "no record of request chatcmpl-9") {
		t.Errorf("a request without a record: %v", err)
	}
	if _, err = command(t, "explain", " ", "--url", s.URL); err == nil {
		t.Error("an empty id is taken")
	}
}

func TestExplainNarrow(t *testing.T) {
	doc, err := parseExplanation([]byte(record))
	if err != nil {
		t.Fatal(err)
	}
	wide, narrow := strings.Join(doc.lines(0), "\n"), strings.Join(doc.lines(100), "\n")
	if !strings.Contains(wide, "EVICT") || strings.Contains(narrow, "EVICT") || !strings.Contains(narrow, "PREFILL") {
		t.Errorf("a narrow table leaves out the columns without values, and no others; got:\n%s", narrow)
	}
}

func TestExplainHostile(t *testing.T) {
	evil := quoted("\x1b]0;owned\x07\u009b2J\u202e\nnext\x00" + strings.Repeat("wide ", 4000))
	for _, body := range []string{
		`{}`, `{"attempts":null}`, `{"attempts":[{}]}`, `{"attempts":[{"candidates":[{}]}]}`,
		`{"request":` + evil + `,"model":` + evil + `,` + evil + `:` + evil + `,"attempts":[{"at":` + evil + `,"policy":` + evil + `,"seed":` + evil + `,"winner":` + evil + `,"tie":` + evil + `,"outcome":` + evil + `,"words":[` + evil + `,""],"candidates":[{"worker":` + evil + `,"verdict":` + evil + `,"overlap":{` + evil + `:1},"terms":{` + evil + `:-1e308},"cost":1e308,"report_age_ms":-1e308,"confidence":1e308,"load":-1e308,` + evil + `:[` + evil + `]}],"others":{"count":3,"best_cost":-1e308,"x":` + evil + `}}]}`,
		`{"attempts":[{"candidates":[` + strings.Repeat(`{"terms":{"a":1}},`, 5000) + `{}],"words":[` + strings.Repeat(`"w",`, 5000) + `""]}` + strings.Repeat(`,{}`, 5000) + `]}`,
	} {
		doc, err := parseExplanation([]byte(body))
		if err != nil {
			t.Errorf("%.60s: %v", body, err)
			continue
		}
		for _, wide := range []int{0, 1, 30, 80} {
			lines := doc.lines(wide)
			harmless(t, lines)
			if len(lines) > 2000 {
				t.Errorf("%.60s: %d lines", body, len(lines))
			}
		}
	}
	for _, body := range []string{``, `[]`, `{"attempts":{}}`, `{"attempts":[{"blocks":"x"}]}`} {
		if _, err := parseExplanation([]byte(body)); err == nil {
			t.Errorf("%q is understood", body)
		}
	}
	harmless(t, strings.Split(escaped("{\n \"a\u009b\u202e\U000e0001\": \"é名\"}"), "\n"))
	if got, want := escaped("\u009b\U000e0001é"), `\u009b\udb40\udc01é`; got != want {
		t.Errorf("escaped: got %s, want %s", got, want)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		cells int
		want  string
	}{
		{"", 5, ""}, {"one two three", 7, "one two|three"}, {"abcdefgh ij", 3, "abc|def|gh|ij"}, {"名名名", 4, "名名|名"}, {"名", 1, "名"}, {"a b", 0, "a b"},
	} {
		if got := strings.Join(wrap(c.text, c.cells), "|"); got != c.want {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.text, c.cells, got, c.want)
		}
	}
}

func FuzzExplain(f *testing.F) {
	f.Add([]byte(record))
	f.Add([]byte(`{"attempts":[{"candidates":[{}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if doc, err := parseExplanation(body); err == nil {
			harmless(t, doc.lines(80))
		}
	})
}
