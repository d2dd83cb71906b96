package main

// emitVector writes the kernels over plain vectors. Their lengths count groups
// of 16 values; what is left over is done in Go.
func emitVector(e *emitter) {
	emitSquares(e)
	emitScaleMul(e)
	emitScale(e)
	emitSilu(e)
	emitAdd(e)
	emitRope(e)
	emitMax(e)
	emitSumExp(e)
	emitStoreHalf(e)
}

// loop opens a loop over CX groups of 16; next steps the pointers and closes it.
func (e *emitter) loop() { e.label("loop") }

func (e *emitter) next(pointers ...string) {
	for _, p := range pointers {
		e.i("ADDQ $64, %s", p)
	}
	e.i("DECQ CX")
	e.i("JNZ loop")
}

func emitSquares(e *emitter) {
	e.begin("squares", "", "(x *float32, n int, lane *[16]float32)", 24)
	e.i("MOVQ x+0(FP), SI")
	e.i("MOVQ n+8(FP), CX")
	e.i("MOVQ lane+16(FP), DI")
	e.zero(0)
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(1))
	e.op("VFMADD231PS", v(1), v(1), v(0))
	e.next("SI")
	e.op("VMOVUPS", v(0), at("DI", 0))
	e.end()
}

func emitScaleMul(e *emitter) {
	e.begin("scaleMul", "", "(dst, x, weight *float32, n int, r float32)", 36)
	e.i("MOVQ dst+0(FP), DI")
	e.i("MOVQ x+8(FP), SI")
	e.i("MOVQ weight+16(FP), DX")
	e.i("MOVQ n+24(FP), CX")
	e.op("VBROADCASTSS", "r+32(FP)", v(0))
	e.loop()
	e.op("VMULPS", at("SI", 0), v(0), v(1))
	e.op("VMULPS", at("DX", 0), v(1), v(1))
	e.op("VMOVUPS", v(1), at("DI", 0))
	e.next("SI", "DX", "DI")
	e.end()
}

func emitScale(e *emitter) {
	e.begin("scale", "", "(dst, x *float32, n int, r float32)", 28)
	e.i("MOVQ dst+0(FP), DI")
	e.i("MOVQ x+8(FP), SI")
	e.i("MOVQ n+16(FP), CX")
	e.op("VBROADCASTSS", "r+24(FP)", v(0))
	e.loop()
	e.op("VMULPS", at("SI", 0), v(0), v(1))
	e.op("VMOVUPS", v(1), at("DI", 0))
	e.next("SI", "DI")
	e.end()
}

// exp replaces x by exp32(x), with n, r and p as scratch: the operations of
// exp32, line by line. Limits come first so that a NaN passes them.
func (e *emitter) exp(x, n, r, p v) {
	e.op("VMOVUPS", -105.0, n)
	e.op("VMAXPS", x, n, x)
	e.op("VMOVUPS", 89.0, n)
	e.op("VMINPS", x, n, x)
	e.op("VMULPS", 1.44269504088896341, x, n)
	e.round(n, n)
	e.op("VMOVUPS", x, r)
	e.op("VFMADD231PS", -0.693359375, n, r)
	e.op("VFMADD231PS", 2.12194440e-4, n, r)
	e.op("VMOVUPS", 1.9875691500e-4, p)
	for _, c := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		e.op("VFMADD213PS", c, r, p)
	}
	e.op("VMULPS", r, r, x)
	e.op("VFMADD213PS", r, x, p)
	e.op("VADDPS", 1.0, p, p)
	if e.halves == 1 {
		e.op("VSCALEFPS", n, p, x)
		return
	}
	e.op("VCVTPS2DQ", n, n)
	e.op("VPSRAD", "$1", n, r)
	e.op("VPSUBD", r, n, n)
	for _, h := range []v{r, n} {
		e.op("VPADDD", uint32(127), h, h)
		e.op("VPSLLD", "$23", h, h)
		e.op("VMULPS", h, p, p)
	}
	e.op("VMOVUPS", p, x)
}

func emitSilu(e *emitter) {
	e.begin("silu", "", "(dst, gate, up *float32, n int)", 32)
	e.i("MOVQ dst+0(FP), DI")
	e.i("MOVQ gate+8(FP), SI")
	e.i("MOVQ up+16(FP), DX")
	e.i("MOVQ n+24(FP), CX")
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(4))
	e.op("VXORPS", uint32(0x80000000), v(4), v(0))
	e.exp(0, 1, 2, 3)
	e.op("VADDPS", 1.0, v(0), v(0))
	e.op("VDIVPS", v(0), v(4), v(0))
	e.op("VMULPS", at("DX", 0), v(0), v(0))
	e.op("VMOVUPS", v(0), at("DI", 0))
	e.next("SI", "DX", "DI")
	e.end()
}

func emitAdd(e *emitter) {
	e.begin("add", "", "(dst, x *float32, n int)", 24)
	e.i("MOVQ dst+0(FP), DI")
	e.i("MOVQ x+8(FP), SI")
	e.i("MOVQ n+16(FP), CX")
	e.loop()
	e.op("VMOVUPS", at("DI", 0), v(0))
	e.op("VADDPS", at("SI", 0), v(0), v(0))
	e.op("VMOVUPS", v(0), at("DI", 0))
	e.next("SI", "DI")
	e.end()
}

func emitRope(e *emitter) {
	e.begin("rope", "", "(lo, hi, cos, sin *float32, n int)", 40)
	e.i("MOVQ lo+0(FP), DI")
	e.i("MOVQ hi+8(FP), SI")
	e.i("MOVQ cos+16(FP), DX")
	e.i("MOVQ sin+24(FP), BX")
	e.i("MOVQ n+32(FP), CX")
	e.loop()
	e.op("VMOVUPS", at("DI", 0), v(0))
	e.op("VMOVUPS", at("SI", 0), v(1))
	e.op("VMULPS", at("DX", 0), v(0), v(2))
	e.op("VMULPS", at("BX", 0), v(1), v(3))
	e.op("VMULPS", at("DX", 0), v(1), v(1))
	e.op("VMULPS", at("BX", 0), v(0), v(0))
	e.op("VSUBPS", v(3), v(2), v(2))
	e.op("VADDPS", v(0), v(1), v(1))
	e.op("VMOVUPS", v(2), at("DI", 0))
	e.op("VMOVUPS", v(1), at("SI", 0))
	e.next("DI", "SI", "DX", "BX")
	e.end()
}

// emitMax writes the largest of n·16 values; a NaN loses every comparison.
func emitMax(e *emitter) {
	e.begin("max", "", "(x *float32, n int) float32", 20)
	e.i("MOVQ x+0(FP), SI")
	e.i("MOVQ n+8(FP), CX")
	e.op("VMOVUPS", uint32(0xff800000), v(0))
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(1))
	e.op("VMAXPS", v(0), v(1), v(0))
	e.next("SI")
	e.fold("VMAXPS", 0, 1)
	e.i("VMOVSS X0, ret+16(FP)")
	e.end()
}

// emitSumExp writes the lane sums of exp(x - max).
func emitSumExp(e *emitter) {
	e.begin("sumExp", "", "(x *float32, n int, max float32, lane *[16]float32)", 32)
	e.i("MOVQ x+0(FP), SI")
	e.i("MOVQ n+8(FP), CX")
	e.op("VBROADCASTSS", "max+16(FP)", v(4))
	e.i("MOVQ lane+24(FP), DI")
	e.zero(5)
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(0))
	e.op("VSUBPS", v(4), v(0), v(0))
	e.exp(0, 1, 2, 3)
	e.op("VADDPS", v(0), v(5), v(5))
	e.next("SI")
	e.op("VMOVUPS", v(5), at("DI", 0))
	e.end()
}

// emitStoreHalf writes the conversion to binary16.
func emitStoreHalf(e *emitter) {
	e.begin("storeHalf", "", "(dst *uint16, x *float32, n int)", 24)
	e.i("MOVQ dst+0(FP), DI")
	e.i("MOVQ x+8(FP), SI")
	e.i("MOVQ n+16(FP), CX")
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(0))
	e.op("VCVTPS2PH", "$0", v(0), m{"(DI)", 0, 2})
	e.i("ADDQ $32, DI")
	e.next("SI")
	e.end()
}
