package tokenizer

import (
	"math/bits"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
)

// Words of natural text repeat, and merging one costs ten times as much as
// looking it up. A wordCache is a direct-mapped table with one line of 64 bytes,
// a cache line, for each word:
//
//	0   changes << 17 | a writer is at work << 16 | ids << 8 | bytes
//	1–3 the word, padded with zeros
//	4–7 its ids, two to a field, the first in the lower half
//
// Readers take no lock: they read the line and then look whether field 0 is still
// the same. A writer that finds another one at work gives up.
type wordCache struct {
	lines []wordLine
	mask  uint64
}

type wordLine [8]field

// field is a word of memory that is read and written as one.
type field struct{ v atomic.Uint64 }

func (f *field) get() uint64 { return f.v.Load() }

// set stores v unless it is there already: a store costs ten times a load.
func (f *field) set(v uint64) {
	if f.v.Load() != v {
		f.v.Store(v)
	}
}

const (
	maxCachedWord = 24 // bytes
	maxCachedIDs  = 8

	lineBusy = 1 << 16 // a writer is at work
)

// wordKey is a word of at most maxCachedWord bytes, padded with zeros.
type wordKey struct {
	w    [3]uint64
	n    int
	hash uint64
}

// newWordCache returns a cache with a line for each of so many tokens, within
// bounds.
func newWordCache(tokens int) wordCache {
	n := 1 << 8
	for n < tokens && n < wordCacheLines {
		n <<= 1
	}
	return wordCache{make([]wordLine, n), uint64(n - 1)}
}

// Odd constants with their bits well spread, for hashing.
const (
	mix1 = 0x9E3779B97F4A7C15
	mix2 = 0xC2B2AE3D27D4EB4F
	mix3 = 0x165667B19E3779F9
)

// appendWord appends the ids of s[i:j], one word of a valid UTF-8 text.
func (m *model) appendWord(dst []dynamo.TokenID, sc *scratch, s string, i, j int) []dynamo.TokenID {
	n := j - i
	if n > 8 || i+8 > len(s) {
		return m.appendLongWord(dst, sc, s, i, n)
	}
	// The common case: the word fits into one field.
	w := load8(s[i:]) & (^uint64(0) >> (64 - 8*uint(n)))
	hi, lo := bits.Mul64(w^mix2, mix1)
	hash := hi ^ lo
	l := &m.cache.lines[hash&m.cache.mask]
	state := l[0].get()
	if state&(lineBusy|0xFFFF) == 1<<8|uint64(n) && l[1].get() == w {
		id := dynamo.TokenID(l[4].get())
		if l[0].get() == state {
			return append(dst, id)
		}
	}
	return m.appendKey(dst, sc, s[i:j], wordKey{w: [3]uint64{w}, n: n, hash: hash})
}

// appendLongWord is appendWord for s[i:i+n] where that takes more care.
func (m *model) appendLongWord(dst []dynamo.TokenID, sc *scratch, s string, i, n int) []dynamo.TokenID {
	if n > maxCachedWord {
		return m.mergeWord(dst, sc, s[i:i+n])
	}
	return m.appendKey(dst, sc, s[i:i+n], loadKey(s, i, n))
}

// appendKey appends the ids of word, whose key is k, from the cache or after
// putting them there.
func (m *model) appendKey(dst []dynamo.TokenID, sc *scratch, word string, k wordKey) []dynamo.TokenID {
	if out, ok := m.cache.get(dst, k); ok {
		return out
	}
	start := len(dst)
	dst = m.mergeWord(dst, sc, word)
	m.cache.put(k, dst[start:])
	return dst
}

// loadKey makes the key of s[i:i+n].
func loadKey(s string, i, n int) wordKey {
	k := wordKey{n: n}
	if i+maxCachedWord <= len(s) {
		p := s[i : i+maxCachedWord]
		k.w[0] = load8(p)
		switch {
		case n <= 8:
			k.w[0] &= ^uint64(0) >> (64 - 8*uint(n))
		case n <= 16:
			k.w[1] = load8(p[8:]) & (^uint64(0) >> (128 - 8*uint(n)))
		default:
			k.w[1] = load8(p[8:])
			k.w[2] = load8(p[16:]) & (^uint64(0) >> (192 - 8*uint(n)))
		}
	} else {
		for j := range n {
			k.w[j>>3] |= uint64(s[i+j]) << (8 * uint(j&7))
		}
	}
	hi, lo := bits.Mul64(k.w[0]^mix2, mix1)
	k.hash = hi ^ lo
	if n > 8 {
		hi, lo = bits.Mul64(k.w[1]^k.hash, mix2)
		h2, l2 := bits.Mul64(k.w[2]^lo, mix3)
		k.hash = hi ^ h2 ^ l2
	}
	return k
}

// load8 reads eight bytes, the first lowest.
func load8(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// get appends the ids of a word to dst if the cache has it.
func (c *wordCache) get(dst []dynamo.TokenID, k wordKey) ([]dynamo.TokenID, bool) {
	l := &c.lines[k.hash&c.mask]
	state := l[0].get()
	if state&(lineBusy|0xFF) != uint64(k.n) || l[1].get() != k.w[0] || l[2].get() != k.w[1] || l[3].get() != k.w[2] {
		return dst, false
	}
	n := int(state >> 8 & 0xFF)
	var ids [maxCachedIDs]dynamo.TokenID
	for i := 0; i < n && i < maxCachedIDs; i += 2 {
		v := l[4+i/2].get()
		ids[i], ids[i+1] = dynamo.TokenID(v), dynamo.TokenID(v>>32)
	}
	if l[0].get() != state {
		return dst, false
	}
	return append(dst, ids[:n]...), true
}

// put remembers the ids of a word, in place of whatever has its line.
func (c *wordCache) put(k wordKey, ids []dynamo.TokenID) {
	if len(ids) > maxCachedIDs {
		return
	}
	l := &c.lines[k.hash&c.mask]
	state := l[0].get()
	if state&lineBusy != 0 || !l[0].v.CompareAndSwap(state, state|lineBusy) {
		return
	}
	for i, w := range k.w {
		l[1+i].set(w)
	}
	var packed [maxCachedIDs / 2]uint64
	for i, id := range ids {
		packed[i/2] |= uint64(id) << (32 * uint(i&1))
	}
	for i, v := range packed {
		if 2*i < len(ids) {
			l[4+i].set(v)
		}
	}
	l[0].v.Store((state>>17+1)<<17 | uint64(len(ids))<<8 | uint64(k.n))
}
