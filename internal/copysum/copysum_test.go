package copysum

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"
)

// check copies src by each level to a place that is so many bytes beyond a stripe's
// alignment, and compares the sum, the copy, and what stands around it.
func check(t *testing.T, src []byte, beyond int, seed uint64) {
	t.Helper()
	const guard = 2 * stripeBytes
	room := make([]byte, guard+stripeBytes+len(src)+guard)
	at := guard
	for !aligned(room[at:]) {
		at++
	}
	at += beyond
	clean := make([]byte, len(room))
	for i := range clean {
		clean[i] = byte(0xa5 ^ i)
	}
	want := xxh3.HashSeed(src, seed)
	for _, l := range levels() {
		copy(room, clean)
		got := copyAt(l, room[at:], src, seed)
		if got != want {
			t.Fatalf("level %d, %d bytes, destination %d beyond alignment, seed %#x: the sum is %016x, want %016x", l, len(src), beyond, seed, got, want)
		}
		if !bytes.Equal(room[at:][:len(src)], src) {
			t.Fatalf("level %d, %d bytes, destination %d beyond alignment: the copy differs", l, len(src), beyond)
		}
		if !bytes.Equal(room[:at], clean[:at]) || !bytes.Equal(room[at+len(src):], clean[at+len(src):]) {
			t.Fatalf("level %d, %d bytes, destination %d beyond alignment: bytes beside it were written", l, len(src), beyond)
		}
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	src := random(r, 2<<20)
	for n := range 4097 {
		check(t, src[r.IntN(stripeBytes):][:n], r.IntN(stripeBytes), r.Uint64())
	}
	for n := streamBytes - 2; n <= streamBytes+2; n++ {
		check(t, src[:n], 0, 0)
	}
	for range 30 {
		n := r.IntN(len(src) - stripeBytes)
		check(t, src[r.IntN(stripeBytes):][:n], r.IntN(2)*r.IntN(stripeBytes), r.Uint64())
	}
}

func TestAlignments(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	src := random(r, streamBytes+1000)
	for from := range stripeBytes {
		for to := range stripeBytes {
			check(t, src[from:][:stripeBytes*4+from*to%1500], to, 1)
			if from < 8 || to == 0 {
				check(t, src[from:][:streamBytes+to], to, 2)
			}
		}
	}
}

// TestReference compares with sums that the reference implementation gives (xxHash 0.8.4,
// asked through its Python package: xxhash.xxh3_64_intdigest(src[:n], seed)). The bytes are
// those of its own sanity test.
func TestReference(t *testing.T) {
	const prime = 0x9e3779b185ebca8d
	src, state := make([]byte, 2367), uint64(0x9e3779b1)
	for i := range src {
		src[i] = byte(state >> 56)
		state *= prime
	}
	for _, c := range []struct {
		n          int
		seed, want uint64
	}{
		{0, 0, 0x2d06800538d394c2}, {0, prime, 0xa8a6b918b2f0364a},
		{195, 0, 0xcd94217ee362ec3a}, {195, prime, 0xba68003d370cb3d9},
		{403, 0, 0xcdeb804d65c6dea4}, {403, prime, 0x6259f6ecfd6443fd},
		{512, 0, 0x617e49599013cb6b}, {512, prime, 0x3ce457de14c27708},
		{2048, 0, 0xdd59e2c3a5f038e0}, {2048, prime, 0x66f81670669ababc},
		{2099, 0, 0xc6b9d9b3fc9ac765}, {2099, prime, 0x184f316843663974},
		{2240, 0, 0x6e73a90539cf2948}, {2240, prime, 0x757ba8487d1b5247},
		{2367, 0, 0xcb37aeb9e5d361ed}, {2367, prime, 0xd2db3415b942b42a},
	} {
		for _, l := range levels() {
			if got := copyAt(l, make([]byte, c.n), src[:c.n], c.seed); got != c.want {
				t.Errorf("level %d, %d bytes, seed %#x: the sum is %016x, want %016x", l, c.n, c.seed, got, c.want)
			}
		}
	}
}

func TestShortDestination(t *testing.T) {
	for _, n := range []int{1, shortBytes + 1, streamBytes} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes into less do not panic", n)
				}
			}()
			Copy(make([]byte, n)[:n-1], make([]byte, n), 0)
		}()
	}
}

func TestAllocatesNothing(t *testing.T) {
	src, dst := make([]byte, 100<<10), make([]byte, 100<<10)
	for _, n := range []int{100, 1000, len(src)} {
		if got := testing.AllocsPerRun(10, func() { Copy(dst, src[:n], 1) }); got != 0 {
			t.Errorf("%d bytes: %v allocations, want 0", n, got)
		}
	}
}

func FuzzCopy(f *testing.F) {
	f.Add([]byte("block"), uint16(300), uint8(3), uint64(1))
	f.Add([]byte{0, 1, 255}, uint16(20000), uint8(0), uint64(1)<<63)
	f.Fuzz(func(t *testing.T, part []byte, n uint16, beyond uint8, seed uint64) {
		if len(part) == 0 {
			part = []byte{0}
		}
		check(t, bytes.Repeat(part, int(n)/len(part)+1)[:n], int(beyond%stripeBytes), seed)
	})
}
