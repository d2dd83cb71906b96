package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// stranger makes a worker that is another engine of the weights called id.
func stranger(id string, more func(*Config, *discovery.Card)) func(*Config) {
	return func(c *Config) {
		c.Worker.Weights = id
		var edit func(*discovery.Card)
		if more != nil {
			var probe discovery.Card
			more(c, &probe)
			edit = func(d *discovery.Card) { more(&Config{}, d) }
		}
		c.Cluster.Store = recarded{c.Cluster.Store, func(d *discovery.Card) {
			d.Engine, d.Revision, d.NumericClass, d.BlockSize = "other", "def", "f32", 32
			if edit != nil {
				edit(d)
			}
		}}
	}
}

func called(id string) func(*Config) { return func(c *Config) { c.Worker.Weights = id } }

// Workers of other engines serve a name together when they are said to have the same
// weights, and what can be proved agrees; the refusal says what to do.
func TestSameWeights(t *testing.T) {
	// The same ids mean the same, in a file of another form.
	otherForm := tinyModel(t, map[string]string{"tokenizer.json": strings.Replace(string(mustRead(t, tinyModel(t, nil)+"/tokenizer.json")), `"version":"1.0"`, `"version": "1.0"`, 1)})
	otherTemplate := tinyModel(t, map[string]string{"chat_template.jinja": "{{ messages[0].content }}"})
	for _, tc := range []struct {
		name          string
		first, second func(*Config)
		say           []string // why the second is refused; nil: it is used
	}{
		{"equal", called("a"), stranger("a", nil), nil},
		{"another context", called("a"), stranger("a", func(c *Config, d *discovery.Card) { c.ContextLength, d.ContextLength = 512, 512 }), nil},
		{"another form of the tokenizer", called("a"), stranger("a", func(c *Config, _ *discovery.Card) { c.ModelPath = otherForm }), nil},
		{"others", called("a"), stranger("b", nil), []string{"--weights-id (b, the others have a)", "--model-name"}},
		{"one alone", called("a"), stranger("", nil), []string{"revision", "start each with the same --weights-id"}},
		{"the other alone", nil, stranger("a", nil), []string{"revision", "start each with the same --weights-id"}},
		{"nobody", nil, stranger("", nil), []string{"revision", "start each with the same --weights-id"}},
		{"alike in everything, one named", called("a"), nil, nil},
		{"other ids", called("a"), stranger("a", func(_ *Config, d *discovery.Card) { d.Vocabulary = "12" }), []string{"meaning of the token ids", "--model-name"}},
		{"another template", called("a"), stranger("a", func(c *Config, _ *discovery.Card) { c.ModelPath = otherTemplate }), []string{"chat template", "--chat-template"}},
		{"text", called("a"), stranger("a", func(_ *Config, d *discovery.Card) { d.TextOnly = true }), []string{"text", "--model-name"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.start("front", nil)
				b.start("w1", tc.first)
				b.awaitState("front", "w1", "ready")
				b.start("w2", tc.second)
				if tc.say == nil {
					b.awaitState("front", "w2", "ready")
					before := b.health("front")
					for range 6 {
						b.wants("front", "m")
					}
					time.Sleep(2 * time.Second)
					for name, after := range b.health("front") {
						if after.Load.Steps <= before[name].Load.Steps {
							t.Errorf("%s got nothing", name)
						}
					}
					return
				}
				b.awaitState("front", "w2", "refused: ")
				for _, say := range tc.say {
					if state := b.health("front")["w2"].State; !strings.Contains(state, say) {
						t.Errorf("w2 is %q; want it to name %q", state, say)
					}
				}
				b.wants("front", "m")
			})
		})
	}
}

// A model is served with the files of whichever of its workers can give them, in the
// form that one has.
func TestFilesOfAnother(t *testing.T) {
	whole := string(mustRead(t, tinyModel(t, nil)+"/tokenizer.json"))
	otherForm := tinyModel(t, map[string]string{"tokenizer.json": strings.Replace(whole, `"version":"1.0"`, `"version": "1.0"`, 1)})
	own := tinyModel(t, nil)
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("w1", func(c *Config) { c.Worker.Weights, c.ModelPath = "a", own })
		if err := os.WriteFile(own+"/tokenizer.json", []byte(whole+" "), 0o600); err != nil {
			t.Fatal(err)
		}
		b.start("front", nil)
		b.until("the first worker's file is refused", func() bool { return b.log.holds("a worker's tokenizer cannot be had") })
		b.start("w2", stranger("a", func(c *Config, _ *discovery.Card) { c.ModelPath = otherForm }))
		b.awaitModels("front", "m")
		b.wants("front", "m")
		b.wants("front", "m")
	})
}

// A worker dies in the middle of answers: they go on at the other engine of the same
// weights and are as they would have been.
func TestGoesOnAtAnotherEngine(t *testing.T) {
	for _, dies := range []string{"w1", "w2"} {
		t.Run(dies, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				slow := func(edit func(*Config)) func(*Config) {
					return func(c *Config) {
						c.EchoITL = 100 * time.Millisecond
						edit(c)
					}
				}
				b.start("front", nil)
				procs := map[string]*proc{"w1": b.start("w1", slow(called("a"))), "w2": b.start("w2", slow(stranger("a", nil)))}
				b.awaitState("front", "w1", "ready")
				b.awaitState("front", "w2", "ready")
				type result struct {
					status int
					text   string
				}
				const requests = 6
				results := make(chan result, requests)
				for range requests {
					go func() { // ends with its request
						status, text := b.complete("front", "m", "abc", 20)
						results <- result{status, text}
					}()
				}
				time.Sleep(time.Second)
				if n := b.health("front")[dies].Load.Running; n == 0 {
					t.Errorf("%s runs nothing", dies)
				}
				procs[dies].kill()
				for range requests {
					if r := <-results; r.status != http.StatusOK || r.text != strings.Repeat("abc", 7)[:20] {
						t.Errorf("got %d %q", r.status, r.text)
					}
				}
			})
		})
	}
}

// The model is served with what its workers can do together: more when one comes, and
// less a while after one has gone.
func TestOfferGrowsAndShrinks(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ask := func(tokens int) int {
			prompt := strings.Repeat("abcdefgh", tokens/8)
			status, _ := b.complete("front", "m", prompt, 2)
			return status
		}
		b.start("front", nil)
		b.start("w1", stranger("a", func(c *Config, d *discovery.Card) { c.ContextLength, d.ContextLength = 512, 512 }))
		b.awaitModels("front", "m")
		if got := ask(1024); got != http.StatusBadRequest {
			t.Errorf("a prompt longer than the only worker's context: got %d, want 400", got)
		}
		w2 := b.start("w2", called("a"))
		b.awaitState("front", "w2", "ready")
		for range 4 {
			if got := ask(1024); got != http.StatusOK {
				t.Errorf("a prompt that one of two workers can take: got %d, want 200", got)
			}
		}
		w2.end()
		b.until("w2 is gone", func() bool { return len(b.health("front")) == 1 })
		if got := ask(1024); got != http.StatusServiceUnavailable && got != http.StatusBadRequest {
			t.Errorf("while it may be back: got %d, want 503", got)
		}
		b.wants("front", "m")
		time.Sleep(modelGrace + time.Second)
		if got := ask(1024); got != http.StatusBadRequest {
			t.Errorf("when it has gone for good: got %d, want 400", got)
		}
		b.wants("front", "m")
	})
}

// Advice on sampling does not depend on which worker came first.
func TestComplete(t *testing.T) {
	x, y, k := 0.5, 0.9, 7
	a := complete(discovery.Sampling{Temperature: &x}, discovery.Sampling{Temperature: &y, TopP: &y, TopK: &k})
	if *a.Temperature != x || *a.TopP != y || *a.TopK != k || a.MinP != nil || a.RepetitionPenalty != nil {
		t.Errorf("got %+v", a)
	}
}

// One vocabulary has one digest in both of its forms, and a template in all of its.
func TestDigestsAcrossForms(t *testing.T) {
	// FromGGUF wants a merge.
	file := strings.Replace(string(mustRead(t, tinyModel(t, nil)+"/tokenizer.json")), `"merges":[]`, `"merges":["a b"]`, 1)
	file = strings.Replace(file, `"vocab":{`, `"vocab":{"ab":256,`, 1)
	m, err := readMetadata(tinyModel(t, map[string]string{"tokenizer.json": file}), "")
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]string, m.tokenizer.VocabSize())
	for i := range tokens {
		tokens[i] = m.tokenizer.Token(dynamo.TokenID(i))
	}
	inGGUF := func() string {
		g, err := tokenizer.FromGGUF(tokenizer.Vocab{Model: "gpt2", Pre: "gpt-2", Tokens: tokens, Merges: []string{"a b"}, BOS: -1, EOS: -1, UNK: -1, Types: ggufTypes(m.tokenizer)})
		if err != nil {
			t.Fatal(err)
		}
		return vocabularyDigest(g)
	}
	own := vocabularyDigest(m.tokenizer)
	if got := inGGUF(); got != own || len(got) != 64 {
		t.Errorf("tokenizer.json gives %s, the other form %s", own, got)
	}
	tokens[0], tokens[1] = tokens[1], tokens[0]
	if inGGUF() == own {
		t.Error("ids that mean something else have the same digest")
	}
	var text, quoted metadata
	const source = "{{ messages[0].content }}\n\u00e9"
	value, err := json.Marshal(source)
	if err != nil {
		t.Fatal(err)
	}
	if err := text.setTemplate("a", source); err != nil {
		t.Fatal(err)
	}
	if err := quoted.parseTemplate("b", value); err != nil {
		t.Fatal(err)
	}
	if text.templateFile.digest != quoted.templateFile.digest || text.templateFile.name != quoted.templateFile.name {
		t.Errorf("the text has %+v, the JSON text %+v", text.templateFile, quoted.templateFile)
	}
}

// ggufTypes are the types of a GGUF file: 3 for special tokens, 1 for the others.
func ggufTypes(t *tokenizer.Tokenizer) []int32 {
	types := make([]int32, t.VocabSize())
	for i := range types {
		types[i] = 1
		if t.Special(dynamo.TokenID(i)) {
			types[i] = 3
		}
	}
	return types
}

// /health says why a worker whose connection is up serves nothing, as does what it
// says of itself; the client is told since when nobody does, without an address.
func TestFailingWorker(t *testing.T) {
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.Method == "GET" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"text\":\"abcd\",\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n")
	}))
	defer server.Close()
	store, key := discovery.NewMem(), keyFile(t, "5a")
	start := func(edit func(*Config)) {
		c := DefaultConfig()
		c.ModelName, c.DrainTimeout, c.Version = "m", time.Second, "test"
		c.Cluster.Store, c.Cluster.KeyFile, c.Cluster.WorkerWait = store.Handle(), key, 0
		ready := make(chan struct{})
		c.Ready = func(Ready) { close(ready) }
		edit(&c)
		n, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }() // ends with the test
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatal("not ready")
		}
	}
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	start(func(c *Config) { c.Role, c.Listener, c.Engine = RoleFrontend, l, EngineEcho })
	folder := tinyModel(t, nil)
	start(func(c *Config) {
		c.Role, c.Engine, c.Foreign.URL, c.ModelPath, c.Worker.ID, c.Worker.Unix = RoleWorker, EngineOpenAI, server.URL, folder, 1, false
	})
	fetch := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for tries := 0; ; tries++ {
		_, text := fetch("GET", "/health", "")
		if strings.Contains(text, `"ready"`) {
			break
		}
		if tries == 2000 {
			t.Fatalf("the worker is not ready: %s", text)
		}
		time.Sleep(5 * time.Millisecond)
	}
	down.Store(true)
	status, text := fetch("POST", "/v1/completions", `{"model":"m","prompt":"abc","max_tokens":5}`)
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "none has answered for") || !strings.Contains(text, "model m") || strings.Contains(text, "127.0.0.1") {
		t.Errorf("got %d %s", status, text)
	}
	if _, text := fetch("GET", "/health", ""); !strings.Contains(text, `"failing: `) {
		t.Errorf("/health: %s", text)
	}
	c := DefaultConfig()
	c.Cluster.Store, c.Cluster.KeyFile = store.Handle(), key
	v, err := OpenCluster(c)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	all, _, err := v.Workers(t.Context())
	if err != nil || len(all) != 1 || all[0].Status.Fault == "" {
		t.Errorf("the worker says of itself: %+v, %v", all, err)
	}
}

func TestWeightsIDIsAWord(t *testing.T) {
	for id, good := range map[string]bool{"": true, "smollm2-fp32": true, "a b": false, "a\n": false, strings.Repeat("x", maxWeightsID+1): false} {
		c := DefaultConfig()
		c.Role, c.Engine, c.Worker.Weights = RoleWorker, EngineEcho, id
		if err := c.Validate(); (err == nil) != good || err != nil && !strings.Contains(fmt.Sprint(err), "--weights-id") {
			t.Errorf("%q: got %v", id, err)
		}
	}
}
