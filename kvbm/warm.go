package kvbm

import "github.com/dynamo-go/dynamo/tokens"

// warmFrom is the number of blocks from which warming pays.
const warmFrom = 4

// WarmAllocate brings what the next n Allocates will look at into the processor's
// caches, all at once instead of one after the other. It is a hint and changes nothing.
func (p *Pool) WarmAllocate(n int) {
	n -= len(p.free) + p.config.Blocks - len(p.blocks)
	if n < warmFrom {
		return
	}
	sum := uint32(0)
	for b := p.oldest; b != none && n > 0; b, n = p.blocks[b].next, n-1 {
		en := &p.entries[p.blocks[b].entry]
		sum += p.table.slots[p.table.home(tag(en.hash))].tag
	}
	p.warmed = sum // so that the reads are not left out
}

// WarmRegister does the same for blocks that are about to be registered, or looked
// for.
func (p *Pool) WarmRegister(blocks []tokens.Block) {
	if len(blocks) < warmFrom {
		return
	}
	sum := uint32(0)
	for i := range blocks {
		sum += p.table.slots[p.table.home(tag(blocks[i].Hash))].tag
	}
	p.warmed = sum
}
