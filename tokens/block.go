package tokens

import (
	"encoding/binary"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// Seed is the XXH3 seed of the chain, and of local hashes in the shared root.
const Seed = 1337

// Block is the identity of one full block.
type Block = dynamo.Block

// LocalHash hashes the ids of one block: XXH3-64 with seed Seed+root over the ids
// as little-endian 32-bit words.
func LocalHash(root dynamo.CacheRoot, block []dynamo.TokenID) dynamo.LocalHash {
	seed := Seed + uint64(root)
	if littleEndian {
		return dynamo.LocalHash(xxh3.HashSeed(view(block), seed))
	}
	return localHashPortable(seed, block)
}

// BlockHash chains a block to the one before it: XXH3-64 with seed Seed over both
// hashes, little-endian. The first block of a sequence has no predecessor; its
// hash is its local hash, as FirstHash gives it.
func BlockHash(parent dynamo.BlockHash, local dynamo.LocalHash) dynamo.BlockHash {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(parent))
	binary.LittleEndian.PutUint64(b[8:], uint64(local))
	return dynamo.BlockHash(xxh3.HashSeed(b[:], Seed))
}

// FirstHash is the chained hash of a sequence's first block.
func FirstHash(local dynamo.LocalHash) dynamo.BlockHash { return dynamo.BlockHash(local) }

// AppendBlocks appends the identities of the full blocks of ids to dst; a partial
// block at the end has none. blockSize must be positive.
func AppendBlocks(dst []Block, root dynamo.CacheRoot, blockSize int, ids []dynamo.TokenID) []Block {
	return appendFrom(dst, len(dst), root, blockSize, ids)
}

// appendFrom hashes the full blocks of ids behind the blocks dst[first:], which
// are the sequence so far.
func appendFrom(dst []Block, first int, root dynamo.CacheRoot, blockSize int, ids []dynamo.TokenID) []Block {
	for ; len(ids) >= blockSize; ids = ids[blockSize:] {
		local := LocalHash(root, ids[:blockSize])
		hash := FirstHash(local)
		if len(dst) > first {
			hash = BlockHash(dst[len(dst)-1].Hash, local)
		}
		dst = append(dst, Block{Local: local, Hash: hash})
	}
	return dst
}

// littleEndian says whether ids in memory are already the bytes that are hashed.
var littleEndian = func() bool {
	word := uint16(1)
	return *(*byte)(unsafe.Pointer(&word)) == 1
}()

// view returns the memory of ids as bytes.
func view(ids []dynamo.TokenID) []byte {
	if len(ids) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ids))), len(ids)*4)
}

// appendLE appends ids as little-endian 32-bit words.
func appendLE(dst []byte, ids []dynamo.TokenID) []byte {
	for _, id := range ids {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(id))
	}
	return dst
}

// localHashPortable is LocalHash for machines with the other byte order.
func localHashPortable(seed uint64, block []dynamo.TokenID) dynamo.LocalHash {
	return dynamo.LocalHash(xxh3.HashSeed(appendLE(nil, block), seed))
}

// AppendHashes appends the chained hashes of the full blocks of ids to dst, those
// that AppendBlocks has.
func AppendHashes(dst []dynamo.BlockHash, root dynamo.CacheRoot, blockSize int, ids []dynamo.TokenID) []dynamo.BlockHash {
	for first := true; len(ids) >= blockSize; ids = ids[blockSize:] {
		hash := FirstHash(LocalHash(root, ids[:blockSize]))
		if !first {
			hash = BlockHash(dst[len(dst)-1], dynamo.LocalHash(hash))
		}
		dst, first = append(dst, hash), false
	}
	return dst
}
