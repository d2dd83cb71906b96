package trace_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
)

func TestReblock(t *testing.T) {
	s := preset(t, "mooncake-conversation")
	s.Requests = 300
	original := describe(t, &s)
	for _, size := range []int{16, 48, 1024, 512} {
		d, err := trace.Describe(trace.Change{BlockSize: size}.Apply(s.All()), trace.DescribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		far := 0.005
		if size > 512 {
			far = 0.06 // larger blocks share less
		}
		if math.Abs(d.IdealHitRate-original.IdealHitRate) > far || d.BlockSize != size || d.IdealHitRate > original.IdealHitRate+1e-9 {
			t.Errorf("blocks of %d: ideal %.4f, of 512: %.4f", size, d.IdealHitRate, original.IdealHitRate)
		}
		changed := collect(t, trace.Change{BlockSize: size}.Apply(s.All()))
		collect(t, trace.Read(strings.NewReader(written(t, trace.FormatDynamo, changed)), trace.Options{})) // still fits
	}
	open := trace.Request{Input: 1000, BlockSize: 512, Hashes: []uint64{5}}
	if got := open.Reblock(16); len(got.Hashes) != 62 {
		t.Errorf("%d blocks of 16, want 62", len(got.Hashes))
	}
	if got := open.Reblock(16).Reblock(512); len(got.Hashes) != 1 {
		t.Errorf("%d blocks of 512, want 1", len(got.Hashes))
	}
}

func TestChange(t *testing.T) {
	s := preset(t, "mooncake-conversation")
	s.Requests = 1000
	all := collect(t, s.All())
	from, to := all[100].At, all[600].At
	got := collect(t, trace.Change{From: from, To: to, Rebase: true, Speedup: 4, Renumber: true, Requests: 300, Skip: 10}.Apply(s.All()))
	if len(got) != 300 || got[0].At != 0 || got[0].Input != all[110].Input && got[0].Input != all[100].Input {
		t.Fatalf("%d requests, the first %+v", len(got), got[0])
	}
	if got[0].Hashes[0] != 0 || got[0].Hashes[1] != 1 || got[1].Hashes[0] != 0 {
		t.Errorf("hashes are %v, %v; want small ones, the system prompt's shared", got[0].Hashes[:2], got[1].Hashes[:1])
	}
	i := slices.IndexFunc(all, func(q trace.Request) bool { return q.At == from })
	wantEnd := (all[i+299].At - from) / 4
	if end := got[299].At; (end - wantEnd).Abs() > 2*time.Second {
		t.Errorf("the last comes at %v, want about %v", end, wantEnd)
	}
	for _, c := range []trace.Change{{Speedup: -1}, {BlockSize: -1}, {From: 5, To: 4}, {Skip: -1}} {
		if _, err := lastError(c.Apply(s.All())); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAnonymize(t *testing.T) {
	s := preset(t, "agents")
	s.Requests = 150
	key := []byte("0123456789abcdef")
	change := func(key []byte, jitter float64) []trace.Request {
		a, err := trace.NewAnonymizer(key, jitter)
		if err != nil {
			t.Fatal(err)
		}
		return collect(t, trace.Change{Anonymize: a}.Apply(func(yield func(trace.Request, error) bool) {
			for q, err := range s.All() {
				q.Model, q.Finish, q.Total = "secret-model", "stop", time.Second
				if !yield(q, err) {
					return
				}
			}
		}))
	}
	original, got := collect(t, s.All()), change(key, 0)
	text := written(t, trace.FormatDynamo, got)
	for _, q := range original[:50] {
		for _, secret := range []string{`"` + q.Session + `"`, `"` + q.ID + `"`, "secret", `"finish"`, `"e2e_ms"`, number(t, q.Hashes[len(q.Hashes)-1])} {
			if strings.Contains(text, secret) {
				t.Fatalf("%s is in what was anonymized", secret)
			}
		}
	}
	before := describe(t, &s)
	after, err := trace.Describe(trace.Read(strings.NewReader(text), trace.Options{}), trace.DescribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if before.IdealHitRate != after.IdealHitRate || before.Distinct != after.Distinct || before.Sessions.Turns != after.Sessions.Turns || before.Seconds != after.Seconds {
		t.Errorf("the structure changed: %+v and %+v", before, after)
	}
	same(t, change(key, 0), got)
	if other := change([]byte("another key of 16 bytes"), 0); other[0].Hashes[0] == got[0].Hashes[0] || other[0].Session == got[0].Session {
		t.Error("another key gives the same names")
	}
	moved := change(key, 0.5)
	if moved[100].At == got[100].At || math.Abs(moved[149].At.Seconds()/got[149].At.Seconds()-1) > 0.15 {
		t.Errorf("with jitter the times are %v and %v, were %v and %v", moved[100].At, moved[149].At, got[100].At, got[149].At)
	}
	if !slices.IsSortedFunc(moved, func(a, b trace.Request) int { return int(a.At - b.At) }) {
		t.Error("with jitter the times are not sorted")
	}
	if _, err := trace.NewAnonymizer([]byte("short"), 0); err == nil {
		t.Error("a short key: no error")
	}
	if _, err := trace.NewAnonymizer(key, 2); err == nil {
		t.Error("a jitter of 2: no error")
	}
}

func number(t *testing.T, n uint64) string {
	b, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPrompts(t *testing.T) {
	g := trace.Prompts{First: 100, Count: 5000}
	all := collect(t, open(t, "testdata/mooncake.jsonl"))
	a, b := g.Tokens(all[3]), g.Tokens(all[4])
	if len(a) != 6955 || len(b) != 6472 {
		t.Fatalf("%d and %d tokens, want 6955 and 6472", len(a), len(b))
	}
	if !slices.Equal(a[:12*512], b[:12*512]) {
		t.Error("the shared blocks differ")
	}
	if slices.Equal(a[12*512:12*512+64], b[12*512:12*512+64]) {
		t.Error("the other blocks are equal")
	}
	seen := map[dynamo.TokenID]bool{}
	for _, id := range a {
		if id < 100 || id >= 5100 {
			t.Fatalf("id %d is out of range", id)
		}
		seen[id] = true
	}
	if len(seen) < 3000 {
		t.Errorf("%d different ids of 5,000 in 6,955", len(seen))
	}
	if !slices.Equal(a, g.Tokens(all[3])) {
		t.Error("not the same prompt again")
	}
	other := trace.Prompts{First: 100, Count: 5000, Seed: 1}
	if slices.Equal(a[:64], other.Tokens(all[3])[:64]) {
		t.Error("another seed makes the same prompt")
	}
	// Without hashes prompts are their own, and stay so.
	x, y := trace.Request{At: 1, Input: 40, BlockSize: 16}, trace.Request{At: 2, Input: 40, BlockSize: 16}
	if slices.Equal(g.Tokens(x), g.Tokens(y)) || !slices.Equal(g.Tokens(x), g.Tokens(x)) {
		t.Error("prompts without hashes must differ from one another, and not from themselves")
	}
	// In blocks of 16, what was shared in blocks of 512 still is.
	c, d := g.Tokens(all[3].Reblock(16)), g.Tokens(all[4].Reblock(16))
	if !slices.Equal(c[:12*512], d[:12*512]) || slices.Equal(c[12*512:12*512+16], d[12*512:12*512+16]) {
		t.Error("reblocked prompts share something else")
	}
	buf := make([]dynamo.TokenID, 0, 8000)
	if n := testing.AllocsPerRun(10, func() { buf = g.Append(buf[:0], &all[3]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRead(b *testing.B) {
	s := preset(b, "mooncake-conversation")
	s.Requests = 1000
	text := written(b, trace.FormatMooncake, collect(b, s.All()))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := lastError(trace.Read(strings.NewReader(text), trace.Options{})); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrompts(b *testing.B) {
	g := trace.Prompts{Count: 50_000}
	q := trace.Request{Input: 7500, BlockSize: 512, Hashes: make([]uint64, 15)}
	buf := make([]dynamo.TokenID, 0, 8192)
	b.SetBytes(7500 * 4)
	for b.Loop() {
		buf = g.Append(buf[:0], &q)
	}
}
