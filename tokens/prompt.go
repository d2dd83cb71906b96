package tokens

import (
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Share returns a copy of r whose prompt is hashed once, whoever below asks for its
// blocks; or r itself if it is so already.
func Share(r *dynamo.Request) *dynamo.Request {
	if r.Prefix != nil {
		return r
	}
	q := *r
	q.Prefix = new(dynamo.Prefix)
	return &q
}

// Known returns the identities of the full blocks of r's prompt if somebody has asked
// for them already, and otherwise nil. They must not be written to.
func Known(r *dynamo.Request, blockSize int) []Block {
	if r.Prefix == nil {
		return nil
	}
	b := r.Prefix.Known.Load()
	if b == nil || b.Size != blockSize || b.Tokens != len(r.Tokens) || b.Root != r.Root {
		return nil
	}
	return b.All
}

// AppendSequence appends to dst the chained hashes of the full blocks of r's sequence,
// which is its prompt and what it resumes; those of the prompt are computed once for
// all copies of a request that is shared (Share).
func AppendSequence(dst []dynamo.BlockHash, r *dynamo.Request, blockSize int) []dynamo.BlockHash {
	first := len(dst)
	if r.Prefix == nil {
		dst = AppendHashes(dst, r.Root, blockSize, r.Tokens)
	} else {
		all := Known(r, blockSize)
		if all == nil {
			all = AppendBlocks(make([]Block, 0, len(r.Tokens)/blockSize), r.Root, blockSize, r.Tokens)
			r.Prefix.Known.CompareAndSwap(nil, &dynamo.Blocks{Root: r.Root, Size: blockSize, Tokens: len(r.Tokens), All: all})
		}
		dst = slices.Grow(dst, len(all))
		for _, b := range all {
			dst = append(dst, b.Hash)
		}
	}
	if len(r.Resume) == 0 {
		return dst
	}
	rest := slices.Concat(r.Tokens[(len(dst)-first)*blockSize:], r.Resume)
	for ; len(rest) >= blockSize; rest = rest[blockSize:] {
		local := LocalHash(r.Root, rest[:blockSize])
		hash := FirstHash(local)
		if len(dst) > first {
			hash = BlockHash(dst[len(dst)-1], local)
		}
		dst = append(dst, hash)
	}
	return dst
}
