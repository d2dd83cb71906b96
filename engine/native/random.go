package native

import "math/bits"

// uniform returns the random number in [0, 1) that choice draws at position, the
// absolute index of an output id: a function of its three arguments alone, so a
// resumed, preempted or replayed answer draws what it would have drawn.
//
// It is Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", 2011), keyed by the seed, with the counter (position,
// choice); the highest 53 of the first 64 bits are the result.
func uniform(seed uint64, choice, position int) float64 {
	c := philox([4]uint32{uint32(position), uint32(uint64(position) >> 32), uint32(choice), uint32(uint64(choice) >> 32)}, seed)
	return float64((uint64(c[1])<<32|uint64(c[0]))>>11) / (1 << 53)
}

// philox is the bijection of the counter c under the key.
func philox(c [4]uint32, key uint64) [4]uint32 {
	k0, k1 := uint32(key), uint32(key>>32)
	for range 10 {
		h0, l0 := bits.Mul32(0xD2511F53, c[0])
		h1, l1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}
