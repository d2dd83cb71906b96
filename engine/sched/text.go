package sched

import (
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// text is what a sequence consists of: its ids or, with Config.HashOnly, their
// number and the identities of the full blocks alone.
type text struct {
	bare   bool
	size   int // of a block
	n      int
	key    uint64 // makes the identities of blocks of output
	blocks []tokens.Block
	tokens.Chain
}

// state makes t, new or used, the bare text of a prompt.
func (t *text) state(r *Request, blockSize int) {
	t.Reset(r.Root, blockSize)
	t.bare, t.size, t.n, t.key = true, blockSize, r.Length, r.Key
	t.blocks = append(t.blocks[:0], r.Blocks...)
}

// grow appends n ids to a bare text.
func (t *text) grow(n int) {
	t.n += n
	for len(t.blocks) < t.n/t.size {
		local := dynamo.LocalHash(mix(t.key + uint64(len(t.blocks))))
		hash := tokens.FirstHash(local)
		if last := len(t.blocks) - 1; last >= 0 {
			hash = tokens.BlockHash(t.blocks[last].Hash, local)
		}
		t.blocks = append(t.blocks, tokens.Block{Local: local, Hash: hash})
	}
}

// Len shadows Chain's.
func (t *text) Len() int {
	if t.bare {
		return t.n
	}
	return t.Chain.Len()
}

// Blocks shadows Chain's.
func (t *text) Blocks() []tokens.Block {
	if t.bare {
		return t.blocks
	}
	return t.Chain.Blocks()
}

// Block shadows Chain's; a bare text has no ids.
func (t *text) Block(i int) []dynamo.TokenID {
	if t.bare {
		return nil
	}
	return t.Chain.Block(i)
}

// part is n ids from start on; a bare text has none.
func (t *text) part(start, n int) []dynamo.TokenID {
	if t.bare {
		return nil
	}
	return t.Tokens()[start : start+n : start+n]
}

// push appends one id.
func (t *text) push(id dynamo.TokenID) {
	if t.bare {
		t.grow(1)
		return
	}
	t.Append(id)
}

// reserve makes room for n ids of a text that is not bare.
func (t *text) reserve(n int) {
	if t.bare {
		t.blocks = slices.Grow(t.blocks, max(n/t.size-len(t.blocks), 0))
		return
	}
	t.Reserve(n)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
