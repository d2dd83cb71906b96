package model

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// BlockSize is the number of positions in a block of the KV cache.
const BlockSize = kernel.KVBlock

// Cache is the storage of a paged KV cache: a number of blocks, each of which
// holds keys and values of BlockSize positions in all layers as one contiguous
// region. Blocks nobody wrote to take no memory.
type Cache struct {
	kv  *kernel.KV
	mem *memory
}

func (m *Model) kvShape() kernel.KVShape {
	t := kernel.KVF16
	if m.precision == F32 {
		t = kernel.KVF32
	}
	return kernel.KVShape{Type: t, Layers: m.config.Layers, Heads: m.config.KVHeads, HeadDim: m.config.HeadDim}
}

// BlockBytes returns the bytes of one block of the model's KV cache.
func (m *Model) BlockBytes() int { return m.kvShape().BlockBytes() }

// KVType returns the type that its keys and values are stored as.
func (m *Model) KVType() string { return m.kvShape().Type.String() }

// NewCache reserves a cache of so many blocks, to be used with this model. It
// fails with KindInvalid for an impossible number and KindExhausted when there is
// no room. The caller closes it.
func (m *Model) NewCache(blocks int) (*Cache, error) {
	s := m.kvShape()
	per := int64(s.BlockBytes())
	if blocks < 1 || int64(blocks) > maxCacheBytes/per {
		return nil, invalid("a kv cache of %d blocks of %d bytes is not possible: choose --kv-cache-bytes between %d and %d", blocks, per, per, int64(maxCacheBytes))
	}
	mem, err := newMemory(per*int64(blocks), false)
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("a kv cache of %d bytes does not fit into this machine's memory: choose a smaller --kv-cache-bytes", per*int64(blocks)), Err: err}
	}
	kv, err := kernel.NewKV(s, mem.data)
	if err != nil {
		_ = mem.free() // the error that matters is the other
		return nil, fmt.Errorf("lay out the kv cache: %w", err)
	}
	return &Cache{kv: kv, mem: mem}, nil
}

// NewCacheIn lays a cache out in mem, as many blocks as fit. The memory is zeroed,
// 64-byte aligned and the caller's, who keeps it until no Forward can come; closing the
// cache leaves it.
func (m *Model) NewCacheIn(mem []byte) (*Cache, error) {
	s := m.kvShape()
	blocks := len(mem) / s.BlockBytes()
	if blocks < 1 {
		return nil, invalid("%d bytes hold no block of the kv cache, which has %d: choose a larger --kv-cache-bytes", len(mem), s.BlockBytes())
	}
	kv, err := kernel.NewKV(s, mem[:blocks*s.BlockBytes()])
	if err != nil {
		return nil, fmt.Errorf("lay out the kv cache: %w", err)
	}
	return &Cache{kv: kv, mem: &memory{}}, nil
}

// Blocks returns the number of blocks.
func (c *Cache) Blocks() int { return c.kv.Blocks() }

// BlockBytes returns the bytes of one block.
func (c *Cache) BlockBytes() int { return c.kv.BlockBytes() }

// Block returns the bytes of one block, for copying between caches of one model.
// No Forward may be writing it.
func (c *Cache) Block(block int) []byte { return c.kv.Block(block) }

// Layers returns the bytes of layers from to to-1 of one block, which lie together in it.
// No Forward may be writing them.
func (c *Cache) Layers(block, from, to int) []byte {
	n := c.kv.LayerBytes()
	return c.kv.Block(block)[from*n : to*n]
}

// LayerBytes returns the bytes of one layer of one block.
func (c *Cache) LayerBytes() int { return c.kv.LayerBytes() }

// Depth returns the number of layers.
func (c *Cache) Depth() int { return c.kv.KVShape.Layers }

// Close frees the cache. Closing twice does nothing; no Forward may be running
// with it, then or later.
func (c *Cache) Close() error { return c.mem.free() }
