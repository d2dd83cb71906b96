package main

import "fmt"

// tileF is a tile of the float product: groups of 16 rows by tokens.
type tileF struct{ groups, tokens int }

func (t tileF) number() int { return 100*t.groups + t.tokens }

// tilesF lists the tiles of the float product. At AVX-512 two groups by 12
// tokens fill 24 of the 32 registers; at AVX2 a group is two registers.
func tilesF(l *level) []tileF {
	if l == avx512 {
		return []tileF{{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 6}, {1, 12}, {2, 1}, {2, 2}, {2, 3}, {2, 4}, {2, 6}, {2, 12}}
	}
	return []tileF{{1, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 6}}
}

// emitMatMulF writes the products of float32 panels. Offsets into matMulFArgs:
//
//	0 dst  8 ldd  16 x  24 ldx  32 panel0  40 panel1  48 k  56 dstStep (from
//	one group to the next); the accumulators begin with what dst holds.
//
// Token t's values are at row register t/3 plus 0, 1 or 2 strides.
func emitMatMulF(e *emitter) {
	var numbers []int
	for _, t := range tilesF(e.level) {
		numbers = append(numbers, t.number())
		e.begin("matF", fmt.Sprint(t.number()), "(a *matMulFArgs)", 8)
		e.i("MOVQ a+0(FP), AX")
		for i, r := range []string{"DI", "R8", "SI", "R9", "R12", "R13", "CX", "R10"} {
			e.i("MOVQ %d(AX), %s", 8*i, r)
		}
		e.i("LEAQ (R9)(R9*2), BX")
		rows := []string{"SI", "DX", "R11", "R14"}
		for i := 1; 3*i < t.tokens; i++ {
			e.i("LEAQ (%s)(BX*1), %s", rows[i-1], rows[i])
		}
		acc := func(g, tok int) v { return v(g*t.tokens + tok) }
		forDst(e, t, func(g, tok int, addr string) { e.op("VMOVUPS", m{addr, 0, 4}, acc(g, tok)) })
		e.label("k")
		weight := func(g int) v { return v(t.groups*t.tokens + g) }
		x := v(t.groups*t.tokens + t.groups)
		for g := 0; g < t.groups; g++ {
			e.op("VMOVUPS", at([]string{"R12", "R13"}[g], 0), weight(g))
		}
		for tok := 0; tok < t.tokens; tok++ {
			addr := fmt.Sprintf("(%s)", rows[tok/3])
			if tok%3 > 0 {
				addr += fmt.Sprintf("(R9*%d)", tok%3)
			}
			e.multiplyAdd(bcst{addr, 0}, x, t.groups, weight, func(g int) v { return acc(g, tok) })
		}
		e.i("ADDQ $64, R12")
		if t.groups == 2 {
			e.i("ADDQ $64, R13")
		}
		for i := 0; 3*i < t.tokens; i++ {
			e.i("ADDQ $4, %s", rows[i])
		}
		e.i("DECQ CX")
		e.i("JNZ k")
		forDst(e, t, func(g, tok int, addr string) { e.op("VMOVUPS", acc(g, tok), m{addr, 0, 4}) })
		e.end()
	}
	e.decl.variants("matF"+e.suffix, "matMulFArgs", numbers)
}

// multiplyAdd adds the float32 at b times vector i to accumulator i, for n
// of them; x is scratch. With one vector AVX-512 spreads the value within the
// instruction.
func (e *emitter) multiplyAdd(b bcst, x v, n int, vector, acc func(int) v) {
	if e.halves == 1 && n == 1 {
		e.op("VFMADD231PS", b, vector(0), acc(0))
		return
	}
	one := e.half(x, 0)
	e.i("VBROADCASTSS %d%s, %s", b.off, b.addr, one)
	for i := 0; i < n; i++ {
		e.op("VFMADD231PS", one, vector(i), acc(i))
	}
}

// forDst walks the tile's outputs with their addresses.
func forDst(e *emitter, t tileF, f func(g, tok int, addr string)) {
	for g := 0; g < t.groups; g++ {
		e.i("MOVQ DI, AX")
		if g == 1 {
			e.i("ADDQ R10, AX")
		}
		for tok := 0; tok < t.tokens; tok++ {
			f(g, tok, "(AX)")
			if tok+1 < t.tokens {
				e.i("ADDQ R8, AX")
			}
		}
	}
}

// emitWiden writes the functions that widen packed weights of one group to a
// float32 panel. Offsets into widenArgs: 0 dst  8 codes  16 scales  24 n, which
// counts blocks for quantized formats and columns for the others.
func emitWiden(e *emitter) {
	for _, f := range quantFormats {
		e.begin("widen", f.name, "(a *widenArgs)", 8)
		loadWiden(e)
		e.label("block")
		scale, low, q := v(0), v(1), v(2)
		if f.halfScales {
			e.loadHalf("(R9)", 0, scale)
		} else {
			e.op("VMOVUPS", at("R9", 0), scale)
		}
		if f.bits == 4 && f.halfScales {
			e.loadHalf("(R9)", 32, low)
		} else if f.bits == 4 {
			e.op("VMOVUPS", at("R9", 64), low)
		}
		for k := 0; k < 32; k++ {
			widenColumn(e, f, k, q)
			e.op("VCVTDQ2PS", q, q)
			if f.bits == 4 {
				e.op("VFMADD213PS", low, scale, q)
			} else {
				e.op("VMULPS", scale, q, q)
			}
			e.op("VMOVUPS", q, at("DI", 64*k))
		}
		e.i("ADDQ $%d, SI", 64*f.bits)
		e.i("ADDQ $%d, R9", f.scaleBytes())
		e.i("ADDQ $2048, DI")
		e.i("DECQ CX")
		e.i("JNZ block")
		e.end()
	}
	for _, f := range []string{"BF16", "F16"} {
		e.begin("widen", f, "(a *widenArgs)", 8)
		loadWiden(e)
		e.label("column")
		if f == "F16" {
			e.loadHalf("(SI)", 0, 0)
		} else {
			e.op("VPMOVZXWD", m{"(SI)", 0, 2}, v(0))
			e.op("VPSLLD", "$16", v(0), v(0))
		}
		e.op("VMOVUPS", v(0), at("DI", 0))
		e.i("ADDQ $32, SI")
		e.i("ADDQ $64, DI")
		e.i("DECQ CX")
		e.i("JNZ column")
		e.end()
	}
}

func loadWiden(e *emitter) {
	e.i("MOVQ a+0(FP), AX")
	for i, r := range []string{"DI", "SI", "R9", "CX"} {
		e.i("MOVQ %d(AX), %s", 8*i, r)
	}
}

// widenColumn leaves the codes of column k of a block in q as integers.
func widenColumn(e *emitter, f quantFormat, k int, q v) {
	part, shift, mask := k/4, 8*(k%4), uint32(255)
	if f.bits == 4 {
		part, mask = k%16/4, 15
		if k >= 16 {
			shift += 4
		}
	}
	e.op("VMOVUPS", at("SI", 64*part), q)
	if shift > 0 {
		e.op("VPSRLD", fmt.Sprintf("$%d", shift), q, q)
	}
	e.and(mask, q)
	if f.bits == 8 {
		e.op("VPSUBD", uint32(128), q, q)
	}
}

// and masks every lane of r.
func (e *emitter) and(mask uint32, r v) {
	if e.halves == 1 {
		e.op("VPANDD", mask, r, r)
	} else {
		e.op("VPAND", mask, r, r)
	}
}
