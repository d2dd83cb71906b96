package kvwire

import (
	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Change is what an engine's events say, in our hashes.
type Change struct {
	Kind Kind
	Tier dynamo.Tier
	// Parent is the hash before the first of Blocks, if HasParent (Stored).
	Parent    dynamo.BlockHash
	HasParent bool
	// Blocks are those stored, each the successor of the one before it.
	Blocks []Block
	// Removed are the blocks that are gone.
	Removed []dynamo.BlockHash
}

// Block is one block in our hashes and in the engine's.
type Block struct {
	Local  dynamo.LocalHash
	Hash   dynamo.BlockHash
	Engine EngineHash
}

// TranslatorConfig says whose events are translated.
type TranslatorConfig struct {
	// BlockSize is the card's: tokens in a block of the groups that count. Events of
	// another size are ignored. 0 takes the first one seen.
	BlockSize int
	Metrics   *Metrics
}

// Translator turns the events of one rank of an engine into changes in our hashes.
// It belongs to one goroutine.
//
// A block is told of as stored in a tier when every group that counts, of those
// seen there, holds it, and as removed when the first of them holds it no longer.
// The engine may store a block several times; it is gone when it was removed as
// often.
type Translator struct {
	config  TranslatorConfig
	size    int
	index   map[EngineHash]int32
	entries []entry
	spare   []int32
	waiting pending
	ready   []*wait // those whose parent has come

	counted [tierCount]uint64 // groups that count, a bit each
	others  [tierCount]uint64 // groups that do not
	told    [tierCount]bool   // something was stored there

	rootOf struct {
		lora, salt string
		root       dynamo.CacheRoot
	}
	ignored uint64

	// What Translate returns lies in these.
	changes []Change
	blocks  []Block
	removed []dynamo.BlockHash
}

const tierCount = int(dynamo.TierRemote) + 1

// entry is one block that the engine holds somewhere.
type entry struct {
	block     tokens.Block
	parent    dynamo.BlockHash
	root      dynamo.CacheRoot
	hasParent bool
	opaque    bool  // its content is not determined by token ids; never told of
	visible   uint8 // the tiers it was told of, a bit each
	holds     [2]hold
	more      []hold
}

// hold says how often a group holds a block in a tier. With n = 0 it is free.
type hold struct {
	place place
	n     uint32
}

// place is a tier and a group.
type place uint8

func placeOf(t dynamo.Tier, group int) place { return place(int(t)*maxGroups + group) }

func (p place) tier() dynamo.Tier { return dynamo.Tier(p / maxGroups) }

func (p place) bit() uint64 { return 1 << (p % maxGroups) }

// NewTranslator returns a translator that knows no blocks.
func NewTranslator(c TranslatorConfig) *Translator {
	t := &Translator{config: c, size: c.BlockSize, index: make(map[EngineHash]int32)}
	t.waiting.reset()
	return t
}

// Translate returns what b changes, valid until the next call. It keeps nothing of
// b.
func (t *Translator) Translate(b *Batch) []Change {
	t.changes, t.blocks, t.removed = t.changes[:0], t.blocks[:0], t.removed[:0]
	before := t.ignored
	t.ignored += uint64(b.Skipped)
	for i := range b.Events {
		e := &b.Events[i]
		switch e.Kind {
		case Stored:
			t.stored(e)
		case Removed:
			t.remove(e)
		case Cleared:
			t.forget()
		}
	}
	t.config.Metrics.ignore(int(t.ignored - before))
	return t.changes
}

// Reset forgets everything and returns the changes that say so, valid until the
// next call.
func (t *Translator) Reset() []Change {
	t.changes, t.blocks, t.removed = t.changes[:0], t.blocks[:0], t.removed[:0]
	t.forget()
	t.counted, t.others = [tierCount]uint64{}, [tierCount]uint64{}
	t.size = t.config.BlockSize
	return t.changes
}

// Ignored returns how many events, or blocks of them, could not be used.
func (t *Translator) Ignored() uint64 { return t.ignored }

// BlockSize returns the tokens in a block; 0 while none was seen.
func (t *Translator) BlockSize() int { return t.size }

// Len returns how many blocks the engine holds, and how many of its blocks wait for
// the ones before them.
func (t *Translator) Len() (known, waiting int) { return len(t.index), len(t.waiting.blocks) }

// forget is what AllBlocksCleared says: it names no tier and no group.
func (t *Translator) forget() {
	clear(t.index)
	clear(t.entries)
	t.entries, t.spare = t.entries[:0], t.spare[:0]
	t.waiting.reset()
	for tier := range t.told {
		if t.told[tier] || dynamo.Tier(tier) == dynamo.TierDevice {
			t.changes = append(t.changes, Change{Kind: Cleared, Tier: dynamo.Tier(tier)})
		}
		t.told[tier] = false
	}
}

// stored takes over a Stored event, and those that waited for it.
func (t *Translator) stored(e *Event) {
	tier, ok := Tier(e.Medium, e.Locality)
	if !ok || e.Group < 0 || e.Group >= maxGroups || len(e.Hashes) == 0 {
		t.ignored++
		return
	}
	p := placeOf(tier, e.Group)
	if !countsForPrefix(e.Group, e.SpecKind) {
		t.others[tier] |= p.bit()
		return
	}
	if t.size == 0 {
		t.size = e.BlockSize
	}
	if e.BlockSize != t.size {
		t.others[tier] |= p.bit()
		t.ignored++
		return
	}
	t.counted[tier] |= p.bit()
	t.others[tier] &^= p.bit()
	if len(e.Tokens) == 0 && !e.Foreign {
		t.storedByHash(e, p)
		return
	}
	t.place(e, p)
	for len(t.ready) > 0 {
		w := t.ready[0]
		t.ready = t.ready[1:]
		t.place(&w.event, w.place)
	}
	t.ready = nil
}

// origin is what a block takes over from the one before it.
type origin struct {
	hash   dynamo.BlockHash
	has    bool
	root   dynamo.CacheRoot
	opaque bool
}

// place enters the blocks of e, or lets it wait for its parent.
func (t *Translator) place(e *Event, p place) {
	var o origin
	if e.HasParent {
		i, ok := t.index[e.Parent]
		if !ok {
			t.ignored += uint64(t.waiting.add(e, p))
			return
		}
		parent := &t.entries[i]
		o = origin{parent.block.Hash, true, parent.root, parent.opaque}
	} else {
		o.root, o.opaque = t.root(e)
	}
	if e.Foreign || len(e.Tokens) != len(e.Hashes)*t.size {
		o.opaque = true // pairs of ids, a group that skips blocks
	}
	if o.opaque {
		t.ignored++
	}
	extra := e.Extra
	for n, h := range e.Hashes {
		for len(extra) > 0 && extra[0].Block <= n {
			o.opaque = o.opaque || extra[0].Block == n && foreign(e, &extra[0])
			extra = extra[1:]
		}
		i, ok := t.index[h]
		if !ok {
			if len(t.index) >= maxEntries {
				t.ignored += uint64(len(e.Hashes) - n)
				return
			}
			next := entry{parent: o.hash, hasParent: o.has, root: o.root, opaque: o.opaque}
			if !o.opaque {
				next.block = blockAfter(o, e.Tokens[n*t.size:(n+1)*t.size])
			}
			i = t.enter(h, next)
		}
		x := &t.entries[i]
		t.hold(x, h, p)
		o = origin{x.block.Hash, true, x.root, x.opaque}
		if !ok && len(t.waiting.children) > 0 {
			t.ready = t.waiting.take(t.ready, h)
		}
	}
}

func blockAfter(o origin, ids []dynamo.TokenID) tokens.Block {
	local := tokens.LocalHash(o.root, ids)
	if !o.has {
		return tokens.Block{Local: local, Hash: tokens.FirstHash(local)}
	}
	return tokens.Block{Local: local, Hash: tokens.BlockHash(o.hash, local)}
}

// storedByHash takes over an event that names blocks and tells no tokens: those
// known from another tier are in this one too.
func (t *Translator) storedByHash(e *Event, p place) {
	for _, h := range e.Hashes {
		i, ok := t.index[h]
		if !ok {
			t.ignored++
			continue
		}
		t.hold(&t.entries[i], h, p)
	}
}

// root returns what separates the sequence that e begins from others, and whether
// that cannot be said.
func (t *Translator) root(e *Event) (root dynamo.CacheRoot, opaque bool) {
	if e.LoRAID && e.LoRA == "" {
		return 0, true // an adapter, and nobody says which
	}
	salt := e.CacheSalt
	if len(e.Extra) > 0 && e.Extra[0].Block == 0 {
		names, named := e.Extra[0].Names, false
		for _, name := range names {
			switch {
			case name == e.LoRA && !named:
				named = true
			case salt == "" || salt == name:
				salt = name
			default:
				return 0, true
			}
		}
	}
	if e.LoRA == "" && salt == "" {
		return 0, false
	}
	if t.rootOf.lora != e.LoRA || t.rootOf.salt != salt {
		t.rootOf.lora, t.rootOf.salt, t.rootOf.root = e.LoRA, salt, tokens.Root(e.LoRA, salt)
	}
	return t.rootOf.root, false
}

// foreign says whether keys make a block's content depend on more than tokens,
// adapter and salt.
func foreign(e *Event, k *BlockKeys) bool {
	if k.Others > 0 {
		return true
	}
	if k.Block == 0 && !e.HasParent {
		return false // root has judged them
	}
	for _, name := range k.Names {
		if name != e.LoRA {
			return true
		}
	}
	return false
}

// enter adds a block that was not known.
func (t *Translator) enter(h EngineHash, x entry) int32 {
	var i int32
	if n := len(t.spare); n > 0 {
		i, t.spare = t.spare[n-1], t.spare[:n-1]
		t.entries[i] = x
	} else {
		i = int32(len(t.entries))
		t.entries = append(t.entries, x)
	}
	t.index[h] = i
	return i
}

// hold notes that a place holds x once more, and tells of it when it is to be.
func (t *Translator) hold(x *entry, h EngineHash, p place) {
	have := x.add(p)
	tier := p.tier()
	if x.opaque || x.visible&(1<<tier) != 0 || have&t.counted[tier] != t.counted[tier] {
		return
	}
	x.visible |= 1 << tier
	t.told[tier] = true
	b := Block{x.block.Local, x.block.Hash, h}
	if n := len(t.changes); n > 0 {
		last := &t.changes[n-1]
		if last.Kind == Stored && last.Tier == tier && x.hasParent && last.Blocks[len(last.Blocks)-1].Hash == x.parent {
			start := len(t.blocks) - len(last.Blocks)
			t.blocks = append(t.blocks, b)
			last.Blocks = t.blocks[start:len(t.blocks):len(t.blocks)]
			return
		}
	}
	t.blocks = append(t.blocks, b)
	t.changes = append(t.changes, Change{
		Kind: Stored, Tier: tier, Parent: x.parent, HasParent: x.hasParent,
		Blocks: t.blocks[len(t.blocks)-1 : len(t.blocks) : len(t.blocks)],
	})
}

// remove takes over a Removed event.
func (t *Translator) remove(e *Event) {
	tier, ok := Tier(e.Medium, e.Locality)
	if !ok || e.Group < 0 || e.Group >= maxGroups {
		t.ignored++
		return
	}
	p := placeOf(tier, e.Group)
	if t.others[tier]&p.bit() != 0 {
		return
	}
	for _, h := range e.Hashes {
		i, ok := t.index[h]
		if !ok {
			if !t.waiting.remove(h, p) {
				t.ignored++
			}
			continue
		}
		x := &t.entries[i]
		left, ok := x.drop(p)
		if !ok {
			t.ignored++
			continue
		}
		if left == 0 && x.visible&(1<<tier) != 0 {
			x.visible &^= 1 << tier
			t.gone(tier, x.block.Hash)
		}
		if x.empty() {
			delete(t.index, h)
			*x = entry{}
			t.spare = append(t.spare, i)
		}
	}
}

// gone tells of a removed block.
func (t *Translator) gone(tier dynamo.Tier, h dynamo.BlockHash) {
	n := len(t.changes)
	if n == 0 || t.changes[n-1].Kind != Removed || t.changes[n-1].Tier != tier {
		t.changes = append(t.changes, Change{Kind: Removed, Tier: tier})
		n++
	}
	last := &t.changes[n-1]
	start := len(t.removed) - len(last.Removed)
	t.removed = append(t.removed, h)
	last.Removed = t.removed[start:len(t.removed):len(t.removed)]
}

// add counts one more copy at p and returns the groups of its tier that hold x.
func (x *entry) add(p place) (have uint64) {
	free, found := (*hold)(nil), false
	for i := range len(x.holds) + len(x.more) {
		h := x.at(i)
		switch {
		case h.n == 0:
			free = h
			continue
		case h.place == p:
			h.n, found = h.n+1, true
		}
		if h.place.tier() == p.tier() {
			have |= h.place.bit()
		}
	}
	if !found {
		if free == nil {
			x.more = append(x.more, hold{})
			free = &x.more[len(x.more)-1]
		}
		*free = hold{p, 1}
	}
	return have | p.bit()
}

// drop counts one copy less at p and returns how many are left there; ok is false
// if there was none.
func (x *entry) drop(p place) (left uint32, ok bool) {
	for i := range len(x.holds) + len(x.more) {
		if h := x.at(i); h.n > 0 && h.place == p {
			h.n--
			return h.n, true
		}
	}
	return 0, false
}

func (x *entry) empty() bool {
	for i := range len(x.holds) + len(x.more) {
		if x.at(i).n > 0 {
			return false
		}
	}
	return true
}

func (x *entry) at(i int) *hold {
	if i < len(x.holds) {
		return &x.holds[i]
	}
	return &x.more[i-len(x.holds)]
}
