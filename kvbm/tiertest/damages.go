package tiertest

import (
	"bytes"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// victim is a frame that is damaged, and what it may be mixed with.
type victim struct {
	n           int    // of its block
	own         []byte // as it should be
	body, bytes int    // where the block's bytes are
	groups      tier.Groups
	earlier     []byte // the same block of an older generation
	torn        []byte // the same block of an older generation, with other bytes
	other       []byte // another block
}

// damage is a way in which frames are damaged.
type damage struct {
	name string
	make func(r *rig, v *victim) []byte
	cut  int // leaves so many quarters, or nearly, instead of make
	// harmless says that in such a tier it is none.
	harmless func(at dynamo.Tier) bool
}

// damages are all ways.
func damages() []damage {
	all := []damage{
		{name: "cut to a quarter", cut: 1}, {name: "cut to a half", cut: 2}, {name: "cut before its end", cut: 3},
		flip("the fixed header", func(v *victim) (int, int) { return 0, 84 }),
		flip("the names, ids and seal", func(v *victim) (int, int) { return 84, 180 }),
		flip("the room behind the header", func(v *victim) (int, int) { return 300, v.body }),
		flip("the block's bytes", func(v *victim) (int, int) { return v.body, v.body + v.bytes }),
		flip("the first group of layers", func(v *victim) (int, int) { return v.body, v.body + v.groups[0] }),
		flip("the second group of layers", func(v *victim) (int, int) { return v.body + v.groups[0], v.body + v.groups[1] }),
		flip("the third group of layers", func(v *victim) (int, int) { return v.body + v.groups[1], v.body + v.groups[2] }),
		flip("the last group of layers", func(v *victim) (int, int) { return v.body + v.groups[2], v.body + v.groups[3] }),
		flip("the last byte of the block", func(v *victim) (int, int) { return v.body + v.bytes - 1, v.body + v.bytes }),
		flip("the room behind the block", func(v *victim) (int, int) { return v.body + v.bytes, len(v.own) }),
		{name: "another block", make: func(_ *rig, v *victim) []byte { return v.other }},
		{name: "another block's bytes", make: func(_ *rig, v *victim) []byte { return mix(v.other, v.own, 0, v.body) }},
		{name: "another block's header", make: func(_ *rig, v *victim) []byte { return mix(v.own, v.other, 0, v.body) }},
		{name: "an older generation", make: func(_ *rig, v *victim) []byte { return v.earlier },
			// One that is shared may have been put by anybody: the same key is the same block.
			harmless: func(at dynamo.Tier) bool { return at == dynamo.TierRemote }},
		{name: "torn: the first half", make: func(_ *rig, v *victim) []byte { return mix(v.torn, v.own, 0, len(v.own)/2) }},
		{name: "torn: the last half", make: func(_ *rig, v *victim) []byte { return mix(v.own, v.torn, 0, len(v.own)/2) }},
		{name: "torn: the header alone", make: func(_ *rig, v *victim) []byte { return mix(v.torn, v.own, 0, v.body) }},
		{name: "torn: all but the header", make: func(_ *rig, v *victim) []byte { return mix(v.own, v.torn, 0, v.body) }},
		{name: "torn: a sector", make: func(_ *rig, v *victim) []byte { return mix(v.own, v.torn, v.body+v.n*512, v.body+v.n*512+512) }},
		{name: "torn: every second sector", make: func(_ *rig, v *victim) []byte {
			b := v.own
			for at := 0; at < len(b); at += 1024 {
				b = mix(b, v.torn, at, at+512)
			}
			return b
		}},
		{name: "a sector of zeros", make: func(_ *rig, v *victim) []byte { return mix(v.own, make([]byte, len(v.own)), v.body+512, v.body+1024) }},
		{name: "a page of zeros", make: func(_ *rig, v *victim) []byte {
			return mix(v.own, make([]byte, len(v.own)), v.body, v.body+4096)
		}},
		{name: "zeros", make: func(_ *rig, v *victim) []byte { return make([]byte, len(v.own)) }},
		{name: "ones", make: func(_ *rig, v *victim) []byte { return bytes.Repeat([]byte{0xff}, len(v.own)) }},
	}
	for _, what := range []string{"revision", "layout", "dtype", "shard", "cluster key", "salt", "adapter", "root"} {
		all = append(all, damage{name: "another " + what, make: func(r *rig, v *victim) []byte { return r.foreign[what][v.n] }})
	}
	return all
}

// flip flips one bit between two offsets.
func flip(where string, span func(v *victim) (from, to int)) damage {
	return damage{name: "a bit of " + where, make: func(_ *rig, v *victim) []byte {
		from, to := span(v)
		b := bytes.Clone(v.own)
		b[from+(v.n*7919+13)%(to-from)] ^= 1 << (v.n % 8)
		return b
	}}
}

// mix is b with the bytes of other between two offsets.
func mix(b, other []byte, from, to int) []byte {
	b = bytes.Clone(b)
	copy(b[from:to], other[from:to])
	return b
}
