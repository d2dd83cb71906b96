package node

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Engines of one process hand KV over by copying it, and answer as one engine does.
func TestPartsInProcess(t *testing.T) {
	path := tinyNative(t)
	answers := func(r *running) (all []string) {
		for i := range 6 {
			prompt := strings.Repeat(fmt.Sprintf("some words %d ", i%3), 12)
			b, err := io.ReadAll(post(t, r.url+"/v1/completions", fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":20,"ignore_eos":true,"seed":%d}`, prompt, i)).Body)
			if err != nil {
				t.Fatal(err)
			}
			_, text, _ := strings.Cut(string(b), `"text":`)
			text, _, _ = strings.Cut(text, `"finish_reason"`)
			all = append(all, text)
		}
		return all
	}
	whole := start(t, computing(path))
	want := answers(whole)
	whole.end(t)
	r := start(t, func(c *Config) {
		computing(path)(c)
		c.Engines, c.Prefill, c.Decode, c.Cluster.Routing.Split = 3, 1, 1, "always"
	})
	for i, got := range answers(r) {
		if got != want[i] {
			t.Errorf("answer %d is %s, want %s", i, got, want[i])
		}
	}
	metrics := fetch(t, r.url+"/metrics")
	for _, line := range []string{
		`dynamo_disagg_requests_total{path="handover"} 6`, `dynamo_native_takeovers_total{outcome="taken"} 6`, `dynamo_native_handovers_total 6`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics do not say %s", line)
		}
	}
	if strings.Contains(metrics, `dynamo_transfer_transfers_total{op="read",path="local"} 0`+"\n") || !strings.Contains(metrics, `dynamo_transfer_transfers_total{op="read",path="local"}`) {
		t.Error("no KV was copied directly")
	}
	r.end(t)
	http.DefaultClient.CloseIdleConnections()
}

// The KV of a prompt moves once for all choices of a request: beside it, each other choice
// brings the last, unfinished block alone.
func TestChoicesMoveOnce(t *testing.T) {
	path := tinyNative(t)
	r := start(t, func(c *Config) {
		computing(path)(c)
		c.Engines, c.Prefill, c.Decode, c.Cluster.Routing.Split = 2, 1, 1, "always"
	})
	moved := func() (taken, bytes int) {
		for line := range strings.Lines(fetch(t, r.url+"/metrics")) {
			_, _ = fmt.Sscanf(line, `dynamo_native_takeovers_total{outcome="taken"} %d`, &taken)
			_, _ = fmt.Sscanf(line, `dynamo_native_handover_bytes_total %d`, &bytes)
		}
		return taken, bytes
	}
	ask := func(n int, prompt string) (taken, bytes int) {
		before, already := moved()
		if b, err := io.ReadAll(post(t, r.url+"/v1/completions", fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":20,"ignore_eos":true,"temperature":1,"seed":3,"n":%d}`, prompt, n)).Body); err != nil || strings.Count(string(b), `"finish_reason":"length"`) != n {
			t.Fatalf("%v: %s", err, b)
		}
		taken, bytes = moved()
		return taken - before, bytes - already
	}
	text := strings.Repeat("some words and ", 20)
	_, one := ask(1, "once "+text)
	taken, all := ask(5, "many "+text)
	if taken != 5 {
		t.Errorf("%d of 5 choices took KV", taken)
	}
	if one == 0 || all > one+4*one/8 { // a block is less than an eighth of the prompt
		t.Errorf("for 5 choices %d bytes were moved, for one of them %d", all, one)
	}
	r.end(t)
	http.DefaultClient.CloseIdleConnections()
}

// Who does what has to fit the engines.
func TestPartsRefused(t *testing.T) {
	for _, c := range []struct {
		engines, prefill, decode int
		engine, want             string
	}{
		{2, 2, 0, EngineNative, "somebody has to go on"}, {2, 2, 1, EngineNative, "--prefill is 2 and --decode 1, of 2 engines"},
		{2, -1, 1, EngineNative, "--prefill is -1"}, {2, 1, 1, EngineEcho, "are for --engine native and mocker, this one is echo"},
	} {
		cfg := DefaultConfig()
		cfg.Engines, cfg.Prefill, cfg.Decode, cfg.Engine = c.engines, c.prefill, c.decode, c.engine
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
