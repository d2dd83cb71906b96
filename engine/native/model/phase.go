package model

import "github.com/dynamo-go/dynamo/engine/native/kernel"

// embedRow looks the token up, computes its rotation and normalises it for the
// first layer.
func (s *step) embedRow(i int) {
	at := s.row[i]
	q := &s.batch[at.seq]
	x := s.x[i*s.hidden:][:s.m.config.Hidden]
	s.m.embed.Row(x, int(q.Tokens[int(at.position)-q.Start]))
	half := len(s.m.frequencies)
	angles(s.cos[i*half:][:half], s.sin[i*half:][:half], s.m.frequencies, int(at.position))
	s.normalise(i, x, s.next)
}

// normalise makes row i the input of the next product.
func (s *step) normalise(i int, x, weight []float32) {
	if !s.int8 {
		s.k.RMSNorm(s.norm[i*s.hidden:][:len(x)], x, weight, s.m.config.NormEps)
		return
	}
	// tmp's row has been added to x, or holds nothing yet.
	y := s.tmp[i*s.hidden:][:len(x)]
	s.k.RMSNorm(y, x, weight, s.m.config.NormEps)
	s.k.Quantize(&s.qHidden, i, y)
}

// headsRow finishes queries, keys and values: bias, head norms, rotation; and
// stores the keys and values.
func (s *step) headsRow(i int) {
	l, c := s.layer, &s.m.config
	row := s.proj[i*s.qkv:][:s.qkv]
	q := row[:c.Heads*c.HeadDim]
	k := row[stride(l.q):][:c.KVHeads*c.HeadDim]
	v := row[stride(l.q)+stride(l.k):][:c.KVHeads*c.HeadDim]
	for _, b := range [...]struct{ x, bias []float32 }{{q, l.qBias}, {k, l.kBias}, {v, l.vBias}} {
		if b.bias != nil {
			s.k.Add(b.x, b.bias)
		}
	}
	if l.qNorm != nil {
		s.normaliseHeads(q, l.qNorm)
		s.normaliseHeads(k, l.kNorm)
	}
	half := len(s.m.frequencies)
	cos, sin := s.cos[i*half:][:half], s.sin[i*half:][:half]
	s.k.Rope(q, cos, sin, c.Heads, c.HeadDim, false)
	s.k.Rope(k, cos, sin, c.KVHeads, c.HeadDim, false)
	at := s.row[i]
	if s.dropped[at.seq] {
		return
	}
	p := kernel.Place{Layer: s.depth, Block: int(s.batch[at.seq].Blocks[at.position/BlockSize]), Slot: int(at.position % BlockSize)}
	for p.Head = range c.KVHeads {
		s.k.StoreKV(s.cache.kv, p, k[p.Head*c.HeadDim:], v[p.Head*c.HeadDim:])
	}
}

// normaliseHeads normalises each head by itself.
func (s *step) normaliseHeads(x, weight []float32) {
	for n := len(weight); len(x) >= n; x = x[n:] {
		s.k.RMSNorm(x[:n], x[:n], weight, s.m.config.NormEps)
	}
}

// attendTile computes attention for one tile.
func (s *step) attendTile(thread, unit int) {
	t, c := &s.tiles[unit], &s.m.config
	group := c.Heads / c.KVHeads
	at := int(t.head) * group * c.HeadDim
	sc := &s.scratch[thread]
	sc.attention = kernel.Attention{
		KV: s.cache.kv, Layer: s.depth, Head: int(t.head), Blocks: s.batch[t.seq].Blocks,
		First: int(t.first), Queries: int(t.queries), QHeads: group, Scale: s.scale,
		Q: s.proj[int(t.row)*s.qkv+at:], QStride: s.qkv,
		Dst: s.att[int(t.row)*s.heads+at:], DstStride: s.heads,
	}
	s.k.Attend(&sc.attention, &sc.attend)
}

// quantizeHeadsRow makes attention's result the input of the output projection.
func (s *step) quantizeHeadsRow(i int) {
	s.k.Quantize(&s.qHeads, i, s.att[i*s.heads:][:s.heads])
}

// addAttentionRow adds attention to the residual stream and normalises it for
// the feed-forward part.
func (s *step) addAttentionRow(i int) {
	x := s.residual(i)
	if s.layer.oBias != nil {
		s.k.Add(x, s.layer.oBias)
	}
	s.normalise(i, x, s.layer.ffnNorm)
}

// residual adds row i of tmp to the residual stream and returns it.
func (s *step) residual(i int) []float32 {
	n := s.m.config.Hidden
	x := s.x[i*s.hidden:][:n]
	s.k.Add(x, s.tmp[i*s.hidden:][:n])
	return x
}

// quantizeFFNRow makes the gated activation the input of the down projection.
func (s *step) quantizeFFNRow(i int) {
	s.k.Quantize(&s.qFFN, i, s.gateUp[2*i*s.ffn:][:s.m.config.FFN])
}

// addFFNRow adds the feed-forward part to the residual stream and normalises it
// for what follows: the next layer, or the head.
func (s *step) addFFNRow(i int) {
	s.normalise(i, s.residual(i), s.next)
}
