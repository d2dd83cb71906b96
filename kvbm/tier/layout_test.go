package tier_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/layout"
	"github.com/dynamo-go/dynamo/transfer"
)

// rank is an engine's rank with its KV cache: a memory for each region of its layout,
// with blocks one after another.
type rank struct {
	layout  layout.Layout
	agent   *transfer.Agent
	regions []*transfer.Memory
}

const cacheBlocks = 6

// newRank starts an agent that exchanges bytes with those of its model, however their
// blocks lie.
func newRank(t *testing.T, name, text string, process *transfer.Process) *rank {
	t.Helper()
	l, err := layout.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	c := transfer.DefaultConfig()
	c.Name, c.Key, c.Content = name, []byte("a cluster key for tests"), transfer.Content{Model: "m@1", Layout: text}
	c.Process = process
	if process == nil {
		if c.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	c.Compatible = func(_, peer transfer.Content) error {
		other, err := layout.Parse(peer.Layout)
		if err == nil {
			err = layout.Differ(&l, &other)
		}
		return err
	}
	r := &rank{layout: l}
	if r.agent, err = transfer.New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-r.agent.Ready()
	for i := range l.Regions() {
		m, err := r.agent.Register(transfer.Section{Name: fmt.Sprint("region ", i), Bytes: make([]byte, cacheBlocks*l.RegionBytes()), PageBytes: int64(l.RegionBytes()), Access: transfer.AccessRead})
		if err != nil {
			t.Fatal(err)
		}
		r.regions = append(r.regions, m)
	}
	return r
}

// block is the packed form of a block of the cache.
func (r *rank) block(i int) (out []byte) {
	n := r.layout.RegionBytes()
	for _, m := range r.regions {
		out = append(out, m.Bytes()[i*n:][:n]...)
	}
	return out
}

// set writes a block.
func (r *rank) set(i int, packed []byte) {
	n := r.layout.RegionBytes()
	for j, m := range r.regions {
		copy(m.Bytes()[i*n:][:n], packed[j*n:])
	}
}

// lists are what one transfer from a source takes that converts on its way: blocks from
// are made into blocks to.
func lists(p *layout.Plan, source int, own *rank, peer *transfer.Peer, from, to []int) (local, remote []transfer.Descriptor, err error) {
	theirs := make([]transfer.MemoryInfo, p.From.Regions())
	for i := range theirs {
		var ok bool
		if theirs[i], ok = peer.Memory(fmt.Sprint("region ", i)); !ok {
			return nil, nil, fmt.Errorf("the peer has no region %d", i)
		}
	}
	fromBytes, toBytes := int64(p.From.RegionBytes()), int64(p.To.RegionBytes())
	for i := range from {
		for r := range p.Runs(source) {
			local = append(local, own.regions[r.To.Region].At(int64(to[i])*toBytes+int64(r.To.Offset), int64(r.Bytes)))
			remote = append(remote, theirs[r.From.Region].At(int64(from[i])*fromBytes+int64(r.From.Offset), int64(r.Bytes)))
		}
	}
	return local, remote, nil
}

// TestTransferLayouts reads blocks from the ranks of engines whose KV lies otherwise: the
// runs of a layout.Plan are the descriptors of a transfer, and nothing is staged.
func TestTransferLayouts(t *testing.T) {
	const shape = "layers=4 kv=2 heads=4 dim=64 tokens=16 dtype=bf16:2 order="
	from, to := []int{5, 0, 3}, []int{1, 2, 0}
	for _, c := range []struct {
		from, to           string // orders; %d is the rank
		segments, shortest int    // of the transfer from the first source
	}{
		{"l/khtd rank=%d/2", "l/khtd rank=0/1", 3 * 4 * 2, 2 * 16 * 128},
		{"l/khtd rank=%d/4", "lk/htd rank=1/2", 3 * 4 * 2, 16 * 128},
		{"l/kthd rank=%d/2", "l/kthd rank=0/1", 3 * 4 * 2 * 16, 2 * 128},
		{"l/khtd rank=%d/2", "l/kthd rank=0/1", 3 * 4 * 2 * 16 * 2, 128},
		{"lkhtd rank=%d/1", "l/khtd rank=3/8", 3 * 4 * 2, 16 * 128},
	} {
		for _, path := range []string{"local", "tcp"} {
			t.Run(path+" "+strings.NewReplacer("/", "|", " ", ",", "%d", "n").Replace(c.from+" "+c.to), func(t *testing.T) {
				var process *transfer.Process
				if path == "local" {
					process = transfer.NewProcess()
				}
				own := newRank(t, "decode", shape+c.to, process)
				probe, err := layout.Parse(shape + fmt.Sprintf(c.from, 0))
				if err != nil {
					t.Fatal(err)
				}
				p, err := layout.Between(probe, own.layout)
				if err != nil {
					t.Fatal(err)
				}
				random := rand.NewChaCha8([32]byte{1})
				want := make([][][]byte, len(from)) // by block and source
				for s, number := range p.Sources {
					peer := newRank(t, fmt.Sprint("prefill-", s), shape+fmt.Sprintf(c.from, number), process)
					for i := range from {
						b := make([]byte, peer.layout.BlockBytes())
						random.Read(b)
						peer.set(from[i], b)
						want[i] = append(want[i], b)
					}
					known, err := own.agent.Import(peer.agent.Export())
					if err != nil {
						t.Fatal(err)
					}
					local, remote, err := lists(p, s, own, known, from, to)
					if err != nil {
						t.Fatal(err)
					}
					list, err := own.agent.Prepare(known, local, remote)
					if err != nil {
						t.Fatal(err)
					}
					if s == 0 && (list.Segments() != c.segments || p.RunBytes() != c.shortest) {
						t.Errorf("%d segments, the shortest of %d bytes; want %d and %d", list.Segments(), p.RunBytes(), c.segments, c.shortest)
					}
					x, err := own.agent.Post(list, transfer.Read, transfer.Options{Checksum: true})
					if err == nil {
						err = x.Wait(t.Context())
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				for i := range from {
					converted := make([]byte, own.layout.BlockBytes())
					p.Convert(converted, want[i])
					if !bytes.Equal(own.block(to[i]), converted) {
						t.Errorf("block %d is another", to[i])
					}
				}
				if rest := own.block(4); binary.LittleEndian.Uint64(rest) != 0 {
					t.Error("a block that nothing was read into has bytes")
				}
			})
		}
	}
}

// TestTransferRefused: agents whose KV cannot become one another's exchange none.
func TestTransferRefused(t *testing.T) {
	process := transfer.NewProcess()
	a := newRank(t, "decode", "layers=4 kv=2 heads=4 dim=64 tokens=16 dtype=bf16:2 order=l/khtd rank=0/1", process)
	b := newRank(t, "prefill", "layers=4 kv=2 heads=4 dim=64 tokens=16 dtype=fp8:1 order=l/khtd rank=0/1", process)
	_, err := a.agent.Import(b.agent.Export())
	if dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "dtype bf16 and fp8") {
		t.Errorf("%v; want a refusal that names both", err)
	}
}
