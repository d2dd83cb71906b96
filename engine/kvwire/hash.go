package kvwire

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/dynamo-go/dynamo"
)

// HashAlgorithm is one of vLLM's algorithms for block hashes.
type HashAlgorithm uint8

// The algorithms.
const (
	// SHA256 is "sha256", vLLM's default: over the pickled block.
	SHA256 HashAlgorithm = iota
	// SHA256CBOR is "sha256_cbor": over the block in canonical CBOR.
	SHA256CBOR
)

// Digest is a block's hash as vLLM computes it.
type Digest [sha256.Size]byte

// EngineHash returns what events call a block of this hash.
func (d Digest) EngineHash() EngineHash {
	return EngineHash(binary.BigEndian.Uint64(d[len(d)-8:]))
}

// HashKey is a key that a block's hash covers beside its tokens: one text in versions
// that do not tag keys, and otherwise the key's tag and its parts.
type HashKey []string

// HashKeys returns the keys of a block as vLLM 0.32 has them: those of its adapter
// and its salt, where there are such. Only the first block of a sequence has a salt.
// The adapter's path on the engine's machine counts.
func HashKeys(lora, loraPath, salt string) []HashKey {
	var keys []HashKey
	if lora != "" {
		keys = append(keys, HashKey{"lora", lora, loraPath})
	}
	if salt != "" {
		keys = append(keys, HashKey{"cache_salt", salt})
	}
	return keys
}

// Hasher computes vLLM's block hashes. It belongs to one goroutine.
//
// A block is the list (hash of the block before it, tuple of its token ids, extra
// keys); the keys are None, or a tuple of texts or of tuples of texts.
type Hasher struct {
	algorithm HashAlgorithm
	buf       []byte
}

// NewHasher returns a hasher.
func NewHasher(a HashAlgorithm) *Hasher { return &Hasher{algorithm: a} }

// None returns the hash that stands before a first block. seed is what the engine's
// PYTHONHASHSEED is, empty where it is not set.
func (h *Hasher) None(seed string) Digest {
	if seed == "" {
		seed = "vllm-none-hash"
	}
	if h.algorithm == SHA256CBOR {
		h.buf = cborText(h.buf[:0], seed)
		return sha256.Sum256(h.buf)
	}
	h.buf = pickleText(pickleStart(h.buf[:0]), seed)
	return h.pickled()
}

// Block returns the hash of the block of ids behind parent.
func (h *Hasher) Block(parent Digest, ids []dynamo.TokenID, extra []HashKey) Digest {
	if h.algorithm == SHA256CBOR {
		h.buf = cborBlock(h.buf[:0], parent, ids, extra)
		return sha256.Sum256(h.buf)
	}
	b := pickleStart(h.buf[:0])
	b = append(b, 'C', sha256.Size)
	b = append(append(b, parent[:]...), memoize)
	b = pickleTokens(b, ids)
	if len(extra) == 0 {
		b = append(b, 'N')
	} else {
		b = pickleKeys(b, extra)
	}
	h.buf = append(b, tuple3, memoize)
	return h.pickled()
}

// Pickle, protocol 5: 80 05, one frame (95 and the length of the rest, 8 bytes
// little-endian), the values, 2e. A pickle is one frame up to 64 KiB, which a block
// of about 13,000 tokens reaches.
const (
	memoize = 0x94
	mark    = '('
	tuple   = 't'
	tuple1  = 0x85
	tuple3  = 0x87

	pickleHead = 11
)

func pickleStart(b []byte) []byte {
	return append(b, 0x80, 5, 0x95, 0, 0, 0, 0, 0, 0, 0, 0)
}

// pickled ends the pickle in h.buf and hashes it.
func (h *Hasher) pickled() Digest {
	h.buf = append(h.buf, '.')
	binary.LittleEndian.PutUint64(h.buf[3:], uint64(len(h.buf)-pickleHead))
	return sha256.Sum256(h.buf)
}

// pickleTokens appends a tuple of ids.
func pickleTokens(b []byte, ids []dynamo.TokenID) []byte {
	if len(ids) == 0 {
		return append(b, ')')
	}
	b = tupleStart(b, len(ids))
	for _, id := range ids {
		switch {
		case id < 1<<8:
			b = append(b, 'K', byte(id))
		case id < 1<<16:
			b = binary.LittleEndian.AppendUint16(append(b, 'M'), uint16(id))
		case id < 1<<31:
			b = binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(id))
		default:
			b = append(binary.LittleEndian.AppendUint32(append(b, 0x8a, 5), uint32(id)), 0)
		}
	}
	return tupleEnd(b, len(ids))
}

// pickleKeys appends a tuple of keys.
func pickleKeys(b []byte, keys []HashKey) []byte {
	b = tupleStart(b, len(keys))
	for _, k := range keys {
		if len(k) > 1 {
			b = tupleStart(b, len(k))
		}
		for _, text := range k {
			b = pickleText(b, text)
		}
		if len(k) > 1 {
			b = tupleEnd(b, len(k))
		}
	}
	return tupleEnd(b, len(keys))
}

// tupleStart and tupleEnd enclose a tuple of n values; one of 1 to 3 has no mark.
func tupleStart(b []byte, n int) []byte {
	if n > 3 {
		b = append(b, mark)
	}
	return b
}

func tupleEnd(b []byte, n int) []byte {
	if n > 3 {
		return append(b, tuple, memoize)
	}
	return append(b, tuple1+byte(n-1), memoize)
}

func pickleText(b []byte, s string) []byte {
	if len(s) < 1<<8 {
		b = append(b, 0x8c, byte(len(s)))
	} else {
		b = binary.LittleEndian.AppendUint32(append(b, 'X'), uint32(len(s)))
	}
	return append(append(b, s...), memoize)
}

// cborBlock appends a block in canonical CBOR.
func cborBlock(b []byte, parent Digest, ids []dynamo.TokenID, extra []HashKey) []byte {
	b = append(b, 0x83, 0x58, sha256.Size)
	b = append(b, parent[:]...)
	b = cborHead(b, 4, len(ids))
	for _, id := range ids {
		b = cborHead(b, 0, int(id))
	}
	if len(extra) == 0 {
		return append(b, 0xf6)
	}
	b = cborHead(b, 4, len(extra))
	for _, k := range extra {
		if len(k) > 1 {
			b = cborHead(b, 4, len(k))
		}
		for _, text := range k {
			b = cborText(b, text)
		}
	}
	return b
}

func cborText(b []byte, s string) []byte { return append(cborHead(b, 3, len(s)), s...) }

// cborHead appends the head of a value of a major type in its shortest form.
func cborHead(b []byte, major byte, n int) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
}
