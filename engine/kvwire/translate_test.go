package kvwire_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/tokens"
)

// view is what a consumer makes of changes: for each tier the blocks it holds, and
// what each is called.
type view struct {
	t     testing.TB
	tiers map[dynamo.Tier]map[dynamo.BlockHash]kvwire.Block
}

func newView(t testing.TB) *view {
	return &view{t, map[dynamo.Tier]map[dynamo.BlockHash]kvwire.Block{}}
}

func (v *view) apply(changes []kvwire.Change) {
	v.t.Helper()
	for _, c := range changes {
		if v.tiers[c.Tier] == nil {
			v.tiers[c.Tier] = map[dynamo.BlockHash]kvwire.Block{}
		}
		set := v.tiers[c.Tier]
		switch c.Kind {
		case kvwire.Cleared:
			clear(set)
		case kvwire.Removed:
			for _, h := range c.Removed {
				if _, ok := set[h]; !ok {
					v.t.Errorf("block %v is removed from %v and was not there", h, c.Tier)
				}
				delete(set, h)
			}
		case kvwire.Stored:
			parent, has := c.Parent, c.HasParent
			for _, b := range c.Blocks {
				want := tokens.FirstHash(b.Local)
				if has {
					want = tokens.BlockHash(parent, b.Local)
				}
				if b.Hash != want {
					v.t.Errorf("block %v is not what its parent and its own tokens make it", b.Hash)
				}
				if _, ok := set[b.Hash]; ok {
					v.t.Errorf("block %v is stored twice in %v", b.Hash, c.Tier)
				}
				set[b.Hash] = b
				parent, has = b.Hash, true
			}
		}
	}
}

// String prints the view: the tier's first letter and, in order, what the engine
// calls the blocks that are there.
func (v *view) String() string {
	var out []string
	for _, tier := range slices.Sorted(maps.Keys(v.tiers)) {
		var names []string
		for _, b := range v.tiers[tier] {
			names = append(names, fmt.Sprint(uint64(b.Engine)))
		}
		slices.Sort(names)
		if len(names) > 0 {
			out = append(out, tier.String()[:2]+" "+strings.Join(names, " "))
		}
	}
	return strings.Join(out, ", ")
}

// stored is an event of blocks of two tokens: block n holds n and n. Parent 0 is
// none.
func stored(parent kvwire.EngineHash, hashes ...kvwire.EngineHash) kvwire.Event {
	e := kvwire.Event{Kind: kvwire.Stored, Parent: parent, HasParent: parent != 0, Hashes: hashes, BlockSize: 2, Medium: "GPU", SpecKind: "full_attention"}
	for _, h := range hashes {
		e.Tokens = append(e.Tokens, dynamo.TokenID(h), dynamo.TokenID(h))
	}
	return e
}

func removed(hashes ...kvwire.EngineHash) kvwire.Event {
	return kvwire.Event{Kind: kvwire.Removed, Hashes: hashes, Medium: "GPU"}
}

func with(e kvwire.Event, change func(*kvwire.Event)) kvwire.Event {
	change(&e)
	return e
}

func group(n int, e kvwire.Event) kvwire.Event {
	return with(e, func(e *kvwire.Event) { e.Group = n })
}

func medium(m string, e kvwire.Event) kvwire.Event {
	return with(e, func(e *kvwire.Event) { e.Medium = m })
}

func TestTranslate(t *testing.T) {
	cleared := kvwire.Event{Kind: kvwire.Cleared}
	type events = []kvwire.Event
	for name, c := range map[string]struct {
		events  events
		want    string
		ignored uint64
		waiting int
	}{
		"chain":                      {events{stored(0, 1, 2), stored(2, 3)}, "de 1 2 3", 0, 0},
		"removed":                    {events{stored(0, 1, 2, 3), removed(3), removed(2)}, "de 1", 0, 0},
		"stored again":               {events{stored(0, 1, 2), removed(2), stored(1, 2)}, "de 1 2", 0, 0},
		"twice, gone once":           {events{stored(0, 1), stored(0, 1, 2), removed(1)}, "de 1 2", 0, 0},
		"twice, gone twice":          {events{stored(0, 1), stored(0, 1, 2), removed(1), removed(1)}, "de 2", 0, 0},
		"never stored":               {events{stored(0, 1), removed(9, 8)}, "de 1", 2, 0},
		"gone too often":             {events{stored(0, 1), medium("CPU", removed(1))}, "de 1", 1, 0},
		"cleared":                    {events{stored(0, 1), medium("CPU", stored(0, 1)), cleared, stored(0, 2)}, "de 2", 0, 0},
		"tiers":                      {events{stored(0, 1, 2), medium("CPU", stored(1, 2)), removed(2)}, "de 1, ho 2", 0, 0},
		"parent elsewhere":           {events{medium("CPU", stored(0, 1)), stored(1, 2)}, "de 2, ho 1", 0, 0},
		"names only":                 {events{stored(0, 1, 2), medium("STORAGE", with(stored(0, 1, 2, 9), func(e *kvwire.Event) { e.Tokens = nil })), removed(1)}, "de 2, di 1 2", 1, 0},
		"unknown medium":             {events{medium("TAPE", stored(0, 1)), medium("TAPE", removed(1))}, "", 2, 0},
		"waiting":                    {events{stored(5, 6), stored(6, 7)}, "", 0, 2},
		"waited":                     {events{stored(5, 6), stored(6, 7, 8), stored(4, 5), stored(0, 4)}, "de 4 5 6 7 8", 0, 0},
		"gone while waiting":         {events{stored(5, 6, 7, 8), removed(7), stored(0, 5)}, "de 5 6", 0, 0},
		"gone while waiting, first":  {events{stored(5, 6), removed(6), stored(0, 5)}, "de 5", 0, 0},
		"cleared while waiting":      {events{stored(5, 6), cleared, stored(0, 5)}, "de 5", 0, 0},
		"sliding window":             {events{with(stored(0, 1), func(e *kvwire.Event) { e.SpecKind, e.Group = "sliding_window", 1 }), group(1, removed(1)), stored(0, 2)}, "de 2", 0, 0},
		"mla":                        {events{with(stored(0, 1), func(e *kvwire.Event) { e.SpecKind = "mla_attention" })}, "de 1", 0, 0},
		"kind not told":              {events{with(stored(0, 1), func(e *kvwire.Event) { e.SpecKind = "" }), with(group(1, stored(0, 2)), func(e *kvwire.Event) { e.SpecKind = "" })}, "de 1", 0, 0},
		"two groups":                 {events{stored(0, 1), group(1, stored(0, 1)), stored(1, 2), group(1, stored(1, 2)), stored(2, 3)}, "de 1 2", 0, 0},
		"two groups, one lets go":    {events{stored(0, 1), group(1, stored(0, 1)), group(1, removed(1))}, "", 0, 0},
		"two groups, and back":       {events{stored(0, 1), group(1, stored(0, 1)), group(1, removed(1)), group(1, stored(0, 1))}, "de 1", 0, 0},
		"many groups":                {events{stored(0, 1), group(1, stored(0, 1)), group(2, stored(0, 1)), group(3, stored(0, 1)), group(2, removed(1)), removed(1), group(3, removed(1)), group(1, removed(1)), removed(1)}, "", 1, 0},
		"group out of range":         {events{group(64, stored(0, 1)), group(64, removed(1))}, "", 2, 0},
		"other block size":           {events{stored(0, 1), with(group(1, stored(0, 2)), func(e *kvwire.Event) { e.BlockSize = 4 }), group(1, removed(2))}, "de 1", 1, 0},
		"pairs, and what follows":    {events{with(stored(0, 1), func(e *kvwire.Event) { e.Tokens, e.Foreign = nil, true }), stored(1, 2), removed(1)}, "", 2, 0},
		"blocks skipped":             {events{with(stored(0, 1, 2), func(e *kvwire.Event) { e.Tokens = append(e.Tokens, 9, 9) })}, "", 1, 0},
		"blocks skipped, in waiting": {events{with(stored(5, 6, 7), func(e *kvwire.Event) { e.Tokens = e.Tokens[:2] }), removed(7), stored(0, 5)}, "de 5", 1, 0},
		"image in the second":        {events{with(stored(0, 1, 2, 3), func(e *kvwire.Event) { e.Extra = []kvwire.BlockKeys{{Block: 1, Others: 1}} }), stored(3, 4)}, "de 1", 1, 0},
		"a text in the second":       {events{with(stored(0, 1, 2, 3), func(e *kvwire.Event) { e.Extra = []kvwire.BlockKeys{{Block: 1, Names: []string{"x"}}} })}, "de 1", 0, 0},
		"two texts in the first":     {events{with(stored(0, 1), func(e *kvwire.Event) { e.Extra = []kvwire.BlockKeys{{Names: []string{"x", "y"}}} })}, "", 1, 0},
		"adapter without a name":     {events{with(stored(0, 1), func(e *kvwire.Event) { e.LoRAID = true })}, "", 1, 0},
		"no blocks":                  {events{with(stored(0), func(e *kvwire.Event) {})}, "", 1, 0},
	} {
		for _, together := range []bool{true, false} {
			tr, v := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: 2}), newView(t)
			if together {
				v.apply(tr.Translate(&kvwire.Batch{Events: c.events}))
			} else {
				for _, e := range c.events {
					v.apply(tr.Translate(&kvwire.Batch{Events: events{e}}))
				}
			}
			_, waiting := tr.Len()
			if got := v.String(); got != c.want || tr.Ignored() != c.ignored || waiting != c.waiting {
				t.Errorf("%s (together %v): got %q, %d ignored, %d waiting; want %q, %d, %d", name, together, got, tr.Ignored(), waiting, c.want, c.ignored, c.waiting)
			}
			if t.Failed() {
				break
			}
			v.apply(tr.Reset())
			if got := v.String(); got != "" {
				t.Errorf("%s: after a reset: got %q", name, got)
			}
		}
	}
}

// TestTranslateRoots: adapter and salt of the first block separate a whole chain.
func TestTranslateRoots(t *testing.T) {
	keys := func(names ...string) []kvwire.BlockKeys { return []kvwire.BlockKeys{{Names: names}} }
	for name, c := range map[string]struct {
		first      func(*kvwire.Event)
		lora, salt string
	}{
		"shared":           {func(*kvwire.Event) {}, "", ""},
		"salt":             {func(e *kvwire.Event) { e.Extra = keys("tenant") }, "", "tenant"},
		"salt, SGLang":     {func(e *kvwire.Event) { e.CacheSalt = "tenant" }, "", "tenant"},
		"adapter":          {func(e *kvwire.Event) { e.LoRA, e.LoRAID, e.Extra = "ada", true, keys("ada") }, "ada", ""},
		"adapter and salt": {func(e *kvwire.Event) { e.LoRA, e.Extra = "ada", keys("ada", "tenant") }, "ada", "tenant"},
		"salt like a name": {func(e *kvwire.Event) { e.LoRA, e.Extra = "ada", keys("ada", "ada") }, "ada", "ada"},
	} {
		tr := kvwire.NewTranslator(kvwire.TranslatorConfig{})
		first := with(stored(0, 1, 2), c.first)
		second := with(stored(2, 3), func(e *kvwire.Event) { e.LoRA = first.LoRA })
		want := tokens.AppendBlocks(nil, tokens.Root(c.lora, c.salt), 2, []dynamo.TokenID{1, 1, 2, 2, 3, 3})
		var got []tokens.Block
		for _, e := range []kvwire.Event{first, second} {
			for _, change := range tr.Translate(&kvwire.Batch{Events: []kvwire.Event{e}}) {
				for _, b := range change.Blocks {
					got = append(got, tokens.Block{Local: b.Local, Hash: b.Hash})
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// TestTranslateFixtures: what the captures lead to, by a plain reading of them.
func TestTranslateFixtures(t *testing.T) {
	for _, name := range fixtures {
		var d kvwire.Decoder
		tr, v := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: 32}), newView(t)
		want := map[kvwire.EngineHash]int{}
		for _, p := range capture(t, name) {
			b := decode(t, &d, p)
			for _, e := range b.Events {
				for _, h := range e.Hashes {
					if e.Kind == kvwire.Stored {
						want[h]++
					} else if want[h]--; want[h] == 0 {
						delete(want, h)
					}
				}
				if e.Kind == kvwire.Cleared {
					clear(want)
				}
			}
			v.apply(tr.Translate(b))
			got := map[kvwire.EngineHash]bool{}
			for _, b := range v.tiers[dynamo.TierDevice] {
				got[b.Engine] = true
			}
			for h := range want {
				if !got[h] {
					t.Errorf("%s: block %x is missing", name, h)
				}
			}
			if known, waiting := tr.Len(); len(got) != len(want) || known != len(want) || waiting != 0 {
				t.Errorf("%s: got %d blocks, %d known, %d waiting; want %d, as many, 0", name, len(got), known, waiting, len(want))
			}
		}
		if tr.Ignored() != 0 || tr.BlockSize() != 32 {
			t.Errorf("%s: %d ignored, block size %d", name, tr.Ignored(), tr.BlockSize())
		}
	}
}

// TestPendingBound: events that wait for nothing take bounded memory.
func TestPendingBound(t *testing.T) {
	tr := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: 2})
	for i := range kvwire.EngineHash(20000) {
		tr.Translate(&kvwire.Batch{Events: []kvwire.Event{stored(1<<32+i, 1<<33+i)}})
	}
	if _, waiting := tr.Len(); waiting != 4096 || tr.Ignored() != 20000-4096 {
		t.Errorf("%d wait, %d were dropped; want 4096 and the others", waiting, tr.Ignored())
	}
	v := newView(t)
	for i := range kvwire.EngineHash(20000) {
		v.apply(tr.Translate(&kvwire.Batch{Events: []kvwire.Event{stored(0, 1<<32+i)}}))
	}
	if known, waiting := tr.Len(); known != 20000+4096 || waiting != 0 {
		t.Errorf("%d known, %d waiting; want %d and 0", known, waiting, 20000+4096)
	}
}
