package trace

import (
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// Prompts turns hashes back into prompts: token ids that two requests share where
// they share blocks. It is safe for concurrent use.
type Prompts struct {
	// First and Count are the range of ids that are used: those of ordinary tokens of
	// the model's vocabulary. Count is at least 1; a small one makes prompts share
	// by chance.
	First dynamo.TokenID
	Count uint32
	// Seed makes the prompts of one run different from those of another, whose
	// blocks a server may still hold.
	Seed uint64
}

// Tokens returns the prompt of r, of exactly r.Input ids. The ids of a block depend
// on its hash and place within the block; those beyond the last hash on the
// request: its name, or session and turn, or time and length.
func (g *Prompts) Tokens(r Request) []dynamo.TokenID {
	return g.Append(make([]dynamo.TokenID, 0, r.Input), &r)
}

// Append appends the prompt of r to dst.
func (g *Prompts) Append(dst []dynamo.TokenID, r *Request) []dynamo.TokenID {
	if g.Count == 0 || r.BlockSize < 1 {
		panic("BUG: trace: prompts need a range of ids and a block size")
	}
	key := mix(g.Seed, saltTokens)
	left := r.Input
	for _, h := range r.Hashes {
		if left <= 0 {
			break
		}
		n := min(left, r.BlockSize)
		dst = g.fill(dst, mix(key, h), n)
		left -= n
	}
	if left > 0 {
		dst = g.fill(dst, r.own(key), left)
	}
	return dst
}

// own is a key of what only this request has.
func (r *Request) own(key uint64) uint64 {
	key = mix(key, saltTail)
	name := r.ID
	if name == "" && r.Session != "" {
		name = r.Session + "/" + strconv.Itoa(r.Turn)
	}
	for _, c := range []byte(name) {
		key = mix(key, uint64(c))
	}
	if name == "" {
		key = mix(mix(key, uint64(r.At)), uint64(r.Input)<<32|uint64(r.Output))
	}
	if n := len(r.Hashes); n > 0 {
		key = mix(key, r.Hashes[n-1])
	}
	return key
}

// fill appends n ids.
func (g *Prompts) fill(dst []dynamo.TokenID, key uint64, n int) []dynamo.TokenID {
	for i := uint64(0); n > 0; i++ {
		word := mix(key, i) // two ids
		dst = append(dst, g.First+dynamo.TokenID(uint64(uint32(word))*uint64(g.Count)>>32))
		if n--; n > 0 {
			dst = append(dst, g.First+dynamo.TokenID((word>>32)*uint64(g.Count)>>32))
			n--
		}
	}
	return dst
}
