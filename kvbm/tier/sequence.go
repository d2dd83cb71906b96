package tier

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

// Scope is what separates the blocks of one sequence from those of others with the
// same ids.
type Scope struct {
	Adapter   string
	Namespace string
	Root      dynamo.CacheRoot
}

// Sequence is the ids of a request and the names of their full blocks. It grows at its
// end. It is not safe for concurrent use.
type Sequence struct {
	m       *Mover
	content tokens.Content
	keyer   *tokens.Keyer
	chain   *tokens.Chain
	keys    []dynamo.ContentKey
	named   []kvbm.TierBlock // of Mover.Named
	blank   []dynamo.TokenID // the ids of each of these
}

// Named is a sequence of blocks that others have named, in a Mover with Config.Named.
// What a frame of such a block says of it is its key. The parents and depths serve to
// choose which blocks are given up. It does not grow.
func (m *Mover) Named(blocks ...kvbm.TierBlock) *Sequence {
	if !m.config.Named {
		panic("BUG: tier: names for a Mover that makes them itself")
	}
	s := &Sequence{m: m, content: m.config.Geometry.Content, named: blocks, blank: make([]dynamo.TokenID, m.config.Geometry.BlockTokens)}
	for i := range blocks {
		s.keys = append(s.keys, blocks[i].Key)
	}
	return s
}

// Sequence returns an empty sequence, or nil if its blocks cannot be kept: its scope's
// names are too long.
func (m *Mover) Sequence(s Scope) *Sequence {
	c := m.config.Geometry.Content
	c.Adapter, c.Salt = s.Adapter, s.Namespace
	if s.Root != 0 {
		c.Salt = fmt.Sprintf("%s/%016x", s.Namespace, uint64(s.Root))
	}
	if !contentFits(&c) {
		return nil
	}
	return &Sequence{
		m: m, content: c, keyer: tokens.NewKeyer(m.config.ClusterKey, c),
		chain: tokens.NewChain(s.Root, m.config.Geometry.BlockTokens),
	}
}

// Append adds ids at the end.
func (s *Sequence) Append(ids ...dynamo.TokenID) {
	s.chain.Append(ids...)
	for i := len(s.keys); i < len(s.chain.Blocks()); i++ {
		if i == 0 {
			s.keys = append(s.keys, s.keyer.First(s.chain.Block(0)))
		} else {
			s.keys = append(s.keys, s.keyer.Next(s.keys[i-1], s.chain.Block(i)))
		}
	}
}

// Len is the number of ids.
func (s *Sequence) Len() int { return s.chain.Len() }

// Blocks is the number of full blocks.
func (s *Sequence) Blocks() int { return len(s.keys) }

// Keys are the names of the full blocks; they are valid until the sequence grows.
func (s *Sequence) Keys() []dynamo.ContentKey { return s.keys }

// name is the place of block i.
func (s *Sequence) name(i int) kvbm.TierBlock {
	if s.named != nil {
		return s.named[i]
	}
	b := kvbm.TierBlock{Key: s.keys[i], Depth: i, Block: s.chain.Blocks()[i]}
	if i > 0 {
		b.Parent, b.ParentHash = s.keys[i-1], s.chain.Blocks()[i-1].Hash
	}
	return b
}

// header is what a frame of block i says. What it refers to does not change when the
// sequence grows.
func (s *Sequence) header(i int) Header {
	b := s.name(i)
	if s.named != nil {
		return Header{Key: b.Key, Content: s.content, Tokens: s.blank}
	}
	return Header{
		Key: b.Key, Parent: b.Parent, Depth: i, Hash: s.chain.Blocks()[i].Hash,
		Content: s.content, Tokens: s.chain.Block(i),
	}
}
