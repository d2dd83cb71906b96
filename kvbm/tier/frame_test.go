package tier

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

func smallGeometry() *Geometry {
	return &Geometry{BlockTokens: 4, BlockBytes: 600, Content: tokens.Content{Revision: "rev", Layout: "lay", DType: "f16", Shard: "1/1"}}
}

// parted is smallGeometry with groups of layers.
func parted() *Geometry {
	g := smallGeometry()
	g.Groups = Groups{140, 300, 433, 600}
	return g
}

// sample is block i of a sequence of random ids, with its bytes and its frame.
func sample(g *Geometry, i int) (h Header, body, frame []byte) {
	r := rand.New(rand.NewPCG(uint64(i), 2))
	h = Header{Depth: 3 + i, Hash: dynamo.BlockHash(r.Uint64()), Generation: uint64(7 + i), Content: g.Content}
	h.Content.Salt = "salt"
	for range g.BlockTokens {
		h.Tokens = append(h.Tokens, dynamo.TokenID(r.Uint32()))
	}
	h.Parent[i] = 9
	h.Key = tokens.NewKeyer([]byte("key"), h.Content).Next(h.Parent, h.Tokens)
	body = make([]byte, g.BlockBytes)
	for j := range body {
		body[j] = byte(r.Uint32())
	}
	frame = make([]byte, g.FrameBytes())
	newSealer([]byte("key"), g).seal(frame, &h, body)
	return h, body, frame
}

// refOf names a frame.
func refOf(h *Header, slot int32) Ref {
	b := kvbm.TierBlock{Key: h.Key, Parent: h.Parent, Depth: h.Depth, Block: tokens.Block{Hash: h.Hash, Local: 4}, ParentHash: 6}
	return Ref{TierBlock: b, Slot: slot, Generation: h.Generation}
}

// check opens a frame and compares everything, as a Mover does.
func check(s *sealer, frame []byte, want *Header) ([]byte, error) {
	h, body, err := s.open(frame)
	if err == nil {
		err = h.differs(want)
	}
	if err == nil {
		err = checkBody(&h, body)
	}
	return body, err
}

// TestFlips flips every bit of a frame: each is found, in the room behind the header and
// the bytes as well.
func TestFlips(t *testing.T) {
	for name, g := range map[string]*Geometry{"whole": smallGeometry(), "parts": parted()} {
		t.Run(name, func(t *testing.T) { flips(t, g) })
	}
}

func flips(t *testing.T, g *Geometry) {
	h, body, frame := sample(g, 0)
	s := newSealer([]byte("key"), g)
	if got, err := check(s, frame, &h); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("an untouched frame: %v", err)
	}
	for i := range frame {
		for bit := range 8 {
			frame[i] ^= 1 << bit
			if _, err := check(s, frame, &h); dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
			frame[i] ^= 1 << bit
		}
	}
}

// TestGroups reads frames of other groups of layers than this model's: the header says
// which they are. Groups that make no sense are refused, whoever sealed them.
func TestGroups(t *testing.T) {
	for _, from := range []*Geometry{smallGeometry(), parted()} {
		for _, to := range []*Geometry{smallGeometry(), parted()} {
			h, body, frame := sample(from, 0)
			got, err := check(newSealer([]byte("key"), to), frame, &h)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("groups %v read by one of %v: %v", from.Groups, to.Groups, err)
			}
		}
	}
	g := parted()
	for _, bad := range []Groups{{600, 600}, {300, 200, 600}, {300, 601, 600}, {1 << 31, 600}} {
		h, _, frame := sample(g, 0)
		h.Groups = bad
		s := newSealer([]byte("key"), g)
		off := g.bodyOffset()
		clear(frame[s.header(frame[:off], &h):off])
		if _, _, err := s.open(frame); dynamo.KindOf(err) != dynamo.KindCorrupt {
			t.Errorf("groups that end at %v: %v", bad, err)
		}
	}
}

// TestOthers offers frames that are whole, but not those that are wanted.
func TestOthers(t *testing.T) {
	g := smallGeometry()
	h, _, frame := sample(g, 0)
	other, _, _ := sample(g, 1)
	s := newSealer([]byte("key"), g)
	for name, change := range map[string]func(*Header){
		"key": func(w *Header) { w.Key[3]++ }, "parent": func(w *Header) { w.Parent[0]++ }, "depth": func(w *Header) { w.Depth++ },
		"hash": func(w *Header) { w.Hash++ }, "generation": func(w *Header) { w.Generation++ }, "revision": func(w *Header) { w.Content.Revision = "x" },
		"layout": func(w *Header) { w.Content.Layout = "x" }, "dtype": func(w *Header) { w.Content.DType = "x" }, "shard": func(w *Header) { w.Content.Shard = "x" },
		"salt": func(w *Header) { w.Content.Salt = "" }, "adapter": func(w *Header) { w.Content.Adapter = "x" },
		"tokens": func(w *Header) { w.Tokens = append([]dynamo.TokenID{1}, w.Tokens[1:]...) }, "another block": func(w *Header) { *w = other },
	} {
		want := h
		change(&want)
		if _, err := check(s, frame, &want); dynamo.KindOf(err) != dynamo.KindCorrupt {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := check(newSealer([]byte("another key"), g), frame, &h); dynamo.KindOf(err) != dynamo.KindCorrupt {
		t.Errorf("sealed with another key: %v", err)
	}
	h.Generation = 0
	if _, err := check(s, frame, &h); err != nil {
		t.Errorf("a generation that is not known: %v", err)
	}
}

// TestTorn writes one frame over another and stops after every byte: what can be read
// afterwards is the one or the other, whole, and what the record says.
func TestTorn(t *testing.T) {
	g := smallGeometry()
	oldHeader, oldBody, oldFrame := sample(g, 0)
	newHeader, newBody, newFrame := sample(g, 1)
	s := newSealer([]byte("key"), g)
	mixed := bytes.Clone(oldFrame)
	readable := [2]int{}
	for k := 0; ; k++ {
		for i, c := range []struct {
			want *Header
			body []byte
		}{{&oldHeader, oldBody}, {&newHeader, newBody}} {
			got, err := check(s, mixed, c.want)
			if err == nil && !bytes.Equal(got, c.body) {
				t.Fatalf("cut at %d: wrong bytes are taken for block %d", k, i)
			}
			if err == nil {
				readable[i]++
			}
		}
		if k == len(mixed) {
			break
		}
		mixed[k] = newFrame[k]
	}
	if readable[0] == 0 || readable[1] == 0 || readable[0]+readable[1] > len(mixed)/2 {
		t.Errorf("read %v times; the test is too weak", readable)
	}
	a, b := make([]byte, recordBytes), make([]byte, recordBytes)
	ra, rb := refOf(&oldHeader, 5), refOf(&newHeader, 5)
	encodeRecord(a, ra)
	encodeRecord(b, rb)
	for k := 0; ; k++ {
		if r, ok := decodeRecord(a, 5); ok && r != ra && r != rb {
			t.Fatalf("a record cut at %d is taken for %+v", k, r)
		}
		if k == len(a) {
			break
		}
		a[k] = b[k]
	}
	for i := range 8 * recordBytes {
		b[i/8] ^= 1 << (i % 8)
		if _, ok := decodeRecord(b, 5); ok {
			t.Errorf("bit %d of a record is not found", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// TestDiskCut cuts the files of a disk tier after every byte: what is found is right,
// and what lies before the cut is found.
func TestDiskCut(t *testing.T) {
	g := smallGeometry()
	c := DiskConfig{Dir: t.TempDir(), Slots: 3, FrameBytes: g.FrameBytes(), ClusterKey: []byte("key")}
	d, err := OpenDisk(c)
	if err != nil {
		t.Fatal(err)
	}
	var headers []Header
	for i := range c.Slots {
		h, _, frame := sample(g, i)
		headers = append(headers, h)
		f := Buffer(len(frame))
		copy(f, frame)
		if err := d.Put(t.Context(), refOf(&h, int32(i)), f); err != nil {
			t.Fatal(err)
		}
	}
	cutPool(t, d, g, headers)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, "slots")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(whole); n >= 0; n-- {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err = OpenDisk(c); err != nil {
			t.Fatal(err)
		}
		found := 0
		if err := d.List(t.Context(), func(r Ref) bool {
			found++
			h := &headers[r.Slot]
			if r != refOf(h, r.Slot) {
				t.Errorf("cut at %d: slot %d is listed as %+v", n, r.Slot, r)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if want := max(n/recordBytes-1, 0); found != want {
			t.Errorf("cut at %d: %d found, want %d", n, found, want)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// cutPool cuts the pool after every byte.
func cutPool(t *testing.T, d *Disk, g *Geometry, headers []Header) {
	s := newSealer([]byte("key"), g)
	frame := Buffer(g.FrameBytes())
	get := func(i int) error {
		h := &headers[i]
		err := d.Get(context.Background(), refOf(h, int32(i)), frame)
		if err == nil {
			_, err = check(s, frame, h)
		}
		return err
	}
	for n := len(headers)*g.FrameBytes() - 1; n >= 0; n-- {
		if err := d.pool.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		cut := n / g.FrameBytes()
		if err := get(cut); err == nil {
			t.Fatalf("cut at %d: slot %d is read", n, cut)
		}
		if cut > 0 && n%101 == 0 {
			if err := get(n % cut); err != nil {
				t.Fatalf("cut at %d: slot %d: %v", n, n%cut, err)
			}
		}
	}
}

// TestDiskUse refuses a folder in use, and begins anew what is of another key or size.
func TestDiskUse(t *testing.T) {
	g := smallGeometry()
	c := DiskConfig{Dir: t.TempDir(), Slots: 6, FrameBytes: g.FrameBytes(), ClusterKey: []byte("key")}
	open := func(c DiskConfig) (n int) {
		t.Helper()
		d, err := OpenDisk(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDisk(c); dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("a folder in use: %v", err)
		}
		if err := d.List(t.Context(), func(Ref) bool { n++; return true }); err != nil {
			t.Error(err)
		}
		h, _, frame := sample(g, 0)
		f := Buffer(c.FrameBytes)
		copy(f, frame)
		if err := d.Put(t.Context(), refOf(&h, 1), f); err != nil {
			t.Error(err)
		}
		if err := d.Delete(t.Context(), Ref{TierBlock: kvbm.TierBlock{Key: dynamo.ContentKey{1}}, Slot: 1}); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		return n
	}
	other := c
	other.ClusterKey = []byte("other")
	larger := other
	larger.FrameBytes += 4096
	for i, step := range []struct {
		c    DiskConfig
		want int
	}{{c, 0}, {c, 1}, {other, 0}, {other, 1}, {larger, 0}, {c, 0}} {
		if got := open(step.c); got != step.want {
			t.Errorf("step %d: %d found, want %d", i, got, step.want)
		}
	}
}

// FuzzFrame has the decoder read anything: it neither panics nor takes something for a
// block that was not sealed.
func FuzzFrame(f *testing.F) {
	g := parted()
	h, _, frame := sample(g, 0)
	_, _, whole := sample(smallGeometry(), 0)
	f.Add(frame[:300], uint16(0))
	f.Add(whole[:300], uint16(0))
	f.Add([]byte(frameMagic), uint16(90))
	s := newSealer([]byte("key"), g)
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		damaged := bytes.Clone(frame)
		copy(damaged[int(at)%len(frame):], b)
		_, err := check(s, damaged, &h)
		if err == nil && !bytes.Equal(damaged, frame) && !bytes.Equal(damaged[:g.bodyOffset()], whole[:g.bodyOffset()]) {
			t.Error("a damaged frame is taken for whole")
		}
		if _, _, err := s.open(b); err == nil && len(b) != len(frame) {
			t.Error("a frame of another length is read")
		}
		decodeRecord(b, int32(at))
	})
}
