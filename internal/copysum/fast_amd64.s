#include "textflag.h"

// XXH3 of a stripe of 64 bytes, for each of the 8 lanes of 64 bits (xxhash_spec.md,
// XXH3_accumulate):
//	key      = data[i] ^ secret[i]
//	acc[i]  += low32(key) * high32(key)
//	acc[i^1] += data[i]
// The sums are kept in two registers, added at the end of a block: additions commute.
// A block of 16 stripes ends with (XXH3_scramble)
//	acc[i] = (acc[i] ^ acc[i]>>47 ^ secret[128+8i]) * prime32_1
// Each stripe is loaded once, and stored and summed from its register. The fence makes
// stores past the caches visible before whatever the caller tells of them.

DATA prime<>+0(SB)/8, $0x9e3779b1
GLOBL prime<>(SB), RODATA|NOPTR, $8

// AHEAD is how far ahead the source is fetched. It lies scattered, in parts too short for
// the processor to learn the way; measured, 2048 and 4096 are better than less or none.
#define AHEAD 2048

#define ARGUMENTS \
	MOVQ acc+0(FP), AX    \
	MOVQ dst+8(FP), DI    \
	MOVQ src+16(FP), SI   \
	MOVQ secret+24(FP), DX \
	MOVQ n+32(FP), CX     \
	MOVQ last+40(FP), BX

// AVX-512: the secret stays in Z4 to Z20, Z0 and Z1 hold the sums, Z2 the prime.

#define STRIPE512(store, off, key, data, x, y) \
	VMOVDQU64  off(SI), data  \
	PREFETCHT0 (AHEAD+off)(SI) \
	store      data, off(DI)  \
	VPXORQ     key, data, x   \
	VPSHUFD    $0x31, x, y    \
	VPMULUDQ   x, y, x        \
	VPSHUFD    $0x4e, data, y \
	VPADDQ     x, Z0, Z0      \
	VPADDQ     y, Z1, Z1

#define LOAD512 \
	VMOVDQU64    (AX), Z0           \
	VPXORQ       Z1, Z1, Z1         \
	VPBROADCASTQ prime<>(SB), Z2    \
	VMOVDQU64    0(DX), Z4          \
	VMOVDQU64    8(DX), Z5          \
	VMOVDQU64    16(DX), Z6         \
	VMOVDQU64    24(DX), Z7         \
	VMOVDQU64    32(DX), Z8         \
	VMOVDQU64    40(DX), Z9         \
	VMOVDQU64    48(DX), Z10        \
	VMOVDQU64    56(DX), Z11        \
	VMOVDQU64    64(DX), Z12        \
	VMOVDQU64    72(DX), Z13        \
	VMOVDQU64    80(DX), Z14        \
	VMOVDQU64    88(DX), Z15        \
	VMOVDQU64    96(DX), Z16        \
	VMOVDQU64    104(DX), Z17       \
	VMOVDQU64    112(DX), Z18       \
	VMOVDQU64    120(DX), Z19       \
	VMOVDQU64    128(DX), Z20

#define BLOCK512(store) \
	STRIPE512(store, 0, Z4, Z21, Z22, Z23)    \
	STRIPE512(store, 64, Z5, Z24, Z25, Z26)   \
	STRIPE512(store, 128, Z6, Z27, Z28, Z29)  \
	STRIPE512(store, 192, Z7, Z21, Z22, Z23)  \
	STRIPE512(store, 256, Z8, Z24, Z25, Z26)  \
	STRIPE512(store, 320, Z9, Z27, Z28, Z29)  \
	STRIPE512(store, 384, Z10, Z21, Z22, Z23) \
	STRIPE512(store, 448, Z11, Z24, Z25, Z26) \
	STRIPE512(store, 512, Z12, Z27, Z28, Z29) \
	STRIPE512(store, 576, Z13, Z21, Z22, Z23) \
	STRIPE512(store, 640, Z14, Z24, Z25, Z26) \
	STRIPE512(store, 704, Z15, Z27, Z28, Z29) \
	STRIPE512(store, 768, Z16, Z21, Z22, Z23) \
	STRIPE512(store, 832, Z17, Z24, Z25, Z26) \
	STRIPE512(store, 896, Z18, Z27, Z28, Z29) \
	STRIPE512(store, 960, Z19, Z30, Z22, Z23) \
	VPADDQ   Z1, Z0, Z0   \
	VPXORQ   Z1, Z1, Z1   \
	VPSRLQ   $47, Z0, Z3  \
	VPXORQ   Z20, Z0, Z0  \
	VPXORQ   Z3, Z0, Z0   \
	VPSRLQ   $32, Z0, Z3  \
	VPMULUDQ Z2, Z0, Z0   \
	VPMULUDQ Z2, Z3, Z3   \
	VPSLLQ   $32, Z3, Z3  \
	VPADDQ   Z3, Z0, Z0   \
	ADDQ     $1024, SI    \
	ADDQ     $1024, DI    \
	DECQ     CX

#define STORE512 \
	VMOVDQU64 Z0, (AX)  \
	VMOVDQU64 Z30, (BX) \
	VZEROUPPER

// func blocksAVX512(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)
TEXT ·blocksAVX512(SB), NOSPLIT, $0-48
	ARGUMENTS
	LOAD512

block:
	BLOCK512(VMOVDQU64)
	JNZ block
	STORE512
	RET

// func streamAVX512(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)
TEXT ·streamAVX512(SB), NOSPLIT, $0-48
	ARGUMENTS
	LOAD512

block:
	BLOCK512(VMOVNTDQ)
	JNZ block
	STORE512
	SFENCE
	RET

// AVX2: the secret stays in memory, Y0 and Y1, Y2 and Y3 hold the sums of the lower and
// the upper lanes, Y4 the prime. The last stripe of a block is in Y14 and Y15.

#define HALF256(store, off, key, data, x, y, a, b) \
	VMOVDQU  off(SI), data  \
	store    data, off(DI)  \
	VPXOR    key(DX), data, x \
	VPSHUFD  $0x31, x, y    \
	VPMULUDQ x, y, x        \
	VPSHUFD  $0x4e, data, y \
	VPADDQ   x, a, a        \
	VPADDQ   y, b, b

#define STRIPE256(store, off, key, lo, hi) \
	HALF256(store, off, key, lo, Y6, Y7, Y0, Y1) \
	HALF256(store, off+32, key+32, hi, Y9, Y10, Y2, Y3) \
	PREFETCHT0 (AHEAD+off)(SI)

#define SCRAMBLE256(a, key, x) \
	VPSRLQ   $47, a, x      \
	VPXOR    key(DX), a, a  \
	VPXOR    x, a, a        \
	VPSRLQ   $32, a, x      \
	VPMULUDQ Y4, a, a       \
	VPMULUDQ Y4, x, x       \
	VPSLLQ   $32, x, x      \
	VPADDQ   x, a, a

#define LOAD256 \
	VMOVDQU (AX), Y0   \
	VMOVDQU 32(AX), Y2 \
	VPXOR   Y1, Y1, Y1 \
	VPXOR   Y3, Y3, Y3 \
	VPBROADCASTQ prime<>(SB), Y4

#define BLOCK256(store) \
	STRIPE256(store, 0, 0, Y5, Y8)        \
	STRIPE256(store, 64, 8, Y11, Y12)     \
	STRIPE256(store, 128, 16, Y5, Y8)     \
	STRIPE256(store, 192, 24, Y11, Y12)   \
	STRIPE256(store, 256, 32, Y5, Y8)     \
	STRIPE256(store, 320, 40, Y11, Y12)   \
	STRIPE256(store, 384, 48, Y5, Y8)     \
	STRIPE256(store, 448, 56, Y11, Y12)   \
	STRIPE256(store, 512, 64, Y5, Y8)     \
	STRIPE256(store, 576, 72, Y11, Y12)   \
	STRIPE256(store, 640, 80, Y5, Y8)     \
	STRIPE256(store, 704, 88, Y11, Y12)   \
	STRIPE256(store, 768, 96, Y5, Y8)     \
	STRIPE256(store, 832, 104, Y11, Y12)  \
	STRIPE256(store, 896, 112, Y5, Y8)    \
	STRIPE256(store, 960, 120, Y14, Y15)  \
	VPADDQ Y1, Y0, Y0 \
	VPADDQ Y3, Y2, Y2 \
	VPXOR  Y1, Y1, Y1 \
	VPXOR  Y3, Y3, Y3 \
	SCRAMBLE256(Y0, 128, Y6) \
	SCRAMBLE256(Y2, 160, Y9) \
	ADDQ   $1024, SI  \
	ADDQ   $1024, DI  \
	DECQ   CX

#define STORE256 \
	VMOVDQU Y0, (AX)    \
	VMOVDQU Y2, 32(AX)  \
	VMOVDQU Y14, (BX)   \
	VMOVDQU Y15, 32(BX) \
	VZEROUPPER

// func blocksAVX2(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)
TEXT ·blocksAVX2(SB), NOSPLIT, $0-48
	ARGUMENTS
	LOAD256

block:
	BLOCK256(VMOVDQU)
	JNZ block
	STORE256
	RET

// func streamAVX2(acc *[8]uint64, dst, src unsafe.Pointer, secret *[24]uint64, n int, last *[64]byte)
TEXT ·streamAVX2(SB), NOSPLIT, $0-48
	ARGUMENTS
	LOAD256

block:
	BLOCK256(VMOVNTDQ)
	JNZ block
	STORE256
	SFENCE
	RET

// func stripesAVX2(acc *[8]uint64, src, secret unsafe.Pointer, n int)
TEXT ·stripesAVX2(SB), NOSPLIT, $0-32
	MOVQ acc+0(FP), AX
	MOVQ src+8(FP), SI
	MOVQ secret+16(FP), DX
	MOVQ n+24(FP), CX
	LOAD256

stripe:
	VMOVDQU  (SI), Y5
	VMOVDQU  32(SI), Y8
	VPXOR    (DX), Y5, Y6
	VPXOR    32(DX), Y8, Y9
	VPSHUFD  $0x31, Y6, Y7
	VPSHUFD  $0x31, Y9, Y10
	VPMULUDQ Y6, Y7, Y6
	VPMULUDQ Y9, Y10, Y9
	VPSHUFD  $0x4e, Y5, Y7
	VPSHUFD  $0x4e, Y8, Y10
	VPADDQ   Y6, Y0, Y0
	VPADDQ   Y9, Y2, Y2
	VPADDQ   Y7, Y1, Y1
	VPADDQ   Y10, Y3, Y3
	ADDQ     $64, SI
	ADDQ     $8, DX
	DECQ     CX
	JNZ      stripe
	VPADDQ   Y1, Y0, Y0
	VPADDQ   Y3, Y2, Y2
	VMOVDQU  Y0, (AX)
	VMOVDQU  Y2, 32(AX)
	VZEROUPPER
	RET
