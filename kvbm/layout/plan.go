package layout

import (
	"fmt"
	"iter"
	"strings"
)

// Plan says how the block of one shard is made of blocks of the shards of another
// layout. It is not changed after it was made, and may be used by several goroutines.
type Plan struct {
	// From is the layout that it reads, of any rank; To the one that it writes.
	From, To Layout
	// Sources are the ranks of From whose blocks are needed. Where several ranks have the
	// same heads, ranks of To read different ones.
	Sources []int

	parts    []part // in the order of the sources
	runBytes int
}

// part is what comes from one source, or its keys or its values: a box of elements, as
// loops over both sides.
type part struct {
	source   int
	src, dst int        // where it begins, in the packed forms
	run      int        // bytes that lie together on both sides
	loops    [dims]loop // from the outermost to the innermost
	n        int        // of them
	element  [2]loop    // if elements lie apart: the loops by which both sides are near
	crossed  bool       // element is in use
}

// loop repeats what is within it n times; src and dst are the steps, in bytes.
type loop struct{ n, src, dst int }

// Place is where a run begins: the region, and the bytes before it in the part of the
// block in this region.
type Place struct{ Region, Offset int }

// Run is bytes that lie together on both sides.
type Run struct {
	From, To Place
	Bytes    int
}

// Between plans how the block of shard to is made of the blocks of the shards of from,
// whose own rank does not matter.
func Between(from, to Layout) (*Plan, error) {
	for _, l := range []*Layout{&from, &to} {
		if err := l.Validate(); err != nil {
			return nil, err
		}
	}
	if err := Differ(&from, &to); err != nil {
		return nil, err
	}
	p := &Plan{From: from, To: to}
	first, end := to.firstHead(), to.firstHead()+to.shardHeads()
	for h := first; h < end; {
		shard := h / from.shardHeads()
		p.From = from.At(shard*from.copies() + to.Rank%from.copies())
		n := min(end, p.From.firstHead()+from.shardHeads()) - h
		p.Sources = append(p.Sources, p.From.Rank)
		b := box{kvs: to.KV, src: h - p.From.firstHead(), dst: h - first, heads: n}
		if strings.Contains(from.Order+to.Order, ":") {
			b.kvs = 1
			p.parts = append(p.parts, p.part(b))
			b.kv = 1
		}
		p.parts = append(p.parts, p.part(b))
		h += n
	}
	p.From = from
	p.runBytes = p.parts[0].run
	for i := range p.parts {
		p.runBytes = min(p.runBytes, p.parts[i].run)
	}
	return p, nil
}

// box is what a part has of the dimensions: kvs of keys and values from number kv on, and
// so many heads, from number src of the source on to number dst of the destination on.
type box struct{ kv, kvs, src, dst, heads int }

// part makes the loops for a box.
func (p *Plan) part(b box) part {
	isKeys := b.kv == 0 && b.kvs == 1
	size, order := p.To.sizes(), p.To.packed(isKeys)
	size[heads], size[kv] = b.heads, b.kvs
	from, to := p.From.strides(isKeys), p.To.strides(isKeys)
	out := part{source: len(p.Sources) - 1, run: p.To.ElementBytes}
	out.src = b.kv*from[kv] + b.src*from[heads]
	out.dst = b.kv*to[kv] + b.dst*to[heads]
	var all []loop
	for _, d := range order {
		if size[d] > 1 {
			all = append(all, loop{size[d], from[d], to[d]})
		}
	}
	// The innermost loops are runs as long as they step from one end to the next.
	for len(all) > 0 {
		l := all[len(all)-1]
		if l.src != out.run || l.dst != out.run {
			break
		}
		out.run *= l.n
		all = all[:len(all)-1]
	}
	// Two loops are one where the outer steps as the inner would go on.
	for _, l := range all {
		if k := out.n - 1; k >= 0 && out.loops[k].src == l.n*l.src && out.loops[k].dst == l.n*l.dst {
			out.loops[k] = loop{out.loops[k].n * l.n, l.src, l.dst}
			continue
		}
		out.loops[out.n] = l
		out.n++
	}
	out.cross()
	return out
}

// cross takes the loop whose steps are the shortest at the source and the one whose are
// at the destination out of the others, if runs are so short that they are copied
// element by element: in pieces of both, few lines of memory are in use at a time.
func (t *part) cross() {
	near := -1
	for i := range t.n - 1 {
		if t.loops[i].src == t.run {
			near = i
		}
	}
	if near < 0 || t.run > 8 || t.run&(t.run-1) != 0 {
		return
	}
	t.element, t.crossed = [2]loop{t.loops[near], t.loops[t.n-1]}, true
	copy(t.loops[near:t.n-2], t.loops[near+1:t.n-1])
	t.n -= 2
}

// RunBytes is the length of the shortest run, before those that go on in another region
// are cut: what decides whether runs are worth a descriptor each.
func (p *Plan) RunBytes() int { return p.runBytes }

// Runs yields the runs from a source, which is an index of Sources. Neighbours that lie
// together on both sides are one.
func (p *Plan) Runs(source int) iter.Seq[Run] {
	from, to := p.From.RegionBytes(), p.To.RegionBytes()
	return func(yield func(Run) bool) {
		for i := range p.parts {
			t := p.parts[i].plain()
			ok := t.source != source || t.each(func(src, dst int) bool {
				for n := t.run; n > 0; {
					r := Run{From: Place{src / from, src % from}, To: Place{dst / to, dst % to}}
					r.Bytes = min(n, from-r.From.Offset, to-r.To.Offset)
					if !yield(r) {
						return false
					}
					n, src, dst = n-r.Bytes, src+r.Bytes, dst+r.Bytes
				}
				return true
			})
			if !ok {
				return
			}
		}
	}
}

// plain is a part without crossed loops.
func (t part) plain() part {
	if t.crossed {
		t.loops[t.n], t.loops[t.n+1] = t.element[0], t.element[1]
		t.n, t.crossed = t.n+2, false
	}
	return t
}

// each calls f for all steps of the loops, until it returns false.
func (t *part) each(f func(src, dst int) bool) bool {
	var at [dims]int
	src, dst := t.src, t.dst
	for {
		if !f(src, dst) {
			return false
		}
		i := t.n - 1
		for ; i >= 0; i-- {
			l := &t.loops[i]
			src, dst, at[i] = src+l.src, dst+l.dst, at[i]+1
			if at[i] < l.n {
				break
			}
			src, dst, at[i] = src-l.n*l.src, dst-l.n*l.dst, 0
		}
		if i < 0 {
			return true
		}
	}
}

// Convert makes the block of the destination, in its packed form, of those of the
// sources, in the order of Sources. All have the lengths of blocks, and none overlaps
// dst.
func (p *Plan) Convert(dst []byte, src [][]byte) {
	if len(src) != len(p.Sources) || len(dst) != p.To.BlockBytes() {
		panic(fmt.Sprintf("BUG: layout: %d blocks and %d bytes for a plan with %d sources and %d bytes", len(src), len(dst), len(p.Sources), p.To.BlockBytes()))
	}
	for i := range p.parts {
		p.parts[i].move(dst, src[p.parts[i].source])
	}
}

// move copies a part.
func (t *part) move(dst, src []byte) {
	if t.crossed {
		t.each(func(s, d int) bool { t.transpose(dst[d:], src[s:]); return true })
		return
	}
	outer, inner := *t, loop{n: 1}
	if t.n > 0 {
		outer.n--
		inner = t.loops[outer.n]
	}
	outer.each(func(s, d int) bool {
		for range inner.n {
			copy(dst[d:d+t.run], src[s:s+t.run])
			s, d = s+inner.src, d+inner.dst
		}
		return true
	})
}
