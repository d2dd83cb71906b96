package event

import (
	"encoding/binary"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// What travels under TopicKV, as the payload of an Event and as a part of a
// Snapshot (which holds stored events and notes only), integers little-endian:
//
//	offset  bytes  what
//	0       1      format, 1
//	1       1      tier
//	2       1-3    data-parallel rank, varint, at most MaxKVRank
//	        1-3    tokens in a block, varint, 1 … kvbm.MaxBlockSize
//	               events to the end, maybe none
//
// and an event:
//
//	1      flags: bits 0-1 what happened: 0 stored, 1 removed, 2 cleared, 3 nothing:
//	       a note follows; 0x04 a parent follows (stored); 0x08 with ids of the
//	       engine (stored, removed); the others are 0
//	8      hash of the block before the first one, if 0x04
//	1-5    n, varint, at least 1 (stored, removed)
//	n×16   stored: local hash and chained hash of each block, which is the
//	       successor of the one before it; with 0x08 n×24: and the engine's id
//	n×8    removed: chained hashes; with 0x08 the engine's ids instead
//
// A note is what older subscribers may pass over:
//
//	1-5    what it says, varint: 0 a digest, 1 what is expected; others are passed
//	       over
//	1-5    n, varint
//	n      a digest: 8 bytes number of blocks and 8 bytes kvindex.Digest.Sum of all
//	       that the tier of the rank holds after the events before; what else
//	       there is is passed over
//	       what is expected: n/8 chained hashes, of the first blocks of a prompt that
//	       was accepted just now
//
// What a later version of this program may say: a later format or a tier beyond those
// known makes a subscriber pass over the payload, flags that it does not know over the
// rest of it (KVBatch.Unknown). So a writer of such events gives them a payload of
// their own.
//
// The hashes cover what separates caches (adapter, tenant), so no root travels.
const (
	kvFormat = 1

	kvKind     = 0x03
	kvParent   = 0x04
	kvEngine   = 0x08
	kvReserved = 0xf0

	kvNote       = 3 // in place of a kvbm.EventKind
	noteDigest   = 0
	noteExpected = 1
	digestBytes  = 16
)

// MaxKVRank bounds a data-parallel rank.
const MaxKVRank = 1<<16 - 1

// tiers is the number of dynamo.Tier values; theirs travel.
const tiers = dynamo.TierRemote + 1

// KVBatch is what changed in one tier of one rank of a worker.
type KVBatch struct {
	Tier      dynamo.Tier
	Rank      int
	BlockSize int
	Events    []KVEvent
	// Digest is, if HasDigest, that of all that the tier of the rank holds once Events
	// have happened: who knows of another set has missed something.
	Digest    kvindex.Digest
	HasDigest bool
	// Expected are the first blocks of a sequence that the rank is about to hold: those
	// of a prompt that the worker has accepted. They may never be held, and are not in
	// Digest.
	Expected []dynamo.BlockHash
	// Unknown says that the payload held what only a later version understands, which
	// was passed over, with all that came behind it: Events may lack something. Where
	// its form as a whole is unknown, BlockSize is 0 and nothing else is set.
	Unknown bool

	// What Parse lays Events over.
	blocks []KVBlock
	hashes []dynamo.BlockHash
}

// KVEvent is one change of what the worker can match.
type KVEvent struct {
	Kind kvbm.EventKind
	// Parent is the hash before the first of Blocks, if HasParent.
	Parent    dynamo.BlockHash
	HasParent bool
	// HasEngine says that Blocks have the engine's ids, or that Hashes are such.
	HasEngine bool
	Blocks    []KVBlock          // Stored: each the successor of the one before it
	Hashes    []dynamo.BlockHash // Removed
}

// KVBlock is a stored block.
type KVBlock struct {
	tokens.Block
	// Engine is what the engine calls it, for sources that remove by that.
	Engine uint64
}

// Append appends the wire form of b to dst; it allocates only what append does.
// What the wire cannot hold is a bug of the caller.
func (b *KVBatch) Append(dst []byte) []byte {
	dst = b.appendHeader(dst)
	for i := range b.Events {
		dst = appendKVEvent(dst, &b.Events[i])
	}
	if len(b.Expected) > 0 {
		dst = append(dst, kvNote, noteExpected)
		dst = binary.AppendUvarint(dst, uint64(8*len(b.Expected)))
		for _, h := range b.Expected {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(h))
		}
	}
	if b.HasDigest {
		dst = append(dst, kvNote, noteDigest, digestBytes)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Digest.Blocks))
		dst = binary.LittleEndian.AppendUint64(dst, b.Digest.Sum)
	}
	return dst
}

func (b *KVBatch) appendHeader(dst []byte) []byte {
	if b.Tier >= tiers || b.Rank < 0 || b.Rank > MaxKVRank || b.BlockSize < 1 || b.BlockSize > kvbm.MaxBlockSize {
		panic("BUG: event: a KV batch of no possible tier, rank or block size")
	}
	dst = append(dst, kvFormat, byte(b.Tier))
	dst = binary.AppendUvarint(dst, uint64(b.Rank))
	return binary.AppendUvarint(dst, uint64(b.BlockSize))
}

func appendKVEvent(dst []byte, e *KVEvent) []byte {
	flags := byte(e.Kind)
	if e.HasParent {
		flags |= kvParent
	}
	if e.HasEngine {
		flags |= kvEngine
	}
	dst = append(dst, flags)
	switch e.Kind {
	case kvbm.Stored:
		if e.HasParent {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(e.Parent))
		}
		dst = binary.AppendUvarint(dst, uint64(len(e.Blocks)))
		for _, b := range e.Blocks {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Local))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.Hash))
			if e.HasEngine {
				dst = binary.LittleEndian.AppendUint64(dst, b.Engine)
			}
		}
	case kvbm.Removed:
		dst = binary.AppendUvarint(dst, uint64(len(e.Hashes)))
		for _, h := range e.Hashes {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(h))
		}
	}
	return dst
}

// Parse replaces b by what p says, in memory that b has already where it
// suffices. A malformed payload is KindCorrupt and leaves b empty; one of a later
// version is not malformed, see Unknown.
func (b *KVBatch) Parse(p []byte) error {
	*b = KVBatch{Events: b.Events[:0], Expected: b.Expected[:0], blocks: b.blocks[:0], hashes: b.hashes[:0]}
	if err := b.parse(p); err != nil {
		*b = KVBatch{Events: b.Events[:0], Expected: b.Expected[:0], blocks: b.blocks[:0], hashes: b.hashes[:0]}
		return err
	}
	block, hash := 0, 0
	for i := range b.Events { // now that the buffers do not move any more
		e := &b.Events[i]
		e.Blocks, block = b.blocks[block:block+len(e.Blocks):block+len(e.Blocks)], block+len(e.Blocks)
		e.Hashes, hash = b.hashes[hash:hash+len(e.Hashes):hash+len(e.Hashes)], hash+len(e.Hashes)
	}
	return nil
}

func (b *KVBatch) parse(p []byte) error {
	if len(p) < 4 || p[0] < kvFormat {
		return corrupt("KV events are cut short, or of no format")
	}
	if p[0] > kvFormat || dynamo.Tier(p[1]) >= tiers {
		b.Unknown = true
		return nil
	}
	b.Tier = dynamo.Tier(p[1])
	p = p[2:]
	rank, n := binary.Uvarint(p)
	if n <= 0 || rank > MaxKVRank {
		return corrupt("KV events hold no valid rank")
	}
	p = p[n:]
	size, n := binary.Uvarint(p)
	if n <= 0 || size < 1 || size > kvbm.MaxBlockSize {
		return corrupt("KV events hold no valid block size")
	}
	b.Rank, b.BlockSize, p = int(rank), int(size), p[n:]
	for len(p) > 0 && !b.Unknown {
		var err error
		if p, err = b.parseEvent(p); err != nil {
			return err
		}
	}
	return nil
}

// parseNote takes in the note that p begins with, behind its flags.
func (b *KVBatch) parseNote(p []byte) (rest []byte, err error) {
	what, n := binary.Uvarint(p)
	if n <= 0 {
		return nil, corrupt("KV events hold a note that is cut short")
	}
	p = p[n:]
	size, n := binary.Uvarint(p)
	if n <= 0 || size > uint64(len(p)-n) {
		return nil, corrupt("KV events hold a note that is cut short")
	}
	body, rest := p[n:n+int(size)], p[n+int(size):]
	switch what {
	case noteDigest:
	case noteExpected:
		if len(body)%8 != 0 {
			return nil, corrupt("KV events hold half a hash of what is expected")
		}
		for ; len(body) > 0; body = body[8:] {
			b.Expected = append(b.Expected, dynamo.BlockHash(binary.LittleEndian.Uint64(body)))
		}
		return rest, nil
	default:
		return rest, nil
	}
	if len(body) < digestBytes {
		return nil, corrupt("KV events hold a digest that is cut short")
	}
	b.Digest = kvindex.Digest{Blocks: int64(binary.LittleEndian.Uint64(body)), Sum: binary.LittleEndian.Uint64(body[8:])}
	b.HasDigest = true
	return rest, nil
}

// parseEvent appends the event that p begins with. Its Blocks and Hashes have the
// right length only; Parse points them to the right place.
func (b *KVBatch) parseEvent(p []byte) (rest []byte, err error) {
	flags := p[0]
	e := KVEvent{Kind: kvbm.EventKind(flags & kvKind), HasParent: flags&kvParent != 0, HasEngine: flags&kvEngine != 0}
	p = p[1:]
	if flags == kvNote {
		return b.parseNote(p)
	}
	if flags&kvReserved != 0 || e.Kind > kvbm.Cleared || e.HasParent && e.Kind != kvbm.Stored || e.HasEngine && e.Kind == kvbm.Cleared {
		b.Unknown = true
		return nil, nil
	}
	if e.Kind == kvbm.Cleared {
		b.Events = append(b.Events, e)
		return p, nil
	}
	if e.HasParent {
		if len(p) < 8 {
			return nil, corrupt("KV events are cut short")
		}
		e.Parent, p = dynamo.BlockHash(binary.LittleEndian.Uint64(p)), p[8:]
	}
	each := 8
	switch {
	case e.Kind == kvbm.Stored && e.HasEngine:
		each = 24
	case e.Kind == kvbm.Stored:
		each = 16
	}
	count, n := binary.Uvarint(p)
	if n <= 0 || count < 1 || count > uint64(len(p)-n)/uint64(each) {
		return nil, corrupt("KV events hold no valid count, or are cut short")
	}
	p = p[n:]
	for i := 0; i < int(count); i++ {
		if e.Kind == kvbm.Removed {
			b.hashes = append(b.hashes, dynamo.BlockHash(binary.LittleEndian.Uint64(p)))
		} else {
			block := KVBlock{Block: tokens.Block{
				Local: dynamo.LocalHash(binary.LittleEndian.Uint64(p)),
				Hash:  dynamo.BlockHash(binary.LittleEndian.Uint64(p[8:])),
			}}
			if e.HasEngine {
				block.Engine = binary.LittleEndian.Uint64(p[16:])
			}
			b.blocks = append(b.blocks, block)
		}
		p = p[each:]
	}
	if e.Kind == kvbm.Removed {
		e.Hashes = b.hashes[len(b.hashes)-int(count):]
	} else {
		e.Blocks = b.blocks[len(b.blocks)-int(count):]
	}
	b.Events = append(b.Events, e)
	return p, nil
}
