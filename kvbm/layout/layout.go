// Package layout describes how the KV of a block lies in memory, and converts between
// descriptions: from one order of dimensions to another, from one number of tensor-
// parallel shards to another. The KV daemon uses it between clients whose engines differ,
// transfers between engines make descriptors of its runs. It decides; it moves nothing
// but bytes it is given, and knows no engine.
//
// # A layout
//
// The KV of a block has five dimensions, each with a letter: l, the layers; k, keys and
// values (2, or 1 where an engine keeps one latent for both, as multi-head latent
// attention does); h, the KV heads; t, the tokens; d, the elements of a head. Order has
// them from the outermost to the innermost. Letters before a slash are not in one piece
// of memory: an engine that keeps its cache by layers has a region for each layer, with
// the part of block b at b times the part's size. Letters behind a colon say how keys lie
// where they lie otherwise than values: the dimensions within k, in their order. Among the
// orders in use:
//
//	l/kthd   vLLM with FlashInfer, NHD        (num_blocks, 2, block_size, heads, dim)
//	l/khtd   the same, HND                    (num_blocks, 2, heads, block_size, dim)
//	lk/thd   vLLM with FlashAttention, NHD, earlier versions
//	                                          (2, num_blocks, block_size, heads, dim)
//	khltd    vLLM, one region for all layers, HND
//	                                          (num_blocks, 2, heads, layers, block_size, dim)
//	lhktd:dt the embedded engine: the values of a head by tokens, its keys by elements
//
// (vLLM's get_kv_cache_shape and get_kv_cache_stride_order say which of them a backend
// has; VLLM_KV_CACHE_LAYOUT chooses between NHD and HND.)
//
// # Shards
//
// Heads is the model's number. Of Ranks shards each has an equal share, in order; if
// there are more ranks than heads, each head is on as many neighbouring ranks. The NIXL
// connector of vLLM splits alike, and converts between numbers of which one divides the
// other; a Plan takes any two that Validate takes.
//
// # The packed form
//
// Where the bytes of a block are spoken of as one piece (Convert, the KV daemon), its
// parts follow one another in the order of the regions: the slash makes no difference.
// numpy's reshape of these bytes to the sizes in the order of the letters is the block.
//
// Laws:
//   - A Plan writes every byte of the destination once, and nothing else.
//   - What a Plan moves is elements of one layer, head, token and place to the same of
//     the other side; nothing is computed. Layouts that differ in anything but order,
//     regions and shards are refused.
//   - A Layout has one text, which Parse takes; it takes no other.
package layout

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Layout says how the KV of one block lies in the memory of one shard.
type Layout struct {
	// Layers, Heads (KV heads, of all shards), HeadDim and Tokens (of a block) are the
	// sizes of the dimensions. Where elements are packed, several to a byte, HeadDim
	// counts bytes and ElementBytes is 1.
	Layers, Heads, HeadDim, Tokens int
	// KV is 2, keys and values, or 1, a latent for both.
	KV int
	// DType names the type of the elements, and ElementBytes is the size of each.
	DType        string
	ElementBytes int
	// Order has the dimensions, such as "l/kthd" or "lhktd:dt".
	Order string
	// Ranks is the number of shards, Rank which this one is, from 0.
	Ranks, Rank int
}

// The dimensions, as indices.
const (
	layers = iota
	kv
	heads
	toks
	dim
	dims
)

const letters = "lkhtd"

// Validate reports all faults at once.
func (l *Layout) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, f := range [...]struct {
		name   string
		n, max int
	}{
		{"layers", l.Layers, maxLayers}, {"kv", l.KV, 2}, {"heads", l.Heads, maxHeads}, {"dim", l.HeadDim, maxHeadDim},
		{"tokens", l.Tokens, maxTokens}, {"bytes of an element", l.ElementBytes, maxElement}, {"ranks", l.Ranks, maxRanks},
	} {
		if f.n < 1 || f.n > f.max {
			fault("%s is %d; it must be 1 to %d", f.name, f.n, f.max)
		}
	}
	if !nameable(l.DType) {
		fault("dtype is %q; it must be 1 to %d letters, digits, '_', '.' or '-'", l.DType, maxDType)
	}
	if err := checkOrder(l.Order); err != nil {
		faults = append(faults, err)
	}
	if l.Rank < 0 || l.Rank >= l.Ranks {
		fault("rank %d of %d is none", l.Rank, l.Ranks)
	}
	if strings.Contains(l.Order, ":") && l.KV != 2 {
		fault("order is %q with kv=%d; keys have an order of their own only beside values", l.Order, l.KV)
	}
	if len(faults) == 0 && l.Heads%l.Ranks != 0 && l.Ranks%l.Heads != 0 {
		fault("%d heads cannot be shared by %d ranks: one number must divide the other", l.Heads, l.Ranks)
	}
	if len(faults) == 0 && l.BlockBytes() > MaxBlockBytes {
		fault("a block has %d bytes; it may have %d", l.BlockBytes(), MaxBlockBytes)
	}
	if len(faults) == 0 {
		return nil
	}
	return invalid("a layout of KV that cannot be: %v", errors.Join(faults...))
}

// nameable reports whether s may name a data type.
func nameable(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxDType
}

// checkOrder says what is wrong with an order.
func checkOrder(order string) error {
	both, keys, own := strings.Cut(order, ":")
	apart, rest, cut := strings.Cut(both, "/")
	all := apart + rest
	ok := len(all) == dims
	for _, c := range letters {
		ok = ok && strings.Count(all, string(c)) == 1
	}
	if !ok {
		return fmt.Errorf("order is %q; it must have each of the letters %q once, and at most one '/'", order, letters)
	}
	if cut && apart != "l" && apart != "k" && apart != "lk" && apart != "kl" {
		return fmt.Errorf("order is %q; regions can be of layers and of keys and values: l, k, lk or kl stand before the '/'", order)
	}
	if !own {
		return nil
	}
	_, within, _ := strings.Cut(all, "k")
	first := "" // regions of keys are in the order of those of values
	if cut {
		_, first, _ = strings.Cut(apart, "k")
	}
	ok = len(keys) == len(within) && keys != within && strings.HasPrefix(keys, first)
	for _, c := range within {
		ok = ok && strings.Count(keys, string(c)) == 1
	}
	if !ok {
		return fmt.Errorf("order is %q; behind the ':' the letters behind k (%q) stand in another order", order, within)
	}
	return nil
}

// packed is the order of values or of keys, without its slash.
func (l *Layout) packed(keys bool) (out [dims]int) {
	both, own, _ := strings.Cut(l.Order, ":")
	i := 0
	for _, c := range []byte(both) {
		if c != '/' {
			out[i] = strings.IndexByte(letters, c)
			i++
		}
	}
	if keys {
		for i, c := range []byte(own) {
			out[dims-len(own)+i] = strings.IndexByte(letters, c)
		}
	}
	return out
}

// sizes are those of the dimensions in a shard.
func (l *Layout) sizes() [dims]int {
	return [dims]int{layers: l.Layers, kv: l.KV, heads: l.shardHeads(), toks: l.Tokens, dim: l.HeadDim}
}

// strides are how far neighbours of a dimension lie apart in the packed form, in bytes,
// among values or among keys.
func (l *Layout) strides(keys bool) (out [dims]int) {
	size, order, n := l.sizes(), l.packed(keys), l.ElementBytes
	for i := dims - 1; i >= 0; i-- {
		out[order[i]] = n
		n *= size[order[i]]
	}
	return out
}

// shardHeads is the number of heads of a shard.
func (l *Layout) shardHeads() int { return max(l.Heads/l.Ranks, 1) }

// shards is the number of shards that differ: that of the ranks, or of the heads where
// ranks have the same ones.
func (l *Layout) shards() int { return min(l.Ranks, l.Heads) }

// shard is which of these the rank has.
func (l *Layout) shard() int { return l.Rank / l.copies() }

// copies is the number of ranks with the same heads.
func (l *Layout) copies() int { return l.Ranks / l.shards() }

// firstHead is the first of the heads of the shard; the others follow it.
func (l *Layout) firstHead() int { return l.shard() * l.shardHeads() }

// BlockBytes is the size of a block of a shard, in all its regions.
func (l *Layout) BlockBytes() int {
	n := l.ElementBytes
	for _, size := range l.sizes() {
		n *= size
	}
	return n
}

// Regions is the number of pieces of memory over which a block is spread.
func (l *Layout) Regions() int {
	apart, _, cut := strings.Cut(l.Order, "/")
	n, size := 1, l.sizes()
	for _, c := range []byte(apart) {
		if cut {
			n *= size[strings.IndexByte(letters, c)]
		}
	}
	return n
}

// RegionBytes is the size of the part of a block in one region.
func (l *Layout) RegionBytes() int { return l.BlockBytes() / l.Regions() }

// Packed is the layout of the packed form: its order has no slash, and ranks with the
// same heads are one. Layouts whose Packed are equal have equal blocks.
func (l Layout) Packed() Layout {
	l.Rank, l.Ranks, l.Order = l.shard(), l.shards(), strings.Replace(l.Order, "/", "", 1)
	return l
}

// At returns the layout of another rank.
func (l Layout) At(rank int) Layout {
	l.Rank = rank
	return l
}

// Differ returns an error that names both sides and all that keeps the blocks of one
// layout from being made of those of the other; nil if there is nothing.
func Differ(a, b *Layout) error {
	var diffs []string
	for _, f := range [...]struct {
		name string
		a, b any
	}{
		{"layers", a.Layers, b.Layers}, {"kv", a.KV, b.KV}, {"heads", a.Heads, b.Heads}, {"dim", a.HeadDim, b.HeadDim},
		{"tokens", a.Tokens, b.Tokens}, {"dtype", a.DType, b.DType}, {"bytes of an element", a.ElementBytes, b.ElementBytes},
	} {
		if f.a != f.b {
			diffs = append(diffs, fmt.Sprintf("%s %v and %v", f.name, f.a, f.b))
		}
	}
	if diffs == nil {
		return nil
	}
	return invalid("KV laid out as %q cannot become KV laid out as %q: they differ in %s; both sides must run one model with one KV type and block size", a, b, strings.Join(diffs, ", "))
}

// invalid is an error of who gave a layout.
func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}
