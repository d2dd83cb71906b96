// Package copysum copies bytes and computes their XXH3-64 on the way, in one pass over
// memory. What keeps KV blocks in tiers copies and sums every byte of them with it. It
// owns nothing and keeps nothing.
//
// The hash is that of github.com/zeebo/xxh3.HashSeed, bit for bit; how it works is in
// https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md ("XXH3 algorithm
// overview", large inputs).
//
// Law: the sum is of the bytes that were stored, never of another reading of the source. The
// kernels load each byte of the source once, into a register or, the last few, into a buffer
// of their own, and store and sum it from there; the portable code sums what stands in the
// destination. So a source that changes meanwhile gives a copy of some mixture and the sum of
// that same mixture. What becomes of a byte once it is stored is for whoever reads it later
// to find, by this sum.
package copysum

import (
	"math/bits"
	"unsafe"

	"github.com/zeebo/xxh3"
)

const (
	stripeBytes = 64   // what the hash takes at a time
	blockBytes  = 1024 // 16 stripes, after which it scrambles
	shortBytes  = 240  // up to here XXH3 is another function
	secretBytes = 192
	// pieceBytes is what the portable code copies and then sums at a time: it stays in a
	// core's second cache in between, and is enough for copies that do not read what they
	// overwrite.
	pieceBytes = 512 << 10
	// streamBytes is from where on the kernels store past the caches, if the destination is
	// aligned to a stripe: to store through them reads what is overwritten, only to write it
	// back later. By measurement that is faster from 16 KiB on, even if the copy is read
	// right after, and slower below 8.
	streamBytes = 16 << 10
)

// Copy copies src to the beginning of dst and returns the XXH3-64 of what it stored there.
// The two do not overlap; a dst that is shorter than src is a bug, and panics.
func Copy(dst, src []byte, seed uint64) uint64 { return copyAt(best, dst, src, seed) }

// copyAt is Copy by the kernels of a level.
func copyAt(l level, dst, src []byte, seed uint64) uint64 {
	dst = dst[:len(src):len(dst)]
	switch {
	case len(src) <= shortBytes:
		return copyShort(dst, src, seed)
	case l == levelPortable:
		return copyPortable(dst, src, seed)
	}
	announce(dst, src)
	h := newState(seed)
	// No scramble follows the last block, whole or not. The last stripe is the last 64 bytes,
	// some of which may be of the stripe before: tail begins with that.
	whole := (len(src) - 1) / blockBytes
	var tail [stripeBytes + blockBytes]byte
	if whole > 0 {
		l.blocks(&h, dst, src, whole, (*[stripeBytes]byte)(tail[:]))
	}
	rest := tail[stripeBytes:][:copy(tail[stripeBytes:], src[whole*blockBytes:])]
	copy(dst[whole*blockBytes:], rest)
	stripes := (len(rest) - 1) / stripeBytes
	l.stripes(&h, rest, stripes)
	l.last(&h, (*[stripeBytes]byte)(tail[len(rest):]))
	return h.sum(len(src))
}

// copyShort copies what XXH3 does not take in stripes.
func copyShort(dst, src []byte, seed uint64) uint64 {
	var own [shortBytes]byte
	b := own[:copy(own[:], src)]
	copy(dst, b)
	return xxh3.HashSeed(b, seed)
}

// copyPortable copies piece by piece and sums what it has stored of each.
func copyPortable(dst, src []byte, seed uint64) uint64 {
	if len(src) <= pieceBytes {
		return xxh3.HashSeed(dst[:copy(dst, src)], seed)
	}
	h := xxh3.NewSeed(seed)
	for at := 0; at < len(src); at += pieceBytes {
		piece := dst[at:][:copy(dst[at:], src[at:min(at+pieceBytes, len(src))])]
		_, _ = h.Write(piece) // a hash does not fail
	}
	return h.Sum64()
}

// state is a hash that is being computed.
type state struct {
	acc    [8]uint64
	secret [secretBytes / 8]uint64
}

const (
	prime32x1 = 0x9e3779b1
	prime32x2 = 0x85ebca77
	prime32x3 = 0xc2b2ae3d
	prime64x1 = 0x9e3779b185ebca87
	prime64x2 = 0xc2b2ae3d27d4eb4f
	prime64x3 = 0x165667b19e3779f9
	prime64x4 = 0x85ebca77c2b2ae63
	prime64x5 = 0x27d4eb2f165667c5
	primeMix  = 0x165667919e3779f9
)

// secret is the default secret of XXH3, little-endian.
var secret = [secretBytes / 8]uint64{
	0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072,
	0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0,
	0xcb00c391bb52283c, 0xa32e531b8b65d088, 0x4ef90da297486471, 0xd8acdea946ef1938,
	0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a, 0x647378d9c97e9fc8,
	0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
	0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
}

// newState begins a hash of more than shortBytes.
func newState(seed uint64) state {
	h := state{acc: [8]uint64{prime32x3, prime64x1, prime64x2, prime64x3, prime64x4, prime32x2, prime64x5, prime32x1}}
	for i := 0; i < len(secret); i += 2 {
		h.secret[i], h.secret[i+1] = secret[i]+seed, secret[i+1]-seed
	}
	return h
}

// sum ends the hash of n bytes.
func (h *state) sum(n int) uint64 {
	s := uint64(n) * prime64x1
	for i := 0; i < len(h.acc); i += 2 {
		hi, lo := bits.Mul64(h.acc[i]^h.secretAt(11+8*i), h.acc[i+1]^h.secretAt(19+8*i))
		s += hi ^ lo
	}
	s ^= s >> 37
	s *= primeMix
	return s ^ s>>32
}

// secretAt is the 8 bytes of the secret at a place, little-endian.
func (h *state) secretAt(at int) uint64 {
	i, shift := at/8, uint(at%8*8)
	return h.secret[i]>>shift | h.secret[i+1]<<(64-shift)
}

// aligned reports whether b begins where a stripe can be stored past the caches.
func aligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%stripeBytes == 0 }
