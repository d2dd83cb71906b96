package index

import (
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

const golden = 0x9E3779B97F4A7C15

// Mix is the first output of splitmix64 seeded with x.
func Mix(x uint64) uint64 {
	z := x + golden
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// random is splitmix64.
type random uint64

func (r *random) next() uint64 {
	v := Mix(uint64(*r))
	*r += golden
	return v
}

func (r *random) below(n uint64) uint64 { return r.next() % n }

const (
	groups = 100
	prefix = 32 // blocks that the sequences of a group share
	minLen = 64
	maxLen = 512
)

// Params are the parameters of a workload.
type Params struct {
	Workers  int
	Chunk    int // most blocks of an event
	Replicas int // workers that store each sequence
	Blocks   int // to be held in all, times holders
	Seed     uint64
}

// sequence is a chain that is stored.
type sequence struct {
	id, group uint64
	worker    int
	len       int
}

// local is the hash of a block's tokens.
func (s sequence) local(i int) dynamo.LocalHash {
	if i < prefix {
		return dynamo.LocalHash(Mix(1<<56 | s.group<<16 | uint64(i)))
	}
	return dynamo.LocalHash(Mix(2<<56 | s.id<<16 | uint64(i)))
}

// appendBlocks appends the whole chain.
func (s sequence) appendBlocks(dst []tokens.Block) []tokens.Block {
	var h dynamo.BlockHash
	for i := range s.len {
		l := s.local(i)
		if h = tokens.BlockHash(h, l); i == 0 {
			h = tokens.FirstHash(l)
		}
		dst = append(dst, tokens.Block{Local: l, Hash: h})
	}
	return dst
}

// stored is an event that says what a worker holds.
type stored struct {
	worker    int
	parent    dynamo.BlockHash
	hasParent bool
	blocks    []tokens.Block
}

// generator makes sequences and their events one after the other.
type generator struct {
	p        Params
	rng      random
	held     []bool // by worker and group: it has the shared beginning
	next     uint64
	blocks   int
	checksum uint64
}

func newGenerator(p Params) *generator {
	return &generator{p: p, rng: random(p.Seed), held: make([]bool, p.Workers*groups)}
}

// sequence makes the next one and appends its events; it reports false at the end.
func (g *generator) sequence(events []stored) (sequence, []stored, bool) {
	if g.blocks >= g.p.Blocks {
		return sequence{}, events, false
	}
	worker := int(g.rng.below(uint64(g.p.Workers)))
	group := g.rng.below(groups)
	s := sequence{id: g.next, group: group, worker: worker, len: int(minLen + g.rng.below(maxLen-minLen+1))}
	g.next++
	chain := s.appendBlocks(make([]tokens.Block, 0, s.len))
	for r := range g.p.Replicas {
		w := (worker + r) % g.p.Workers
		at := 0
		if h := &g.held[w*groups+int(group)]; *h {
			at = prefix
		} else {
			*h = true
		}
		for at < s.len {
			e := stored{worker: w, blocks: chain[at:min(at+g.p.Chunk, s.len)]}
			if at > 0 {
				e.parent, e.hasParent = chain[at-1].Hash, true
			}
			for _, b := range e.blocks {
				g.checksum = Mix(g.checksum ^ uint64(b.Hash) ^ uint64(w))
			}
			events = append(events, e)
			at += len(e.blocks)
			g.blocks += len(e.blocks)
		}
	}
	return s, events, true
}

// workload is all of it, made beforehand.
type workload struct {
	Params
	sequences []sequence
	events    []stored
	held      int
	checksum  uint64
}

func generate(p Params) *workload {
	g := newGenerator(p)
	w := &workload{Params: p}
	for {
		s, events, ok := g.sequence(w.events)
		w.events = events
		if !ok {
			break
		}
		w.sequences = append(w.sequences, s)
	}
	w.held, w.checksum = g.blocks, g.checksum
	return w
}

// queries makes queries of n blocks, half of them of a sequence that is stored.
func queries(sequences []sequence, n, count int, seed uint64) [][]dynamo.LocalHash {
	rng := random(seed + 1)
	long := slices.ContainsFunc(sequences, func(s sequence) bool { return s.len >= n/2 })
	out := make([][]dynamo.LocalHash, 0, count)
	for k := uint64(0); len(out) < count; {
		s := sequences[rng.below(uint64(len(sequences)))]
		if long && s.len < n/2 {
			continue
		}
		q := make([]dynamo.LocalHash, n)
		for i := range q {
			if i < n/2 {
				q[i] = s.local(i)
			} else {
				q[i] = dynamo.LocalHash(Mix(3<<56 | k<<16 | uint64(i)))
			}
		}
		k++
		out = append(out, q)
	}
	return out
}

// chain appends the chained hashes of local ones.
func chain(dst []dynamo.BlockHash, locals []dynamo.LocalHash) []dynamo.BlockHash {
	h := tokens.FirstHash(locals[0])
	dst = append(dst, h)
	for _, l := range locals[1:] {
		h = tokens.BlockHash(h, l)
		dst = append(dst, h)
	}
	return dst
}

// removed is an event that says what a worker holds no longer.
type removed struct {
	worker int
	hashes []dynamo.BlockHash
}

// removals takes what is not shared of sequences, last block first, in events of so
// many. It returns their number of blocks too.
func removals(sequences []sequence, p Params, chunk int) (events []removed, n int) {
	var blocks []tokens.Block
	for _, s := range sequences {
		blocks = s.appendBlocks(blocks[:0])
		var tail []dynamo.BlockHash
		for i := s.len - 1; i >= prefix; i-- {
			tail = append(tail, blocks[i].Hash)
		}
		for r := range p.Replicas {
			w := (s.worker + r) % p.Workers
			for at := 0; at < len(tail); at += chunk {
				e := removed{worker: w, hashes: tail[at:min(at+chunk, len(tail))]}
				events = append(events, e)
				n += len(e.hashes)
			}
		}
	}
	return events, n
}
