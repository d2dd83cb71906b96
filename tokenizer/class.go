package tokenizer

import "unicode/utf8"

// class is the kind of a character as splitting patterns tell them apart. Every
// character has exactly one.
type class = uint8

const (
	classOther   class = iota // control, format, unassigned, separators that are no space
	classLu                   // upper case letter
	classLl                   // lower case letter
	classLt                   // title case letter
	classLm                   // modifier letter
	classLo                   // other letter
	classM                    // mark
	classN                    // number
	classP                    // punctuation
	classS                    // symbol
	classSpace                // white space but for line ends
	classNewline              // \r and \n
)

// Flags above the class in a character's table entry.
const (
	classMask   = 15
	flagNumeric = 16  // split off by Digits
	flagPunct   = 32  // split off by Punctuation
	flagWord    = 64  // \w
	flagForm    = 128 // NFC may change it, move it or join it to what is before it
)

// Sets of classes, as bits.
const (
	setL     = 1<<classLu | 1<<classLl | 1<<classLt | 1<<classLm | 1<<classLo
	setM     = 1 << classM
	setN     = 1 << classN
	setLN    = setL | setN
	setPS    = 1<<classP | 1<<classS
	setSpace = 1<<classSpace | 1<<classNewline
	setNL    = 1 << classNewline
	setUpper = 1<<classLu | 1<<classLt | 1<<classLm | 1<<classLo | setM
	setLower = 1<<classLl | 1<<classLm | 1<<classLo | setM
	setAll   = 1<<(classNewline+1) - 1
)

// pageBits is the size of a page of the class table.
const pageBits = 8

// classTable is a two-step table: the page of a character, then its place there.
// Page 0 holds ASCII.
type classTable struct {
	index [(utf8.MaxRune + 1) >> pageBits]uint16
	pages []uint8
}

// classes is the table of classRuns with line ends set apart.
var classes = func() *classTable {
	t := newClassTable(classRuns)
	for _, c := range "\r\n" {
		t.pages[c] = t.pages[c]&^classMask | classNewline
	}
	return t
}()

// newClassTable expands runs. Pages that one run covers are shared.
func newClassTable(runs string) *classTable {
	t := &classTable{pages: make([]uint8, 0, 256<<pageBits)}
	uniform := map[uint8]uint16{} // page number of a page full of one entry
	page := make([]uint8, 0, 1<<pageBits)
	next := 0
	put := func(n uint16) {
		t.index[next] = n
		next++
	}
	fresh := func() uint16 {
		t.pages = append(t.pages, page...)
		return uint16(len(t.pages)>>pageBits - 1)
	}
	for i := 0; i < len(runs); {
		entry, length, shift := runs[i], 0, 0
		for i++; ; i++ {
			length |= int(runs[i]&127) << shift
			shift += 7
			if runs[i] < 128 {
				i++
				break
			}
		}
		for ; length > 0; length-- {
			if len(page) == 0 && length >= 1<<pageBits && next > 0 {
				n, ok := uniform[entry]
				if !ok {
					for range 1 << pageBits {
						page = append(page, entry)
					}
					n = fresh()
					uniform[entry] = n
					page = page[:0]
				}
				put(n)
				length -= 1<<pageBits - 1
				continue
			}
			page = append(page, entry)
			if len(page) == 1<<pageBits {
				put(fresh())
				page = page[:0]
			}
		}
	}
	return t
}

// of returns the table entry of r, which must be a valid character.
func (t *classTable) of(r rune) uint8 {
	return t.pages[int(t.index[r>>pageBits])<<pageBits|int(r)&(1<<pageBits-1)]
}

// at returns the table entry of the character at s[i] and its length. s is valid
// UTF-8.
func (t *classTable) at(s string, i int) (uint8, int) {
	c := s[i]
	if c < utf8.RuneSelf {
		return t.pages[c], 1
	}
	r, n := runeAt(s, i)
	return t.of(r), n
}

// runeAt decodes the character at s[i] of valid UTF-8 that is not ASCII.
func runeAt(s string, i int) (rune, int) {
	c := s[i]
	switch {
	case c < 0xE0:
		return rune(c&0x1F)<<6 | rune(s[i+1]&0x3F), 2
	case c < 0xF0:
		return rune(c&0x0F)<<12 | rune(s[i+1]&0x3F)<<6 | rune(s[i+2]&0x3F), 3
	}
	return rune(c&0x07)<<18 | rune(s[i+1]&0x3F)<<12 | rune(s[i+2]&0x3F)<<6 | rune(s[i+3]&0x3F), 4
}

// in reports whether the entry's class is one of set.
func in(entry uint8, set uint16) bool { return set>>(entry&classMask)&1 != 0 }

// asciiSets holds the class of every ASCII character as a set of one; no class for
// other bytes.
var asciiSets = func() (sets [256]uint16) {
	for c := range utf8.RuneSelf {
		sets[c] = 1 << (classes.pages[c] & classMask)
	}
	return sets
}()

// run returns the end of the run of characters of set that begins at s[i].
func (t *classTable) run(s string, i int, set uint16) int {
	for i < len(s) && asciiSets[s[i]]&set != 0 {
		i++
	}
	for i < len(s) {
		e, n := t.at(s, i)
		if !in(e, set) {
			break
		}
		i += n
	}
	return i
}
