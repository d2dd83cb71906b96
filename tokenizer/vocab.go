package tokenizer

import (
	"bytes"
	"hash/maphash"
	"unicode/utf8"
)

// vocabulary holds the model's tokens as they are spelled, by id and by spelling.
type vocabulary struct {
	arena []byte // all spellings, one after the other
	spans []span // by id; a hole has no length and off ^0
	count int    // ids that are taken
	limit int    // the greatest id that put takes

	// table is an open-addressed hash table of ids. The seed is random, so a file
	// cannot be written to collide.
	table []slot
	mask  uint64
	seed  maphash.Seed
}

// span is a piece of an arena.
type span struct{ off, len uint32 }

const hole = ^uint32(0)

// slot is an entry of the table: the upper half of the hash and the id + 1.
type slot struct{ hash, id uint32 }

// put adds a token, replacing what its id held. It must not be called after seal.
func (v *vocabulary) put(spelling []byte, id uint32) error {
	if len(spelling) > maxTokenBytes {
		return corrupt("token %d is %d bytes long, limit %d", id, len(spelling), maxTokenBytes)
	}
	if id >= maxIDs || uint64(len(v.arena)+len(spelling)) > maxArena {
		return corrupt("token %d exceeds the limits of a vocabulary", id)
	}
	if int(id) >= cap(v.spans) {
		// Holes are allowed, but not memory for a number the file merely claims.
		if int(id) > v.limit {
			return corrupt("token id %d in a vocabulary of at most %d tokens", id, v.limit)
		}
		grown := make([]span, len(v.spans), max(int(id)+1, 2*cap(v.spans)))
		copy(grown, v.spans)
		v.spans = grown
	}
	for int(id) >= len(v.spans) {
		v.spans = append(v.spans, span{hole, 0})
	}
	if v.spans[id].off == hole {
		v.count++
	}
	v.spans[id] = span{uint32(len(v.arena)), uint32(len(spelling))}
	v.arena = append(v.arena, spelling...)
	return nil
}

// seal builds the table. Of two ids with one spelling the greater is found.
func (v *vocabulary) seal() {
	size := 1 << 4
	for size < 2*v.count {
		size <<= 1
	}
	v.table, v.mask, v.seed = make([]slot, size), uint64(size-1), maphash.MakeSeed()
	for id, s := range v.spans {
		if s.off == hole {
			continue
		}
		spelling := v.arena[s.off : s.off+s.len]
		h := maphash.Bytes(v.seed, spelling)
		i := h & v.mask
		for v.table[i].id != 0 && !v.holds(i, h, spelling) {
			i = (i + 1) & v.mask
		}
		v.table[i] = slot{uint32(h >> 32), uint32(id) + 1}
	}
}

// holds reports whether table entry i is that of spelling, whose hash is h.
func (v *vocabulary) holds(i, h uint64, spelling []byte) bool {
	e := v.table[i]
	return e.hash == uint32(h>>32) && bytes.Equal(v.spelling(e.id-1), spelling)
}

// find returns the id of a spelling.
func (v *vocabulary) find(spelling []byte) (uint32, bool) {
	h := maphash.Bytes(v.seed, spelling)
	for i := h & v.mask; v.table[i].id != 0; i = (i + 1) & v.mask {
		if v.holds(i, h, spelling) {
			return v.table[i].id - 1, true
		}
	}
	return 0, false
}

// findString is find for a string.
func (v *vocabulary) findString(spelling string) (uint32, bool) {
	h := maphash.String(v.seed, spelling)
	for i := h & v.mask; v.table[i].id != 0; i = (i + 1) & v.mask {
		e := v.table[i]
		if e.hash == uint32(h>>32) && string(v.spelling(e.id-1)) == spelling {
			return e.id - 1, true
		}
	}
	return 0, false
}

// spelling returns the spelling of id, nil if it has none.
func (v *vocabulary) spelling(id uint32) []byte {
	if int(id) >= len(v.spans) || v.spans[id].off == hole {
		return nil
	}
	s := v.spans[id]
	return v.arena[s.off : s.off+s.len : s.off+s.len]
}

// has reports whether id is taken.
func (v *vocabulary) has(id uint32) bool {
	return int(id) < len(v.spans) && v.spans[id].off != hole
}

// The byte-level alphabet writes every byte as a printable character: the bytes
// that are printable in Latin-1 as themselves, the others from U+0100 on in order.
var (
	byteRune [256]rune
	runeByte [0x180]int16 // -1 for characters outside the alphabet
)

func init() {
	for i := range runeByte {
		runeByte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		byteRune[b], runeByte[r] = r, int16(b)
	}
}

// appendBytes appends the bytes that s spells in the byte-level alphabet. It
// returns false, and dst as it was, if s holds other characters.
func appendBytes[T string | []byte](dst []byte, s T) ([]byte, bool) {
	start := len(dst)
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		}
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return dst[:start], false
		}
		dst = append(dst, byte(runeByte[r]))
		i += n
	}
	return dst, true
}

// appendSpelled appends s as the byte-level alphabet spells it.
func appendSpelled(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = utf8.AppendRune(dst, byteRune[s[i]])
	}
	return dst
}
