package vllm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/tokenizer"
	"github.com/dynamo-go/dynamo/tokens"
)

// A real server to test against, as in
//
//	go test ./engine/vllm -vllm-url http://127.0.0.1:8101 -vllm-tokenizer MODEL/tokenizer.json
//
// with nobody else using it. Without it the tests below are skipped.
var (
	liveURL       = flag.String("vllm-url", "", "URL of a running vLLM server to test against")
	liveTokenizer = flag.String("vllm-tokenizer", "", "tokenizer.json of its model")
	liveEOS       = flag.Uint("vllm-eos", 2, "id that ends its model's answers")
	liveProbes    = flag.Int("vllm-probes", 500, "texts to compare, and requests whose cached tokens are predicted")
	liveCommand   = flag.String("vllm-command", "", "vllm executable to supervise")
	liveModel     = flag.String("vllm-model", "", "model for it, a SmolLM2-135M")
	liveArgs      = flag.String("vllm-args", "", "further arguments for it, apart by spaces")
	liveKill      = flag.String("vllm-kill", "", "shell command that ends it in the middle of an answer")
)

// live returns an engine over the real server, which every test of the suite opens
// anew.
func live(t *testing.T, change ...func(*vllm.Config)) (*vllm.Engine, *tokenizer.Tokenizer) {
	t.Helper()
	if *liveURL == "" || *liveTokenizer == "" {
		t.Skip("no real server: give -vllm-url and -vllm-tokenizer")
	}
	b, err := os.ReadFile(*liveTokenizer)
	if err != nil {
		t.Fatal(err)
	}
	text, err := tokenizer.FromJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	c := vllm.DefaultConfig()
	c.URL, c.VocabSize, c.EOS = *liveURL, text.VocabSize(), []dynamo.TokenID{dynamo.TokenID(*liveEOS)}
	c.ReadyTimeout = 10 * time.Second
	for _, f := range change {
		f(&c)
	}
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, text
}

func TestLiveEngine(t *testing.T) {
	if *liveURL == "" {
		t.Skip("no real server: give -vllm-url")
	}
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		e, text := live(t)
		return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: prompt, Text: textBy(text), Idle: idle(e)}
	})
}

// The same by way of completions, as from a server without --enable-scale-out.
func TestLiveCompletions(t *testing.T) {
	if *liveURL == "" {
		t.Skip("no real server: give -vllm-url")
	}
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		target, err := url.Parse(*liveURL)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		proxy := &httputil.ReverseProxy{FlushInterval: -1, Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/inference/") {
				fault(w, 403, "Scale-out endpoints are disabled", "")
				return
			}
			// Read first: a server answers before a proxy has seen the end of a body,
			// which the proxy's own server closes then.
			b, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
			proxy.ServeHTTP(w, r)
		}))
		t.Cleanup(s.Close)
		e, text := live(t, func(c *vllm.Config) { c.URL = s.URL })
		if e.Info().TokensInOut {
			t.Fatal("the proxy is passed by")
		}
		return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: prompt, Text: textBy(text), Idle: idle(e)}
	})
}

// textBy returns the text of ids as the suite asks for it.
func textBy(t *tokenizer.Tokenizer) func([]dynamo.TokenID) string {
	return func(ids []dynamo.TokenID) string { return t.Decode(ids, false) }
}

// A request that ends here is gone from the server's gauge within a second.
func TestLiveCancel(t *testing.T) {
	e, _ := live(t, func(c *vllm.Config) { c.PollEvery = 20 * time.Millisecond })
	stop := running(t, e)
	for range 5 {
		for _, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: prompt(9), MaxTokens: 1000, IgnoreEOS: true}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		began := time.Now()
		waitFor(t, "the request to be gone", func() bool { return gauge(t) == 0 })
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// gauge asks the server how many requests it runs.
func gauge(t *testing.T) (n float64) {
	t.Helper()
	resp, err := http.Get(*liveURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "vllm:num_requests_running{") {
			_, value, _ := strings.Cut(line, "} ")
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
	}
	return n
}

// The KV events lead to a ledger that predicts what each request finds cached, of
// several tenants.
func TestLiveEvents(t *testing.T) {
	l := &ledger{held: map[uint64]bool{}}
	e, _ := live(t, func(c *vllm.Config) { c.Events = l.take })
	if len(e.Info().Sources) == 0 {
		t.Skip("the server publishes no events")
	}
	l.size = e.Info().BlockSize
	stop := running(t, e)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	hits := 0
	for i := range *liveProbes {
		r := &dynamo.Request{Tokens: prompt(100 + random.IntN(6)), MaxTokens: 1}
		r.Tokens[random.IntN(len(r.Tokens))] = dynamo.TokenID(1000 + random.IntN(4))
		r.Namespace = []string{"", "tenant-a", "tenant-b"}[random.IntN(3)]
		want := l.predict(r)
		var last dynamo.Chunk
		for c, err := range e.Generate(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			last = c
		}
		if got := last.Usage.Cached; got != want && i > 0 {
			t.Errorf("probe %d: %d of %d tokens were cached, the ledger says %d", i, got, len(r.Tokens), want)
		}
		hits += want
		// What was computed is held; the events may be on their way.
		waitFor(t, "the events of a probe", func() bool { return l.full(r) })
	}
	if hits == 0 {
		t.Error("nothing was ever cached")
	}
	t.Logf("%d probes, %d tokens cached as predicted", *liveProbes, hits)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(l.bad) > 0 {
		t.Errorf("wrong: %q", l.bad)
	}
}

// match counts the leading blocks of a prompt that the ledger holds.
func (l *ledger) match(r *dynamo.Request) (n int) {
	l.Lock()
	defer l.Unlock()
	root := tokens.Root(r.Adapter, r.Namespace)
	var parent dynamo.BlockHash
	for n = 0; (n+1)*l.size <= len(r.Tokens); n++ {
		local := tokens.LocalHash(root, r.Tokens[n*l.size:(n+1)*l.size])
		if n == 0 {
			parent = tokens.FirstHash(local)
		} else {
			parent = tokens.BlockHash(parent, local)
		}
		if !l.held[uint64(parent)] {
			break
		}
	}
	return n
}

// predict says how many tokens a server finds: it computes the last one always.
func (l *ledger) predict(r *dynamo.Request) int {
	return min(l.match(r), (len(r.Tokens)-1)/l.size) * l.size
}

func (l *ledger) full(r *dynamo.Request) bool { return l.match(r) == len(r.Tokens)/l.size }

// prompt is a text of n ids that differs early from one length to the next.
func prompt(n int) []dynamo.TokenID {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(1000 + r.IntN(20000))
	}
	return ids
}

func idle(e *vllm.Engine) func() error {
	return func() error {
		if l := e.Load(); l.Running+l.Waiting+l.KVUsed > 0 {
			return fmt.Errorf("load is %+v", l)
		}
		return nil
	}
}

// The text that our tokenizer makes of the ids is the text that the server makes.
func TestLiveText(t *testing.T) {
	e, text := live(t)
	const together = 8
	next := make(chan uint64)
	var all sync.WaitGroup
	for range together {
		all.Go(func() {
			for i := range next {
				random := rand.New(rand.NewPCG(7, i))
				r := &dynamo.Request{ID: "text", Tokens: prompt(4 + random.IntN(20)), MaxTokens: 24}
				r.Tokens[0] = dynamo.TokenID(3 + random.IntN(40000))
				r.Sampling = dynamo.Sampling{Temperature: 1.5, Seed: i, Seeded: true}
				a, err := enginetest.Collect(t.Context(), e, r)
				if err != nil {
					t.Errorf("probe %d: %v", i, err)
					continue
				}
				if got, want := text.Decode(a.Tokens, false), detokenized(t, a.Tokens); got != want {
					t.Errorf("probe %d: ids %v are %q here and %q there", i, a.Tokens, got, want)
				}
			}
		})
	}
	for i := range *liveProbes {
		next <- uint64(i)
	}
	close(next)
	all.Wait()
}

// detokenized asks the server for the text of ids.
func detokenized(t *testing.T, ids []dynamo.TokenID) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"tokens": ids})
	if err != nil {
		t.Error(err)
		return ""
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, *liveURL+"/detokenize", bytes.NewReader(b))
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
		return ""
	}
	var answer struct{ Prompt string }
	if err := json.Unmarshal(page, &answer); err != nil {
		t.Errorf("%v in %s", err, page)
	}
	return answer.Prompt
}

// A real `vllm serve` is started, answers, is started again after its death, and
// leaves no process behind.
func TestLiveSupervised(t *testing.T) {
	if *liveCommand == "" || *liveModel == "" {
		t.Skip("no real vllm: give -vllm-command and -vllm-model")
	}
	l := &ledger{held: map[uint64]bool{}, size: 32}
	c := vllm.DefaultConfig()
	c.Command.Path, c.Command.Model, c.Command.Args = *liveCommand, *liveModel, strings.Fields(*liveArgs)
	c.Name, c.VocabSize, c.EOS, c.Events, c.BlockSize = "live", 49152, []dynamo.TokenID{dynamo.TokenID(*liveEOS)}, l.take, 32
	c.Progress = func(line string) { t.Log(line) }
	began := time.Now()
	e := open(t, c)
	t.Logf("ready after %v: %+v, %+v", time.Since(began), e.Info(), e.Card())
	stop := running(t, e)
	r := &dynamo.Request{Tokens: prompt(70), MaxTokens: 8, Sampling: dynamo.Sampling{Logprobs: true, TopLogprobs: 20}}
	first, err := enginetest.Collect(t.Context(), e, r)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the events", func() bool { return l.full(r) })
	if *liveKill != "" {
		killed(t, e)
	}
	var again enginetest.Answer
	for range 120 {
		if again, err = enginetest.Collect(t.Context(), e, r); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil || !slices.Equal(first.Tokens, again.Tokens) {
		t.Errorf("got %v, %v after all, want %v", again.Tokens, err, first.Tokens)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// killed ends the server in the middle of an answer, which is lost.
func killed(t *testing.T, e *vllm.Engine) {
	t.Helper()
	began := false
	for _, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: prompt(9), MaxTokens: 1500, IgnoreEOS: true}) {
		if err != nil {
			if code, lost := engine.Lost(err); !lost || code != engine.CodeLost {
				t.Errorf("got %v, want the server lost", err)
			}
			return
		}
		if !began {
			began = true
			if err := exec.Command("sh", "-c", *liveKill).Run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Error("the answer came to its end")
}
