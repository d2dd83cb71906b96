package vllm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/tokens"
)

// What a real server's worker publishes is what the server's own replay socket
// tells, with every block hash computed anew, after a random workload whose blocks
// are evicted, with resets of the cache and one kill -9 of the server; and then
// requests find cached what that predicts. As TestLiveSupervised, it starts the
// server itself.
func TestLiveLedger(t *testing.T) {
	if *liveCommand == "" || *liveModel == "" {
		t.Skip("no real vllm: give -vllm-command and -vllm-model")
	}
	p := startProof(t)
	stop := running(t, p.engine)
	p.workload(t, 1)
	p.compare(t)
	if err := exec.Command("pkill", "-9", "-f", "serve .*--port "+p.port).Run(); err != nil {
		t.Fatal("the server is not killed: ", err)
	}
	p.returned(t)
	p.workload(t, 2)
	p.compare(t)
	p.probe(t)
	p.compare(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(p.sink.bad) > 0 {
		t.Errorf("wrong: %q", p.sink.bad)
	}
}

// proof is a server with few blocks and what its worker publishes.
type proof struct {
	engine *vllm.Engine
	sink   *ledger
	port   string
	random *rand.Rand
}

func startProof(t *testing.T) *proof {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	p := &proof{sink: &ledger{held: map[uint64]bool{}, size: 32}, port: fmt.Sprint(port), random: rand.New(rand.NewPCG(11, 5))}
	c := vllm.DefaultConfig()
	c.Command.Path, c.Command.Model, c.Command.Port = *liveCommand, *liveModel, port
	c.Command.Args = append(strings.Fields(*liveArgs), "--num-gpu-blocks-override", "70")
	c.Name, c.VocabSize, c.EOS, c.Events, c.BlockSize = "live", 49152, []dynamo.TokenID{dynamo.TokenID(*liveEOS)}, p.sink.take, 32
	p.engine = open(t, c)
	t.Logf("%d blocks of %d tokens", p.engine.Info().KVBlocks, p.engine.Info().BlockSize)
	return p
}

// prompt is a path through a tree of texts, in one of three tenants.
func (p *proof) prompt() *dynamo.Request {
	var ids []dynamo.TokenID
	for range 1 + p.random.IntN(4) {
		branch := rand.New(rand.NewPCG(uint64(len(ids)), uint64(p.random.IntN(3))))
		for range 20 + branch.IntN(120) {
			ids = append(ids, dynamo.TokenID(1000+branch.IntN(20000)))
		}
	}
	return &dynamo.Request{Tokens: ids, MaxTokens: 1 + p.random.IntN(16), IgnoreEOS: true,
		Namespace: []string{"", "tenant-a", "tenant-b"}[p.random.IntN(3)]}
}

// workload runs several requests at a time, and empties the cache now and then.
func (p *proof) workload(t *testing.T, seed uint64) {
	p.random = rand.New(rand.NewPCG(seed, 7))
	const requests, together = 90, 3
	for i := 0; i < requests; i += together {
		var all sync.WaitGroup
		for range together {
			r := p.prompt()
			all.Go(func() {
				if _, err := enginetest.Collect(t.Context(), p.engine, r); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if i%24 == 18 {
			p.reset(t)
		}
	}
}

func (p *proof) reset(t *testing.T) {
	t.Helper()
	resp, err := http.Post("http://127.0.0.1:"+p.port+"/reset_prefix_cache", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("reset_prefix_cache: %s", resp.Status)
	}
}

// emptied resets the cache until the events say so: a reset is told with the next
// step of the engine, and is not done while it holds blocks of a request that has
// just ended.
func (p *proof) emptied(t *testing.T) {
	t.Helper()
	before := p.sink.clears()
	for range 10 {
		p.reset(t)
		if _, err := enginetest.Collect(t.Context(), p.engine, &dynamo.Request{Tokens: prompt(5), MaxTokens: 3, IgnoreEOS: true}); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if p.sink.clears() > before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	t.Fatal("the events never tell of a reset")
}

func (l *ledger) clears() int {
	l.Lock()
	defer l.Unlock()
	return l.cleared
}

// returned waits until the supervisor has the server back.
func (p *proof) returned(t *testing.T) {
	t.Helper()
	var err error
	for range 600 {
		if _, err = enginetest.Collect(t.Context(), p.engine, &dynamo.Request{Tokens: prompt(5), MaxTokens: 1}); err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatal("the server did not come back: ", err)
}

// compare reads the replay socket from its beginning and compares.
func (p *proof) compare(t *testing.T) {
	t.Helper()
	var want replayed
	for range 50 {
		want = p.replay(t)
		if p.equal(want) {
			break
		}
		time.Sleep(100 * time.Millisecond) // the last events may be on their way
	}
	if !p.equal(want) {
		t.Errorf("published %d blocks, the server's replay has %d, and they differ", len(p.sink.held), len(want.held))
	}
	t.Logf("%d messages, %d block hashes recomputed, %d removed, %d times cleared, %d blocks held: equal", want.messages, want.stored, want.removed, want.cleared, len(want.held))
	if want.stored == 0 || want.removed == 0 {
		t.Error("nothing was stored, or nothing evicted")
	}
}

func (p *proof) equal(want replayed) bool {
	p.sink.Lock()
	defer p.sink.Unlock()
	if len(want.held) != len(p.sink.held) {
		return false
	}
	for h := range want.held {
		if !p.sink.held[uint64(h)] {
			return false
		}
	}
	return true
}

// replayed is what the replay socket has told, in our hashes, with the number of
// times that the server holds each.
type replayed struct {
	held                               map[dynamo.BlockHash]int
	messages, stored, removed, cleared int
}

// known is a block of the server, with its hash as the server computes it and ours.
type known struct {
	digest kvwire.Digest
	root   dynamo.CacheRoot
	ours   dynamo.BlockHash
}

// replay builds the ledger from nothing but the replay socket. It knows nothing of
// the adapter: the decoder, the hash of the paper, and package tokens.
func (p *proof) replay(t *testing.T) (r replayed) {
	t.Helper()
	r.held = map[dynamo.BlockHash]int{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s := p.engine.Info().Sources[0]
	hasher, blocks := kvwire.NewHasher(kvwire.SHA256), map[kvwire.EngineHash]known{}
	quiet := time.AfterFunc(time.Second, cancel)
	for d, err := range kvwire.Subscribe(ctx, kvwire.Source{Endpoint: s.Endpoint, ReplayEndpoint: s.ReplayEndpoint, Topic: s.Topic}, kvwire.DefaultConfig()) {
		if err != nil {
			break
		}
		quiet.Reset(time.Second)
		if d.Kind != kvwire.DeliverBatch {
			continue
		}
		if int(d.Seq) != r.messages {
			t.Fatalf("message %d comes as number %d", r.messages, d.Seq)
		}
		r.messages++
		for i := range d.Batch.Events {
			r.take(t, hasher, blocks, &d.Batch.Events[i])
		}
	}
	return r
}

func (r *replayed) take(t *testing.T, h *kvwire.Hasher, blocks map[kvwire.EngineHash]known, e *kvwire.Event) {
	t.Helper()
	switch e.Kind {
	case kvwire.Cleared:
		clear(r.held)
		r.cleared++
	case kvwire.Removed:
		for _, name := range e.Hashes {
			b := blocks[name]
			if r.held[b.ours]--; r.held[b.ours] < 0 {
				t.Errorf("block %x is removed and was not held", name)
			} else if r.held[b.ours] == 0 {
				delete(r.held, b.ours)
			}
			r.removed++
		}
	case kvwire.Stored:
		parent := known{digest: h.None("")}
		if e.HasParent {
			var ok bool
			if parent, ok = blocks[e.Parent]; !ok {
				t.Fatalf("parent %x is not known", e.Parent)
			}
		}
		for i, name := range e.Hashes {
			parent = next(h, parent, e, i)
			if got := parent.digest.EngineHash(); got != name {
				t.Errorf("block %x has the hash %x", name, got)
			}
			blocks[name] = parent
			r.held[parent.ours]++
			r.stored++
		}
	}
}

// next is the i-th block of an event, behind parent.
func next(h *kvwire.Hasher, parent known, e *kvwire.Event, i int) (b known) {
	salt, first := "", !e.HasParent && i == 0
	if at := slices.IndexFunc(e.Extra, func(k kvwire.BlockKeys) bool { return k.Block == i }); at >= 0 {
		salt = e.Extra[at].Names[0]
	}
	ids := e.Tokens[i*e.BlockSize : (i+1)*e.BlockSize]
	b.digest = h.Block(parent.digest, ids, kvwire.HashKeys("", "", salt))
	b.root = parent.root
	if first {
		b.root = tokens.Root("", salt)
	}
	local := tokens.LocalHash(b.root, ids)
	if b.ours = tokens.BlockHash(parent.ours, local); first {
		b.ours = tokens.FirstHash(local)
	}
	return b
}

// probe sends requests one after the other; each must find cached what the
// published events say.
func (p *proof) probe(t *testing.T) {
	hits, partial := 0, 0
	for i := range *liveProbes {
		if i%100 == 99 {
			p.emptied(t)
		}
		r := p.prompt()
		r.MaxTokens = 1
		want, got := p.sink.predict(r), 0
		for c, err := range p.engine.Generate(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			got = c.Usage.Cached
		}
		if got != want {
			t.Errorf("probe %d: %d of %d tokens were cached, the events say %d", i, got, len(r.Tokens), want)
		}
		if hits += want; want > 0 && want < len(r.Tokens)-32 {
			partial++
		}
		waitFor(t, "the events of a probe", func() bool { return p.sink.full(r) })
	}
	if partial == 0 {
		t.Error("no probe found a part of its prompt")
	}
	t.Logf("%d probes, %d tokens cached as predicted, %d probes found a part", *liveProbes, hits, partial)
}
