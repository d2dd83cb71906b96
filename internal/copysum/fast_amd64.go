package copysum

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// level is an instruction level.
type level uint8

const (
	levelPortable level = iota
	levelAVX2
	levelAVX512
)

var best = levels()[len(levels())-1]

// levels lists what this CPU and operating system offer, slowest first.
func levels() []level {
	l := []level{levelPortable}
	if cpu.X86.HasAVX2 {
		l = append(l, levelAVX2)
		if cpu.X86.HasAVX512F {
			l = append(l, levelAVX512)
		}
	}
	return l
}

// blocks copies and takes in n blocks, and leaves the last stripe of them in last.
func (l level) blocks(h *state, dst, src []byte, n int, last *[stripeBytes]byte) {
	to, from := unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src))
	stream := len(src) >= streamBytes && aligned(dst)
	switch {
	case l == levelAVX512 && stream:
		streamAVX512(&h.acc, to, from, &h.secret, n, last)
	case l == levelAVX512:
		blocksAVX512(&h.acc, to, from, &h.secret, n, last)
	case stream:
		streamAVX2(&h.acc, to, from, &h.secret, n, last)
	default:
		blocksAVX2(&h.acc, to, from, &h.secret, n, last)
	}
}

// stripes takes in the first n stripes of b, which is the last block.
func (l level) stripes(h *state, b []byte, n int) {
	if n > 0 {
		stripesAVX2(&h.acc, unsafe.Pointer(unsafe.SliceData(b)), unsafe.Pointer(&h.secret), n)
	}
}

// last takes in the last stripe, which has its own place in the secret.
func (l level) last(h *state, b *[stripeBytes]byte) {
	stripesAVX2(&h.acc, unsafe.Pointer(b), unsafe.Add(unsafe.Pointer(&h.secret), secretBytes-stripeBytes-7), 1)
}

// The kernels. A block is blockBytes, a stripe stripeBytes; n is at least 1. Those that
// stream need a destination that is aligned to a stripe.

//go:noescape
func blocksAVX2(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)

//go:noescape
func streamAVX2(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)

//go:noescape
func blocksAVX512(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)

//go:noescape
func streamAVX512(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)

//go:noescape
func stripesAVX2(acc *[8]uint64, src, secret unsafe.Pointer, n int)
