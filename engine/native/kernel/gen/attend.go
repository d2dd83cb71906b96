package main

import "fmt"

// emitAttend writes the kernels of paged attention, for both stored types.
func emitAttend(e *emitter) {
	for _, half := range []bool{true, false} {
		emitScores(e, half)
		emitWeigh(e, half)
	}
	emitSoftmax(e)
}

func kvSuffix(half bool) string {
	if half {
		return "F16"
	}
	return "F32"
}

// load reads 16 stored values.
func (e *emitter) load(half bool, addr string, off int, r v) {
	if half {
		e.loadHalf(addr, off, r)
	} else {
		e.op("VMOVUPS", m{addr, off, 4}, r)
	}
}

// tileA is a tile of attention: rows by 16-lane registers, which are blocks of
// positions for scores and groups of values for weigh.
type tileA struct{ rows, wide int }

func (t tileA) number() int { return 100*t.wide + t.rows }

// emitScores writes the products of queries and keys. Offsets into scoresArgs:
//
//	0 keys  8 table  16 blockBytes  24 blocks (a multiple of the tile's)
//	32 headDim  40 q  48 qStep  56 out  64 outStep
func emitScores(e *emitter, half bool) {
	tiles := []tileA{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {6, 1}}
	if e.level == avx512 {
		tiles = append(tiles, tileA{12, 1}, tileA{1, 4}, tileA{2, 4}, tileA{3, 4}, tileA{4, 4}, tileA{6, 2}, tileA{12, 2})
	}
	size := 4
	if half {
		size = 2
	}
	name := "scores" + kvSuffix(half)
	var numbers []int
	for _, t := range tiles {
		numbers = append(numbers, t.number())
		e.begin(name, fmt.Sprint(t.number()), "(a *scoresArgs)", 8)
		e.i("MOVQ a+0(FP), AX")
		for i, r := range []string{"SI", "BX", "R8", "R9", "", "", "R10", "DI", "R11"} {
			if r != "" {
				e.i("MOVQ %d(AX), %s", 8*i, r)
			}
		}
		pointers := []string{"R12", "R13", "R14", "R15"}[:t.wide]
		e.label("block")
		for b, p := range pointers {
			e.i("MOVLQSX %d(BX), %s", 4*b, p)
			e.i("IMULQ R8, %s", p)
			e.i("ADDQ SI, %s", p)
		}
		if t.wide == 1 {
			nextBlockPointer(e, "R9", "4(BX)", "R12", "R13")
		}
		for i := 0; i < t.rows*t.wide; i++ {
			e.zero(v(i))
		}
		e.i("MOVQ 32(AX), CX")
		e.i("MOVQ 40(AX), DX")
		e.label("d")
		acc := func(row, b int) v { return v(row*t.wide + b) }
		keys := func(b int) v { return v(t.rows*t.wide + b) }
		for b, p := range pointers {
			e.load(half, "("+p+")", 0, keys(b))
		}
		for r := 0; r < t.rows; r++ {
			e.multiplyAdd(bcst{"(DX)", 4 * r}, v(t.rows*t.wide+t.wide), t.wide, keys, func(b int) v { return acc(r, b) })
		}
		if t.wide == 1 {
			e.i("PREFETCHT0 (R13)")
			e.i("ADDQ $%d, R13", 16*size)
		}
		for _, p := range pointers {
			e.i("ADDQ $%d, %s", 16*size, p)
		}
		e.i("ADDQ R10, DX")
		e.i("DECQ CX")
		e.i("JNZ d")
		for b := 0; b < t.wide; b++ {
			for r := 0; r < t.rows; r++ {
				e.op("VMOVUPS", acc(r, b), at("DI", 64*r))
			}
			e.i("ADDQ R11, DI")
		}
		e.i("ADDQ $%d, BX", 4*t.wide)
		e.i("SUBQ $%d, R9", t.wide)
		e.i("JNZ block")
		e.end()
	}
	e.decl.variants(name+e.suffix, "scoresArgs", numbers)
}

// nextBlockPointer leaves the address of the next block in next, or of this one
// when left counts 1: hardware does not foresee where the table leads.
func nextBlockPointer(e *emitter, left, entry, this, next string) {
	e.i("MOVQ %s, %s", this, next)
	e.i("CMPQ %s, $1", left)
	e.i("JLE last")
	e.i("MOVLQSX %s, %s", entry, next)
	e.i("IMULQ R8, %s", next)
	e.i("ADDQ SI, %s", next)
	e.label("last")
}

// emitWeigh writes the sums of values weighed by probabilities, which continue
// those in out. Offsets into weighArgs:
//
//	0 values  8 table  16 blockBytes  24 from  32 to  40 weights  48 weightStep
//	(from block to block)  56 out  64 outStep (from row to row)  72 valueStep
//
// weights points at the first row of the block of from.
func emitWeigh(e *emitter, half bool) {
	tiles := []tileA{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {6, 1}}
	if e.level == avx512 {
		tiles = append(tiles, tileA{12, 1}, tileA{1, 4}, tileA{2, 4}, tileA{3, 4}, tileA{4, 4}, tileA{6, 2}, tileA{12, 2})
	}
	name := "weigh" + kvSuffix(half)
	size := 4
	if half {
		size = 2
	}
	var numbers []int
	for _, t := range tiles {
		numbers = append(numbers, t.number())
		e.begin(name, fmt.Sprint(t.number()), "(a *weighArgs)", 8)
		e.i("MOVQ a+0(FP), AX")
		for i, r := range []string{"SI", "BX", "", "R9", "R10", "DI", "", "", "", "R8"} {
			if r != "" {
				e.i("MOVQ %d(AX), %s", 8*i, r)
			}
		}
		acc := func(row, g int) v { return v(row*t.wide + g) }
		values := func(g int) v { return v(t.rows*t.wide + g) }
		forRows(e, t, func(row, g int) { e.op("VMOVUPS", at("DX", 64*g), acc(row, g)) })
		e.label("block")
		e.i("MOVQ R9, CX") // position, then the lane within the block
		e.i("SHRQ $4, CX")
		e.i("MOVLQSX (BX)(CX*4), R11")
		e.i("IMULQ 16(AX), R11")
		e.i("ADDQ SI, R11")
		e.i("MOVQ R9, R12")
		e.i("ANDQ $15, R12")
		e.i("LEAQ (DI)(R12*4), R13")
		e.i("MOVQ R12, DX")
		e.i("IMULQ R8, DX")
		e.i("ADDQ DX, R11")
		e.i("MOVQ $16, CX")
		e.i("SUBQ R12, CX")
		e.i("MOVQ R10, DX")
		e.i("SUBQ R9, DX")
		e.i("CMPQ DX, CX")
		e.i("CMOVQLT DX, CX")
		e.i("ADDQ CX, R9")
		e.label("position")
		for g := 0; g < t.wide; g++ {
			e.load(half, "(R11)", 16*size*g, values(g))
		}
		for r := 0; r < t.rows; r++ {
			e.multiplyAdd(bcst{"(R13)", 64 * r}, v(t.rows*t.wide+t.wide), t.wide, values, func(g int) v { return acc(r, g) })
		}
		e.i("ADDQ R8, R11")
		e.i("ADDQ $4, R13")
		e.i("DECQ CX")
		e.i("JNZ position")
		e.i("ADDQ 48(AX), DI")
		e.i("CMPQ R9, R10")
		e.i("JLT block")
		forRows(e, t, func(row, g int) { e.op("VMOVUPS", acc(row, g), at("DX", 64*g)) })
		e.end()
	}
	e.decl.variants(name+e.suffix, "weighArgs", numbers)
}

// forRows walks a tile's sums in out, DX pointing at the row.
func forRows(e *emitter, t tileA, f func(row, g int)) {
	e.i("MOVQ 56(AX), DX")
	for r := 0; r < t.rows; r++ {
		for g := 0; g < t.wide; g++ {
			f(r, g)
		}
		if r+1 < t.rows {
			e.i("ADDQ 64(AX), DX")
		}
	}
}

// emitSoftmax writes one row's softmax over n positions, step bytes from one
// block of 16 to the next. The hidden positions of the last block become -Inf,
// whose exponential is zero.
func emitSoftmax(e *emitter) {
	e.begin("softmax", "", "(x *float32, step, n int) float32", 28)
	e.i("MOVQ x+0(FP), SI")
	e.i("MOVQ step+8(FP), DX")
	e.i("MOVQ n+16(FP), BX")
	e.i("LEAQ 15(BX), CX")
	e.i("SHRQ $4, CX")
	e.i("LEAQ -1(CX), AX")
	e.i("MOVQ AX, DI")
	e.i("SHLQ $4, DI")
	e.i("SUBQ DI, BX") // positions in the last block
	e.i("IMULQ DX, AX")
	e.i("ADDQ SI, AX")
	e.i("NEGQ BX")
	e.i("LEAQ keep%s<>+64(SB), DI", e.suffix)
	e.i("LEAQ (DI)(BX*4), DI")
	e.op("VMOVUPS", at("AX", 0), v(0))
	e.op("VANDPS", at("DI", 0), v(0), v(0))
	e.op("VORPS", at("DI", 128), v(0), v(0))
	e.op("VMOVUPS", v(0), at("AX", 0))
	e.i("MOVQ CX, BX")
	e.op("VMOVUPS", uint32(0xff800000), v(4))
	e.label("max")
	e.op("VMOVUPS", at("SI", 0), v(0))
	e.op("VMAXPS", v(4), v(0), v(4))
	e.i("ADDQ DX, SI")
	e.i("DECQ CX")
	e.i("JNZ max")
	e.fold("VMAXPS", 4, 0)
	e.spread(4)
	e.zero(5)
	e.i("MOVQ x+0(FP), SI")
	e.i("MOVQ BX, CX")
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(0))
	e.op("VSUBPS", v(4), v(0), v(0))
	e.exp(0, 1, 2, 3)
	e.op("VMOVUPS", v(0), at("SI", 0))
	e.op("VADDPS", v(0), v(5), v(5))
	e.i("ADDQ DX, SI")
	e.i("DECQ CX")
	e.i("JNZ loop")
	e.fold("VADDPS", 5, 0)
	e.i("VMOVSS X%d, ret+24(FP)", 5*e.halves)
	e.end()
	emitKeep(e)
}

// emitKeep writes two tables of 32 words, each read as a window of 16 that
// begins where n words are left in its first half: all ones over n words, then
// nothing; and nothing, then -Inf.
func emitKeep(e *emitter) {
	words := []uint64{1<<64 - 1, 0, 0, 0xff800000ff800000}
	e.line("")
	for i, w := range words {
		for j := 0; j < 64; j += 8 {
			e.line("DATA keep%s<>+%d(SB)/8, $0x%016x", e.suffix, 64*i+j, w)
		}
	}
	e.line("GLOBL keep%s<>(SB), RODATA|NOPTR, $256", e.suffix)
}
