package tokenizer

import (
	"container/list"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// Cache remembers the ids of the beginnings of texts, so that a conversation
// that grows is not encoded again from its start. It is bounded in bytes, keeps
// tenants apart and is safe for concurrent use.
//
// A text is taken in units of a kilobyte or a little more, cut where the ids of
// the two sides provably do not depend on each other (see Tokenizer.cut). Cuts
// depend on the text before them only, so the same beginning has the same units.
// Whoever asks under another tenant, with another tokenizer or with other options
// finds nothing; a unit counts as found only if its text is the same, byte for
// byte. When the cache is full the unit that was not asked for longest goes.
type Cache struct {
	maxBytes int
	seed     maphash.Seed

	mu struct {
		sync.Mutex
		units map[uint64]*list.Element // of *cacheEntry, by hash
		order list.List                // most recently used first
		bytes int
	}
}

// cacheEntry is a remembered unit. It is not changed once it is in the cache.
type cacheEntry struct {
	key  cacheKey
	hash uint64
	ids  []dynamo.TokenID
}

// cacheKey is everything the ids of a unit depend on, and the tenant.
type cacheKey struct {
	tenant string
	digest string
	text   string
	first  bool // the text begins with this unit
	plain  bool
}

// cacheOverhead is what an entry costs beside its texts and ids.
const cacheOverhead = 256

// NewCache returns a cache that holds at most maxBytes bytes of texts and ids,
// its own overhead included. Zero or less makes a cache that keeps nothing.
func NewCache(maxBytes int) *Cache {
	c := &Cache{maxBytes: maxBytes, seed: maphash.MakeSeed()}
	c.mu.units = map[uint64]*list.Element{}
	return c
}

// Encode appends the ids of text to dst, exactly those of t.Encode.
func (c *Cache) Encode(dst []dynamo.TokenID, t *Tokenizer, tenant, text string, o EncodeOptions) []dynamo.TokenID {
	if c.maxBytes <= 0 || len(text) <= cacheUnit {
		return t.Encode(dst, text, o)
	}
	text = validText(text)
	if o.AddSpecial {
		dst = appendIDs(dst, t.before)
	}
	sc := t.borrow()
	for start := 0; start < len(text); {
		end, ok := t.cut(text, start, o.PlainSpecial)
		if !ok || end-start > maxCacheUnit {
			dst = t.encodeSpan(dst, sc, text, start, len(text), o.PlainSpecial)
			break
		}
		key := cacheKey{tenant, t.digest, text[start:end], start == 0, o.PlainSpecial}
		if e := c.get(key); e != nil {
			dst = append(dst, e.ids...)
		} else {
			mark := len(dst)
			dst = t.encodeSpan(dst, sc, text, start, end, o.PlainSpecial)
			c.put(key, dst[mark:])
		}
		start = end
	}
	t.giveBack(sc)
	if o.AddSpecial {
		dst = appendIDs(dst, t.behind)
	}
	return dst
}

// hash hashes a key. The seed is random: nobody can aim at another's entries.
func (c *Cache) hash(k cacheKey) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	// A maphash never fails to write.
	_, _ = h.WriteString(k.tenant)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(k.digest)
	_, _ = h.WriteString(k.text)
	return h.Sum64()
}

// get returns the entry of a key, or nil.
func (c *Cache) get(k cacheKey) *cacheEntry {
	hash := c.hash(k)
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.mu.units[hash]
	if !ok {
		return nil
	}
	e := el.Value.(*cacheEntry)
	if e.key != k {
		return nil
	}
	c.mu.order.MoveToFront(el)
	return e
}

// put remembers the ids of a key, copying both.
func (c *Cache) put(k cacheKey, ids []dynamo.TokenID) {
	k.text, k.tenant = strings.Clone(k.text), strings.Clone(k.tenant)
	e := &cacheEntry{key: k, hash: c.hash(k), ids: slices.Clone(ids)}
	size := e.size()
	if size > c.maxBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.mu.units[e.hash]; ok {
		c.dropLocked(old)
	}
	for c.mu.bytes+size > c.maxBytes {
		c.dropLocked(c.mu.order.Back())
	}
	c.mu.units[e.hash] = c.mu.order.PushFront(e)
	c.mu.bytes += size
}

// dropLocked forgets a unit.
func (c *Cache) dropLocked(el *list.Element) {
	e := c.mu.order.Remove(el).(*cacheEntry)
	delete(c.mu.units, e.hash)
	c.mu.bytes -= e.size()
}

// size is what an entry counts for. The allocator rounds up by an eighth at most.
func (e *cacheEntry) size() int {
	n := len(e.key.text) + len(e.key.tenant) + 4*len(e.ids)
	return n + n/8 + cacheOverhead
}

// Len returns the number of units and the bytes they count for.
func (c *Cache) Len() (units, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.order.Len(), c.mu.bytes
}

// cut returns the first place at least cacheUnit behind start where text may be
// cut: encodeSpan of the two sides gives the ids of the whole. start is itself
// such a place. There are two kinds:
//
//   - Behind an added token that is looked for before normalization: what is
//     before it and what is behind it are normalized and split apart anyway.
//   - Between a line end and a letter, for the patterns in lineCuts: there is no
//     match that reaches across, and what precedes is split the same whether or
//     not anything follows.
func (t *Tokenizer) cut(text string, start int, plain bool) (int, bool) {
	want := start + cacheUnit
	for done, from := start, start; done < len(text); {
		found, resume := t.raw.next(text, from, done, plain)
		if t.lineCut != noLineCut {
			if p := t.lineEnd(text[:found.start], max(want, done+1)); p > 0 {
				return p, true
			}
		}
		if found.token == nil {
			break
		}
		done, from = max(found.end, done), resume
		if found.end == resume && resume >= want && resume < len(text) {
			return resume, true
		}
	}
	return 0, false
}

// Where a tokenizer's texts may be cut besides behind added tokens.
const (
	noLineCut   = iota // nowhere
	lineCut            // between \n and a letter
	wordLineCut        // the same, if a character that is no white space is before the \n
)

// lineEnd returns the first place from p on where text may be cut between a line
// end and a letter, 0 if there is none.
func (t *Tokenizer) lineEnd(text string, p int) int {
	for p < len(text) {
		n := strings.IndexByte(text[p-1:], '\n')
		if n < 0 {
			return 0
		}
		p += n // behind the line end
		if p == len(text) {
			return 0
		}
		next, _ := classes.at(text, p)
		if in(next, setL) && (t.lineCut == lineCut || p >= 2 && !endsInSpace(text[:p-1])) {
			return p
		}
		p++
	}
	return 0
}

// endsInSpace reports whether the last character of s, which is not empty, is
// white space.
func endsInSpace(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return isSpace(r)
}

// setLineCut decides where texts may be cut. It is cautious: a tokenizer whose
// added tokens or normalizers could tell the difference is cut behind added tokens
// only.
func (r *reader) setLineCut() {
	t := r.t
	t.lineCut = noLineCut
	if t.scan == nil || t.normal != nil || len(t.normalizers) > 0 && !r.onlyNFC {
		return
	}
	if t.raw != nil {
		for _, a := range t.raw.tokens {
			if a.SingleWord || strings.Contains(a.Content, "\n") {
				return
			}
		}
	}
	t.lineCut = lineCut
	if last := t.splitters[len(t.splitters)-1].(byteLevel); last.words {
		t.lineCut = wordLineCut
	}
	for _, s := range t.splitters {
		if c, ok := s.(splitAt); ok && c.pattern == (scanned{gpt2Scanner{}}) {
			t.lineCut = wordLineCut
		}
	}
}
