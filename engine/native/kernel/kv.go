package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// KVBlock is the number of positions in a block of the KV cache.
const KVBlock = lanes

// KVType is the type keys and values are stored as.
type KVType uint8

// The types.
const (
	KVF16 KVType = iota // binary16, with the 8-bit class
	KVF32               // float32, full precision
)

// Bytes returns the size of one value.
func (t KVType) Bytes() int {
	if t == KVF32 {
		return 4
	}
	return 2
}

// String returns the type's name.
func (t KVType) String() string {
	if t == KVF32 {
		return "f32"
	}
	return "f16"
}

// KVShape is the shape of a KV cache.
type KVShape struct {
	Type KVType
	// Layers and Heads count the layers and the kv heads of each.
	Layers, Heads int
	// HeadDim is the number of values of a head, a multiple of 16.
	HeadDim int
}

// HeadBytes returns the bytes of one head in one layer of one block.
func (s KVShape) HeadBytes() int { return 2 * KVBlock * s.HeadDim * s.Type.Bytes() }

// LayerBytes returns the bytes of one layer of one block.
func (s KVShape) LayerBytes() int { return s.Heads * s.HeadBytes() }

// BlockBytes returns the bytes of one block over all layers.
func (s KVShape) BlockBytes() int { return s.Layers * s.LayerBytes() }

// KV is a paged KV cache over storage the caller owns.
//
// A block of 16 positions is one contiguous region, so that it is copied with
// one copy: layer after layer, kv head after kv head, and for each the keys as
// [HeadDim][16 positions] and the values as [16 positions][HeadDim], both
// little-endian in the stored type.
type KV struct {
	KVShape
	blocks int
	data   []byte
}

// NewKV lays a cache over data, which is 64-byte aligned, holds as many whole
// blocks as fit, and needs no initialisation: unwritten positions are never
// read. It fails when the shape is impossible.
func NewKV(s KVShape, data []byte) (*KV, error) {
	if s.Layers <= 0 || s.Heads <= 0 || s.HeadDim <= 0 || s.HeadDim%lanes != 0 || s.Type > KVF32 {
		return nil, fmt.Errorf("kv cache shape %d layers × %d heads × %d values is not possible: head size must be a multiple of %d",
			s.Layers, s.Heads, s.HeadDim, lanes)
	}
	if len(data) > 0 && uintptr(unsafe.Pointer(&data[0]))&63 != 0 {
		return nil, fmt.Errorf("kv cache storage is not 64-byte aligned")
	}
	return &KV{KVShape: s, blocks: len(data) / s.BlockBytes(), data: data}, nil
}

// Blocks returns the number of blocks.
func (c *KV) Blocks() int { return c.blocks }

// Block returns the bytes of one block, over all layers.
func (c *KV) Block(block int) []byte {
	n := c.BlockBytes()
	return c.data[block*n : (block+1)*n : (block+1)*n]
}

// LayerBlock returns the bytes of one layer of one block.
func (c *KV) LayerBlock(layer, block int) []byte {
	n := c.LayerBytes()
	at := c.offset(layer, block, 0)
	return c.data[at : at+n : at+n]
}

// offset returns where a head's keys begin; its values follow after half of
// HeadBytes.
func (c *KV) offset(layer, block, head int) int {
	return block*c.BlockBytes() + layer*c.LayerBytes() + head*c.HeadBytes()
}

// Place names one position of one kv head in a KV cache.
type Place struct {
	// Layer and Head choose the head, Block the physical block and Slot the
	// position within it, 0…15.
	Layer, Head, Block, Slot int
}

// StoreKV writes one position's key and value, HeadDim values each, converted
// to the stored type (rounding to nearest even). Different places may be
// written concurrently.
func (k *Kernels) StoreKV(c *KV, p Place, key, value []float32) {
	if uint(p.Layer) >= uint(c.Layers) || uint(p.Head) >= uint(c.Heads) || uint(p.Block) >= uint(c.blocks) || uint(p.Slot) >= KVBlock {
		panic(fmt.Sprintf("BUG: kv place %+v is outside the cache", p))
	}
	key, value = key[:c.HeadDim], value[:c.HeadDim]
	at := c.offset(p.Layer, p.Block, p.Head)
	half := c.HeadBytes() / 2
	keys, values := c.data[at:at+half], c.data[at+half:at+2*half]
	if k.storeKVFast(c, keys, values, p.Slot, key, value) {
		return
	}
	if c.Type == KVF32 {
		values = values[p.Slot*c.HeadDim*4:]
		for d, v := range key {
			binary.LittleEndian.PutUint32(keys[(d*KVBlock+p.Slot)*4:], math.Float32bits(v))
			binary.LittleEndian.PutUint32(values[d*4:], math.Float32bits(value[d]))
		}
		return
	}
	values = values[p.Slot*c.HeadDim*2:]
	for d, v := range key {
		binary.LittleEndian.PutUint16(keys[(d*KVBlock+p.Slot)*2:], floatToHalf(v))
		binary.LittleEndian.PutUint16(values[d*2:], floatToHalf(value[d]))
	}
}

// widen reads values i… of a head's keys or values, which begin at offset, as
// float32.
func (c *KV) widen(dst []float32, offset, i int) {
	if c.Type == KVF32 {
		from := c.data[offset+4*i:][:4*len(dst)]
		for j := range dst {
			dst[j] = math.Float32frombits(binary.LittleEndian.Uint32(from[4*j:]))
		}
		return
	}
	from := c.data[offset+2*i:][:2*len(dst)]
	for j := range dst {
		dst[j] = halfToFloat(binary.LittleEndian.Uint16(from[2*j:]))
	}
}
