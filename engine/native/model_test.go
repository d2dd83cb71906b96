package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

const tinyVocab, tinyContext = 320, 256

// tinyFolder writes a random model of the Llama family in Hugging Face layout.
func tinyFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := fixture.TinyLlama(dir, fixture.Llama{Vocab: tinyVocab, Context: tinyContext, Layers: 2, EOS: 1}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadModel(t testing.TB, path string, p model.Precision, threads int) *model.Model {
	t.Helper()
	o := model.DefaultOptions()
	o.Precision, o.Threads = p, threads
	m, err := model.Load(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// serveModel runs an engine for m until the test ends.
func serveModel(t testing.TB, m *model.Model, change func(*Config)) *Engine {
	t.Helper()
	e := host(t, m, change)
	run(t, e)
	return e
}

// host returns an engine for m that is not running.
func host(t testing.TB, m *model.Model, change func(*Config)) *Engine {
	t.Helper()
	c := DefaultConfig()
	c.Name, c.Blocks = "tiny", 200
	change(&c)
	e, err := New(c, m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestConformanceTiny(t *testing.T) {
	folder := tinyFolder(t)
	for _, p := range []model.Precision{model.Int8, model.F32} {
		t.Run(p.String(), func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e := serveModel(t, loadModel(t, folder, p, 2), func(c *Config) { c.StepTokens = 64 })
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e) }}
			})
		})
	}
}

// TestSmolLM2 asks the default model the prompts of the greedy fixture alone, all
// at once in a pool too small for them, and resumed halfway.
func TestSmolLM2(t *testing.T) {
	raw, err := os.ReadFile("model/testdata/smollm2-greedy.json")
	if err != nil {
		t.Fatal(err)
	}
	var greedy struct {
		Prompts []struct {
			Prompt []dynamo.TokenID `json:"prompt_ids"`
			Output []dynamo.TokenID `json:"output_ids"`
		} `json:"prompts"`
	}
	if err := json.Unmarshal(raw, &greedy); err != nil || len(greedy.Prompts) < 6 {
		t.Fatalf("%d prompts, %v", len(greedy.Prompts), err)
	}
	m := loadModel(t, fixture.SmolLM2(t), model.Int8, 2)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	tight := host(t, m, func(c *Config) { c.Blocks, c.StepTokens, c.MaxRunning = 16, 48, 8 })
	const length = 20
	agree, total := 0, 0
	var asked []*dynamo.Request
	var wanted []enginetest.Answer
	for i, p := range greedy.Prompts[:6] {
		r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: p.Prompt, MaxTokens: length, IgnoreEOS: true}
		if i%3 == 2 {
			r.Sampling = dynamo.Sampling{Temperature: 0.8, TopP: 0.95, Seed: uint64(i)}
		}
		want := collect1(t, alone, r)
		if i%3 != 2 {
			for j := range min(length, len(p.Output)) {
				total++
				if want.Tokens[j] == p.Output[j] {
					agree++
				}
			}
		}
		resumed, rest := *r, want
		resumed.ID, resumed.Resume, rest.Tokens = r.ID+"+", want.Tokens[:length/2], want.Tokens[length/2:]
		asked, wanted = append(asked, r, &resumed), append(wanted, want, rest)
	}
	together(t, tight, asked, wanted)
	t.Logf("%d of %d greedy ids equal those of the float32 reference; %d preemptions", agree, total, tight.Stats().Scheduler.Preemptions)
	if tight.Stats().Scheduler.Preemptions == 0 {
		t.Error("nothing was preempted: the test is too weak")
	}
	if agree < total/2 {
		t.Errorf("only %d of %d greedy ids equal those of the float32 reference", agree, total)
	}
}

// TestBatchInvariance asks random requests alone, and all at once of engines that
// differ in threads, pool, steps and caching: every id and every logprob has the
// same bits.
func TestBatchInvariance(t *testing.T) {
	folder := tinyFolder(t)
	for _, p := range []model.Precision{model.Int8, model.F32} {
		requests := invariantRequests(60)
		alone := serveModel(t, loadModel(t, folder, p, 1), func(c *Config) { c.PrefixCaching = false })
		var want []enginetest.Answer
		for _, r := range requests {
			want = append(want, collect1(t, alone, r))
		}
		for _, mode := range []struct {
			name    string
			threads int
			change  func(*Config)
		}{
			{"together", 2, plain},
			{"tight pool", 1, func(c *Config) { c.Blocks = 24 }},
			{"small steps", 3, func(c *Config) { c.MaxRunning, c.StepTokens = 9, 9 }},
		} {
			t.Run(p.String()+"/"+mode.name, func(t *testing.T) {
				e := host(t, loadModel(t, folder, p, mode.threads), mode.change)
				together(t, e, requests, want)
				s := e.Stats()
				t.Logf("%d steps, %d preemptions, %d of %d prompt tokens cached", s.Scheduler.Steps, s.Scheduler.Preemptions, s.CachedTokens, s.PromptTokens)
				if mode.name == "tight pool" && s.Scheduler.Preemptions == 0 || s.CachedTokens == 0 {
					t.Error("the test is too weak")
				}
			})
		}
	}
}

func invariantRequests(n int) (all []*dynamo.Request) {
	prefix := testPrompt(70)
	for i := range n {
		random := rand.New(rand.NewPCG(33, uint64(i)))
		r := &dynamo.Request{
			ID: dynamo.RequestID(fmt.Sprint(i)), MaxTokens: 1 + random.IntN(50), IgnoreEOS: true,
			Tokens: slices.Concat(prefix[:random.IntN(len(prefix)+1)], testPrompt(1+random.IntN(60))),
		}
		if i%2 == 0 {
			r.Sampling = randomSampling(random, tinyVocab)
		}
		r.Sampling.Logprobs, r.Sampling.TopLogprobs = true, 3
		r.Sampling.PromptLogprobs = i%7 == 0
		all = append(all, r)
	}
	return all
}

// TestPromptLogprobsAgree compares the logprobs of a prompt with those that were
// given when the same ids were generated.
func TestPromptLogprobsAgree(t *testing.T) {
	e := serveModel(t, loadModel(t, tinyFolder(t), model.F32, 1), plain)
	r := &dynamo.Request{Tokens: testPrompt(30), MaxTokens: 100, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 4, Logprobs: true, TopLogprobs: 2}}
	generated := collect1(t, e, r)
	again := collect1(t, e, &dynamo.Request{
		Tokens: slices.Concat(r.Tokens, generated.Tokens), Sampling: dynamo.Sampling{PromptLogprobs: true, TopLogprobs: 2},
	})
	if len(again.Tokens) > 0 || again.Finish != dynamo.FinishLength || again.Cached > 0 {
		t.Errorf("got %d tokens, %v, %d cached; want none, length, none", len(again.Tokens), again.Finish, again.Cached)
	}
	same(t, 0, again.PromptLogprobs[30:], generated.Logprobs)
}

func TestNewRefuses(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.Int8, 1)
	c := DefaultConfig()
	c.Name, c.CacheBytes = "tiny", 100
	if _, err := New(c, m); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "--kv-cache-bytes is 100") {
		t.Errorf("a cache of 100 bytes: got %v", err)
	}
	c.CacheBytes = 1 << 20
	e, err := New(c, m)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Card(); got.ContextLength != tinyContext || got.VocabSize != tinyVocab || !slices.Equal(got.EOS, []dynamo.TokenID{1}) || got.NumericClass != "int8" {
		t.Errorf("got card %+v", got)
	}
	end(t, e)
	c.Blocks = 2
	if e, err = New(c, m); err != nil {
		t.Fatal(err)
	}
	defer end(t, e)
	if got := e.Card().ContextLength; got != 32 {
		t.Errorf("two blocks hold a context of %d, want 32", got)
	}
	_, err = enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(40), MaxTokens: 5})
	if err == nil || !strings.Contains(err.Error(), "40") || !strings.Contains(err.Error(), "32") {
		t.Errorf("a prompt that can never fit: got %v, want both numbers", err)
	}
}

// end lets go of the KV cache of an engine that was never asked anything.
func end(t *testing.T, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}
