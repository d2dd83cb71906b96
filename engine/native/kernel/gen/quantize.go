package main

// emitQuantize writes the quantization of one row's blocks. Offsets into
// quantizeArgs: 0 x  8 codes  16 scale  24 sum  32 bias  40 blocks. Codes of
// consecutive blocks are 32·tileRows bytes apart, the rest 4·tileRows.
func emitQuantize(e *emitter) {
	e.begin("quantize", "", "(a *quantizeArgs)", 8)
	e.i("MOVQ a+0(FP), AX")
	for i, r := range []string{"SI", "DI", "DX", "BX", "R8", "CX"} {
		e.i("MOVQ %d(AX), %s", 8*i, r)
	}
	// v0 and v1 hold the block, v2 to v4 are scratch. X registers that those do
	// not cover hold the scale (x), its inverse (x+1) and the smallest amax (low).
	e.loop()
	e.op("VMOVUPS", at("SI", 0), v(0))
	e.op("VMOVUPS", at("SI", 64), v(1))
	e.zero(4)
	e.op("VANDPS", uint32(0x7fffffff), v(0), v(2))
	e.op("VANDPS", uint32(0x7fffffff), v(1), v(3))
	e.op("VMAXPS", v(4), v(2), v(2))
	e.op("VMAXPS", v(2), v(3), v(2))
	e.fold("VMAXPS", 2, 3)
	amax := int(v(2)) * e.halves
	x, low := 7*e.halves, 6*e.halves
	e.i("VMOVSS %s, X%d", e.constant(0x42fe0000), x)
	e.i("VDIVSS X%d, X%d, X%d", amax, x, x+1)
	e.i("VDIVSS X%d, X%d, X%d", x, amax, x)
	e.i("VMOVSS %s, X%d", e.constant(0x03800000), low)
	e.i("VCMPSS $2, X%d, X%d, X%d", amax, low, low)
	e.i("VANDPS X%d, X%d, X%d", low, x, x)
	e.i("VANDPS X%d, X%d, X%d", low, x+1, x+1)
	e.i("VMOVSS X%d, (DX)", x)
	for h := 0; h < e.halves; h++ {
		e.i("VBROADCASTSS X%d, %s", x+1, e.half(2, h))
	}
	e.op("VMULPS", v(2), v(0), v(0))
	e.op("VMULPS", v(2), v(1), v(1))
	e.op("VCVTPS2DQ", v(0), v(0))
	e.op("VCVTPS2DQ", v(1), v(1))
	narrow(e)
	// Y0 holds the 32 codes: their sum, through pairs, to one integer.
	e.i("VMOVDQU Y0, (DI)")
	e.i("VMOVDQU %s, Y1", e.constant(0x01010101))
	e.i("VPMADDUBSW Y0, Y1, Y1")
	e.i("VPMADDWD %s, Y1, Y1", e.constant(0x00010001))
	e.i("VEXTRACTI128 $1, Y1, X2")
	e.i("VPADDD X2, X1, X1")
	e.i("VPSHUFD $0x4e, X1, X2")
	e.i("VPADDD X2, X1, X1")
	e.i("VPSHUFD $0xb1, X1, X2")
	e.i("VPADDD X2, X1, X1")
	e.i("VCVTDQ2PS X1, X2")
	e.i("VMULSS X%d, X2, X2", x)
	e.i("VMOVSS X2, (BX)")
	e.i("VPSLLD $7, X1, X1")
	e.i("VXORPS X2, X2, X2")
	e.i("VPSUBD X1, X2, X1")
	e.i("VMOVD X1, (R8)")
	e.i("ADDQ $64, SI")
	e.i("ADDQ $%d, DI", 32*tileRows)
	for _, r := range []string{"DX", "BX", "R8"} {
		e.i("ADDQ $%d, %s", 4*tileRows, r)
	}
	e.next("SI")
	e.end()
}

// emitOrder writes the permutation narrow needs at AVX2.
func emitOrder(e *emitter) {
	if e.halves == 1 {
		return
	}
	e.line("")
	for i, pair := range []string{"0x0000000400000000", "0x0000000500000001", "0x0000000600000002", "0x0000000700000003"} {
		e.line("DATA order<>+%d(SB)/8, $%s", 8*i, pair)
	}
	e.line("GLOBL order<>(SB), RODATA|NOPTR, $32")
}

// narrow packs the integers of v0 and v1 into the 32 bytes of Y0, saturating.
func narrow(e *emitter) {
	if e.halves == 1 {
		e.i("VPMOVSDB Z0, X0")
		e.i("VPMOVSDB Z1, X1")
		e.i("VINSERTI128 $1, X1, Y0, Y0")
		return
	}
	// The packs work within 128-bit lanes; the permutation of dwords restores
	// the order.
	e.i("VPACKSSDW Y1, Y0, Y0")
	e.i("VPACKSSDW Y3, Y2, Y2")
	e.i("VPACKSSWB Y2, Y0, Y0")
	e.i("VMOVDQU order<>(SB), Y1")
	e.i("VPERMD Y0, Y1, Y0")
}
