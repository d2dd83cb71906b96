package tier

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// A frame, little-endian:
//
//	 0  magic "dynKVblk"
//	 8  version u32, 1
//	12  body offset u32, a multiple of 4096: where the block's bytes begin
//	16  body length u32
//	20  depth u32: blocks before it in its sequence
//	24  content key, 16 bytes
//	40  content key of the block before it, 16 bytes, zero for the first
//	56  block hash u64
//	64  generation u64: numbers the times a block left an engine
//	72  XXH3-64 of the block's bytes, seeded with the first 8 bytes of the content key
//	80  number of ids u32
//	84  model revision, adapter, layout, dtype, shard, salt: each a length u16 and bytes
//	    ids, u32 each
//	    seal: HMAC-SHA-256 over all before it, truncated to 16 bytes
//	    zeros up to the body offset; the body; zeros up to a multiple of 4096
//
// The key of the seal is HMAC-SHA-256(cluster key, sealLabel).
const (
	frameMagic   = "dynKVblk"
	frameVersion = 1
	frameFixed   = 84
	sealBytes    = 16
	sealLabel    = "dynamo kv frame seal 1"
	frameAlign   = 4096
)

// Header is what a frame says of its block.
type Header struct {
	Key, Parent dynamo.ContentKey
	Depth       int
	Hash        dynamo.BlockHash
	Generation  uint64
	// Content has the salt under which the block was computed.
	Content tokens.Content
	Tokens  []dynamo.TokenID
	// BodyBytes is the length of the block's bytes, Sum their checksum.
	BodyBytes int
	Sum       uint64
}

// Geometry is what all blocks of a Mover have in common.
type Geometry struct {
	// BlockTokens and BlockBytes are the tokens of a block and the bytes of its KV.
	BlockTokens, BlockBytes int
	// Content says what the bytes depend on. Its Adapter and Salt are empty: each
	// Sequence has its own.
	Content tokens.Content
}

// bodyOffset is where bodies begin.
func (g *Geometry) bodyOffset() int {
	return align(frameFixed + maxContentBytes + 4*g.BlockTokens + sealBytes)
}

// FrameBytes is the size of a frame: what a block takes in every tier.
func (g *Geometry) FrameBytes() int { return align(g.bodyOffset() + g.BlockBytes) }

// align rounds up to a multiple of frameAlign.
func align(n int) int { return (n + frameAlign - 1) / frameAlign * frameAlign }

// sealer writes and checks frames. It is not safe for concurrent use.
type sealer struct {
	geometry *Geometry
	mac      hash.Hash
	sum      []byte
	ids      []dynamo.TokenID
}

// newSealer returns a sealer under a cluster key.
func newSealer(clusterKey []byte, g *Geometry) *sealer {
	mac := hmac.New(sha256.New, clusterKey)
	mac.Write([]byte(sealLabel))
	return &sealer{geometry: g, mac: hmac.New(sha256.New, mac.Sum(nil))}
}

// seal writes the frame of a block: its header, and its bytes from body.
func (s *sealer) seal(frame []byte, h *Header, body []byte) {
	off := s.geometry.bodyOffset()
	h.BodyBytes, h.Sum = len(body), copySum(frame[off:], body, h.Key)
	end := s.header(frame[:off], h)
	clear(frame[end:off])
	clear(frame[off+len(body):])
}

// header writes a header and its seal, and returns where they end.
func (s *sealer) header(b []byte, h *Header) int {
	le := binary.LittleEndian
	copy(b, frameMagic)
	le.PutUint32(b[8:], frameVersion)
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint32(b[16:], uint32(h.BodyBytes))
	le.PutUint32(b[20:], uint32(h.Depth))
	copy(b[24:], h.Key[:])
	copy(b[40:], h.Parent[:])
	le.PutUint64(b[56:], uint64(h.Hash))
	le.PutUint64(b[64:], h.Generation)
	le.PutUint64(b[72:], h.Sum)
	le.PutUint32(b[80:], uint32(len(h.Tokens)))
	at := frameFixed
	for _, part := range h.parts() {
		le.PutUint16(b[at:], uint16(len(part)))
		at += 2 + copy(b[at+2:], part)
	}
	for _, id := range h.Tokens {
		le.PutUint32(b[at:], uint32(id))
		at += 4
	}
	s.mac.Reset()
	s.mac.Write(b[:at])
	s.sum = s.mac.Sum(s.sum[:0])
	return at + copy(b[at:], s.sum[:sealBytes])
}

// parts are the words of the content, in the order in which they are written.
func (h *Header) parts() [6]string {
	c := &h.Content
	return [...]string{c.Revision, c.Adapter, c.Layout, c.DType, c.Shard, c.Salt}
}

// contentFits reports whether the words of a content have room in a header.
func contentFits(c *tokens.Content) bool {
	h, n := Header{Content: *c}, 0
	for _, part := range h.parts() {
		n += 2 + len(part)
	}
	return n <= maxContentBytes
}

// open reads and checks a header, and returns it with the block's bytes, whose
// checksum remains to be compared. The Tokens are valid until the next call.
func (s *sealer) open(frame []byte) (h Header, body []byte, err error) {
	le := binary.LittleEndian
	off := s.geometry.bodyOffset()
	switch {
	case len(frame) != s.geometry.FrameBytes():
		return h, nil, corrupt("the frame has %d bytes, not %d", len(frame), s.geometry.FrameBytes())
	case string(frame[:8]) != frameMagic:
		return h, nil, corrupt("it does not begin as a frame")
	case le.Uint32(frame[8:]) != frameVersion:
		return h, nil, corrupt("it has version %d, not %d", le.Uint32(frame[8:]), frameVersion)
	case int(le.Uint32(frame[12:])) != off || int(le.Uint32(frame[16:])) != s.geometry.BlockBytes:
		return h, nil, corrupt("it has %d bytes at %d; blocks of this model have %d at %d", le.Uint32(frame[16:]), le.Uint32(frame[12:]), s.geometry.BlockBytes, off)
	case int(le.Uint32(frame[80:])) != s.geometry.BlockTokens:
		return h, nil, corrupt("it has %d ids, not %d", le.Uint32(frame[80:]), s.geometry.BlockTokens)
	}
	at := frameFixed
	var parts [6][]byte
	for i := range parts {
		n := 0
		if at+2 <= off {
			n = int(le.Uint16(frame[at:]))
		}
		if at += 2; at+n > off {
			return h, nil, corrupt("its header is longer than it can be")
		}
		parts[i], at = frame[at:at+n], at+n
	}
	if at+4*s.geometry.BlockTokens+sealBytes > off {
		return h, nil, corrupt("its header is longer than it can be")
	}
	ids := frame[at : at+4*s.geometry.BlockTokens]
	at += len(ids)
	s.mac.Reset()
	s.mac.Write(frame[:at])
	s.sum = s.mac.Sum(s.sum[:0])
	if !bytes.Equal(s.sum[:sealBytes], frame[at:at+sealBytes]) {
		return h, nil, corrupt("the seal of its header is broken")
	}
	if !empty(frame[at+sealBytes:off]) || !empty(frame[off+s.geometry.BlockBytes:]) {
		return h, nil, corrupt("there is something where it should be empty")
	}
	h = Header{
		Depth: int(le.Uint32(frame[20:])), Hash: dynamo.BlockHash(le.Uint64(frame[56:])), Generation: le.Uint64(frame[64:]),
		BodyBytes: s.geometry.BlockBytes, Sum: le.Uint64(frame[72:]), Content: s.content(&parts),
	}
	copy(h.Key[:], frame[24:])
	copy(h.Parent[:], frame[40:])
	s.ids = s.ids[:0]
	for ; len(ids) > 0; ids = ids[4:] {
		s.ids = append(s.ids, dynamo.TokenID(le.Uint32(ids)))
	}
	h.Tokens = s.ids
	return h, frame[off : off+h.BodyBytes], nil
}

// empty reports whether b is all zeros. It is the room behind a header or a body, which
// is shorter than maxContentBytes and frameAlign together.
func empty(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

var zeros [maxContentBytes + frameAlign]byte

// content turns the words of a header into a content. Those that are the geometry's,
// as all are but for adapter and salt, take no memory.
func (s *sealer) content(parts *[6][]byte) tokens.Content {
	g := Header{Content: s.geometry.Content}
	var out [6]string
	for i, own := range g.parts() {
		if string(parts[i]) == own {
			out[i] = own
		} else {
			out[i] = string(parts[i])
		}
	}
	return tokens.Content{Revision: out[0], Adapter: out[1], Layout: out[2], DType: out[3], Shard: out[4], Salt: out[5]}
}

// checkBody compares the checksum of a block's bytes.
func checkBody(h *Header, body []byte) error {
	if got := xxh3.HashSeed(body, sumSeed(h.Key)); got != h.Sum {
		return corrupt("the checksum of its bytes is %016x, not %016x", got, h.Sum)
	}
	return nil
}

// sumSeed is the seed of a block's checksum.
func sumSeed(k dynamo.ContentKey) uint64 { return binary.LittleEndian.Uint64(k[:]) }

// copySum copies the bytes of a block and returns the checksum of what arrived, piece
// by piece, so that they are read while they are near.
func copySum(dst, src []byte, k dynamo.ContentKey) uint64 {
	if len(src) <= copyPiece {
		return xxh3.HashSeed(dst[:copy(dst, src)], sumSeed(k))
	}
	h := xxh3.NewSeed(sumSeed(k))
	for at := 0; at < len(src); at += copyPiece {
		piece := dst[at:][:copy(dst[at:], src[at:min(at+copyPiece, len(src))])]
		_, _ = h.Write(piece) // a hash does not fail
	}
	return h.Sum64()
}

// differs says how a header is not that of the block wanted; a generation of 0 is not
// compared.
func (h *Header) differs(want *Header) error {
	switch {
	case h.Key != want.Key:
		return corrupt("it is block %v", h.Key)
	case want.Generation != 0 && h.Generation != want.Generation:
		return corrupt("it has generation %d, not %d", h.Generation, want.Generation)
	case h.Parent != want.Parent || h.Depth != want.Depth || h.Hash != want.Hash:
		return corrupt("it stands behind %v at depth %d with hash %x, not behind %v at %d with %x", h.Parent, h.Depth, h.Hash, want.Parent, want.Depth, want.Hash)
	case h.Content != want.Content:
		return corrupt("it was computed under %+v, not %+v", h.Content, want.Content)
	}
	for i, id := range h.Tokens {
		if id != want.Tokens[i] {
			return corrupt("its id %d is %d, not %d", i, id, want.Tokens[i])
		}
	}
	return nil
}
