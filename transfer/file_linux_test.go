package transfer_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/transfer"
)

// BenchmarkFile moves 64 times 1 MiB, beside calls that do the same to another file,
// one after the other.
func BenchmarkFile(b *testing.B) {
	const size, part = 64 << 20, 1 << 20
	p := filePair(b)
	own := memory(b, p.A, transfer.Section{Name: "own"}, size)
	far := p.Memory(b, p.B, transfer.Section{Name: "far", Access: transfer.AccessWrite}, size)
	pattern(own.Bytes(), 1)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		b.Fatal(err)
	}
	var local, remote []transfer.Descriptor
	for i, k := range rand.New(rand.NewPCG(1, 1)).Perm(size / part) {
		local, remote = append(local, own.At(int64(i)*part, part)), append(remote, far.At(int64(k)*part, part))
	}
	l, err := p.A.Prepare(peer, local, remote)
	if err != nil {
		b.Fatal(err)
	}
	for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
		b.Run(op.String(), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				x, err := p.A.Post(l, op, transfer.Options{})
				if err == nil {
					err = x.Wait(b.Context())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	raw, err := os.OpenFile(filepath.Join(b.TempDir(), "raw"), os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		b.Skip(err)
	}
	defer raw.Close()
	for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
		b.Run("raw "+op.String(), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				for i := range local {
					part, at := own.Bytes()[local[i].Offset:][:part], remote[i].Offset
					var err error
					if op == transfer.Write {
						_, err = raw.WriteAt(part, at)
					} else {
						_, err = raw.ReadAt(part, at)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
