//go:build !purego

package placement

import "golang.org/x/sys/cpu"

// lanes is how many prices a block holds.
const lanes = 8

// block is prices in columns.
type block struct {
	since                                                                                        [lanes]int64
	head, first, token, pair, beside, places, idle, behind, delayed, evict, answer, length, room [lanes]float32
}

// set puts a price into a block.
func (b *block) set(k int, p *price) {
	b.since[k], b.head[k], b.first[k], b.token[k], b.pair[k], b.beside[k], b.places[k] = p.since, p.head, p.first, p.token, p.pair, p.beside, p.places
	b.idle[k], b.behind[k], b.delayed[k], b.evict[k], b.answer[k], b.length[k], b.room[k] = p.idle, p.behind, p.delayed, p.evict, p.answer, p.length, p.room
}

// hasCostBlocks says that this CPU and operating system can run costBlocks.
var hasCostBlocks = cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ

// costBlocks does what price.of does for n blocks, to the bit. The features tokens and
// pairs are each candidate's own.
//
//go:noescape
func costBlocks(costs *float32, blocks *block, n int, tokens, pairs *float32, f *features, now int64)
