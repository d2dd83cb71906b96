// Package transfertest is the conformance suite of the paths of package transfer:
// what every pair of agents does, whatever lies between them. Run takes a function
// that makes a pair; the tests of each backend call it.
package transfertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
)

// Pair is two running agents of one content. A posts, B is posted to.
type Pair struct {
	A, B *transfer.Agent
	// Memory registers a memory of a medium that the path serves, as large as asked,
	// all of it open or only what is lent.
	Memory func(t testing.TB, a *transfer.Agent, s transfer.Section, bytes int64) *transfer.Memory
	// View gives the bytes of a memory of B that lie outside this process's, to be read,
	// and Set replaces those from its beginning on. Nil: they are Memory.Bytes.
	View func(m *transfer.Memory) []byte
	Set  func(m *transfer.Memory, b []byte)
	// Stop ends B as its process would, and returns when it has. It may be called
	// again by the cleanup.
	Stop func()
	// Path is what the transfers go by.
	Path transfer.Path
}

// Run tests pairs. make registers its cleanup with t.
func Run(t *testing.T, make func(t *testing.T) *Pair) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p *Pair)
	}{
		{"scattered", scattered},
		{"sizes", sizes},
		{"many at once", manyAtOnce},
		{"notifications", notifications},
		{"flood", flood},
		{"full queue", fullQueue},
		{"deadline", deadline},
		{"cancel", cancel},
		{"peer ends", peerEnds},
		{"deregistered", deregistered},
		{"deregistered on the way", deregisteredOnTheWay},
		{"local deregistered", localDeregistered},
		{"leases", leases},
		{"lease ends on the way", leaseEndsOnTheWay},
		{"expiry", expiry},
		{"wrong lists", wrongLists},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, make(t)) })
	}
}

const page = 4 << 10

// fill gives b bytes that tell where they stand.
func fill(b []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, uint64(len(b))))
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, r.Uint64())
	}
	for i := range b {
		b[i] = byte(r.Uint64())
	}
}

// view is what a memory of B holds.
func (p *Pair) view(m *transfer.Memory) []byte {
	if p.View == nil {
		return m.Bytes()
	}
	return p.View(m)
}

func (p *Pair) set(m *transfer.Memory, b []byte) {
	if p.Set == nil {
		copy(m.Bytes(), b)
		return
	}
	p.Set(m, b)
}

// filled gives what fill writes.
func filled(n int, seed uint64) []byte {
	b := make([]byte, n)
	fill(b, seed)
	return b
}

func zero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// meet gives both agents an open memory and imports B.
func (p *Pair) meet(t *testing.T, size int64, access transfer.Access) (a, b *transfer.Memory, peer *transfer.Peer, info transfer.MemoryInfo) {
	t.Helper()
	a = p.Memory(t, p.A, transfer.Section{Name: "own", Access: transfer.AccessLent, PageBytes: page}, size)
	b = p.Memory(t, p.B, transfer.Section{Name: "theirs", Access: access, PageBytes: page}, size)
	peer = p.importB(t)
	info, ok := peer.Memory("theirs")
	if !ok {
		t.Fatal("the metadata lacks the memory")
	}
	return a, b, peer, info
}

func (p *Pair) importB(t *testing.T) *transfer.Peer {
	t.Helper()
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	return peer
}

// move posts a list and waits.
func (p *Pair) move(t *testing.T, peer *transfer.Peer, op transfer.Op, local, remote []transfer.Descriptor, o transfer.Options) error {
	t.Helper()
	l, err := p.A.Prepare(peer, local, remote)
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.A.Post(l, op, o)
	if err != nil {
		return err
	}
	err = x.Wait(soon(t))
	if ended, _ := x.Poll(); !ended {
		t.Fatal("the transfer has not ended in time")
	}
	if got := x.Stats().Path; err == nil && got != p.Path {
		t.Errorf("went by %s, want %s", got, p.Path)
	}
	return err
}

func wantKind(t *testing.T, err error, k dynamo.Kind, what string) {
	t.Helper()
	if err == nil || dynamo.KindOf(err) != k {
		t.Errorf("%s: %v, want an error of kind %s", what, err, k)
	}
}

func wantCode(t *testing.T, err error, code, what string) {
	t.Helper()
	e, ok := err.(*dynamo.Error)
	if !ok || e.Code != code {
		t.Errorf("%s: %v, want an error with code %s", what, err, code)
	}
}

// scatter cuts both memories into n descriptors of equal sizes, in different
// random orders.
func scatter(r *rand.Rand, a *transfer.Memory, at func(offset, length int64) transfer.Descriptor, n int) (local, remote []transfer.Descriptor) {
	size := int64(len(a.Bytes())) / int64(n)
	to := r.Perm(n)
	for i, from := range r.Perm(n) {
		length := 1 + r.Int64N(size)
		local = append(local, a.At(int64(from)*size, length))
		remote = append(remote, at(int64(to[i])*size, length))
	}
	return local, remote
}

func scattered(t *testing.T, p *Pair) {
	a, b, peer, info := p.meet(t, 2<<20, transfer.AccessWrite)
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 7, 64, 3000} {
		for _, sums := range []bool{false, true} {
			local, remote := scatter(r, a, info.At, n)
			want := filled(len(a.Bytes()), uint64(n)+1)
			fill(a.Bytes(), uint64(n))
			p.set(b, want)
			for i := range local {
				copy(want[remote[i].Offset:][:remote[i].Length], a.Bytes()[local[i].Offset:])
			}
			if err := p.move(t, peer, transfer.Write, local, remote, transfer.Options{Checksum: sums}); err != nil {
				t.Fatalf("write %d: %v", n, err)
			}
			if !bytes.Equal(p.view(b), want) {
				t.Fatalf("write of %d descriptors, sums %t: the peer's memory is not what it should be", n, sums)
			}
			want = append(want[:0], a.Bytes()...)
			theirs := filled(len(want), uint64(n)+2)
			p.set(b, theirs)
			for i := range local {
				copy(want[local[i].Offset:][:local[i].Length], theirs[remote[i].Offset:])
			}
			if err := p.move(t, peer, transfer.Read, local, remote, transfer.Options{Checksum: sums}); err != nil {
				t.Fatalf("read %d: %v", n, err)
			}
			if !bytes.Equal(a.Bytes(), want) {
				t.Fatalf("read of %d descriptors, sums %t: this memory is not what it should be", n, sums)
			}
		}
	}
}

func sizes(t *testing.T, p *Pair) {
	a, b, peer, info := p.meet(t, 16<<20+1, transfer.AccessWrite)
	fill(a.Bytes(), 5)
	for _, n := range []int64{1, 2, 63, 64, page, page + 1, 64 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 7, 16 << 20, 16<<20 + 1} {
		off := int64(len(a.Bytes())) - n
		p.set(b, make([]byte, n))
		o := transfer.Options{Checksum: n%2 == 0}
		if err := p.move(t, peer, transfer.Write, []transfer.Descriptor{a.At(off, n)}, []transfer.Descriptor{info.At(0, n)}, o); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(a.Bytes()[off:], p.view(b)[:n]) {
			t.Errorf("%d bytes arrived otherwise", n)
		}
	}
}

func manyAtOnce(t *testing.T, p *Pair) {
	const n, size = 100, 40 << 10
	a, b, peer, info := p.meet(t, n*size, transfer.AccessWrite)
	fill(a.Bytes(), 9)
	var wg sync.WaitGroup
	for i := range int64(n) {
		wg.Go(func() {
			half := []transfer.Descriptor{a.At(i*size, size/2), a.At(i*size+size/2, size/2)}
			there := []transfer.Descriptor{info.At(i*size+size/2, size/2), info.At(i*size, size/2)}
			l, err := p.A.Prepare(peer, half, there)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				x, err := p.A.Post(l, transfer.Write, transfer.Options{Checksum: i%2 == 0})
				if err == nil {
					err = x.Wait(soon(t))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	theirs := p.view(b)
	for i := range n {
		x, y := a.Bytes()[i*size:][:size], theirs[i*size:][:size]
		if !bytes.Equal(x[:size/2], y[size/2:]) || !bytes.Equal(x[size/2:], y[:size/2]) {
			t.Fatalf("transfer %d brought other bytes", i)
		}
	}
}

// notifications come in the order of the posts, large and small ones mixed, and
// after their bytes; failed ones do not come.
func notifications(t *testing.T, p *Pair) {
	const n, size = 120, 1 << 20
	a, b, peer, info := p.meet(t, 4*size, transfer.AccessWrite)
	ctx := soon(t)
	var want []byte
	for i := range n {
		at, length := int64(i), int64(1)
		if i%10 == 0 {
			at, length = size, 3<<20
		}
		d := info.At(at, length)
		if i%7 == 3 {
			d.Token++ // refused
		} else {
			want = append(want, byte(i))
		}
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(at, length)}, []transfer.Descriptor{d})
		if err != nil {
			t.Fatal(err)
		}
		a.Bytes()[i] = byte(i)
		if _, err := p.A.Post(l, transfer.Write, transfer.Options{Notify: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range want {
		got, err := p.B.Notification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Payload) != 1 || got.Payload[0] != w || got.Peer != p.A.ID() {
			t.Fatalf("notification %v of %s, want %d of %s", got.Payload, got.Peer, w, p.A.ID())
		}
		if w%10 != 0 && p.view(b)[w] != w {
			t.Fatalf("notification %d came before its bytes", w)
		}
	}
	short, stop := context.WithTimeout(ctx, time.Millisecond)
	defer stop()
	if got, err := p.B.Notification(short); err == nil {
		t.Errorf("one notification too many: %v", got.Payload)
	}
}

// flood sends more notifications than may be on the way, some of them large, and
// more than the peer keeps: it hears all of them when it comes to it.
func flood(t *testing.T, p *Pair) {
	const n = 6_000
	a, _, peer, info := p.meet(t, page, transfer.AccessWrite)
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 8)}, []transfer.Descriptor{info.At(0, 8)})
	if err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	heard := make(chan int, 1)
	go func() {
		k := 0
		for ; k < n; k++ {
			if k == 1000 {
				time.Sleep(20 * time.Millisecond) // the peer is busy
			}
			got, err := p.B.Notification(ctx)
			if err != nil || binary.LittleEndian.Uint32(got.Payload) != uint32(k) {
				break
			}
		}
		heard <- k
	}()
	for i := range n {
		payload := make([]byte, 4+i%500/499*(transfer.MaxNotifyBytes-4))
		binary.LittleEndian.PutUint32(payload, uint32(i))
		for {
			_, err := p.A.Post(l, transfer.Write, transfer.Options{Notify: payload})
			if err == nil {
				break
			}
			if dynamo.KindOf(err) != dynamo.KindExhausted {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if got := <-heard; got != n {
		t.Errorf("%d notifications were heard in order, want %d", got, n)
	}
}

func fullQueue(t *testing.T, p *Pair) {
	a, _, peer, info := p.meet(t, 1<<20, transfer.AccessWrite)
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 1<<20)}, []transfer.Descriptor{info.At(0, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	refused, ctx := 0, soon(t)
	var posted []*transfer.Transfer
	for range 6000 {
		x, err := p.A.Post(l, transfer.Write, transfer.Options{})
		if err != nil {
			wantKind(t, err, dynamo.KindExhausted, "a full queue")
			refused++
			break
		}
		posted = append(posted, x)
	}
	for _, x := range posted {
		x.Cancel()
	}
	for _, x := range posted {
		if err := x.Wait(ctx); err != nil && dynamo.KindOf(err) != dynamo.KindCancelled {
			t.Fatal(err)
		}
	}
	if err := p.move(t, peer, transfer.Write, []transfer.Descriptor{a.At(0, 1<<20)}, []transfer.Descriptor{info.At(0, 1<<20)}, transfer.Options{}); err != nil {
		t.Errorf("after a full queue (%d refused): %v", refused, err)
	}
}

func deadline(t *testing.T, p *Pair) {
	a, _, peer, info := p.meet(t, 1<<20, transfer.AccessWrite)
	for _, n := range []int64{8, 1 << 20} {
		err := p.move(t, peer, transfer.Write, []transfer.Descriptor{a.At(0, n)}, []transfer.Descriptor{info.At(0, n)}, transfer.Options{Deadline: time.Now().Add(-time.Second), Notify: []byte("never")})
		wantKind(t, err, dynamo.KindDeadline, "a deadline that is over")
	}
	if err := p.move(t, peer, transfer.Write, []transfer.Descriptor{a.At(0, 1)}, []transfer.Descriptor{info.At(0, 1)}, transfer.Options{Notify: []byte("now")}); err != nil {
		t.Fatal(err)
	}
	if n, err := p.B.Notification(soon(t)); err != nil || string(n.Payload) != "now" {
		t.Errorf("%q, %v came; only the transfer that was done notifies", n.Payload, err)
	}
}
