package frontend

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// names returns the ids that GET /v1/models lists, an adapter's with its parent.
func (c *client) names() string {
	c.t.Helper()
	_, body := c.do("GET", "/v1/models", "")
	var list []string
	for _, part := range strings.Split(body, `{"id":"`)[1:] {
		id, rest, _ := strings.Cut(part, `"`)
		if _, parent, ok := strings.Cut(rest, `"parent":"`); ok {
			parent, _, _ = strings.Cut(parent, `"`)
			id += "<" + parent
		}
		list = append(list, id)
	}
	return strings.Join(list, " ")
}

func askModel(model string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]}`, model)
}

// A request that names an adapter reaches the engine as one for the model with that
// adapter, hashes apart from the model's own and is answered under the name asked
// for.
func TestAdapterAsked(t *testing.T) {
	f := &fake{answer: says("xyz")}
	c := serve(t, f, func(_ *Config, m *Model) { m.Card.Adapters = []string{"ada", "bob"} })
	if got, want := c.names(), "ada<org/m bob<org/m org/m"; got != want {
		t.Errorf("GET /v1/models lists %q, want %q", got, want)
	}
	if resp, body := c.do("GET", "/v1/models/ada", ""); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"parent":"org/m"`) || !strings.Contains(body, `"max_model_len":1024`) {
		t.Errorf("GET /v1/models/ada: %d %s", resp.StatusCode, body)
	}
	for _, name := range []string{"org/m", "ada", "bob"} {
		if a := c.ask("/v1/chat/completions", askModel(name)); a.Model != name {
			t.Errorf("%q: the answer is said to be of model %q", name, a.Model)
		}
		for _, e := range c.stream("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x","stream":true}`, name)) {
			if e.Model != name {
				t.Errorf("%q: an event is said to be of model %q", name, e.Model)
			}
		}
	}
	adapters, roots := []string{"", "ada", "bob"}, map[dynamo.CacheRoot]bool{}
	asked := f.requests()
	for i, r := range asked {
		want := adapters[i/2]
		if r.Model != "org/m" || r.Adapter != want || r.Root != tokens.Root(want, "") {
			t.Errorf("request %d has model %q, adapter %q, root %d; want org/m, %q, %d", i, r.Model, r.Adapter, r.Root, want, tokens.Root(want, ""))
		}
		roots[r.Root] = true
	}
	if len(asked) != 6 || len(roots) != 3 {
		t.Errorf("%d requests came under %d roots, want 6 under 3", len(asked), len(roots))
	}
	// Without a name the only model is meant, however many adapters it has.
	for _, body := range []string{`{"prompt":"hi"}`, `{"model":"ada","prompt":"hi"}`, `{"model":"ada","messages":[{"role":"user","content":"x"}]}`} {
		if resp, got := c.do("POST", "/tokenize", body); resp.StatusCode != http.StatusOK {
			t.Errorf("/tokenize for an adapter: %d %s", resp.StatusCode, got)
		}
	}
	_, metrics := c.do("GET", "/metrics", "")
	if strings.Contains(metrics, `"ada"`) || !strings.Contains(metrics, `model="org/m"`) {
		t.Error("adapters have become labels of metrics, which count them with their model")
	}
}

// The tenant's namespace and the adapter both separate.
func TestAdapterOfTenant(t *testing.T) {
	f := &fake{answer: says("x")}
	c := serve(t, f, func(_ *Config, m *Model) { m.Card.Adapters = []string{"ada"} })
	for _, model := range []string{"org/m", "ada"} {
		c.ask("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"x","cache_salt":"s"}`, model))
	}
	r := f.requests()
	if r[0].Namespace == "" || r[0].Namespace != r[1].Namespace || r[0].Root == r[1].Root || r[1].Root != tokens.Root("ada", r[0].Namespace) {
		t.Errorf("got namespaces %q, %q and roots %d, %d", r[0].Namespace, r[1].Namespace, r[0].Root, r[1].Root)
	}
}

// Adapters come and go while the server serves; requests in progress go on.
func TestSetAdapters(t *testing.T) {
	hold, begun := make(chan struct{}), make(chan struct{}, 1)
	f := &fake{answer: says("xyz")}
	f.before = func(_ context.Context, r *dynamo.Request, i int) error {
		if i == 1 && r.Adapter == "late" {
			begun <- struct{}{}
			<-hold
		}
		return nil
	}
	c := serve(t, f, nil)
	status := func(model string) (int, string) {
		resp, body := c.do("POST", "/v1/chat/completions", askModel(model))
		return resp.StatusCode, body
	}
	if code, body := status("late"); code != http.StatusNotFound || !strings.Contains(body, "model_not_found") {
		t.Errorf("an adapter that is not there: %d %s", code, body)
	}
	c.server.SetAdapters("org/m", []string{"z", "late", "z"})
	if got, want := c.names(), "late<org/m org/m z<org/m"; got != want {
		t.Errorf("got the names %q, want %q", got, want)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if code, body := status("late"); code != http.StatusOK || !strings.Contains(body, `"model":"late"`) {
			t.Errorf("a request in progress when its adapter goes: %d %s", code, body)
		}
	})
	select {
	case <-begun:
	case <-time.After(10 * time.Second):
		close(hold)
		t.Fatal("the request for the adapter does not reach the engine")
	}
	c.server.SetAdapters("org/m", []string{"z"})
	code, body := status("late")
	if code != http.StatusNotFound || !strings.Contains(body, "adapters: z") {
		t.Errorf("an adapter that has gone: %d %s", code, body)
	}
	close(hold)
	all.Wait()
	c.server.SetAdapters("org/other", []string{"x"}) // not served: no matter
	c.server.RemoveModel("org/m")
	if got := c.names(); got != "" {
		t.Errorf("after the model has gone: %q", got)
	}
}

// Where a name means several things, a model goes first, and then the adapter of the
// first model; the log tells once.
func TestAdapterNamesClash(t *testing.T) {
	var log bytes.Buffer
	f := &fake{answer: says("x")}
	c := serve(t, f, func(c *Config, m *Model) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		m.Card.Adapters = []string{"org/m", "org/n", "shared"}
	})
	other := testModel(t, f)
	other.Card.Model, other.Card.Adapters = "org/n", []string{"own", "shared"}
	if got, want := c.names(), "org/m org/n<org/m shared<org/m"; got != want {
		t.Errorf("one model: got %q, want %q", got, want)
	}
	if err := c.server.AddModel(other); err != nil {
		t.Fatal(err)
	}
	if got, want := c.names(), "org/m org/n own<org/n shared<org/m"; got != want {
		t.Errorf("two models: got %q, want %q", got, want)
	}
	for _, name := range []string{"org/m", "org/n", "shared", "own"} {
		c.ask("/v1/chat/completions", askModel(name))
	}
	var got []string
	for _, r := range f.requests() {
		got = append(got, r.Model+"+"+r.Adapter)
	}
	if got, want := strings.Join(got, " "), "org/m+ org/n+ org/m+shared org/n+own"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.server.SetAdapters("org/n", []string{"own", "shared", "third"})
	for name, want := range map[string]int{"org/m": 1, "org/n": 1, "shared": 1, "own": 0} {
		if got := strings.Count(log.String(), "adapter="+name+" "); got != want {
			t.Errorf("the log tells %d times that %s means something else, want %d", got, name, want)
		}
	}
	c.server.RemoveModel("org/n")
	if got, want := c.names(), "org/m org/n<org/m shared<org/m"; got != want {
		t.Errorf("the other model has gone: got %q, want %q", got, want)
	}
}
