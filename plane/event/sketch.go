package event

import (
	"encoding/binary"
	"math/bits"

	"github.com/dynamo-go/dynamo"
)

// Sketch stands for a set of blocks in few bytes. What remains when one takes a set
// out of the sketch of another tells in which blocks they differ, as long as those are
// fewer than about half of its cells, however many both have. (It is known as
// an invertible Bloom lookup table.)
//
// A cell sums up a number of blocks; each block goes into one cell of each third,
// which its hash and the seed say. Cells with one block left name it, and with that
// taken out others have one left.
type Sketch struct {
	seed  uint64
	cells []sketchCell
}

// sketchCell sums up blocks.
type sketchCell struct {
	count  int32  // those that were put in less those taken out
	check  uint32 // exclusive or of each one's
	hashes uint64 // exclusive or
}

// The wire form of a cell is its fields in that order, little-endian.
const sketchCellBytes = 16

// NewSketch returns the sketch of no blocks; cells is rounded up to a multiple of 3.
func NewSketch(seed uint64, cells int) *Sketch {
	return &Sketch{seed: seed, cells: make([]sketchCell, (max(cells, 3)+2)/3*3)}
}

// places are the cells of a block, and its check.
func (s *Sketch) places(h dynamo.BlockHash) (at [3]int, check uint32) {
	third := uint64(len(s.cells) / 3)
	x := uint64(h) ^ s.seed
	for i := range at {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		p, _ := bits.Mul64(z, third)
		at[i] = i*int(third) + int(p)
		check ^= uint32(z)
	}
	return at, check
}

// Put puts a block in n times; -1 takes it out.
func (s *Sketch) Put(h dynamo.BlockHash, n int32) {
	at, check := s.places(h)
	for _, i := range at {
		c := &s.cells[i]
		c.count += n
		c.check ^= check
		c.hashes ^= uint64(h)
	}
}

// Peel takes out all that is left and yields each block with whether it was put in,
// as against taken out. It reports false when the sketch is too small to tell them
// all; what it has yielded by then is most likely right, but not all.
func (s *Sketch) Peel(yield func(h dynamo.BlockHash, in bool)) bool {
	todo := make([]int, 0, len(s.cells))
	for i := range s.cells {
		todo = append(todo, i)
	}
	for peeled := 0; len(todo) > 0 && peeled <= len(s.cells); {
		c := s.cells[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		if c.count != 1 && c.count != -1 {
			continue
		}
		h := dynamo.BlockHash(c.hashes)
		at, check := s.places(h)
		if check != c.check {
			continue
		}
		s.Put(h, -c.count)
		yield(h, c.count == 1)
		peeled++
		todo = append(todo, at[:]...)
	}
	for i := range s.cells {
		if s.cells[i] != (sketchCell{}) {
			return false
		}
	}
	return true
}

// append appends the wire form.
func (s *Sketch) append(b []byte) []byte {
	for _, c := range s.cells {
		b = binary.LittleEndian.AppendUint32(b, uint32(c.count))
		b = binary.LittleEndian.AppendUint32(b, c.check)
		b = binary.LittleEndian.AppendUint64(b, c.hashes)
	}
	return b
}

// parse reads the wire form of a sketch of the same seed and size.
func (s *Sketch) parse(b []byte) error {
	if len(b) != len(s.cells)*sketchCellBytes {
		return corrupt("a sketch of KV blocks has another size than was asked for")
	}
	for i := range s.cells {
		c := b[i*sketchCellBytes:]
		s.cells[i] = sketchCell{int32(binary.LittleEndian.Uint32(c)), binary.LittleEndian.Uint32(c[4:]), binary.LittleEndian.Uint64(c[8:])}
	}
	return nil
}
