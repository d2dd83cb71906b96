package vllm_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/vllm"
)

// lister is a server whose list of models changes while it runs.
type lister struct {
	*fake
	page  atomic.Pointer[string]
	asked atomic.Int64
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/models" {
		l.asked.Add(1)
		_, _ = w.Write([]byte(*l.page.Load()))
		return
	}
	l.fake.ServeHTTP(w, r)
}

// list makes the server list the model and adapters.
func (l *lister) list(adapters ...string) {
	page := fmt.Sprintf(`{"object":"list","data":[{"id":"tiny","root":"/models/tiny","parent":null,"max_model_len":%d}`, fakeLength)
	for _, a := range adapters {
		page += fmt.Sprintf(`,{"id":%q,"root":"/adapters/x","parent":"tiny","max_model_len":null}`, a)
	}
	page += "]}"
	l.page.Store(&page)
}

func newLister(t *testing.T, adapters ...string) (*lister, vllm.Config) {
	l := &lister{fake: newFake()}
	l.list(adapters...)
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	return l, config(s.URL)
}

// The card lists what requests can ask for, in order; a note tells of the rest.
func TestAdapters(t *testing.T) {
	var many []string
	for i := range 1030 {
		many = append(many, fmt.Sprintf("a%04d", i))
	}
	for _, c := range []struct {
		name  string
		there []string
		want  []string
		note  string
	}{
		{"none", nil, nil, ""},
		{"in order, each once", []string{"z", "a", "z"}, []string{"a", "z"}, ""},
		{"the model's name", []string{"tiny", "a"}, []string{"a"}, "1 of its LoRA adapters"},
		{"no name, and a long one", []string{"", strings.Repeat("x", 300), "a"}, []string{"a"}, "2 of its LoRA adapters"},
		{"very many", many, many[:1024], "6 of its LoRA adapters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, cfg := newLister(t, c.there...)
			e := open(t, cfg)
			if got := e.Card().Adapters; !slices.Equal(got, c.want) {
				t.Errorf("got %d adapters %.80q, want %d", len(got), got, len(c.want))
			}
			if got := e.Info(); got.Model != "tiny" || got.ContextLength != fakeLength || !slices.Equal(got.Adapters, c.want) {
				t.Errorf("the model is %+v", got)
			}
			notes := e.Info().Notes
			if c.note == "" && len(notes) != 0 || c.note != "" && (len(notes) != 1 || !strings.Contains(notes[0], c.note)) {
				t.Errorf("got the notes %q, want %q", notes, c.note)
			}
		})
	}
}

// What is loaded and unloaded while the engine runs is in the card soon after, and
// decides what is refused; a server that lists nonsense for a while changes nothing.
func TestAdaptersComeAndGo(t *testing.T) {
	l, cfg := newLister(t, "lora")
	cfg.PollEvery = 2 * time.Millisecond
	e := open(t, cfg)
	stop := running(t, e)
	ask := func(adapter string) error {
		_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Adapter: adapter, Tokens: small(3), MaxTokens: 2})
		return err
	}
	if err := ask("lora"); err != nil {
		t.Fatal(err)
	}
	l.fake.last.Lock()
	if got := l.fake.last.body["model"]; got != "lora" {
		t.Errorf("the server was asked for %q, want the adapter", got)
	}
	l.fake.last.Unlock()
	nonsense := "<html>"
	l.page.Store(&nonsense)
	before := l.asked.Load()
	waitFor(t, "a few looks", func() bool { return l.asked.Load() > before+2 })
	if err := ask("lora"); err != nil {
		t.Errorf("while the server lists nonsense: %v", err)
	}
	l.list("new")
	waitFor(t, "the new adapter", func() bool { return slices.Equal(e.Card().Adapters, []string{"new"}) })
	if err := ask("lora"); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), `"lora"`) {
		t.Errorf("got %v, want the adapter refused that is gone", err)
	}
	l.list()
	waitFor(t, "the end of the last adapter", func() bool { return len(e.Card().Adapters) == 0 })
	if err := ask(""); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A real server's adapters answer otherwise than the model, share no block with it,
// and what it publishes of their blocks predicts what it finds cached:
//
//	scripts/vllm/lora.py /tmp/ada && vllm serve … --enable-lora --lora-modules ada=/tmp/ada
func TestLiveAdapters(t *testing.T) {
	l := &ledger{held: map[uint64]bool{}}
	e, _ := live(t, func(c *vllm.Config) { c.Events = l.take })
	adapters := append([]string{""}, e.Card().Adapters...)
	if len(adapters) == 1 || len(e.Info().Sources) == 0 {
		t.Skip("the server has no adapters or publishes no events: start it with --enable-lora --lora-modules and --kv-events-config")
	}
	l.size = e.Card().BlockSize
	stop := running(t, e)
	for i, ids := range [][]dynamo.TokenID{prompt(4*l.size + 3), prompt(2*l.size + 1)} {
		ids[0] = dynamo.TokenID(1000 + time.Now().UnixNano()%20000) // not what an earlier run has left
		said := map[string]string{}
		for _, name := range adapters {
			for again := range 2 {
				r := &dynamo.Request{ID: "adapter", Adapter: name, Tokens: ids, MaxTokens: 12, IgnoreEOS: true}
				if i == 1 {
					r.Namespace = "tenant-a"
				}
				want := l.predict(r)
				a, err := enginetest.Collect(t.Context(), e, r)
				if err != nil {
					t.Fatal(err)
				}
				if a.Usage.Cached != want || (want == 0) != (again == 0) {
					t.Errorf("prompt %d, adapter %q: %d tokens were cached, the ledger says %d", i, name, a.Usage.Cached, want)
				}
				said[fmt.Sprint(a.Tokens)] = name
				waitFor(t, "the events of the request", func() bool { return l.full(r) })
			}
		}
		if len(said) != len(adapters) {
			t.Errorf("prompt %d: the model and its %d adapters gave %d answers, want all to differ, each the same twice", i, len(adapters)-1, len(said))
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(l.bad) > 0 {
		t.Errorf("wrong: %q", l.bad)
	}
}
