//go:build !purego

#include "textflag.h"

// Each step is one of price.of, in its order; products are rounded before they are added.

// func costBlocks(costs *float32, blocks *block, n int, tokens, pairs *float32, f *features, now int64)
TEXT ·costBlocks(SB), NOSPLIT, $0-56
	MOVQ         costs+0(FP), DI
	MOVQ         blocks+8(FP), SI
	MOVQ         n+16(FP), CX
	MOVQ         tokens+24(FP), R8
	MOVQ         pairs+32(FP), R9
	MOVQ         f+40(FP), AX
	VPBROADCASTQ now+48(FP), Z16
	VBROADCASTSS 8(AX), Y2           // answer
	VBROADCASTSS 12(AX), Y3          // length
	VBROADCASTSS 16(AX), Y4          // least
	VBROADCASTSS 20(AX), Y5          // leastPairs
	VBROADCASTSS 24(AX), Y6          // need
	MOVL         $0x358637bd, AX     // 1e-6
	VPBROADCASTD AX, Y7
	MOVL         $0x3dcccccd, AX     // leastIdleSeconds, in milliseconds
	VPBROADCASTD AX, Y8
	MOVL         $0x7f800000, AX     // +Inf
	VPBROADCASTD AX, Y9
	VXORPS       Y10, Y10, Y10

block:
	VMOVUPS   (R8), Y0           // tokens
	VMOVUPS   (R9), Y1           // pairs
	VPSUBQ    0(SI), Z16, Z11    // done, of since and head
	VCVTQQ2PS Z11, Y11
	VMULPS    Y7, Y11, Y11
	VMINPS    64(SI), Y11, Y11
	VMAXPS    Y10, Y11, Y11
	VMULPS    128(SI), Y0, Y12   // own, of token and pair
	VMULPS    160(SI), Y1, Y13
	VADDPS    Y13, Y12, Y12
	VADDPS    96(SI), Y12, Y13   // first, with beside and places
	VMULPS    192(SI), Y0, Y14
	VADDPS    Y14, Y13, Y13
	VMULPS    224(SI), Y2, Y14
	VADDPS    Y14, Y13, Y13
	VSUBPS    Y11, Y13, Y13
	VMULPS    128(SI), Y4, Y14   // ideal, of idle, token and pair; what is no number stays so
	VADDPS    256(SI), Y14, Y14
	VMULPS    160(SI), Y5, Y15
	VADDPS    Y15, Y14, Y14
	VMAXPS    Y14, Y8, Y14
	VMULPS    288(SI), Y12, Y15  // late, with behind
	VADDPS    Y15, Y13, Y15
	VMULPS    Y15, Y13, Y15
	VDIVPS    Y14, Y15, Y15
	VADDPS    Y15, Y13, Y13
	VMULPS    320(SI), Y12, Y14  // delayed, evict, answer, length
	VADDPS    Y14, Y13, Y13
	VMULPS    352(SI), Y0, Y14
	VADDPS    Y14, Y13, Y13
	VMULPS    384(SI), Y2, Y14
	VADDPS    Y14, Y13, Y13
	VMULPS    416(SI), Y3, Y14
	VADDPS    Y14, Y13, Y13
	VCMPPS    $30, 448(SI), Y6, K1 // need above room
	VMOVAPS   Y9, K1, Y13
	VMOVUPS   Y13, (DI)
	ADDQ      $480, SI
	ADDQ      $32, DI
	ADDQ      $32, R8
	ADDQ      $32, R9
	DECQ      CX
	JNE       block
	VZEROUPPER
	RET
