package native

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/transfer"
)

// deepFolder is a tiny model with more layers than they travel in groups.
func deepFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := fixture.TinyLlama(dir, fixture.Llama{Vocab: tinyVocab, Context: tinyContext, Layers: 6, EOS: 1}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// early has an engine begin steps as soon as they can begin.
func early(x *exchanger) *exchanger {
	x.moves.fetcher.inTime = func(time.Duration, int, int) bool { return true }
	return x
}

// TestArrivingLayers has steps begin when the first layers of a prompt are there: the
// answers are those of one engine, and nothing is computed twice.
func TestArrivingLayers(t *testing.T) {
	shortDir = t.TempDir()
	folder := deepFolder(t)
	for way := range ways {
		for _, p := range []model.Precision{model.Int8, model.F32} {
			t.Run(fmt.Sprint(way, " ", p), func(t *testing.T) {
				m := loadModel(t, folder, p, 1)
				alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
				from, to := startExchanging(t, m, way, prefills), early(startExchanging(t, m, way, decodes))
				want, moved := uint64(0), 0
				for _, r := range chats(2, 3) {
					got, whole := inTwo(t, from, to, r), collect1(t, alone, r)
					if !slices.Equal(got.Tokens, whole.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(whole.Logprobs) {
						t.Errorf("%s: got %v\nwant %v", r.ID, got.Tokens, whole.Tokens)
					}
					want += uint64(len(whole.Tokens) - 1)
					moved++
				}
				if got := to.Stats().Scheduler.Tokens; got != want {
					t.Errorf("the second engine computed %d tokens, want %d: one for each id", got, want)
				}
				if got := to.metric(t, "dynamo_native_takeovers_overlapped_total"); got == 0 {
					t.Errorf("none of %d requests was computed while its layers came", moved)
				}
				checkIdle(t, from)
				checkIdle(t, to)
			})
		}
	}
}

// TestArrivingLayersDamaged damages single layers on their way, the first to the last: the
// request is computed from its ids, and those that are computed in the same steps do not
// notice.
func TestArrivingLayersDamaged(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, deepFolder(t), model.F32, 1)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	overlapped := 0
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := startExchanging(t, m, way, prefills), early(startExchanging(t, m, way, decodes))
			other := &dynamo.Request{ID: "other", Tokens: testPrompt(20), MaxTokens: 150, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 3}}
			var beside sync.WaitGroup
			var answer enginetest.Answer
			beside.Go(func() { answer = collect1(t, to.Engine, other) })
			for layer := range 6 {
				r := &dynamo.Request{ID: "r", Tokens: testPrompt(200 + layer), MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: uint64(layer), Logprobs: true}}
				want := collect1(t, alone, r)
				prefilled(t, from, r, func(ids []dynamo.TokenID, _ []dynamo.TokenLogprob, where []byte) {
					h, err := readHandover(where)
					if err != nil {
						t.Fatal(err)
					}
					last := int(h.place(blocksOf(h.Tokens) - 2).block)
					from.moves.cache.Layers(last, layer, layer+1)[77] ^= 4
					q := *r
					q.Resume, q.Handover = ids, where
					got := collect1(t, to.Engine, &q)
					if !slices.Equal(got.Tokens, want.Tokens[1:]) || fmt.Sprint(got.Logprobs) != fmt.Sprint(want.Logprobs[1:]) {
						t.Errorf("layer %d: got %v, want %v", layer, got.Tokens, want.Tokens[1:])
					}
					from.moves.cache.Layers(last, layer, layer+1)[77] ^= 4
				})
			}
			overlapped += to.metric(t, "dynamo_native_takeovers_overlapped_total")
			beside.Wait()
			if want := collect1(t, alone, other); !slices.Equal(answer.Tokens, want.Tokens) {
				t.Errorf("beside: got %v\nwant %v", answer.Tokens, want.Tokens)
			}
			if got := taken(t, to); got[tookCorrupt] != 6 || got[tookTaken] != 0 {
				t.Errorf("it became of the KV: %v, want six times corrupt", got)
			}
			checkIdle(t, from)
			checkIdle(t, to)
		})
	}
	t.Logf("%d of %d were computed while their layers came", overlapped, 6*len(ways))
	if overlapped == 0 {
		t.Error("no step had to be given up")
	}
}

// stalling passes on what goes to and from a listener, until so many bytes have come back.
func stalling(t *testing.T, to net.Listener, bytes int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		close(over)
		passing.Wait()
	})
	var passed atomic.Int64
	passing.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to.Addr().String())
			if err != nil {
				_ = near.Close()
				continue
			}
			context.AfterFunc(t.Context(), func() { _, _ = near.Close(), far.Close() })
			passing.Go(func() { _, _ = io.Copy(far, near) })
			passing.Go(func() {
				for b := make([]byte, 4096); ; {
					n, err := far.Read(b)
					if passed.Add(int64(n)) > bytes {
						<-over
						return
					}
					if _, werr := near.Write(b[:n]); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// TestArrivingLayersStall has the connection fall silent when the first layers are here: a
// step is held up for a moment, not for as long as KV may take, and the prompt is computed.
func TestArrivingLayersStall(t *testing.T) {
	m := loadModel(t, deepFolder(t), model.F32, 1)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(240), MaxTokens: 8, IgnoreEOS: true}
	from := startAgent(t, m, "tcp", func(c *transfer.Config) {
		c.Advertise = stalling(t, c.Listener, int64(blocksOf(len(r.Tokens))*m.BlockBytes()/2))
	}, prefills)
	to := early(startExchanging(t, m, "tcp", func(c *Config) { decodes(c); c.Exchange.Timeout = 300 * time.Millisecond }))
	want := collect1(t, to.Engine, &dynamo.Request{ID: "r", Tokens: r.Tokens, MaxTokens: 8, IgnoreEOS: true, Namespace: "another", Root: 7})
	if got := inTwo(t, from, to, r); !slices.Equal(got.Tokens, want.Tokens) {
		t.Errorf("got %v, want %v", got.Tokens, want.Tokens)
	}
	if got := to.seconds(t, "dynamo_native_layers_wait_seconds_sum"); got < awaitMax.Seconds()/2 || got > 1 {
		t.Errorf("a step waited for %v s, want some %v", got, awaitMax)
	}
	if got := taken(t, to); got[tookLost] != 1 {
		t.Errorf("it became of the KV: %v", got)
	}
	if got := to.metric(t, "dynamo_native_takeovers_overlapped_total"); got != 1 {
		t.Errorf("%d steps began when the first layers were here, want 1", got)
	}
	checkIdle(t, from)
	checkIdle(t, to)
}
