package main

import "fmt"

// quantFormat is a weight format as the quantized product sees it.
type quantFormat struct {
	name       string
	bits       int
	halfScales bool
}

var quantFormats = []quantFormat{
	{"q4", 4, true}, {"q4s", 4, false}, {"q8", 8, true}, {"q8s", 8, false},
}

// scaleBytes is the size of a block's scales and minima.
func (f quantFormat) scaleBytes() int {
	n := 64
	if f.halfScales {
		n = 32
	}
	if f.bits == 4 {
		n *= 2
	}
	return n
}

// tileRows is the number of rows in a tile of quantized activations, package
// kernel's constant of that name.
const tileRows = 12

// tilesQ lists the numbers of tokens the quantized product has tiles for.
func tilesQ(l *level, f quantFormat) []int {
	switch {
	case l == avx512:
		return []int{1, 2, 3, 4, 5, 6, 7, 8, 12}
	case f.bits == 4:
		return []int{1, 2, 3, 4}
	}
	return []int{1, 2}
}

// emitMatMulQ writes the quantized products. Offsets into matMulQArgs:
//
//	0 dst  8 ldd  16 codes  24 scales  32 groupBytes  40 groups  48 blocks
//	56 qcodes  64 qscale  72 qsum (qbias for 8-bit codes)
func emitMatMulQ(e *emitter) {
	for _, f := range quantFormats {
		tiles := tilesQ(e.level, f)
		for _, t := range tiles {
			e.begin(f.name, fmt.Sprint(t), "(a *matMulQArgs)", 8)
			e.i("MOVQ a+0(FP), AX")
			for i, r := range []string{"DI", "R8", "R12", "R13", "R11", "R10"} {
				e.i("MOVQ %d(AX), %s", 8*i, r)
			}
			if e.level == avx512 {
				emitMatMulQ512(e, f, t)
			} else {
				emitMatMulQ256(e, f, t)
			}
			e.end()
		}
		e.decl.variants(f.name+e.suffix, "matMulQArgs", tiles)
	}
}

// loadStreams points the block loop's registers at the first block.
func loadStreams(e *emitter) {
	e.i("MOVQ R12, SI")
	e.i("MOVQ R13, R9")
	e.i("MOVQ 48(AX), CX")
	e.i("MOVQ 56(AX), DX")
	e.i("MOVQ 64(AX), BX")
	e.i("MOVQ 72(AX), R14")
}

// nextBlock steps them.
func nextBlock(e *emitter, f quantFormat) {
	e.i("ADDQ $%d, SI", 64*f.bits)
	e.i("ADDQ $%d, R9", f.scaleBytes())
	e.i("ADDQ $%d, DX", 32*tileRows)
	e.i("ADDQ $%d, BX", 4*tileRows)
	e.i("ADDQ $%d, R14", 4*tileRows)
	e.i("DECQ CX")
}

// Registers of emitMatMulQ512: integer sums from Z0, accumulators from Z12.
const (
	acc512   = 12
	code512  = 24 // and 25: the codes of one part
	scale512 = 28
	low512   = 29
	mask512  = 31
)

// chains512 is the number of integer sums a token's block is split over: few
// tokens need more, to have ten dot products in flight.
func chains512(t int) int {
	switch {
	case t <= 2:
		return 4
	case t <= 6:
		return 2
	}
	return 1
}

// emitMatMulQ512 goes through the parts of a block's codes, each dotted with
// all t tokens before the next, so that consecutive instructions are
// independent.
func emitMatMulQ512(e *emitter, f quantFormat, t int) {
	if f.bits == 4 {
		e.i("MOVL $0x0f0f0f0f, SI")
		e.i("VPBROADCASTD SI, Z%d", mask512)
	}
	e.label("group")
	loadStreams(e)
	for i := 0; i < t; i++ {
		e.zero(v(acc512 + i))
	}
	e.label("block")
	prefetch(e, f, t)
	chains := chains512(t)
	for i := 0; i < t; i++ {
		for c := 0; c < chains; c++ {
			if f.bits == 8 && c == 0 {
				e.i("VPBROADCASTD %d(R14), Z%d", 4*i, i*chains)
			} else {
				e.i("VPXORD Z%d, Z%d, Z%d", i*chains+c, i*chains+c, i*chains+c)
			}
		}
	}
	for j := 0; j < 4; j++ {
		if f.bits == 4 {
			e.i("VMOVDQU64 %d(SI), Z%d", 64*j, code512+1)
			e.i("VPANDD Z%d, Z%d, Z%d", mask512, code512+1, code512)
			e.i("VPSRLW $4, Z%d, Z%d", code512+1, code512+1)
			e.i("VPANDD Z%d, Z%d, Z%d", mask512, code512+1, code512+1)
		} else {
			e.i("VMOVDQU64 %d(SI), Z%d", 64*j, code512)
			e.i("VMOVDQU64 %d(SI), Z%d", 256+64*j, code512+1)
		}
		for half := 0; half < 2; half++ {
			for i := 0; i < t; i++ {
				e.i("VPDPBUSD.BCST %d(DX), Z%d, Z%d", 32*i+16*half+4*j, code512+half, i*chains+(2*j+half)%chains)
			}
		}
	}
	for c := chains / 2; c > 0; c /= 2 {
		for i := 0; i < t; i++ {
			for l := 0; l < c; l++ {
				e.i("VPADDD Z%d, Z%d, Z%d", i*chains+c+l, i*chains+l, i*chains+l)
			}
		}
	}
	finish512(e, f, t, chains)
	nextBlock(e, f)
	e.i("JNZ block")
	e.i("MOVQ DI, SI")
	for i := 0; i < t; i++ {
		e.i("VMOVUPS Z%d, (SI)", acc512+i)
		e.i("ADDQ R8, SI")
	}
	e.i("ADDQ $64, DI")
	e.i("ADDQ R11, R12")
	e.i("ADDQ R11, R13")
	e.i("DECQ R10")
	e.i("JNZ group")
}

// prefetch asks for the weights ahead: with few tokens the product is bound by
// the cache the weights come from, and the hardware alone stops at every page.
// One or two tokens also ask for the second level further ahead, which helps
// when others load the memory.
func prefetch(e *emitter, f quantFormat, t int) {
	for j := 0; j < f.bits; j++ {
		e.i("PREFETCHT0 %d(SI)", prefetchNear+64*j)
		if t <= 2 {
			e.i("PREFETCHT1 %d(SI)", prefetchFar+64*j)
		}
	}
}

// Bytes ahead, measured on 66 MB of weights: 8 GB/s without, 16 GB/s with the
// first and 18-22 GB/s with both on a busy machine; 27 GB/s with either on an
// idle one.
const (
	prefetchNear = 4096
	prefetchFar  = 16384
)

// finish512 scales the block's sums into the accumulators.
func finish512(e *emitter, f quantFormat, t, chains int) {
	if f.halfScales {
		e.i("VCVTPH2PS (R9), Z%d", scale512)
	} else {
		e.i("VMOVUPS (R9), Z%d", scale512)
	}
	if f.bits == 4 && f.halfScales {
		e.i("VCVTPH2PS 32(R9), Z%d", low512)
	} else if f.bits == 4 {
		e.i("VMOVUPS 64(R9), Z%d", low512)
	}
	for i := 0; i < t; i++ {
		e.i("VCVTDQ2PS Z%d, Z%d", i*chains, i*chains)
	}
	for i := 0; i < t; i++ {
		e.i("VMULPS Z%d, Z%d, Z%d", scale512, i*chains, i*chains)
	}
	for i := 0; i < t; i++ {
		e.i("VFMADD231PS.BCST %d(BX), Z%d, Z%d", 4*i, i*chains, acc512+i)
	}
	if f.bits == 4 {
		for i := 0; i < t; i++ {
			e.i("VFMADD231PS.BCST %d(R14), Z%d, Z%d", 4*i, low512, acc512+i)
		}
	}
}

// emitMatMulQ256 computes the 16 rows of a group as two halves of 8. The codes
// are dotted as 4-bit values, so that pairs summed by VPMADDUBSW over a block
// (8 × 2 × 15 × 128) stay within 16 bits; 8-bit codes have a low and a high
// half, joined by the widening multiplication with 1 and 16.
func emitMatMulQ256(e *emitter, f quantFormat, t int) {
	// Y0… sums of low halves, Y4… (8-bit) of high halves, Y8… accumulators,
	// Y12 and Y13 codes, Y14 broadcast, Y15 mask.
	e.label("group")
	e.i("MOVQ $0, R15")
	e.label("half")
	loadStreams(e)
	e.i("ADDQ R15, SI")
	if f.halfScales {
		e.i("SHRQ $1, R15")
		e.i("ADDQ R15, R9")
		e.i("SHLQ $1, R15")
	} else {
		e.i("ADDQ R15, R9")
	}
	for i := 0; i < t; i++ {
		e.i("VXORPS Y%d, Y%d, Y%d", 8+i, 8+i, 8+i)
	}
	e.label("block")
	prefetch(e, f, t)
	e.i("VMOVDQU %s, Y15", e.constant(0x0f0f0f0f))
	for i := 0; i < t; i++ {
		e.i("VPXOR Y%d, Y%d, Y%d", i, i, i)
		if f.bits == 8 {
			e.i("VPXOR Y%d, Y%d, Y%d", 4+i, 4+i, 4+i)
		}
	}
	for j := 0; j < f.bits; j++ {
		e.i("VMOVDQU %d(SI), Y12", 64*j)
		e.i("VPSRLW $4, Y12, Y13")
		e.i("VPAND Y15, Y12, Y12")
		e.i("VPAND Y15, Y13, Y13")
		for i := 0; i < t; i++ {
			part256(e, f, i, j)
		}
	}
	finish256(e, f, t)
	nextBlock(e, f)
	e.i("JNZ block")
	e.i("LEAQ (DI)(R15*1), SI")
	for i := 0; i < t; i++ {
		e.i("VMOVUPS Y%d, (SI)", 8+i)
		e.i("ADDQ R8, SI")
	}
	e.i("ADDQ $32, R15")
	e.i("CMPQ R15, $64")
	e.i("JNE half")
	e.i("ADDQ $64, DI")
	e.i("ADDQ R11, R12")
	e.i("ADDQ R11, R13")
	e.i("DECQ R10")
	e.i("JNZ group")
}

// part256 adds part j of the codes times token i's values to its sums.
func part256(e *emitter, f quantFormat, i, j int) {
	high, tmp := i, 7 // 4-bit codes: both halves are values of the same scale
	if f.bits == 8 {
		high, tmp = 4+i, 11
	}
	e.i("VPBROADCASTD %d(DX), Y14", 32*i+4*j)
	e.i("VPMADDUBSW Y14, Y12, Y%d", tmp)
	e.i("VPADDW Y%d, Y%d, Y%d", tmp, i, i)
	if f.bits == 4 {
		e.i("VPBROADCASTD %d(DX), Y14", 32*i+16+4*j)
	}
	e.i("VPMADDUBSW Y14, Y13, Y14")
	e.i("VPADDW Y14, Y%d, Y%d", high, high)
}

// finish256 widens the sums of a block and adds them to the accumulators.
func finish256(e *emitter, f quantFormat, t int) {
	if f.halfScales {
		e.i("VCVTPH2PS (R9), Y12")
	} else {
		e.i("VMOVUPS (R9), Y12")
	}
	if f.bits == 4 && f.halfScales {
		e.i("VCVTPH2PS 32(R9), Y13")
	} else if f.bits == 4 {
		e.i("VMOVUPS 64(R9), Y13")
	}
	for i := 0; i < t; i++ {
		e.i("VPMADDWD %s, Y%d, Y%d", e.constant(0x00010001), i, i)
		if f.bits == 8 {
			e.i("VPMADDWD %s, Y%d, Y%d", e.constant(0x00100010), 4+i, 4+i)
			e.i("VPADDD Y%d, Y%d, Y%d", 4+i, i, i)
			e.i("VPBROADCASTD %d(R14), Y14", 4*i)
			e.i("VPADDD Y14, Y%d, Y%d", i, i)
		}
		e.i("VCVTDQ2PS Y%d, Y%d", i, i)
		e.i("VMULPS Y12, Y%d, Y%d", i, i)
		e.i("VBROADCASTSS %d(BX), Y14", 4*i)
		e.i("VFMADD231PS Y14, Y%d, Y%d", i, 8+i)
		if f.bits == 4 {
			e.i("VBROADCASTSS %d(R14), Y14", 4*i)
			e.i("VFMADD231PS Y14, Y13, Y%d", 8+i)
		}
	}
}
