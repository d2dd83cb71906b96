package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// Probe is what a look at a foreign engine found, one thing a line.
type Probe struct {
	// OK says that all is well, or that it is of no great matter when Minor is set.
	OK, Minor bool
	What      string
	Detail    string // says what to do about it when it is not well
}

// prober looks at one vLLM server.
type prober struct {
	cfg    *Config
	meta   *metadata
	engine *vllm.Engine
	info   vllm.Info
	client *http.Client
	found  []Probe
}

func (p *prober) say(ok bool, what, format string, args ...any) {
	p.found = append(p.found, Probe{OK: ok, What: what, Detail: fmt.Sprintf(format, args...)})
}

func (p *prober) minor(ok bool, what, format string, args ...any) {
	p.found = append(p.found, Probe{OK: ok, Minor: true, What: what, Detail: fmt.Sprintf(format, args...)})
}

// ProbeEngine looks at the vLLM server of c.Foreign.URL as a worker would use it,
// with the model's files of c.ModelPath. The error says that it could not look at
// all.
func ProbeEngine(ctx context.Context, c Config) ([]Probe, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	meta, err := readMetadata(c.ModelPath, c.ChatTemplate)
	if err != nil {
		return nil, err
	}
	v := vllm.DefaultConfig()
	v.URL, v.APIKey, v.VocabSize, v.EOS, v.ReadyTimeout = c.Foreign.URL, c.Foreign.APIKey, meta.tokenizer.VocabSize(), slices.Clone(meta.eos), probeTimeout
	v.EventsEndpoint, v.ReplayEndpoint, v.Topic, v.Logger = c.Foreign.Events, c.Foreign.Replay, c.Foreign.Topic, c.Logger
	if v.TLS, err = c.Foreign.tlsConfig(); err != nil {
		return nil, err
	}
	e, err := vllm.New(v)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	p := &prober{cfg: &c, meta: meta, engine: e, client: &http.Client{Timeout: probeTimeout}}
	if v.TLS != nil {
		p.client.Transport = &http.Transport{TLSClientConfig: v.TLS}
	}
	defer p.client.CloseIdleConnections()
	if err := e.Ready(ctx); err != nil {
		return nil, err
	}
	p.info = e.Info()
	p.server(ctx)
	p.tokenizerEquals(ctx)
	p.templateEquals(ctx)
	p.generates(ctx)
	p.events(ctx)
	return p.found, ctx.Err()
}

// server tells what the server says of itself.
func (p *prober) server(ctx context.Context) {
	i := &p.info
	p.say(true, "version", "vLLM %s serves %s, longest sequence %d, blocks of %d tokens, %d of them", i.Version, i.Model, i.ContextLength, i.BlockSize, i.KVBlocks)
	if i.TokensInOut {
		p.say(true, "tokens", "in and out by /inference/v1/generate")
	} else {
		p.minor(false, "tokens", "/inference/v1/generate is off, completions are used instead; start vllm with --enable-scale-out")
	}
	if i.PrefixCaching {
		p.say(true, "prefix cache", "on")
	} else {
		p.say(false, "prefix cache", "off, or the server does not say; start vllm with --enable-prefix-caching")
	}
	resp, err := p.get(ctx, "/version")
	if err != nil {
		p.say(false, "clock", "%v", err)
		return
	}
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if skew := time.Since(there); err != nil || skew.Abs() > maxSkew {
		p.minor(false, "clock", "the server's clock and this one differ by %v; times in its events are of no use", skew.Round(time.Second))
	} else {
		p.say(true, "clock", "within %v", maxSkew)
	}
}

func (p *prober) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.cfg.Foreign.URL, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	return p.do(req)
}

func (p *prober) do(req *http.Request) (*http.Response, error) {
	if p.cfg.Foreign.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.cfg.Foreign.APIKey)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBytes))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d: %.200s", req.URL.Path, resp.StatusCode, b)
	}
	return resp, nil
}

// tokenize asks the server for the ids of a text or a conversation.
func (p *prober) tokenize(ctx context.Context, body map[string]any) ([]dynamo.TokenID, error) {
	body["model"] = p.info.Model
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(p.cfg.Foreign.URL, "/")+"/tokenize", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.do(req)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Tokens []dynamo.TokenID `json:"tokens"`
	}
	if err := json.UnmarshalRead(resp.Body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer of /tokenize: %w", err)
	}
	return answer.Tokens, nil
}

// probeTexts are texts in which tokenizers differ.
var probeTexts = []string{
	"Hello, world!", "  leading and   many spaces\n\n\ttabs", "naïve café — “quotes” … 12345 3.14e-10",
	"你好，世界。こんにちは、안녕하세요", "🙂👩‍👩‍👧‍👦🏳️‍🌈", "def f(x):\n    return x**2  # comment\n", "Ünïcödé ́combining a\u0301", "<|im_start|>user\nhi<|im_end|>", "don't WE'LL they'Re", "\r\n\r\n\x00\x7f", "3\n\n4",
}

func (p *prober) tokenizerEquals(ctx context.Context) {
	var odd []string
	for _, text := range probeTexts {
		theirs, err := p.tokenize(ctx, map[string]any{"prompt": text, "add_special_tokens": false})
		if err != nil {
			p.minor(false, "tokenizer", "cannot be compared: %v", err)
			return
		}
		if ours := p.meta.tokenizer.Encode(nil, text, tokenizer.EncodeOptions{}); !slices.Equal(ours, theirs) {
			odd = append(odd, fmt.Sprintf("%q: ours %v, the server's %v", text, ours, theirs))
		}
	}
	switch {
	case len(odd) == 0:
		p.say(true, "tokenizer", "equal on %d texts", len(probeTexts))
	case len(odd) <= len(probeTexts)/4:
		p.minor(false, "tokenizer", "differs on %d of %d texts (%s): transformers may build another pre-tokenizer than tokenizer.json names; prompts that come through dynamo have the ids of tokenizer.json", len(odd), len(probeTexts), odd[0])
	default:
		p.say(false, "tokenizer", "differs on %d of %d texts (%s); give the worker the folder that the server has loaded", len(odd), len(probeTexts), odd[0])
	}
}

func (p *prober) templateEquals(ctx context.Context) {
	if p.meta.template == nil {
		p.minor(false, "template", "the model has no chat template here; give one with --chat-template")
		return
	}
	talks := [][][2]string{{{"user", "Hi!"}}, {{"system", "Be brief."}, {"user", "Why?"}}, {{"user", "1"}, {"assistant", "2"}, {"user", "3\n\n4"}}}
	for _, talk := range talks {
		var list []map[string]string
		var values []chat.Value
		for _, m := range talk {
			list = append(list, map[string]string{"role": m[0], "content": m[1]})
			values = append(values, chat.NewDict(2).Set("role", chat.String(m[0])).Set("content", chat.String(m[1])).Value())
		}
		theirs, err := p.tokenize(ctx, map[string]any{"messages": list, "add_generation_prompt": true})
		if err != nil {
			p.minor(false, "template", "cannot be compared: %v", err)
			return
		}
		in := chat.Input{Messages: chat.List(values...), AddGenerationPrompt: true, Vars: templateVars(p.meta.special), Now: time.Now()}
		text, err := p.meta.template.Render(nil, &in, chat.DefaultLimits())
		if err != nil {
			p.say(false, "template", "ours fails: %v", err)
			return
		}
		// Texts are compared: what ids they become is the tokenizer's matter.
		if p.meta.tokenizer.Decode(theirs, false) != string(text) {
			p.say(false, "template", "differs for a conversation of %d messages; give the worker the server's own with --chat-template", len(talk))
			return
		}
	}
	p.say(true, "template", "equal on %d conversations", len(talks))
}

// probePrompt is a prompt of more than two blocks that nobody has asked before.
func (p *prober) probePrompt() []dynamo.TokenID {
	ids := make([]dynamo.TokenID, 2*max(p.info.BlockSize, 1)+3)
	seed := uint64(time.Now().UnixNano())
	for i := range ids {
		seed = seed*6364136223846793005 + 1442695040888963407
		for ids[i] = dynamo.TokenID((seed >> 33) % uint64(p.meta.tokenizer.VocabSize())); slices.Contains(p.meta.eos, ids[i]); {
			ids[i]++
		}
	}
	return ids
}

func (p *prober) generates(ctx context.Context) {
	began := time.Now()
	n := 0
	r := dynamo.Request{ID: "doctor", Model: p.info.Model, Tokens: p.meta.tokenizer.Encode(nil, "The capital of France is", tokenizer.EncodeOptions{}), MaxTokens: 4, IgnoreEOS: true}
	for chunk, err := range p.engine.Generate(ctx, &r) {
		if err != nil {
			p.say(false, "answer", "%v", err)
			return
		}
		n += len(chunk.Tokens)
	}
	p.say(n == 4, "answer", "%d of 4 tokens in %v", n, time.Since(began).Round(time.Millisecond))
}

// events makes the server store two blocks and looks for them among its events.
func (p *prober) events(ctx context.Context) {
	if len(p.info.Sources) == 0 {
		p.say(false, "KV events", "off, or the server does not say where (it does with VLLM_SERVER_DEV_MODE=1); start vllm with --kv-events-config '{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:5557\",\"replay_endpoint\":\"tcp://*:5558\"}', or name the endpoint with --engine-events")
		return
	}
	s := p.info.Sources[0]
	if s.ReplayEndpoint == "" {
		p.minor(false, "replay", "there is no replay endpoint: a lost event loses the whole view of the cache; add replay_endpoint to --kv-events-config")
	}
	ctx, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	ids, asked := p.probePrompt(), false
	for d, err := range kvwire.Subscribe(ctx, kvwire.Source{Endpoint: s.Endpoint, ReplayEndpoint: s.ReplayEndpoint, Topic: s.Topic}, kvwire.DefaultConfig()) {
		switch {
		case err != nil:
			p.say(false, "KV events", "nothing came from %s within %v (%v); is the port reachable from here?", s.Endpoint, eventPatience, err)
			return
		case d.Kind == kvwire.DeliverReset:
			if !asked {
				asked = true
				if err := p.ask(ctx, ids); err != nil {
					p.say(false, "KV events", "%v", err)
					return
				}
			}
		case p.stored(d.Batch, ids):
			return
		}
	}
}

// ask has the server compute a prompt.
func (p *prober) ask(ctx context.Context, ids []dynamo.TokenID) error {
	r := dynamo.Request{ID: "doctor", Model: p.info.Model, Tokens: ids, MaxTokens: 1, IgnoreEOS: true}
	for _, err := range p.engine.Generate(ctx, &r) {
		if err != nil {
			return err
		}
	}
	return nil
}

// stored reports whether b tells of ids' first block, and says what that shows.
func (p *prober) stored(b *kvwire.Batch, ids []dynamo.TokenID) bool {
	for i := range b.Events {
		e := &b.Events[i]
		size := e.BlockSize
		if e.Kind != kvwire.Stored || e.HasParent || size < 1 || len(e.Tokens) < size || len(ids) < size || !slices.Equal(e.Tokens[:size], ids[:size]) {
			continue
		}
		p.say(true, "KV events", "come, blocks of %d tokens", size)
		if s := p.info.Sources[0]; s.ReplayEndpoint != "" {
			p.say(true, "replay", "at %s", s.ReplayEndpoint)
		}
		p.hashes(e, ids)
		return true
	}
	return false
}

// hashes compares the hash of a block with our own computation of it.
func (p *prober) hashes(e *kvwire.Event, ids []dynamo.TokenID) {
	for name, algorithm := range map[string]kvwire.HashAlgorithm{"sha256": kvwire.SHA256, "sha256_cbor": kvwire.SHA256CBOR} {
		h := kvwire.NewHasher(algorithm)
		if h.Block(h.None(""), ids[:e.BlockSize], nil).EngineHash() == e.Hashes[0] {
			p.say(true, "hashes", "the server's block hashes are reproduced (%s)", name)
			return
		}
	}
	p.minor(false, "hashes", "the server's block hashes are its own (another algorithm, or PYTHONHASHSEED is set): ours are computed from its events' tokens all the same")
}

// Limits of a look at an engine.
const (
	probeTimeout  = time.Minute
	eventPatience = 20 * time.Second
	maxProbeBytes = 1 << 20
	maxSkew       = 5 * time.Second // the header has seconds, and servers keep it for a while
)
