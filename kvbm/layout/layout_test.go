package layout_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/layout"
)

func parse(t testing.TB, text string) layout.Layout {
	t.Helper()
	l, err := layout.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tensor writes the block of a shard element by element, with no other means than the
// words of the package comment: an index for each dimension, the last letter the fastest.
// What is in the block is a function of the element alone.
func tensor(l *layout.Layout) []byte {
	both, keys, own := strings.Cut(l.Order, ":")
	values := strings.ReplaceAll(both, "/", "")
	keys = values[:len(values)-len(keys)] + keys
	perRank := max(l.Heads/l.Ranks, 1)
	firstHead := l.Rank * l.Heads / l.Ranks
	size := map[byte]int{'l': l.Layers, 'k': l.KV, 'h': perRank, 't': l.Tokens, 'd': l.HeadDim}
	out := make([]byte, l.Layers*l.KV*perRank*l.Tokens*l.HeadDim*l.ElementBytes)
	at := map[byte]int{}
	for at['l'] = range l.Layers {
		for at['k'] = range l.KV {
			for at['h'] = range perRank {
				for at['t'] = range l.Tokens {
					for at['d'] = range l.HeadDim {
						order := values
						if own && at['k'] == 0 {
							order = keys
						}
						place := 0
						for _, c := range []byte(order) {
							place = place*size[c] + at[c]
						}
						element := (((at['l']*l.KV+at['k'])*l.Heads+firstHead+at['h'])*l.Tokens+at['t'])*l.HeadDim + at['d']
						for b := range l.ElementBytes {
							out[place*l.ElementBytes+b] = byte((uint32(element)*2654435761 + uint32(b)*40503) >> 13)
						}
					}
				}
			}
		}
	}
	return out
}

// sources are the blocks that a plan reads.
func sources(p *layout.Plan) [][]byte {
	var all [][]byte
	for _, rank := range p.Sources {
		l := p.From.At(rank)
		all = append(all, tensor(&l))
	}
	return all
}

// random makes a layout of the shape of l in any order and number of shards.
func random(r *rand.Rand, l layout.Layout) layout.Layout {
	order := []byte("lkhtd")
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	k := bytes.IndexByte(order, 'k')
	l.Order = string(order)
	within, slash := string(order[k+1:]), 0
	for _, n := range []int{1, 2} {
		if apart := l.Order[:n]; (apart == "l" || apart == "k" || apart == "lk" || apart == "kl") && r.IntN(2) == 0 {
			slash = n
		}
	}
	if slash > 0 {
		l.Order = l.Order[:slash] + "/" + l.Order[slash:]
	}
	if kept := max(slash-k-1, 0); l.KV == 2 && r.IntN(3) == 0 && len(within)-kept > 1 {
		own := []byte(within)
		r.Shuffle(len(own)-kept, func(i, j int) { own[kept+i], own[kept+j] = own[kept+j], own[kept+i] })
		if string(own) != within {
			l.Order += ":" + string(own)
		}
	}
	for l.Ranks = 1 + r.IntN(12); l.Heads%l.Ranks != 0 && l.Ranks%l.Heads != 0; l.Ranks = 1 + r.IntN(12) {
	}
	l.Rank = r.IntN(l.Ranks)
	return l
}

// TestRandom makes blocks of random layouts of those of others, by Convert and run by
// run, and compares them with blocks written element by element. Runs cover the
// destination once; those of all shards back again give the first blocks.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 11))
	for range 250 {
		shape := layout.Layout{Layers: 1 + r.IntN(3), KV: 1 + r.IntN(2), Heads: 1 + r.IntN(6), HeadDim: 1 + r.IntN(24), Tokens: 1 + r.IntN(20), DType: "x", ElementBytes: []int{1, 2, 3, 4, 8, 16}[r.IntN(6)]}
		from, to := random(r, shape), random(r, shape)
		p, err := layout.Between(from, to)
		if err != nil {
			t.Fatalf("%v to %v: %v", &from, &to, err)
		}
		src, want := sources(p), tensor(&to)
		got := bytes.Repeat([]byte{0xa5}, to.BlockBytes())
		p.Convert(got, src)
		if !bytes.Equal(got, want) {
			t.Fatalf("%v to %v: Convert gives another block", &from, &to)
		}
		byRuns(t, p, src, want)
		there := make([][]byte, to.Ranks)
		for rank := range there {
			l := to.At(rank)
			there[rank] = tensor(&l)
		}
		back, err := layout.Between(to, from)
		if err != nil {
			t.Fatal(err)
		}
		var need [][]byte
		for _, rank := range back.Sources {
			need = append(need, there[rank])
		}
		again := make([]byte, from.BlockBytes())
		back.Convert(again, need)
		if !bytes.Equal(again, tensor(&from)) {
			t.Fatalf("%v to %v and back is another block", &from, &to)
		}
	}
}

// runs are those from all sources.
func runs(p *layout.Plan) iter.Seq2[int, layout.Run] {
	return func(yield func(int, layout.Run) bool) {
		for source := range p.Sources {
			for r := range p.Runs(source) {
				if !yield(source, r) {
					return
				}
			}
		}
	}
}

// byRuns copies run by run.
func byRuns(t *testing.T, p *layout.Plan, src [][]byte, want []byte) {
	t.Helper()
	got, written := make([]byte, len(want)), make([]byte, len(want))
	fromRegion, toRegion := p.From.RegionBytes(), p.To.RegionBytes()
	for source, r := range runs(p) {
		if r.Bytes < 1 || r.From.Offset+r.Bytes > fromRegion || r.To.Offset+r.Bytes > toRegion || r.To.Region >= p.To.Regions() || r.From.Region >= p.From.Regions() {
			t.Fatalf("%v to %v: run %+v leaves its regions of %d and %d bytes", &p.From, &p.To, r, fromRegion, toRegion)
		}
		s, d := r.From.Region*fromRegion+r.From.Offset, r.To.Region*toRegion+r.To.Offset
		copy(got[d:d+r.Bytes], src[source][s:s+r.Bytes])
		for i := d; i < d+r.Bytes; i++ {
			written[i]++
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%v to %v: the runs give another block", &p.From, &p.To)
	}
	if i := bytes.IndexFunc(written, func(n rune) bool { return n != 1 }); i >= 0 {
		t.Fatalf("%v to %v: byte %d is written %d times", &p.From, &p.To, i, written[i])
	}
}

// TestGolden compares with blocks that numpy made (scripts/layout_golden.py).
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		From, To layout.Layout
		Sources  []string // sums of the blocks of all ranks
		Result   string
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 20 {
		t.Fatalf("%d cases", len(cases))
	}
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	for _, c := range cases {
		for rank, want := range c.Sources {
			l := c.From.At(rank)
			if got := sum(tensor(&l)); got != want {
				t.Errorf("%v: the block has sum %s, numpy's %s", &l, got, want)
			}
		}
		p, err := layout.Between(c.From, c.To)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, c.To.BlockBytes())
		p.Convert(got, sources(p))
		if got := sum(got); got != c.Result {
			t.Errorf("%v to %v: sum %s, numpy's %s", &c.From, &c.To, got, c.Result)
		}
	}
}

// TestRuns: what lies together goes in one run.
func TestRuns(t *testing.T) {
	const shape = "layers=4 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order="
	for _, c := range []struct {
		from, to     string
		sources      string
		runs, length int // RunBytes
	}{
		{"lkhtd rank=0/1", "lkhtd rank=0/1", "[0]", 1, 4 * 2 * 8 * 16 * 256},
		{"lkhtd rank=0/1", "l/khtd rank=0/1", "[0]", 4, 4 * 2 * 8 * 16 * 256},
		{"l/khtd rank=0/1", "l/khtd rank=1/2", "[0]", 8, 4 * 16 * 256},
		{"l/khtd rank=0/4", "l/khtd rank=0/2", "[0 1]", 16, 2 * 16 * 256},
		{"l/kthd rank=0/2", "l/kthd rank=0/1", "[0 1]", 2 * 4 * 2 * 16, 4 * 256},
		{"l/kthd rank=0/1", "l/khtd rank=0/1", "[0]", 4 * 2 * 16 * 8, 256},
		{"l/khtd rank=0/16", "l/khtd rank=0/8", "[0]", 4, 4 * 2 * 16 * 256},
		{"l/khtd rank=0/16", "l/khtd rank=5/8", "[11]", 4, 4 * 2 * 16 * 256},
		{"lhktd:dt rank=0/1", "lhktd rank=0/1", "[0]", 4 * 8 * (16*128 + 1), 2},
	} {
		p, err := layout.Between(parse(t, shape+c.from), parse(t, shape+c.to))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range runs(p) {
			n++
		}
		if got := fmt.Sprint(p.Sources); n != c.runs || p.RunBytes() != c.length || got != c.sources {
			t.Errorf("%s to %s: %d runs of %d bytes from %s; want %d of %d from %s", c.from, c.to, n, p.RunBytes(), got, c.runs, c.length, c.sources)
		}
		for range runs(p) { // who has seen enough may leave
			break
		}
	}
}

func TestRefused(t *testing.T) {
	const good = "layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd rank=0/2"
	for _, c := range []struct {
		old, new string // replaced in good
		want     string
	}{
		{"layers=32", "layers=0", "layers is 0"},
		{"layers=32", "layers=032", `"layers=032" where layers=`},
		{"kv=2", "kv=3", "kv is 3; it must be 1 to 2"},
		{"heads=8", "heads=9", "9 heads cannot be shared by 2 ranks"},
		{"heads=8", "dim=8", `"dim=8" where heads=`},
		{"heads=8", "heads=5000", "heads is 5000"},
		{"heads=8 dim=128", "heads=64 dim=65536", "a block has"},
		{"bf16:2", "bf16", "where dtype="},
		{"bf16:2", ":2", `dtype is ""`},
		{"bf16:2", "b|f:2", `dtype is "b|f"`},
		{"l/kthd", "l/kth", `order is "l/kth"`},
		{"l/kthd", "lkthh", "each of the letters"},
		{"l/kthd", "h/ktld", "regions can be"},
		{"l/kthd", "/lkthd", "regions can be"},
		{"l/kthd", "l/k/thd", "at most one '/'"},
		{"l/kthd", "l/kthd:thd", "behind the ':'"},
		{"l/kthd", "l/kthd:hdd", "behind the ':'"},
		{"l/kthd", "kl/thd:thdl", "behind the ':'"},
		{"l/kthd", "l/kthd:", "behind the ':'"},
		{"kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd", "kv=1 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd:htd", "only beside values"},
		{"rank=0/2", "rank=2/2", "rank 2 of 2"},
		{"rank=0/2", "rank=-1/2", "rank -1 of 2"},
		{" rank=0/2", "", "ends before rank="},
		{"rank=0/2", "rank=0/2 ", "goes on behind"},
		{"rank=0/2", "rank=0/2" + strings.Repeat("x", 200), "bytes; it may have"},
	} {
		if _, err := layout.Parse(strings.Replace(good, c.old, c.new, 1)); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v; want …%s…", c.new, c.old, err, c.want)
		}
	}
	from := parse(t, good)
	for _, c := range []struct{ old, new, want string }{
		{"layers=32", "layers=28", "differ in layers 32 and 28;"},
		{"kv=2", "kv=1", "kv 2 and 1"},
		{"heads=8", "heads=4", "heads 8 and 4"},
		{"dim=128 tokens=16", "dim=64 tokens=32", "dim 128 and 64, tokens 16 and 32"},
		{"bf16:2", "fp8:1", "dtype bf16 and fp8, bytes of an element 2 and 1"},
		{"bf16", "f16", "dtype bf16 and f16"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		_, err := layout.Between(from, parse(t, text))
		if dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), good) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want both sides and …%s…", c.new, err, c.want)
		}
	}
	if _, err := layout.Between(layout.Layout{}, from); err == nil {
		t.Error("a plan from no layout")
	}
}

// FuzzParse: what is a layout has this text and no other, and its sizes agree.
func FuzzParse(f *testing.F) {
	f.Add("layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd rank=0/2")
	f.Add("layers=61 kv=1 heads=1 dim=576 tokens=64 dtype=fp8_e4m3:1 order=l/khtd rank=3/8")
	f.Add("layers=2 kv=2 heads=3 dim=16 tokens=16 dtype=f32:4 order=lk/htd:dth rank=0/1")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := layout.Parse(text)
		if err != nil {
			return
		}
		if got := l.String(); got != text {
			t.Errorf("%q is written as %q", text, got)
		}
		b, err := json.Marshal(l)
		var again layout.Layout
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || again != l {
			t.Errorf("%q as JSON is %q, %v", text, &again, err)
		}
		if l.RegionBytes()*l.Regions() != l.BlockBytes() || l.BlockBytes() < 1 || l.BlockBytes() > layout.MaxBlockBytes {
			t.Errorf("%q: %d regions of %d bytes, blocks of %d", text, l.Regions(), l.RegionBytes(), l.BlockBytes())
		}
		if _, err := layout.Between(l, l); err != nil {
			t.Error(err)
		}
	})
}

// llama8 is the shape of an 8B model.
const llama8 = "layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order="

func TestAllocs(t *testing.T) {
	for _, from := range []string{"l/khtd rank=0/2", "lhktd:dt rank=0/1"} {
		p, err := layout.Between(parse(t, "layers=2 kv=2 heads=4 dim=32 tokens=16 dtype=bf16:2 order="+from), parse(t, "layers=2 kv=2 heads=4 dim=32 tokens=16 dtype=bf16:2 order=l/kthd rank=0/1"))
		if err != nil {
			t.Fatal(err)
		}
		src, dst := sources(p), make([]byte, p.To.BlockBytes())
		if n := testing.AllocsPerRun(20, func() { p.Convert(dst, src) }); n != 0 {
			t.Errorf("from %s: Convert allocates %v times", from, n)
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	for _, c := range []struct{ name, from, to string }{
		{"memcpy", "", ""},
		{"tp2-tp1-HND", "l/khtd rank=0/2", "l/khtd rank=0/1"},
		{"tp2-tp1-NHD", "l/kthd rank=0/2", "l/kthd rank=0/1"},
		{"HND-NHD", "l/khtd rank=0/1", "l/kthd rank=0/1"},
		{"tp2HND-tp1NHD", "l/khtd rank=0/2", "l/kthd rank=0/1"},
		{"cross-layer", "khltd rank=0/1", "l/kthd rank=0/1"},
		{"native-NHD", "lhktd:dt rank=0/1", "l/kthd rank=0/1"},
		{"NHD-native", "l/kthd rank=0/1", "lhktd:dt rank=0/1"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			if c.from == "" {
				src, dst := make([]byte, 2<<20), make([]byte, 2<<20)
				b.SetBytes(int64(len(dst)))
				for b.Loop() {
					copy(dst, src)
				}
				return
			}
			p, err := layout.Between(parse(b, llama8+c.from), parse(b, llama8+c.to))
			if err != nil {
				b.Fatal(err)
			}
			dst, src := make([]byte, p.To.BlockBytes()), [][]byte{}
			for range p.Sources {
				src = append(src, make([]byte, p.From.BlockBytes()))
			}
			b.SetBytes(int64(len(dst)))
			for b.Loop() {
				p.Convert(dst, src)
			}
		})
	}
}
