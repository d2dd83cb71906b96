// Package kernel holds the CPU arithmetic of the embedded engine: matrix
// products over packed weights, activation quantization, normalisation, rotary
// embedding, paged attention and the few reductions a sampler needs. Package
// model uses it; it owns no thread, no file and no model knowledge.
//
// Law: one definition, bit-identical everywhere. Each kernel is defined once,
// by the portable Go in this package, in terms of float32 operations rounded to
// nearest even, fused multiply-adds with one rounding, and a fixed order; the
// AVX2 and AVX-512 code returns the same bits for every tile shape, row range
// and number of tokens. So the result for a token never depends on what else is
// in the batch, how a prompt was cut, how many threads share the work or which
// instruction level runs. (The bits of a NaN are the one thing left open.)
//
// How the law is kept:
//  1. Vector lanes of a matrix product are output rows: weights are repacked in
//     groups of 16 rows, and every output has a single accumulator that walks K
//     upwards. Tiles differ in how many tokens and groups they hold, never in
//     the order along K.
//  2. Integer dot products of 32 values are exact, so it does not matter how an
//     instruction set groups them.
//  3. A reduction over a vector keeps 16 partial lanes (element i goes to lane
//     i mod 16) and folds them 8, 4, 2, 1; AVX2 carries 16 lanes in two
//     registers.
//  4. The exponential is one polynomial with a stated sequence of operations;
//     division and square root are IEEE, and no approximate instruction is used.
//  5. Attention walks absolute positions upwards, in blocks of 16 for maximum
//     and sum and one by one for the weighted values, whatever tile of queries
//     it is computed in.
//
// Kernels assume validated shapes: slices too short for the shape they are
// given panic as a bug, as any out-of-range index in Go does.
package kernel

//go:generate go run ./gen -out .
