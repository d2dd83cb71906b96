package mocker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/mocker"
)

func prefills(c *mocker.Config) {
	c.Role, c.KVBytesPerToken, c.Worker, c.Epoch = engine.RolePrefill, 1000, 0xabc, 7
}

// An engine of any role serves whole requests.
func TestRoleConformance(t *testing.T) {
	for _, role := range []string{engine.RolePrefill, engine.RoleDecode} {
		t.Run(role, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e, _ := start(t, func(c *mocker.Config) { c.Speedup, c.Role = 0, role })
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e) }}
			})
		})
	}
}

// prefilled asks e for a prefill and returns what has come once the KV is kept, by
// calling during, after which the sequence is ended.
func prefilled(t *testing.T, e *mocker.Engine, r dynamo.Request, during func(ids []dynamo.TokenID, handover []byte)) {
	t.Helper()
	r.Prefill = true
	var ids []dynamo.TokenID
	for chunk, err := range e.Generate(t.Context(), &r) {
		if err != nil || chunk.Finish != dynamo.FinishNone {
			t.Fatalf("got %+v, %v", chunk, err)
		}
		ids = append(ids, chunk.Tokens...)
		if chunk.Handover != nil {
			during(ids, slices.Clone(chunk.Handover))
			break
		}
	}
}

func TestPrefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, _ := start(t, func(c *mocker.Config) { c.Speedup = 0 })
		e, _ := start(t, prefills)
		r := dynamo.Request{ID: "r", Tokens: testPrompt(100), MaxTokens: 10, IgnoreEOS: true}
		want := ask(t, whole, &r).Tokens
		began := time.Now()
		prefilled(t, e, r, func(ids []dynamo.TokenID, handover []byte) {
			// Three steps of 48, 48 and 4 ids.
			if took := time.Since(began); !slices.Equal(ids, want[:1]) || took != 3*time.Millisecond+100*time.Microsecond {
				t.Errorf("got %v after %v, want %v", ids, took, want[:1])
			}
			if got, want := string(handover), `{"engine":"mocker","worker":"0000000000000abc","epoch":"7","rank":0,"request":"r","tokens":100,"bytes_per_token":1000,"lease_seconds":300}`; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			time.Sleep(time.Minute)
			if kv := e.Stats().Scheduler.KV; kv.Leases != 1 || kv.Held+kv.Partial != 25 {
				t.Errorf("the KV is not kept: %+v", kv)
			}
		})
		if err := idle(e); err != nil {
			t.Errorf("after the end: %v", err)
		}
		// What has come elsewhere is computed with the prompt.
		r.Resume = want[:5]
		prefilled(t, e, r, func(ids []dynamo.TokenID, _ []byte) {
			if !slices.Equal(ids, want[5:6]) {
				t.Errorf("resumed: got %v, want %v", ids, want[5:6])
			}
		})
	})
}

// The KV is not kept longer than its lease, nor where the answer is complete or the
// caller gone.
func TestPrefillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := start(t, func(c *mocker.Config) { prefills(c); c.Lease = time.Second })
		r := dynamo.Request{ID: "r", Tokens: testPrompt(20), MaxTokens: 10, IgnoreEOS: true, Prefill: true}
		first := ask(t, e, &r).Tokens[0]
		began := time.Now()
		for range 2 { // the second is in the cache
			began = time.Now()
			if a := ask(t, e, &r); a.Finish != dynamo.FinishLength || len(a.Tokens) != 1 {
				t.Errorf("got %+v", a)
			}
		}
		if took := time.Since(began); took < time.Second || took > time.Second+10*time.Millisecond {
			t.Errorf("the lease ended after %v", took)
		}
		for name, c := range map[string]struct {
			change func(*dynamo.Request)
			finish dynamo.FinishReason
		}{
			"one id":      {func(r *dynamo.Request) { r.MaxTokens = 1 }, dynamo.FinishLength},
			"a stop id":   {func(r *dynamo.Request) { r.StopTokens = []dynamo.TokenID{first} }, dynamo.FinishStop},
			"the context": {func(r *dynamo.Request) { r.Tokens = testPrompt(159) }, dynamo.FinishLength},
		} {
			r := r
			c.change(&r)
			began := time.Now()
			for chunk, err := range e.Generate(t.Context(), &r) {
				if err != nil || chunk.Finish != c.finish || chunk.Handover != nil {
					t.Errorf("%s: got %+v, %v", name, chunk, err)
				}
			}
			if time.Since(began) > 100*time.Millisecond || idle(e) != nil {
				t.Errorf("%s: ended after %v, %v", name, time.Since(began), idle(e))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := enginetest.Collect(ctx, e, &r); dynamo.KindOf(err) != dynamo.KindDeadline || idle(e) != nil {
			t.Errorf("got %v, %v", err, idle(e))
		}
		whole, _ := start(t, nil)
		if _, err := enginetest.Collect(t.Context(), whole, &r); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("an engine without the role: got %v", err)
		}
	})
}

// handed is a request that goes on from one id, and the KV of its prompt elsewhere.
func handed(id string, first dynamo.TokenID, prompt, tokens int) *dynamo.Request {
	return &dynamo.Request{
		ID: dynamo.RequestID(id), Tokens: testPrompt(prompt), Resume: []dynamo.TokenID{first}, MaxTokens: 4, IgnoreEOS: true,
		Handover: fmt.Appendf(nil, `{"engine":"mocker","tokens":%d,"bytes_per_token":1000,"lease_seconds":60}`, tokens),
	}
}

func decodes(c *mocker.Config) {
	c.Role, c.TransferBandwidth = engine.RoleDecode, 1e6 // a millisecond for each id
}

// KV comes in the time that its bytes take, and then every id takes a step.
func TestTransferTime(t *testing.T) {
	missing := func(c *mocker.Config) { c.TransferTiming = mocker.TimeMissing }
	for _, c := range []struct {
		name     string
		change   func(*mocker.Config)
		known    int // ids of the prompt that are in the pool
		handover int
		want     time.Duration // until the last of three ids
	}{
		{"all", nil, 0, 100, 103 * time.Millisecond},
		{"a block that is not full", nil, 0, 102, 105 * time.Millisecond},
		{"in no time", func(c *mocker.Config) { c.TransferBandwidth = 0 }, 0, 100, 3 * time.Millisecond},
		{"ten times as fast", func(c *mocker.Config) { c.Speedup = 10 }, 0, 100, 10300 * time.Microsecond},
		{"some is there", nil, 40, 100, 103 * time.Millisecond},
		{"the missing alone", missing, 40, 100, 63 * time.Millisecond},
		{"all is there", missing, 100, 100, 3*time.Millisecond + time.Microsecond},
		{"some of it was computed", nil, 0, 60, 60*time.Millisecond + 3*time.Millisecond + 41*time.Microsecond},
		{"none", nil, 0, 0, 5*time.Millisecond + 101*time.Microsecond},
		{"it does not come", func(c *mocker.Config) { c.Faults.Transfer = 1 }, 0, 100, 105*time.Millisecond + 101*time.Microsecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := start(t, func(mc *mocker.Config) {
					decodes(mc)
					if c.change != nil {
						c.change(mc)
					}
				})
				prompt := max(c.handover, 100)
				want := ask(t, e, &dynamo.Request{Tokens: testPrompt(prompt), MaxTokens: 4, IgnoreEOS: true}).Tokens
				e, _ = start(t, func(mc *mocker.Config) {
					decodes(mc)
					if c.change != nil {
						c.change(mc)
					}
				})
				if c.known > 0 {
					ask(t, e, &dynamo.Request{Tokens: testPrompt(prompt)[:c.known], MaxTokens: 1, IgnoreEOS: true})
				}
				began := time.Now()
				got := ask(t, e, handed("r", want[0], prompt, c.handover)).Tokens
				if took := time.Since(began); took != c.want || !slices.Equal(got, want[1:]) {
					t.Errorf("got %v after %v, want %v after %v", got, took, want[1:], c.want)
				}
				if err := idle(e); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What comes together shares the link, and who gives up leaves it to the others.
func TestTransfersShare(t *testing.T) {
	for _, c := range []struct {
		name   string
		second time.Duration // when it comes
		cancel time.Duration // of the second; 0: not
		want   [2]time.Duration
	}{
		{"at once", 0, 0, [2]time.Duration{200 * time.Millisecond, 200 * time.Millisecond}},
		{"one later", 50 * time.Millisecond, 0, [2]time.Duration{150 * time.Millisecond, 200 * time.Millisecond}},
		{"apart", 100 * time.Millisecond, 0, [2]time.Duration{100 * time.Millisecond, 200 * time.Millisecond}},
		{"one gives up", 0, 80 * time.Millisecond, [2]time.Duration{140 * time.Millisecond, 80 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := start(t, func(mc *mocker.Config) { decodes(mc); mc.Model = steady{time.Nanosecond} })
				began := time.Now()
				var took [2]time.Duration
				var both sync.WaitGroup
				for i := range 2 {
					both.Go(func() {
						ctx := t.Context()
						if i == 1 {
							time.Sleep(c.second)
							if c.cancel > 0 {
								var cancel context.CancelFunc
								ctx, cancel = context.WithTimeout(ctx, c.cancel)
								defer cancel()
							}
						}
						r := handed(fmt.Sprint(i), 9, 100, 100)
						r.Tokens[0] += dynamo.TokenID(i) // nothing is shared
						_, err := enginetest.Collect(ctx, e, r)
						took[i] = time.Since(began)
						if (err != nil) != (i == 1 && c.cancel > 0) {
							t.Errorf("request %d: %v", i, err)
						}
					})
				}
				both.Wait()
				for i, got := range took {
					// Each is told of by the end of a step.
					if got < c.want[i] || got > c.want[i]+10*time.Microsecond {
						t.Errorf("request %d: after %v, want %v", i, got, c.want[i])
					}
				}
				if err := idle(e); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// KV whose lease was over before there was a place for it is computed, and so is
// what a preemption took.
func TestTransferInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, _ := start(t, func(c *mocker.Config) { c.Speedup = 0 })
		e, _ := start(t, func(c *mocker.Config) {
			decodes(c)
			c.Blocks, c.MaxRunning, c.PrefixCaching, c.TransferBandwidth = 38, 2, false, 1e9
		})
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				r := handed(fmt.Sprint(i), 0, 40+i, 40+i)
				r.MaxTokens, r.Resume = 60, nil
				want := ask(t, whole, r).Tokens
				r.Resume = want[:1]
				if i == 5 {
					time.Sleep(time.Microsecond) // it waits longest
					r.Handover = []byte(`{"engine":"mocker","tokens":45,"bytes_per_token":1000,"lease_seconds":0.001}`)
				}
				if got := ask(t, e, r).Tokens; !slices.Equal(got, want[1:]) {
					t.Errorf("request %d: got %v, want %v", i, got, want[1:])
				}
			})
		}
		all.Wait()
		s := e.Stats().Scheduler
		t.Logf("%d preemptions, %d of %d loads failed", s.Preemptions, s.LoadsFailed, s.Loads)
		if s.Preemptions == 0 || s.Loads < 6 || s.LoadsFailed < 2 {
			t.Errorf("%d preemptions, %d of %d loads failed", s.Preemptions, s.LoadsFailed, s.Loads)
		}
		if err := idle(e); err != nil {
			t.Error(err)
		}
	})
}

// The oldest is preempted if so asked.
func TestPreemptionMode(t *testing.T) {
	for _, first := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e, _ := start(t, func(c *mocker.Config) { c.Blocks, c.PreemptFirst = 38, first })
			var ended []int
			var mu sync.Mutex
			var all sync.WaitGroup
			for i := range 2 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * time.Microsecond)
					ask(t, e, &dynamo.Request{Tokens: testPrompt(60 + i), MaxTokens: 40, IgnoreEOS: true})
					mu.Lock()
					defer mu.Unlock()
					ended = append(ended, i)
				})
			}
			all.Wait()
			want := []int{0, 1}
			if first {
				want = []int{1, 0}
			}
			if e.Stats().Scheduler.Preemptions == 0 || !slices.Equal(ended, want) {
				t.Errorf("first %v: ended in the order %v, want %v", first, ended, want)
			}
		})
	}
}

func TestRoleConfig(t *testing.T) {
	for want, change := range map[string]func(*mocker.Config){
		"--disaggregation-mode":     func(c *mocker.Config) { c.Role = "encode" },
		"KV is kept for":            func(c *mocker.Config) { c.Lease = 0 },
		"--kv-bytes-per-token":      func(c *mocker.Config) { c.KVBytesPerToken = -1 },
		"--kv-transfer-bandwidth":   func(c *mocker.Config) { c.TransferBandwidth = -1 },
		"--kv-transfer-timing-mode": func(c *mocker.Config) { c.TransferTiming = "sometimes" },
		"--fault transfer":          func(c *mocker.Config) { c.Faults.Transfer = 2 },
	} {
		if _, err := mocker.New(testConfig(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// FuzzHandover gives an engine bytes that another should have written: whatever they
// are, the answer is the same and nothing is left.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"engine":"mocker","worker":"0000000000000abc","epoch":"7","rank":0,"request":"r","tokens":20,"bytes_per_token":1000,"lease_seconds":300}`))
	f.Add([]byte(`{"engine":"mocker","tokens":1e300,"bytes_per_token":-1,"lease_seconds":1e300}`))
	f.Add([]byte(`{"engine":"mocker","tokens":9223372036854775807,"bytes_per_token":9223372036854775807,"lease_seconds":-5}`))
	f.Add([]byte(`[`))
	e, _ := start(f, func(c *mocker.Config) { c.Speedup, c.Role = 0, engine.RoleDecode })
	r := dynamo.Request{Tokens: testPrompt(21), MaxTokens: 3, IgnoreEOS: true}
	want, err := enginetest.Collect(f.Context(), e, &r)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, handover []byte) {
		r := r
		r.Handover = handover
		r.Tokens = slices.Clone(r.Tokens)
		got := ask(t, e, &r)
		if len(handover) <= engine.MaxHandoverBytes && !slices.Equal(got.Tokens, want.Tokens) {
			t.Fatalf("got %v, want %v", got.Tokens, want.Tokens)
		}
		if err := idle(e); err != nil {
			t.Fatal(err)
		}
	})
}
