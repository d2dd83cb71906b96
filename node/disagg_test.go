package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Prompts are computed by the prefill worker and answers by the decode worker, as long
// as both are there; what either does alone, and what one worker of both would, is the
// same.
func TestDisagg(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		role := func(role string) func(*Config) {
			return func(c *Config) {
				// 131072 bytes a token: 10 ms each.
				mocked(func(m *MockerConfig) { m.TransferBandwidth = 13107200 })(c)
				c.Worker.Role = role
			}
		}
		served := func(path string) bool {
			_, text := b.get("front", "/metrics")
			return strings.Contains(text, `dynamo_disagg_requests_total{path="`+path+`"} 1`+"\n")
		}
		p := b.start("w1", role(engine.RolePrefill))
		b.start("front", func(c *Config) { c.Cluster.Routing.Split = "always" })
		b.awaitModels("front", "m")
		prompt := strings.Repeat("some words ", 9) // a token a byte
		want, _ := b.greedy("front", prompt, 20)
		if !served("prefill_only") {
			t.Error("the prefill worker alone did not serve the request")
		}
		b.start("w2", role(engine.RoleDecode))
		b.awaitState("front", "w2", "ready")
		began := time.Now()
		got, cached := b.greedy("front", prompt, 20)
		n := time.Duration(len(prompt))
		if took := time.Since(began); got != want || took < n*10*time.Millisecond || took > n*10*time.Millisecond+200*time.Millisecond {
			t.Errorf("got %q after %v, want %q after %v for the transfer and little more", got, took, want, n*10*time.Millisecond)
		}
		if cached != len(prompt)/4*4 && cached != len(prompt)/4*4-4 || !served("handover") {
			t.Errorf("%d tokens were found where the prompt was computed before", cached)
		}
		p.kill()
		b.until("the prefill worker is missed", func() bool { return !strings.HasPrefix(b.health("front")["w1"].State, "ready") })
		began = time.Now()
		if got, _ := b.greedy("front", prompt+"!", 20); got == want || time.Since(began) > 200*time.Millisecond || !served("decode_only") {
			t.Errorf("without the prefill worker: after %v", time.Since(began))
		}
	})
}

// Whoever falls silent, what others hold for it is free within two seconds: the KV of a
// prompt, which its worker would keep for five minutes, and the place where it was to go.
func TestStranded(t *testing.T) {
	cut := func(hosts ...string) func(*bubble) {
		return func(b *bubble) {
			for _, h := range hosts[1:] {
				b.net.PartitionBoth(hosts[0], h)
			}
		}
	}
	for _, c := range []struct {
		name  string
		fault func(b *bubble)
		kill  string
		free  []string
	}{
		{"the frontend is stopped", func(b *bubble) { b.net.Pause("front") }, "", []string{"w1", "w2"}},
		{"the frontend is cut off", cut("front", "w1", "w2"), "", []string{"w1", "w2"}},
		{"the frontend is killed", nil, "front", []string{"w1", "w2"}},
		{"the prefill worker is cut off from the frontend", cut("front", "w1"), "", []string{"w1"}},
		{"the decode worker is stopped", func(b *bubble) { b.net.Pause("w2") }, "", []string{"w1"}},
		{"the decode worker is cut off from the frontend", cut("front", "w2"), "", []string{"w1", "w2"}},
		{"the decode worker is killed", nil, "w2", []string{"w1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				role := func(role string) func(*Config) {
					return func(c *Config) {
						mocked(func(m *MockerConfig) { m.TransferBandwidth = 131072 })(c) // a second for each token
						c.Worker.Role = role
					}
				}
				b.start("w1", role(engine.RolePrefill))
				procs := map[string]*proc{"w2": b.start("w2", role(engine.RoleDecode))}
				procs["front"] = b.start("front", func(c *Config) { c.Cluster.Routing.Split = "always" })
				b.start("look", nil)
				b.awaitModels("front", "m")
				for _, w := range []string{"w1", "w2"} {
					b.awaitState("front", w, "ready")
					b.awaitState("look", w, "ready")
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				req, err := http.NewRequestWithContext(ctx, "POST", "http://front:80/v1/completions", strings.NewReader(`{"model":"m","prompt":"some words and some more","max_tokens":3,"ignore_eos":true}`))
				if err != nil {
					t.Fatal(err)
				}
				asked := make(chan struct{})
				go func() { // ends with the request, whatever becomes of it
					defer close(asked)
					if resp, err := b.client.Do(req); err == nil {
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}()
				used := func(w string) int { return b.health("look")[w].Load.KVUsed }
				b.until("the KV is on its way", func() bool { return used("w1") > 0 && used("w2") > 0 })
				time.Sleep(300 * time.Millisecond)
				began := time.Now()
				if c.kill != "" {
					procs[c.kill].kill()
				} else {
					c.fault(b)
				}
				for _, w := range c.free {
					b.until(w+" holds nothing", func() bool { return used(w) == 0 })
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("what was held is free %v after the fault, want 2 s at most", took)
				} else {
					t.Logf("%s: %v", c.name, took)
				}
				stop()
				b.net.Resume("front")
				b.net.Resume("w2")
				b.net.HealAll()
				<-asked
			})
		})
	}
}

// Where the prompt is computed follows from what it costs, unless somebody says where, and
// the record of the request says so.
func TestSplitIsDecided(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		role := func(role string) func(*Config) {
			return func(c *Config) { mocked(nil)(c); c.Worker.Role = role }
		}
		b.start("w1", role(engine.RolePrefill))
		b.start("w2", role(engine.RoleDecode))
		b.start("front", nil)
		b.awaitModels("front", "m")
		b.awaitState("front", "w1", "ready")
		b.awaitState("front", "w2", "ready")
		ask := func(words int, header string) string {
			body := fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":12,"ignore_eos":true}`, strings.Repeat("some words ", max(words, 0)))
			if words < 0 { // that nobody holds
				body = strings.Replace(body, `"prompt":"`, fmt.Sprintf(`"prompt":"%d %s`, words, strings.Repeat("words ", 40)), 1)
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://front:80/v1/completions", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				req.Header.Set("X-Dynamo-Routing-Mode", header)
			}
			resp, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status, err)
			}
			_, text := b.get("front", "/v1/requests/"+resp.Header.Get("X-Request-Id")+"/explain")
			return text
		}
		for _, c := range []struct {
			words        int
			header, want string
			attempts     int
		}{
			{2, "", "which is little", 1},
			{40, "", "whose speed is not known yet are compared as if they were fast: ", 1},
			{41, "disaggregated", "prompt computed apart from the answer: the request says so", 2},
			{41, "aggregated", "prompt and answer on one worker: the request says so", 1},
		} {
			if got := ask(c.words, c.header); !strings.Contains(got, c.want) || strings.Count(got, `"attempt":`) != c.attempts {
				t.Errorf("%d words, %q: the record does not say %q in %d attempts: %s", c.words, c.header, c.want, c.attempts, got)
			}
		}
		// Some requests later the one worker's speed is known, and stands for the other's.
		for i := range 30 {
			ask(-1-i, "")
		}
		if got := ask(-100, ""); !strings.Contains(got, "ms on one worker (0000000000000002; 2") || !strings.Contains(got, " of hand-over and ") {
			t.Errorf("the record does not say what one place and two cost: %s", got)
		}
	})
}

func TestStagger(t *testing.T) {
	for _, c := range []struct {
		stagger time.Duration
		count   int
		want    time.Duration
	}{
		{0, 500, 0}, {time.Second, 2, time.Second}, {-1, 32, 0}, {-time.Second, 33, 100 * time.Millisecond}, {-1, 128, 100 * time.Millisecond}, {-1, 129, 200 * time.Millisecond},
	} {
		w := WorkerConfig{Stagger: c.stagger, Count: c.count}
		if got := w.stagger(); got != c.want {
			t.Errorf("%v for %d workers: got %v, want %v", c.stagger, c.count, got, c.want)
		}
	}
	c := newCluster(t, nil)
	folder := tinyModel(t, nil)
	const count, stagger = 3, 50 * time.Millisecond
	w := c.start(RoleWorker, func(n *Config) {
		mocked(nil)(n)
		n.Worker.Count, n.Worker.ID, n.Worker.Stagger, n.ModelPath = count, 100, stagger, folder
	})
	for i := range dynamo.WorkerID(count - 1) {
		// A worker may take its time; later is right, earlier is not.
		if gap := c.instance(101 + i).Started.Sub(c.instance(100).Started); gap < time.Duration(i+1)*stagger-stagger/2 {
			t.Errorf("worker %d started %v after the first", i+1, gap)
		}
	}
	w.end(t)
}
