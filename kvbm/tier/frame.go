package tier

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/copysum"
	"github.com/dynamo-go/dynamo/tokens"
)

// A frame, little-endian:
//
//	 0  magic "dynKVblk"
//	 8  version u32: 1, or 2 if there are several groups of layers
//	12  body offset u32, a multiple of 4096: where the block's bytes begin
//	16  body length u32
//	20  depth u32: blocks before it in its sequence
//	24  content key, 16 bytes
//	40  content key of the block before it, 16 bytes, zero for the first
//	56  block hash u64
//	64  generation u64: numbers the times a block left an engine
//	72  XXH3-64 of the bytes of the first group of layers, which is all of the block in
//	    version 1, seeded with the first 8 bytes of the content key
//	80  number of ids u32
//	84  model revision, adapter, layout, dtype, shard, salt: each a length u16 and bytes
//	    ids, u32 each
//	    version 2: number of groups u32, 2 to 4; for each but the first where it begins in
//	    the block's bytes u32, and the XXH3-64 of its bytes, seeded alike
//	    seal: HMAC-SHA-256 over all before it, truncated to 16 bytes
//	    zeros up to the body offset; the body; zeros up to a multiple of 4096
//
// The key of the seal is HMAC-SHA-256(cluster key, sealLabel). It binds each group to the
// block and to its place: a group is checked by the header alone, without the others. How
// a frame is divided is read from it, so that frames of one group are read by those that
// write several.
const (
	frameMagic   = "dynKVblk"
	versionWhole = 1
	versionParts = 2
	frameFixed   = 84
	sealBytes    = 16
	sealLabel    = "dynamo kv frame seal 1"
	frameAlign   = 4096
	groupBytes   = 4 + 8
	groupsBytes  = 4 + (MaxGroups-1)*groupBytes
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
	// Groups are where the groups of layers end, Sums their checksums.
	Groups Groups
	Sums   [MaxGroups]uint64
}

// Geometry is what all blocks of a Mover have in common.
type Geometry struct {
	// BlockTokens and BlockBytes are the tokens of a block and the bytes of its KV.
	BlockTokens, BlockBytes int
	// Content says what the bytes depend on. Its Adapter and Salt are empty: each
	// Sequence has its own.
	Content tokens.Content
	// Groups are the parts of a block that an engine can begin to use before the rest is
	// there: groups of layers, in the order in which a step uses them. All zero: it needs
	// all of a block.
	Groups Groups
}

// Groups are where the groups of layers of a block end in its bytes, one after another;
// the last ends with the block. Zeros follow.
type Groups [MaxGroups]int

// count is the number of groups.
func (g Groups) count() int {
	n := 0
	for n < len(g) && g[n] > 0 {
		n++
	}
	return n
}

// begin is where group i begins, or the one behind the last would.
func (g Groups) begin(i int) int {
	if i == 0 {
		return 0
	}
	return g[i-1]
}

// whole reports whether the groups follow each other and end with n bytes.
func (g Groups) whole(n int) bool {
	count := g.count()
	for i := range count {
		if g[i] <= g.begin(i) {
			return false
		}
	}
	for _, end := range g[count:] {
		if end != 0 {
			return false
		}
	}
	return count > 0 && g[count-1] == n
}

// groups are those of all frames that are written.
func (g *Geometry) groups() Groups {
	if g.Groups == (Groups{}) {
		return Groups{g.BlockBytes}
	}
	return g.Groups
}

// part is what of a frame has groups from to to-1 in it: with the first the header, with
// the last the room behind.
func (g *Geometry) part(from, to int) (begin, end int) {
	ends, off := g.groups(), g.bodyOffset()
	begin, end = (off+ends.begin(from))/frameAlign*frameAlign, align(off+ends.begin(to))
	if from == 0 {
		begin = 0
	}
	if to == ends.count() {
		end = g.FrameBytes()
	}
	return begin, end
}

// bodyOffset is where bodies begin.
func (g *Geometry) bodyOffset() int {
	return align(frameFixed + maxContentBytes + 4*g.BlockTokens + groupsBytes + sealBytes)
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

// seal writes the frame of a block: its header, and its bytes from body. The sums are of
// what it writes, even if an engine breaks its word and changes the body meanwhile.
func (s *sealer) seal(frame []byte, h *Header, body []byte) {
	off := s.geometry.bodyOffset()
	h.Groups = s.geometry.groups()
	for i := range h.Groups.count() {
		from, to := h.Groups.begin(i), h.Groups[i]
		h.Sums[i] = copysum.Copy(frame[off+from:], body[from:to], sumSeed(h.Key))
	}
	end := s.header(frame[:off], h)
	clear(frame[end:off])
	clear(frame[off+len(body):])
}

// header writes a header and its seal, and returns where they end.
func (s *sealer) header(b []byte, h *Header) int {
	le, groups := binary.LittleEndian, h.Groups.count()
	copy(b, frameMagic)
	le.PutUint32(b[8:], versionWhole)
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint32(b[16:], uint32(h.Groups[groups-1]))
	le.PutUint32(b[20:], uint32(h.Depth))
	copy(b[24:], h.Key[:])
	copy(b[40:], h.Parent[:])
	le.PutUint64(b[56:], uint64(h.Hash))
	le.PutUint64(b[64:], h.Generation)
	le.PutUint64(b[72:], h.Sums[0])
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
	if groups > 1 {
		le.PutUint32(b[8:], versionParts)
		le.PutUint32(b[at:], uint32(groups))
		at += 4
		for i := 1; i < groups; i++ {
			le.PutUint32(b[at:], uint32(h.Groups.begin(i)))
			le.PutUint64(b[at+4:], h.Sums[i])
			at += groupBytes
		}
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

// open reads and checks a frame but for the block's bytes, which it returns with what the
// header says, and whose checksums remain to be compared. The Tokens are valid until the
// next call.
func (s *sealer) open(frame []byte) (h Header, body []byte, err error) {
	if len(frame) != s.geometry.FrameBytes() {
		return h, nil, corrupt("the frame has %d bytes, not %d", len(frame), s.geometry.FrameBytes())
	}
	off := s.geometry.bodyOffset()
	if h, err = s.read(frame[:off]); err != nil {
		return h, nil, err
	}
	return h, frame[off : off+s.geometry.BlockBytes], s.closed(frame)
}

// closed checks the room behind the block's bytes.
func (s *sealer) closed(frame []byte) error {
	if !empty(frame[s.geometry.bodyOffset()+s.geometry.BlockBytes:]) {
		return corrupt("there is something where it should be empty")
	}
	return nil
}

// read reads and checks a header, b, with the room behind it. The Tokens are valid until
// the next call.
func (s *sealer) read(b []byte) (h Header, err error) {
	le := binary.LittleEndian
	version := le.Uint32(b[8:])
	switch {
	case string(b[:8]) != frameMagic:
		return h, corrupt("it does not begin as a frame")
	case version != versionWhole && version != versionParts:
		return h, corrupt("it has version %d, not %d or %d", version, versionWhole, versionParts)
	case int(le.Uint32(b[12:])) != len(b) || int(le.Uint32(b[16:])) != s.geometry.BlockBytes:
		return h, corrupt("it has %d bytes at %d; blocks of this model have %d at %d", le.Uint32(b[16:]), le.Uint32(b[12:]), s.geometry.BlockBytes, len(b))
	case int(le.Uint32(b[80:])) != s.geometry.BlockTokens:
		return h, corrupt("it has %d ids, not %d", le.Uint32(b[80:]), s.geometry.BlockTokens)
	}
	at := frameFixed
	var parts [6][]byte
	for i := range parts {
		n := 0
		if at+2 <= len(b) {
			n = int(le.Uint16(b[at:]))
		}
		if at += 2; at+n > len(b) {
			return h, corrupt("its header is longer than it can be")
		}
		parts[i], at = b[at:at+n], at+n
	}
	if at+4*s.geometry.BlockTokens+groupsBytes+sealBytes > len(b) {
		return h, corrupt("its header is longer than it can be")
	}
	ids := b[at : at+4*s.geometry.BlockTokens]
	at += len(ids)
	h.Sums[0] = le.Uint64(b[72:])
	if at, err = s.readGroups(b, at, &h); err != nil {
		return h, err
	}
	s.mac.Reset()
	s.mac.Write(b[:at])
	s.sum = s.mac.Sum(s.sum[:0])
	if !bytes.Equal(s.sum[:sealBytes], b[at:at+sealBytes]) {
		return h, corrupt("the seal of its header is broken")
	}
	if !empty(b[at+sealBytes:]) {
		return h, corrupt("there is something where it should be empty")
	}
	h.Depth, h.Hash, h.Generation = int(le.Uint32(b[20:])), dynamo.BlockHash(le.Uint64(b[56:])), le.Uint64(b[64:])
	h.Content = s.content(&parts)
	copy(h.Key[:], b[24:])
	copy(h.Parent[:], b[40:])
	s.ids = s.ids[:0]
	for ; len(ids) > 0; ids = ids[4:] {
		s.ids = append(s.ids, dynamo.TokenID(le.Uint32(ids)))
	}
	h.Tokens = s.ids
	return h, nil
}

// readGroups reads where the groups are, and the sums of all but the first, and returns
// where that ends. There is room for it.
func (s *sealer) readGroups(b []byte, at int, h *Header) (int, error) {
	le, n := binary.LittleEndian, 1
	if le.Uint32(b[8:]) == versionParts {
		if n = int(le.Uint32(b[at:])); n < 2 || n > MaxGroups {
			return at, corrupt("it has %d groups of layers, not 2 to %d", n, MaxGroups)
		}
		at += 4
	}
	for i := 1; i < n; i++ {
		h.Groups[i-1], h.Sums[i] = int(le.Uint32(b[at:])), le.Uint64(b[at+4:])
		at += groupBytes
	}
	h.Groups[n-1] = s.geometry.BlockBytes
	if !h.Groups.whole(s.geometry.BlockBytes) {
		return at, corrupt("its groups of layers end at %v, in %d bytes", h.Groups[:n], s.geometry.BlockBytes)
	}
	return at, nil
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

// checkBody compares the checksums of a block's bytes.
func checkBody(h *Header, body []byte) error {
	for i := range h.Groups.count() {
		if err := differ(i, xxh3.HashSeed(body[h.Groups.begin(i):h.Groups[i]], sumSeed(h.Key)), h.Sums[i]); err != nil {
			return err
		}
	}
	return nil
}

// differ says that the checksum of a group is not what it should be, if it is not.
func differ(group int, got, want uint64) error {
	if got != want {
		return corrupt("the checksum of the bytes of its group of layers %d is %016x, not %016x", group, got, want)
	}
	return nil
}

// sumSeed is the seed of a block's checksums.
func sumSeed(k dynamo.ContentKey) uint64 { return binary.LittleEndian.Uint64(k[:]) }

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
