package tokens

import (
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Chain is a token sequence that grows at its end and knows the identities of
// its full blocks. It owns its tokens. The zero Chain is not usable; Reset makes
// any Chain an empty one and keeps its buffers.
type Chain struct {
	root      dynamo.CacheRoot
	blockSize int
	ids       []dynamo.TokenID
	blocks    []Block
}

// NewChain returns an empty chain. It panics on a block size below one.
func NewChain(root dynamo.CacheRoot, blockSize int) *Chain {
	c := new(Chain)
	c.Reset(root, blockSize)
	return c
}

// Reset makes c empty, with the given root and block size.
func (c *Chain) Reset(root dynamo.CacheRoot, blockSize int) {
	if blockSize < 1 {
		panic("BUG: tokens: block size below one")
	}
	c.root, c.blockSize, c.ids, c.blocks = root, blockSize, c.ids[:0], c.blocks[:0]
}

// Append adds ids, which it copies, and returns the blocks that became full. The
// result is valid until c changes.
func (c *Chain) Append(ids ...dynamo.TokenID) []Block {
	c.ids = append(c.ids, ids...)
	before := len(c.blocks)
	c.blocks = appendFrom(c.blocks, 0, c.root, c.blockSize, c.ids[before*c.blockSize:])
	return c.blocks[before:]
}

// AppendKnown does what Append does to an empty chain, where somebody has hashed the
// first full blocks of ids already: blocks are those.
func (c *Chain) AppendKnown(ids []dynamo.TokenID, blocks []Block) {
	if len(c.ids) == 0 && len(blocks) <= len(ids)/c.blockSize {
		c.blocks = append(c.blocks, blocks...)
	}
	c.Append(ids...)
}

// Truncate keeps the first n tokens and forgets the rest; a chain shorter than n
// stays as it is.
func (c *Chain) Truncate(n int) {
	n = max(n, 0)
	if n >= len(c.ids) {
		return
	}
	c.ids, c.blocks = c.ids[:n], c.blocks[:n/c.blockSize]
}

// Reserve makes room for n tokens in all, so that appending up to there does not
// allocate.
func (c *Chain) Reserve(n int) {
	c.ids = slices.Grow(c.ids, max(n-len(c.ids), 0))
	c.blocks = slices.Grow(c.blocks, max(n/c.blockSize-len(c.blocks), 0))
}

// Len is the number of tokens.
func (c *Chain) Len() int { return len(c.ids) }

// Tokens returns the sequence. It is valid until c changes and must not be
// written to.
func (c *Chain) Tokens() []dynamo.TokenID { return c.ids }

// Blocks returns the identities of the full blocks under the same terms.
func (c *Chain) Blocks() []Block { return c.blocks }

// Block returns the tokens of full block i under the same terms.
func (c *Chain) Block(i int) []dynamo.TokenID {
	return c.ids[i*c.blockSize : (i+1)*c.blockSize]
}

// Root returns the root the chain hashes under.
func (c *Chain) Root() dynamo.CacheRoot { return c.root }
