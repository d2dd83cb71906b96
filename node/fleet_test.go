package node

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// A frontend serves what workers there are, and keeps a model that has lost the
// last one for its grace.
func TestFleetComesAndGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		if status, text := b.complete("front", "m", "abc", 5); status != http.StatusServiceUnavailable {
			t.Errorf("without a worker: got %d %s, want 503", status, text)
		}
		if status, text := b.get("front", "/ready"); status != http.StatusServiceUnavailable {
			t.Errorf("ready without a worker: %d %s", status, text)
		}
		w1 := b.start("w1", nil)
		b.awaitModels("front", "m")
		b.wants("front", "m")
		w2 := b.start("w2", nil)
		b.awaitState("front", "w2", "ready")
		w1.end()
		b.wants("front", "m")
		b.until("w1 is gone", func() bool { h := b.health("front"); return len(h) == 1 && h["w2"].State == "ready" })
		w2.end()
		synctest.Wait()
		if h := b.health("front"); len(h) != 0 {
			t.Errorf("after all have left, the workers are %v", h)
		}
		left := time.Now()
		if status, text := b.complete("front", "m", "abc", 5); status != http.StatusServiceUnavailable {
			t.Errorf("in its grace: got %d %s, want 503", status, text)
		}
		b.awaitModels("front", "")
		if took := time.Since(left); took < modelGrace-time.Second || took > modelGrace+time.Second {
			t.Errorf("the model stays known for %v, want %v", took, modelGrace)
		}
		if status, _ := b.complete("front", "m", "abc", 5); status != http.StatusServiceUnavailable && status != http.StatusNotFound {
			t.Errorf("after its grace: got %d", status)
		}
		b.start("w3", nil)
		b.awaitModels("front", "m")
		b.wants("front", "m")
	})
}

// A worker that comes back within the grace ends it: the model is not taken away
// when the first grace would have been over.
func TestGraceEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		w := b.start("w1", nil)
		b.awaitModels("front", "m")
		w.end()
		time.Sleep(modelGrace - 5*time.Second)
		w = b.start("w2", nil)
		b.awaitState("front", "w2", "ready")
		time.Sleep(10 * time.Second)
		b.wants("front", "m")
		w.end()
		time.Sleep(modelGrace - 5*time.Second)
		if got := b.models("front"); got != "m" {
			t.Errorf("in the second grace: models %q", got)
		}
		b.awaitModels("front", "")
	})
}

// Both workers of a model get requests.
func TestFleetSpreads(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("w1", nil)
		b.start("w2", nil)
		b.start("front", nil)
		b.awaitState("front", "w1", "ready")
		b.awaitState("front", "w2", "ready")
		b.awaitModels("front", "m")
		before := b.health("front")
		for range 6 {
			b.wants("front", "m")
		}
		time.Sleep(2 * time.Second) // a heartbeat of the load
		for name, after := range b.health("front") {
			if after.Load.Steps <= before[name].Load.Steps {
				t.Errorf("%s has made %d steps before and %d after", name, before[name].Load.Steps, after.Load.Steps)
			}
			if after.Load.MaxRunning != 64 || after.Load.Running != 0 {
				t.Errorf("%s: load %+v", name, after.Load)
			}
		}
	})
}

// Workers whose card differs from the others' of the name are refused, said so,
// and used once the others are gone.
func TestOddCards(t *testing.T) {
	// Another special token: the same text gets the same ids, the file has another
	// digest.
	tokenizer := strings.Replace(string(mustRead(t, tinyModel(t, nil)+"/tokenizer.json")), `"version":"1.0"`, `"version": "1.0"`, 1)
	otherTokenizer := tinyModel(t, map[string]string{"tokenizer.json": tokenizer})
	otherTemplate := tinyModel(t, map[string]string{"chat_template.jinja": "{{ messages[0].content }}"})
	for _, tc := range []struct {
		name, say string
		edit      func(*Config)
	}{
		{"context", "context length (512, the others have 2048)", func(c *Config) { c.ContextLength = 512 }},
		{"tokenizer", "tokenizer", func(c *Config) { c.ModelPath = otherTokenizer }},
		{"template", "chat template", func(c *Config) { c.ModelPath = otherTemplate }},
		{"numeric class", "numeric class", func(c *Config) {
			c.Cluster.Store = recarded{c.Cluster.Store, func(d *discovery.Card) { d.NumericClass = "f32" }}
		}},
		{"engine", "engine (other, the others have echo)", func(c *Config) {
			c.Cluster.Store = recarded{c.Cluster.Store, func(d *discovery.Card) { d.Engine = "other" }}
		}},
		{"revision", "revision", func(c *Config) {
			c.Cluster.Store = recarded{c.Cluster.Store, func(d *discovery.Card) { d.Revision = "abc" }}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.start("front", nil)
				w1, w2 := b.start("w1", nil), b.start("w2", nil)
				b.awaitState("front", "w1", "ready")
				b.awaitState("front", "w2", "ready")
				b.start("w3", tc.edit)
				b.awaitState("front", "w3", "refused: ")
				if state := b.health("front")["w3"].State; !strings.Contains(state, tc.say) || !strings.Contains(state, "--model-name") {
					t.Errorf("w3 is %q; want it to name %q", state, tc.say)
				}
				if !b.log.holds("worker refused", "0000000000000003", tc.say) {
					t.Errorf("the log does not say why w3 is refused")
				}
				for range 6 {
					b.wants("front", "m")
				}
				steps := b.health("front")["w3"].Load.Steps
				time.Sleep(2 * time.Second)
				if got := b.health("front")["w3"].Load.Steps; got != steps {
					t.Errorf("the refused worker has made %d steps, then %d", steps, got)
				}
				w1.end()
				b.wants("front", "m")
				if state := b.health("front")["w3"].State; !strings.HasPrefix(state, "refused: ") {
					t.Errorf("while w2 is there, w3 is %q", state)
				}
				w2.end()
				b.awaitState("front", "w3", "ready")
				b.until("w3 serves", func() bool { status, _ := b.complete("front", "m", "abc", 5); return status == http.StatusOK })
				b.wants("front", "m")
			})
		})
	}
}

// A request that waits for workers that have gone is told at once when others serve
// the name that answer otherwise: it was prepared for another model.
func TestReplacedWhileWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", func(c *Config) { c.Cluster.WorkerWait = 10 * time.Second })
		w1 := b.start("w1", nil)
		b.awaitState("front", "w1", "ready")
		b.wants("front", "m")
		w1.end()
		type answer struct {
			status int
			text   string
			took   time.Duration
		}
		got := make(chan answer, 1)
		go func() {
			began := time.Now()
			status, text := b.complete("front", "m", "abc", 5)
			got <- answer{status, text, time.Since(began)}
		}()
		time.Sleep(time.Second)
		b.start("w2", func(c *Config) { c.ContextLength = 512 })
		b.awaitState("front", "w2", "ready")
		if a := <-got; a.status != http.StatusServiceUnavailable || !strings.Contains(a.text, "model_replaced") || a.took > 5*time.Second {
			t.Errorf("got %d after %v: %s", a.status, a.took, a.text)
		}
		b.wants("front", "m")
	})
}

// recarded changes the card that a worker registers with.
type recarded struct {
	discovery.Store
	edit func(*discovery.Card)
}

func (s recarded) change(i discovery.Instance) discovery.Instance {
	card := *i.Card
	s.edit(&card)
	i.Card = &card
	return i
}

// Register implements discovery.Store.
func (s recarded) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	r, err := s.Store.Register(ctx, s.change(i))
	if err != nil {
		return nil, err
	}
	return recardedRegistration{r, s}, nil
}

type recardedRegistration struct {
	discovery.Registration
	s recarded
}

// Update implements discovery.Registration.
func (r recardedRegistration) Update(ctx context.Context, i discovery.Instance) error {
	return r.Registration.Update(ctx, r.s.change(i))
}

// A worker with a new card that comes while nobody is left of the old one takes
// the model over, in its grace and without waiting for the end of it.
func TestOddCardInGrace(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		w1 := b.start("w1", nil)
		b.awaitModels("front", "m")
		b.wants("front", "m")
		w1.end()
		b.start("w2", func(c *Config) { c.ContextLength = 512 })
		b.awaitState("front", "w2", "ready")
		b.until("w2 serves", func() bool { status, _ := b.complete("front", "m", "abc", 5); return status == http.StatusOK })
		time.Sleep(modelGrace + time.Second)
		b.wants("front", "m") // the old model's grace does not take the new one away
	})
}

// A refused worker that is away while the others leave is used when it is back.
func TestRefusedComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		w1 := b.start("w1", nil)
		b.awaitState("front", "w1", "ready")
		b.start("w2", func(c *Config) { c.ContextLength = 512 })
		b.awaitState("front", "w2", "refused")
		b.net.Partition("front", "w2")
		b.net.Partition("w2", "front")
		time.Sleep(5 * time.Second)
		w1.end()
		time.Sleep(time.Second)
		b.net.Heal("front", "w2")
		b.awaitState("front", "w2", "ready")
		b.until("w2 serves", func() bool { status, _ := b.complete("front", "m", "abc", 5); return status == http.StatusOK })
	})
}

// Two models stand side by side, each with its own worker.
func TestTwoModels(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		b.start("w1", nil)
		w2 := b.start("w2", func(c *Config) { c.ModelName, c.ContextLength = "n", 512 })
		b.awaitModels("front", "m n")
		b.wants("front", "m")
		b.wants("front", "n")
		w2.end()
		b.wants("front", "m")
		if status, _ := b.complete("front", "n", "abc", 5); status != http.StatusServiceUnavailable {
			t.Errorf("n without its worker: got %d", status)
		}
		b.awaitModels("front", "m")
	})
}

// The store forgets a worker that is connected: it is used on, until its
// connection ends.
func TestConnectionIsTheTruth(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		w := b.start("w1", nil)
		b.awaitModels("front", "m")
		b.store.Expire(1)
		time.Sleep(time.Second)
		b.wants("front", "m")
		w.kill()
		b.until("w1 is gone", func() bool { return len(b.health("front")) == 0 })
	})
}

// A store that is down at the start is asked until it answers; one that goes down
// later is done without.
func TestStoreDown(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.store.SetDown(true)
		b.start("front", nil)
		w := b.run("w1", nil)
		time.Sleep(3 * time.Second)
		select {
		case <-w.done:
			t.Fatalf("the worker ended: %v", w.err)
		case <-w.ready:
			t.Fatal("the worker is ready without a store that knows it")
		default:
		}
		if status, _ := b.complete("front", "m", "abc", 5); status != http.StatusServiceUnavailable {
			t.Errorf("without a store: got %d, want 503", status)
		}
		if !b.log.holds("store cannot be reached", "host=w1") {
			t.Error("the worker does not say that it waits for the store")
		}
		b.store.SetDown(false)
		b.awaitModels("front", "m")
		b.wants("front", "m")
		b.store.SetDown(true)
		time.Sleep(time.Minute)
		b.wants("front", "m")
		b.store.SetDown(false)
		b.start("w2", nil)
		b.awaitState("front", "w2", "ready")
	})
}

// Workers that come, leave and change at the same moment leave nothing behind.
func TestFleetChurn(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		for round := range 6 {
			var procs []*proc
			for i := range 4 {
				odd := (round+i)%3 == 0
				procs = append(procs, b.run("w"+strconv.Itoa(1+i), func(c *Config) {
					if odd {
						c.ContextLength = 512
					}
				}))
			}
			time.Sleep(time.Duration(round*round) * 3 * time.Millisecond)
			for _, p := range procs {
				p.stop()
			}
			for _, p := range procs {
				p.end()
			}
		}
		b.until("all are gone", func() bool { return len(b.health("front")) == 0 })
		b.start("w9", nil)
		b.until("w9 serves", func() bool { status, _ := b.complete("front", "m", "abc", 5); return status == http.StatusOK })
	})
}

// A worker's later life takes the place of its earlier one.
func TestLaterLife(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		w := b.start("w1", nil)
		b.awaitModels("front", "m")
		b.store.Expire(1)       // while it is connected
		time.Sleep(time.Second) // lives are told apart by when they began
		l, err := b.net.Host("w2").Listen("w2:7001")
		if err != nil {
			t.Fatal(err)
		}
		b.start("w2", func(c *Config) {
			if err := c.Worker.Listeners[0].Close(); err != nil {
				t.Error(err)
			}
			c.Worker.ID, c.Worker.Listeners[0] = dynamo.WorkerID(1), l
		})
		b.until("two lives are known", func() bool { _, text := b.get("front", "/health"); return strings.Count(text, `"worker"`) == 2 })
		for range 4 {
			b.wants("front", "m")
		}
		w.kill()
		time.Sleep(5 * time.Second)
		for range 4 {
			b.wants("front", "m")
		}
	})
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
