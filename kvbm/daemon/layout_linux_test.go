package daemon_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/layout"
)

// shape is that of the KV of the model of these tests.
const shape = "layers=3 kv=2 heads=4 dim=16 tokens=16 dtype=bf16:2 order="

// laidHello is a hello of version 2.
func laidHello(content, text string, flags uint16) []byte {
	l, err := layout.Parse(text)
	le := binary.LittleEndian
	b := le.AppendUint16(le.AppendUint16([]byte("dynKVMd1"), 2), 2)
	bytes, tokens := 0, 0
	if err == nil {
		bytes, tokens = l.BlockBytes(), l.Tokens
	}
	b = le.AppendUint32(le.AppendUint32(b, uint32(bytes)), uint32(tokens))
	for _, s := range []string{"client", content, text} {
		b = append(le.AppendUint16(b, uint16(len(s))), s...)
	}
	return le.AppendUint16(b, flags)
}

// laidClient is a client of a layout with memory for some blocks.
type laidClient struct {
	*raw
	text   string
	layout layout.Layout
	memory []byte
}

const laidBlocks = 12

func laid(t testing.TB, c *daemon.Config, text string, flags uint16) *laidClient {
	t.Helper()
	l, err := layout.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	k := &laidClient{raw: dial(t, c), text: text, layout: l}
	if status, reply := k.ask(1, laidHello("m", text, flags)); status != 0 || binary.LittleEndian.Uint16([]byte(reply)) != 2 {
		t.Fatalf("hello: %d %q", status, reply)
	}
	f := memory(t, laidBlocks*int64(l.BlockBytes()), unix.F_SEAL_SHRINK)
	if k.memory, err = unix.Mmap(int(f.Fd()), 0, laidBlocks*l.BlockBytes(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(k.memory) })
	if status, reply := k.ask(2, binary.LittleEndian.AppendUint64(nil, uint64(len(k.memory))), f); status != 0 {
		t.Fatalf("memory: %s", reply)
	}
	return k
}

// block is the place of a block in the client's memory, and what belongs there.
func (k *laidClient) block(n int) (place, want []byte) {
	whole, err := layout.Parse(shape + "lkhtd rank=0/1")
	if err != nil {
		k.t.Fatal(err)
	}
	p, err := layout.Between(whole, k.layout)
	if err != nil {
		k.t.Fatal(err)
	}
	all := make([]byte, whole.BlockBytes())
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(all)
	size := k.layout.BlockBytes()
	want = make([]byte, size)
	p.Convert(want, [][]byte{all})
	return k.memory[n*size:][:size], want
}

// put gives blocks of these numbers.
func (k *laidClient) put(blocks ...int) {
	k.t.Helper()
	body := binary.LittleEndian.AppendUint32(nil, uint32(len(blocks)))
	for _, n := range blocks {
		place, want := k.block(n)
		copy(place, want)
		body, _ = binary.Append(body, binary.LittleEndian, [2][16]byte{ref(n).Key, ref(n - 1).Key})
		body, _ = binary.Append(body, binary.LittleEndian, []uint32{uint32(n), 0})
		body = binary.LittleEndian.AppendUint64(body, uint64(n*len(place)))
	}
	if status, text := k.ask(4, body); status != 0 || text != strings.Repeat("\x01", len(blocks)) {
		k.t.Fatalf("put: %d %q", status, text)
	}
}

// get asks for so many blocks from the first on, and returns how many came, all of which
// are what they should be; find must have said as many before, unless some are damaged.
func (k *laidClient) get(blocks int, damaged bool) int {
	k.t.Helper()
	find, get := binary.LittleEndian.AppendUint32(nil, uint32(blocks)), binary.LittleEndian.AppendUint32(nil, uint32(blocks))
	clear(k.memory)
	for n := range blocks {
		key := ref(n).Key
		find = append(find, key[:]...)
		get, _ = binary.Append(append(get, key[:]...), binary.LittleEndian, []uint32{0, 0})
		get = binary.LittleEndian.AppendUint64(get, uint64(n*k.layout.BlockBytes()))
	}
	status, text := k.ask(3, find)
	if status != 0 {
		k.t.Fatalf("find: %d %q", status, text)
	}
	found := int(binary.LittleEndian.Uint32([]byte(text)))
	if status, text = k.ask(5, get); status != 0 {
		k.t.Fatalf("get: %d %q", status, text)
	}
	n := int(binary.LittleEndian.Uint32([]byte(text)))
	if n != found && !damaged {
		k.t.Errorf("%s: %d blocks are found and %d come", k.text, found, n)
	}
	prints := text[4:]
	for i := range n {
		place, want := k.block(i)
		if !bytes.Equal(place, want) {
			k.t.Errorf("%s: block %d is another", k.text, i)
		}
		if len(prints) > 0 {
			key := ref(i).Key
			said := append([]byte("m\x00"+k.text+"\x00"), key[:]...)
			said = binary.LittleEndian.AppendUint32(said, crc32.ChecksumIEEE(want))
			words := uint64(0)
			for at, c := range want {
				words += uint64(c) << (at % 8 * 8)
			}
			sum := sha256.Sum256(binary.LittleEndian.AppendUint64(said, words))
			if len(prints) != 16*n || prints[16*i:16*(i+1)] != string(sum[:16]) {
				k.t.Errorf("%s: block %d has another fingerprint", k.text, i)
			}
		}
	}
	return n
}

// TestLayouts puts shards of one layout and gets those of others.
func TestLayouts(t *testing.T) {
	c := config(t, 100)
	c.Contents = 8
	start(t, c)
	first, second := laid(t, &c, shape+"l/khtd rank=0/2", 0), laid(t, &c, shape+"l/khtd rank=1/2", 0)
	reader := laid(t, &c, shape+"l/kthd rank=0/1", 1)
	first.put(0, 1, 2, 3, 4, 5, 6, 7)
	if n := reader.get(10, false); n != 0 {
		t.Errorf("without the second shard %d blocks come", n)
	}
	second.put(0, 1, 2, 3, 4, 6, 7)
	if n := reader.get(10, false); n != 5 {
		t.Errorf("%d blocks come; of the sixth a shard is missing", n)
	}
	reader.put(5) // now that it is in its own form, the others go on behind it
	if n := reader.get(10, false); n != 8 {
		t.Errorf("%d blocks come; want 8", n)
	}
	for _, other := range []string{"lkhtd rank=1/2", "l/kthd rank=1/2", "l/kthd rank=0/2", "khltd rank=3/4", "lk/htd rank=1/8", "lk/htd rank=7/8", "lhktd:dt rank=0/1"} {
		k := laid(t, &c, shape+other, 1)
		want := map[bool]int{true: 8, false: 5}[strings.HasSuffix(other, "/1") || strings.HasPrefix(other, "l/") || strings.HasPrefix(other, "k") || strings.HasPrefix(other, "lk/")]
		if other == "lkhtd rank=1/2" { // packed, it is the second's own form
			want = 8
		}
		if n := k.get(10, false); n != want {
			t.Errorf("%s: %d blocks come; want %d", other, n, want)
		}
	}
	if status, text := second.ask(6, one(ref(2).Key)); status != 0 || binary.LittleEndian.Uint32([]byte(text)) == 0 {
		t.Errorf("drop: %d %q", status, text)
	}
	if n := first.get(8, false); n != 8 {
		t.Errorf("after the second shard of a block is dropped, the first has %d", n)
	}
	if n := reader.get(8, false); n != 2 {
		t.Errorf("after a shard of the third block is dropped, %d come", n)
	}
	r := report(t, &c, func(*daemon.Report) bool { return true })
	if len(r.Contents) < 3 || r.Contents[0].Layout != shape+"khltd ranks=4" {
		t.Errorf("the report has %d contents, the first %q", len(r.Contents), r.Contents[0].Layout)
	}
	// Who says no layout has blocks of its own.
	opaque := open(t, &c, "opaque", "m")
	if n, err := opaque.Find(t.Context(), []dynamo.ContentKey{ref(0).Key}); n != 0 || err != nil {
		t.Errorf("without a layout %d blocks are found, %v", n, err)
	}
}

// TestLayoutDamage damages all shards of one rank on disk: nothing is made of them.
func TestLayoutDamage(t *testing.T) {
	c := config(t, 4)
	c.Contents, c.DiskBlocks = 3, 64
	stop := start(t, c)
	texts := []string{shape + "l/khtd rank=0/2", shape + "l/khtd rank=1/2"}
	for i, text := range texts {
		k := laid(t, &c, text, 0)
		for n := range 8 {
			k.put(n)
			report(t, &c, func(r *daemon.Report) bool { return r.Contents[0].Tiers[1].Held == 8*i+n+1 })
		}
	}
	stop()
	reader := func(damaged bool) int {
		stop := start(t, c)
		defer stop()
		for _, text := range texts {
			laid(t, &c, text, 0)
		}
		return laid(t, &c, shape+"l/kthd rank=0/1", 1).get(8, damaged)
	}
	if n := reader(false); n != 8 {
		t.Fatalf("after a restart %d blocks come", n)
	}
	// A byte of the fifth block's second shard is changed, where it lies.
	k := laidClient{raw: &raw{t: t}, memory: make([]byte, 1<<20)}
	k.layout, _ = layout.Parse(texts[1])
	_, body := k.block(4)
	changed := 0
	err := filepath.WalkDir(c.DiskDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if at := bytes.Index(b, body); err == nil && at >= 0 {
			b[at+77] ^= 4
			changed++
			err = os.WriteFile(path, b, 0o600)
		}
		return err
	})
	if err != nil || changed != 1 {
		t.Fatalf("%d files were changed, %v", changed, err)
	}
	if n := reader(true); n != 4 {
		t.Errorf("with a damaged shard of the fifth block %d blocks come; want 4", n)
	}
}

// TestLayoutDeath: readers die while blocks are converted for them; others get theirs.
func TestLayoutDeath(t *testing.T) {
	c := config(t, 64)
	c.Contents = 2
	start(t, c)
	for rank := range 2 {
		laid(t, &c, fmt.Sprintf("%sl/khtd rank=%d/2", shape, rank), 0).put(0, 1, 2, 3, 4, 5, 6, 7)
	}
	const nhd = shape + "l/kthd rank=0/1"
	var all sync.WaitGroup
	for range 10 {
		k := laid(t, &c, nhd, 1)
		all.Go(func() {
			body := binary.LittleEndian.AppendUint32(nil, 8)
			for n := range 8 {
				key := ref(n).Key
				body, _ = binary.Append(append(body, key[:]...), binary.LittleEndian, []uint32{0, 0})
				body = binary.LittleEndian.AppendUint64(body, uint64(n*k.layout.BlockBytes()))
			}
			for range 8 {
				k.send(5, body)
			}
			k.conn.Close()
		})
	}
	all.Wait()
	for range 5 { // more often than there are places to convert at
		if n := laid(t, &c, nhd, 1).get(8, false); n != 8 {
			t.Errorf("%d blocks come; want 8", n)
		}
	}
}

// TestLayoutRefused: what cannot be is refused with both sides named.
func TestLayoutRefused(t *testing.T) {
	c := config(t, 8)
	c.Contents = 2
	start(t, c)
	good := shape + "l/khtd rank=0/2"
	laid(t, &c, good, 0)
	fp8 := strings.Replace(strings.Replace(good, "bf16:2", "fp8:1", 1), "layers=3", "layers=2", 1)
	short := laidHello("m", good, 0)
	wrong := bytes.Clone(short)
	wrong[12]++ // the bytes of a block
	for _, bad := range []struct {
		name  string
		hello []byte
		want  string
	}{
		{"another model", laidHello("m", fp8, 0), `other clients use "m"`},
		{"another model, its fields", laidHello("m", fp8, 0), "layers 3 and 2, dtype bf16 and fp8"},
		{"no layout", laidHello("m", "by layers", 0), "has \"by\" where layers="},
		{"other bytes", wrong, "laid out as"},
		{"flags", laidHello("m", good, 6), "flags 0x6"},
		{"fingerprints of what", laidHello("m", "", 1), "need their layout"},
		{"cut off", short[:len(short)-1], "cut off"},
		{"too long", append(bytes.Clone(short), 0), "1 bytes too many"},
	} {
		status, text := dial(t, &c).ask(1, bad.hello)
		if status != 2 || !strings.Contains(text, bad.want) {
			t.Errorf("%s: status %d, %q; want 2, …%s…", bad.name, status, text, bad.want)
		}
	}
	if _, text := dial(t, &c).ask(1, laidHello("m", fp8, 0)); !strings.Contains(text, "heads=4") || strings.Count(text, "layers=") != 2 {
		t.Errorf("not both sides are named: %s", text)
	}
	laid(t, &c, shape+"l/khtd rank=1/2", 0)
	laid(t, &c, shape+"l/kthd rank=1/2", 0)
	if status, text := dial(t, &c).ask(1, laidHello("m", shape+"l/kthd rank=0/1", 0)); status != 4 || !strings.Contains(text, "--models") {
		t.Errorf("a third layout: %d %s", status, text)
	}
}

// BenchmarkLayouts gets blocks of 2 MiB from a tier: as they were put, and made of two
// shards of another order, without and with fingerprints.
func BenchmarkLayouts(b *testing.B) {
	const llama8 = "layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order="
	c := config(b, 100)
	c.Contents = 4
	start(b, c)
	for rank := range 2 {
		k := laid(b, &c, fmt.Sprintf("%sl/khtd rank=%d/2", llama8, rank), 0)
		for n := range 8 {
			k.ask(4, one(ref(n).Key, [16]byte{}, uint32(0), uint32(0), uint64(n*k.layout.BlockBytes())))
		}
	}
	for _, v := range []struct {
		name, order string
		flags       uint16
	}{{"as put", "l/khtd rank=0/2", 0}, {"converted", "l/kthd rank=0/1", 0}, {"converted, fingerprints", "l/kthd rank=0/1", 1}} {
		b.Run(v.name, func(b *testing.B) {
			k := laid(b, &c, llama8+v.order, v.flags)
			size := k.layout.BlockBytes()
			body := binary.LittleEndian.AppendUint32(nil, 8)
			for n := range 8 {
				key := ref(n).Key
				body, _ = binary.Append(append(body, key[:]...), binary.LittleEndian, []uint32{0, 0})
				body = binary.LittleEndian.AppendUint64(body, uint64(n*size))
			}
			b.SetBytes(int64(8 * size))
			for b.Loop() {
				if status, reply := k.ask(5, body); status != 0 || binary.LittleEndian.Uint32([]byte(reply)) != 8 {
					b.Fatalf("%d %q", status, reply)
				}
			}
		})
	}
}
