package vllm_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/vllm"
)

// pair is a prefill and a decode server, and an engine over each.
type pair struct {
	side         *side
	prefill, dec *fake
	p, d         *vllm.Engine
}

// openPair opens them after change, if that is not nil, has made them different.
func openPair(t testing.TB, change func(p, d *fake)) *pair {
	t.Helper()
	x := &pair{side: newSide(), prefill: newFake(), dec: newFake()}
	x.prefill.side, x.dec.side = x.side, x.side
	if change != nil {
		change(x.prefill, x.dec)
	}
	of := func(f *fake, role string) *vllm.Engine {
		c := config(f.start(t).URL)
		c.Role = role
		return open(t, c)
	}
	x.p, x.d = of(x.prefill, engine.RolePrefill), of(x.dec, engine.RoleDecode)
	return x
}

// apart serves requests in two parts.
func (x *pair) apart(t testing.TB) engine.Engine {
	t.Helper()
	e, err := disagg.New(disagg.Config{Prefill: x.p, Decode: x.d})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// handed asks the prefill server for the KV of r and returns where it is.
func (x *pair) handed(t *testing.T, r dynamo.Request) (where []byte, u dynamo.Usage) {
	t.Helper()
	r.Prefill = true
	for chunk, err := range x.p.Generate(t.Context(), &r) {
		if err != nil || len(chunk.Tokens) > 0 || chunk.Finish != dynamo.FinishLength || len(chunk.Handover) == 0 || chunk.Cached != 0 {
			t.Fatalf("got %+v, %v", chunk, err)
		}
		where, u = slices.Clone(chunk.Handover), chunk.Usage
	}
	return where, u
}

// The answer of two servers is that of one, and every prompt's KV is fetched once.
func TestApartConformance(t *testing.T) {
	for _, noScale := range []bool{false, true} {
		t.Run(fmt.Sprintf("completions=%t", noScale), func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				x := openPair(t, func(p, d *fake) { p.noScale, d.noScale = noScale, noScale })
				t.Cleanup(func() {
					if _, _, wrong, halves := x.side.counts(); wrong+halves > 0 {
						t.Errorf("other KV was fetched %d times, and half a word sent %d times", wrong, halves)
					}
				})
				both := func() error { return errors.Join(idle(x.p)(), idle(x.d)()) }
				return enginetest.Subject{Engine: x.apart(t), Card: x.d.Card(), Prompt: small, Text: textOf, Idle: both}
			})
		})
	}
}

// What either server is asked, field by field, and what is handed over.
func TestHandoverBodies(t *testing.T) {
	r := dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{5, 6, 7, 8}, Resume: []dynamo.TokenID{9}, MaxTokens: 6, MinTokens: 4, Namespace: "a", Priority: 2, StopTokens: []dynamo.TokenID{3},
		Sampling: dynamo.Sampling{Temperature: 1, Seed: 5, Seeded: true, Logprobs: true}}
	ask := `"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}`
	for name, want := range map[string]string{
		"generate":    `{"model":"tiny","token_ids":[5,6,7,8,9],"cache_salt":"a","priority":-2,"stream":false,` + ask + `,"sampling_params":{"detokenize":false,"max_tokens":1,"ignore_eos":true,"temperature":0}}`,
		"completions": `{"model":"tiny","prompt":[5,6,7,8,9],"return_token_ids":true,"return_tokens_as_token_ids":true,"skip_special_tokens":false,"cache_salt":"a","priority":-2,"stream":false,` + ask + `,"max_tokens":1,"ignore_eos":true,"temperature":0}`,
	} {
		x := openPair(t, func(p, d *fake) { p.noScale, d.noScale = name == "completions", name == "completions" })
		equal(t, name, x.prefill, want, func() { x.handed(t, r) })
		where, _ := x.handed(t, r)
		var h struct {
			Engine string
			Tokens int
			At     int64 `json:"at_ms"`
			Lease  int64 `json:"lease_ms"`
			Params json.RawMessage
		}
		decode(t, string(where), &h)
		if age := time.Since(time.UnixMilli(h.At)); h.Engine != "vllm" || h.Tokens != 5 || age < 0 || age > time.Minute || h.Lease != 30000 {
			t.Errorf("%s: handed over %s", name, where)
		}
		if got, want := string(h.Params), string(fakeParams("generate-tokens-b753f6853f24bc8f-2", 1, 5, 0)); got != want {
			t.Errorf("%s: handed over\n%s, the server said\n%s", name, got, want)
		}
		go2 := r
		go2.Handover = where
		if _, err := enginetest.Collect(t.Context(), x.d, &go2); err != nil {
			t.Fatal(err)
		}
		body, _ := x.dec.lastBody()
		var params map[string]any
		decode(t, string(h.Params), &params)
		if got := body["kv_transfer_params"]; !reflect.DeepEqual(got, any(params)) || body["stream"] != true {
			t.Errorf("%s: the decode server was asked with %v", name, body)
		}
	}
}

// equal finds out whether a server is asked what is wanted.
func equal(t *testing.T, name string, f *fake, want string, ask func()) {
	t.Helper()
	ask()
	var body map[string]any
	decode(t, want, &body)
	f.last.Lock()
	defer f.last.Unlock()
	if !reflect.DeepEqual(f.last.body, body) || f.last.header.Get("Accept") != "application/json" {
		t.Errorf("%s: asked  %v\nwant %v", name, f.last.body, body)
	}
}

// Draws by a seed, logprobs and usage are those of one server; what was cached is what
// the prefill server says.
func TestApartUsage(t *testing.T) {
	whole := open(t, config(newFake().start(t).URL))
	x := openPair(t, nil)
	e := x.apart(t)
	for i, r := range []*dynamo.Request{
		{Tokens: small(2*fakeBlock + 3), MaxTokens: 9, IgnoreEOS: true},
		{Tokens: small(2*fakeBlock + 3), MaxTokens: 9, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 4, Seeded: true, PresencePenalty: 1, Logprobs: true, TopLogprobs: 3}},
		{Tokens: small(2*fakeBlock + 3), MaxTokens: 1, IgnoreEOS: true},
		{Tokens: small(7), MaxTokens: 12, Resume: []dynamo.TokenID{4, 4}, IgnoreEOS: true},
	} {
		want, err := enginetest.Collect(t.Context(), whole, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := enginetest.Collect(t.Context(), e, r)
		want.Chunks, got.Chunks, want.Cached, got.Cached = 0, 0, 0, 0
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("request %d: got %+v, %v\nwant %+v", i, got, err, want)
		}
	}
	// The answer of one id is the prefill server's own.
	if kept, fetched, wrong, _ := x.side.counts(); kept != 0 || fetched != 3 || wrong != 0 {
		t.Errorf("%d prompts kept, %d fetched, %d in vain", kept, fetched, wrong)
	}
}

// replied is a mischief that answers requests of one kind.
func replied(params string, times int, answer func(w http.ResponseWriter, f *fake)) func(f *fake) func(http.ResponseWriter, *http.Request, int) bool {
	return func(f *fake) func(http.ResponseWriter, *http.Request, int) bool {
		var n atomic.Int64
		return func(w http.ResponseWriter, _ *http.Request, sent int) bool {
			if body, _ := f.lastBody(); sent != 0 || !strings.Contains(fmt.Sprint(body["kv_transfer_params"]), params) || n.Add(1) > int64(times) {
				return false
			}
			answer(w, f)
			return true
		}
	}
}

const (
	asksToKeep = "do_remote_decode:true"
	fetches    = "do_remote_prefill:true"
)

// Whatever goes wrong between the two, the request is answered as by one server.
func TestApartFallbacks(t *testing.T) {
	says := func(status int, body string) func(w http.ResponseWriter, f *fake) {
		return func(w http.ResponseWriter, _ *fake) {
			w.Header().Set("Content-Type", "application/json")
			if status == http.StatusOK && strings.HasPrefix(body, "data:") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	kept := func(params string) func(w http.ResponseWriter, f *fake) {
		return says(200, `{"usage":{"prompt_tokens":20,"completion_tokens":1},"kv_transfer_params":`+params+`,"choices":[{"index":0,"finish_reason":"length","token_ids":[9]}]}`)
	}
	good := string(fakeParams("none", 2, 20, 0))
	for name, c := range map[string]struct {
		prefill, decode func(*fake) func(http.ResponseWriter, *http.Request, int) bool
		asked           int64 // of the decode server
	}{
		"the prefill server fails":            {replied(asksToKeep, 1, says(500, `{"error":{"message":"x","code":500}}`)), nil, 1},
		"it refuses":                          {replied(asksToKeep, 1, says(400, `{"error":{"message":"x","code":400}}`)), nil, 1},
		"it is dead":                          {replied(asksToKeep, 1, func(http.ResponseWriter, *fake) { panic(http.ErrAbortHandler) }), nil, 1},
		"it is at its end":                    {replied(asksToKeep, 1, says(500, `{"error":{"message":"EngineCore encountered an issue","code":500}}`)), nil, 1},
		"it answers nonsense":                 {replied(asksToKeep, 1, says(200, `[1,2]`)), nil, 1},
		"it answers with a page":              {replied(asksToKeep, 1, says(200, `data: {}`)), nil, 1},
		"it keeps nothing":                    {replied(asksToKeep, 1, kept("null")), nil, 1},
		"it says half of where":               {replied(asksToKeep, 1, kept(`{"do_remote_prefill":true}`)), nil, 1},
		"it names no blocks":                  {replied(asksToKeep, 1, kept(strings.Replace(good, "[[1,2]]", "[[]]", 1))), nil, 1},
		"it says too much":                    {replied(asksToKeep, 1, kept(`{"a":"`+strings.Repeat("x", engine.MaxHandoverBytes)+`",`+good[1:])), nil, 1},
		"it stops at the first id":            {replied(asksToKeep, 1, says(200, `{"usage":{"prompt_tokens":20,"completion_tokens":1},"kv_transfer_params":null,"choices":[{"finish_reason":"stop","token_ids":[2]}]}`)), nil, 1},
		"it counts another prompt":            {replied(asksToKeep, 1, says(200, `{"usage":{"prompt_tokens":21},"kv_transfer_params":`+good+`,"choices":[{"finish_reason":"length","token_ids":[9]}]}`)), nil, 1},
		"the decode server refuses the words": {nil, replied(fetches, 1, says(400, `{"error":{"message":"kv_transfer_params","code":400}}`)), 2},
		"it fails at them":                    {nil, replied(fetches, 1, says(500, `{"error":{"message":"Internal server error","code":500}}`)), 2},
		"it fails in the stream":              {nil, replied(fetches, 1, says(200, `data: {"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}`+"\n\ndata: [DONE]\n\n")), 2},
		"it ends by an error":                 {nil, replied(fetches, 1, says(200, `data: {"choices":[{"index":0,"finish_reason":"error","token_ids":[]}]}`+"\n\ndata: [DONE]\n\n")), 2},
		"older servers name blocks otherwise": {replied(asksToKeep, 1, kept(`{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[1,2],"remote_engine_id":"e","remote_host":"h","remote_port":5600,"tp_size":1}`)),
			replied(fetches, 1, says(400, `{"error":{"message":"none of my age","code":400}}`)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			x := openPair(t, func(p, d *fake) {
				if c.prefill != nil {
					p.mischief = c.prefill(p)
				}
				if c.decode != nil {
					d.mischief = c.decode(d)
				}
			})
			r := &dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}
			want, err := enginetest.Collect(t.Context(), open(t, config(newFake().start(t).URL)), r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := enginetest.Collect(t.Context(), x.apart(t), r)
			if err != nil || !slices.Equal(got.Tokens, want.Tokens) || got.Usage != want.Usage || got.Finish != want.Finish {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
			if got := x.dec.requests.Load(); got != c.asked {
				t.Errorf("the decode server was asked %d times, want %d", got, c.asked)
			}
			if _, _, wrong, halves := x.side.counts(); wrong+halves > 0 {
				t.Errorf("other KV was fetched %d times, and half a word sent %d times", wrong, halves)
			}
		})
	}
}

// A server that has no connector, or another, is asked to keep KV once, not for every prompt.
func TestKeepsNone(t *testing.T) {
	for _, said := range []string{"null", `{"do_remote_prefill":true,"transfer_id":"another connector's"}`} {
		x := openPair(t, func(p, d *fake) { p.side = nil; p.says = said })
		e := x.apart(t)
		for range 3 {
			if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}); err != nil {
				t.Fatal(err)
			}
		}
		if p, d := x.prefill.requests.Load(), x.dec.requests.Load(); p != 1 || d != 3 {
			t.Errorf("%s: the prefill server was asked %d times, the decode server %d times; want 1 and 3", said, p, d)
		}
	}
}

// What does not speak of KV that is kept at this moment for this prompt reaches no server:
// it would fetch other KV, or end.
func TestUnfitHandover(t *testing.T) {
	x := openPair(t, nil)
	r := dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}
	want, err := enginetest.Collect(t.Context(), x.d, &r)
	if err != nil {
		t.Fatal(err)
	}
	made := func(at time.Time, tokens int, params string) []byte {
		return fmt.Appendf(nil, `{"engine":"vllm","tokens":%d,"at_ms":%d,"lease_ms":30000,"params":%s}`, tokens, at.UnixMilli(), params)
	}
	now, params := time.Now(), string(fakeParams("x", 2, 20, 0))
	without := func(name string) []byte {
		var p map[string]any
		decode(t, params, &p)
		delete(p, name)
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return made(now, 20, string(b))
	}
	for name, where := range map[string][]byte{
		"too old":               made(now.Add(-16*time.Second), 20, params),
		"kept for no time":      fmt.Appendf(nil, `{"engine":"vllm","tokens":20,"at_ms":%d,"params":%s}`, now.UnixMilli(), params),
		"of the future":         made(now.Add(time.Minute), 20, params),
		"another prompt's":      made(now, 21, params),
		"a mocker's":            []byte(`{"engine":"mocker","tokens":20}`),
		"the native engine's":   []byte("\x01\x02\x03"),
		"of no words":           made(now, 20, `null`),
		"of half a word":        made(now, 20, `{"do_remote_prefill":true}`),
		"of a list":             made(now, 20, `[]`),
		"a prefill's":           made(now, 20, `{"do_remote_decode":true,"do_remote_prefill":false}`),
		"of another form":       made(now, 20, strings.Replace(params, "5601", `"5601"`, 1)),
		"without an engine":     without("remote_engine_id"),
		"without a host":        without("remote_host"),
		"without a port":        without("remote_port"),
		"without blocks":        without("remote_block_ids"),
		"of an unnamed request": made(now, 20, strings.Replace(params, `"remote_request_id":"x"`, `"remote_request_id":""`, 1)),
	} {
		r := r
		r.Handover = where
		got, err := enginetest.Collect(t.Context(), x.d, &r)
		if body, _ := x.dec.lastBody(); err != nil || !slices.Equal(got.Tokens, want.Tokens) || body["kv_transfer_params"] != nil {
			t.Errorf("%s: got %+v, %v; the server was told %v", name, got, err, body["kv_transfer_params"])
		}
	}
	// A server of another role is told nothing whatever comes.
	r.Handover = made(now, 20, params)
	if _, err := enginetest.Collect(t.Context(), x.p, &r); err != nil {
		t.Fatal(err)
	}
	if body, _ := x.prefill.lastBody(); body["kv_transfer_params"] != nil {
		t.Errorf("a prefill server was told %v", body["kv_transfer_params"])
	}
}

// KV that is gone by the time that it is fetched cannot be told from the right one here:
// the fake shows it, so that the tests above would see a word that is used twice.
func TestFakeGivesOtherKV(t *testing.T) {
	x := openPair(t, nil)
	r := dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}
	want, err := enginetest.Collect(t.Context(), x.d, &r)
	if err != nil {
		t.Fatal(err)
	}
	r.Handover, _ = x.handed(t, r)
	for i := range 2 {
		got, err := enginetest.Collect(t.Context(), x.d, &r)
		if err != nil || slices.Equal(got.Tokens, want.Tokens) != (i == 0) {
			t.Errorf("time %d: got %v, %v; one server answers %v", i, got.Tokens, err, want.Tokens)
		}
	}
}

// Cancelling a request ends it at the server that has it, whichever of the two.
func TestApartCancel(t *testing.T) {
	for _, where := range []string{"prefill", "decode"} {
		t.Run(where, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			x := openPair(t, func(p, d *fake) {
				d.pause = time.Millisecond
				if where == "prefill" {
					p.mischief = func(_ http.ResponseWriter, r *http.Request, sent int) bool {
						if sent == 0 {
							cancel()
							<-r.Context().Done()
						}
						return sent == 0
					}
				}
			})
			var got error
			for chunk, err := range x.apart(t).Generate(ctx, &dynamo.Request{Tokens: small(20), MaxTokens: 100, IgnoreEOS: true}) {
				if got = err; len(chunk.Tokens) > 0 {
					cancel()
				}
			}
			if dynamo.KindOf(got) != dynamo.KindCancelled {
				t.Errorf("got %v", got)
			}
			if err := errors.Join(idle(x.p)(), idle(x.d)()); err != nil {
				t.Error(err)
			}
			waitFor(t, "the end of the request at both servers", func() bool { return x.prefill.running.Load()+x.dec.running.Load() == 0 })
			if got := x.dec.requests.Load(); (got == 0) != (where == "prefill") {
				t.Errorf("the decode server was asked %d times", got)
			}
		})
	}
}

// failing is a decode worker that is lost once, before it has said anything.
type failing struct {
	engine.Engine
	times atomic.Int64
}

func (f *failing) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if f.times.Add(1) == 1 {
			for range f.Engine.Generate(ctx, r) { // the KV is fetched
				break
			}
			yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "lost"})
			return
		}
		f.Engine.Generate(ctx, r)(yield)
	}
}

// After the loss of a decode worker the prompt is computed anew: what was handed over is
// fetched no second time.
func TestHandoverOnce(t *testing.T) {
	x := openPair(t, nil)
	d := &failing{Engine: x.d}
	e, err := disagg.New(disagg.Config{Prefill: x.p, Decode: d})
	if err != nil {
		t.Fatal(err)
	}
	r := &dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}
	m, err := engine.NewMigrate(e, engine.DefaultMigrateConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enginetest.Collect(t.Context(), m, r); err != nil {
		t.Fatal(err)
	}
	if kept, fetched, wrong, _ := x.side.counts(); kept != 0 || fetched != 2 || wrong != 0 {
		t.Errorf("%d prompts kept, %d fetched, %d in vain", kept, fetched, wrong)
	}
}

// A role is the server's affair as much as ours: what it says of its connector counts.
func TestRoles(t *testing.T) {
	info := func(transfer string) string {
		return `{"vllm_config":{"model_config":{"dtype":"torch.float32"}` + transfer + `}}`
	}
	for name, c := range map[string]struct {
		config, version, role string
		connector, note, err  string
		completions           bool
		lease                 time.Duration
	}{
		"prefill":             {config: info(`,"kv_transfer_config":{"kv_connector":"NixlConnector","kv_role":"kv_producer","kv_connector_extra_config":{"kv_lease_duration":90}}`), role: engine.RolePrefill, connector: "NixlConnector", lease: 90 * time.Second},
		"prefill without":     {config: info(`,"kv_transfer_config":null`), role: engine.RolePrefill, err: `--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}'`},
		"decode without":      {config: info(`,"kv_transfer_config":null`), role: engine.RoleDecode, note: `--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}'`},
		"none needed":         {config: info(`,"kv_transfer_config":null`)},
		"it does not say":     {config: info(""), role: engine.RolePrefill},
		"no development mode": {role: engine.RolePrefill},
		"an older one":        {version: "0.28.1", role: engine.RoleDecode, note: "completions are asked", completions: true},
		"of no role":          {version: "0.28.1"},
		"no role at all":      {role: "both", err: "--disaggregation-mode"},
	} {
		f := newFake()
		f.config = c.config
		if c.version != "" {
			f.version = c.version
		}
		cfg := config(f.start(t).URL)
		cfg.Role = c.role
		e, err := vllm.New(cfg)
		if err == nil {
			err = e.Ready(t.Context())
		}
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		i := e.Info()
		if want := cmp.Or(c.lease, 30*time.Second); i.Lease != want {
			t.Errorf("%s: KV is kept for %v, want %v", name, i.Lease, want)
		}
		if i.Connector != c.connector || e.Card().Role != c.role || i.TokensInOut == c.completions || !strings.Contains(strings.Join(i.Notes, "\n"), c.note) {
			t.Errorf("%s: got %+v, role %q", name, i, e.Card().Role)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A supervised server is started as its role needs it, unless the arguments say otherwise.
func TestRoleArguments(t *testing.T) {
	for _, c := range []struct {
		role, want string
		args       []string
	}{
		{engine.RolePrefill, `--kv-transfer-config {"kv_connector":"NixlConnector","kv_role":"kv_producer"}`, nil},
		{engine.RoleDecode, `--kv-transfer-config {"kv_connector":"NixlConnector","kv_role":"kv_consumer"}`, nil},
		{engine.RoleDecode, `--kv-transfer-config {"kv_connector":"MultiConnector"}`, []string{"--kv-transfer-config", `{"kv_connector":"MultiConnector"}`}},
		{"", "", nil},
	} {
		conf := command(t, "good", c.args...)
		conf.Role = c.role
		root := open(t, conf).Info().Root
		if n := strings.Count(root, "--kv-transfer-config"); !strings.Contains(root, c.want) || n != min(len(c.role), 1) {
			t.Errorf("%s: started with %s", c.role, root)
		}
		if port := strings.Contains(root, "side port "); port != (c.role != "") {
			t.Errorf("%s: a port of its own for the connector: %t (%s)", c.role, port, root)
		}
	}
}

// pipes is a listener whose connections are within a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// An answer with KV that was kept 10 s ago, for 30 s, may take 15 s to begin; then the
// prompt is computed. Once it has begun it is given its time.
func TestFetchTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		first, later time.Duration // before the first id of an answer with KV from elsewhere, and the others
		asked        int64
		least, most  time.Duration
	}{
		"it does not come": {time.Hour, 0, 2, 15 * time.Second, 15 * time.Second},
		"it is slow":       {14 * time.Second, 20 * time.Second, 1, 94 * time.Second, 94 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, l := newFake(), &pipes{make(chan net.Conn), make(chan struct{})}
				f.side = newSide()
				f.mischief = func(_ http.ResponseWriter, r *http.Request, sent int) bool {
					body, _ := f.lastBody()
					if sent < 0 || body["kv_transfer_params"] == nil {
						return false
					}
					wait := c.later
					if sent == 0 {
						wait = c.first
					}
					select {
					case <-time.After(wait):
						return false
					case <-r.Context().Done():
						return true
					}
				}
				s := &http.Server{Handler: f}
				ended := make(chan error, 1)
				go func() { ended <- s.Serve(l) }()
				conf := config("http://fake")
				conf.Role, conf.Dial = engine.RoleDecode, l.dial
				e, err := vllm.New(conf)
				if err == nil {
					err = e.Ready(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
				r := &dynamo.Request{Tokens: small(20), MaxTokens: 5, IgnoreEOS: true}
				ids := make([]int, 20)
				for i, id := range r.Tokens {
					ids[i] = int(id)
				}
				r.Handover = fmt.Appendf(nil, `{"engine":"vllm","tokens":20,"at_ms":%d,"lease_ms":30000,"params":%s}`, time.Now().Add(-10*time.Second).UnixMilli(), f.side.keep(ids, 0))
				began := time.Now()
				_, err = enginetest.Collect(t.Context(), e, r)
				if took := time.Since(began); err != nil || f.requests.Load() != c.asked || took < c.least || took > c.most {
					t.Errorf("answered after %v, %v; the server was asked %d times, want %d", took, err, f.requests.Load(), c.asked)
				}
				if err := errors.Join(e.Close(), s.Close()); err != nil {
					t.Error(err)
				}
				<-ended
			})
		})
	}
}
