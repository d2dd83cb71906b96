package kvwire_test

import (
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/tokens"
)

// chainOf returns what vLLM 0.32 publishes when it stores the blocks of ids for a
// request with an adapter and a salt: hashes that cover the adapter's path, and keys
// that do not tell it.
func chainOf(ids []dynamo.TokenID, size int, lora, path, salt string) (event []pair, hashes []any) {
	h := kvwire.NewHasher(kvwire.SHA256)
	parent, extra := h.None(""), []any{}
	for i := 0; i < len(ids); i += size {
		own := ""
		if i == 0 {
			own = salt
		}
		parent = h.Block(parent, ids[i:i+size], kvwire.HashKeys(lora, path, own))
		hashes = append(hashes, uint64(parent.EngineHash()))
		var keys []any
		for _, k := range []string{lora, own} {
			if k != "" {
				keys = append(keys, k)
			}
		}
		if keys == nil {
			extra = append(extra, nil)
		} else {
			extra = append(extra, keys)
		}
	}
	var id, name any
	if lora != "" {
		id, name = 1, lora
	}
	return []pair{
		{"type", "BlockStored"}, {"block_hashes", hashes}, {"parent_block_hash", nil}, {"token_ids", ids}, {"block_size", size},
		{"lora_id", id}, {"medium", "GPU"}, {"lora_name", name}, {"extra_keys", extra}, {"group_idx", 0}, {"kv_cache_spec_kind", "full_attention"},
	}, hashes
}

// One prompt under the model, two adapters and a tenant: each gets the hashes that a
// request for it is looked up by, and what goes of one leaves the others alone.
func TestAdapterBlocks(t *testing.T) {
	const size = 4
	ids := []dynamo.TokenID{5, 6, 7, 8, 1, 2, 3, 4, 9, 9, 9, 9}
	cases := []struct{ lora, path, salt string }{
		{"", "", ""}, {"ada", "/adapters/ada", ""}, {"bob", "/adapters/bob", ""}, {"ada", "/adapters/ada", "tenant"}, {"", "", "tenant"},
	}
	var d kvwire.Decoder
	tr := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: size})
	held := map[dynamo.BlockHash]int{}
	take := func(events ...any) {
		for _, change := range tr.Translate(decode(t, &d, batchOf(events...))) {
			for _, b := range change.Blocks {
				held[b.Hash]++
			}
			for _, h := range change.Removed {
				held[h]--
			}
		}
	}
	var stored []any
	var hashes [][]any
	for _, c := range cases {
		e, h := chainOf(ids, size, c.lora, c.path, c.salt)
		stored, hashes = append(stored, e), append(hashes, h)
	}
	take(stored...)
	want := func(gone int) {
		t.Helper()
		roots, total := map[dynamo.CacheRoot]bool{}, 0
		for i, c := range cases {
			root := tokens.Root(c.lora, c.salt)
			roots[root] = true
			for _, b := range tokens.AppendBlocks(nil, root, size, ids) {
				n := 1
				if i < gone {
					n = 0
				}
				if held[b.Hash] != n {
					t.Errorf("adapter %q, salt %q: block %v is held %d times, want %d", c.lora, c.salt, b.Hash, held[b.Hash], n)
				}
				total += n
			}
		}
		got := 0
		for _, n := range held {
			got += n
		}
		if len(roots) != len(cases) || got != total || tr.Ignored() != 0 {
			t.Errorf("got %d roots, %d blocks, %d ignored; want %d, %d, 0", len(roots), got, tr.Ignored(), len(cases), total)
		}
	}
	want(0)
	for i := range cases {
		slices.Reverse(hashes[i])
		take([]pair{{"type", "BlockRemoved"}, {"block_hashes", hashes[i]}, {"medium", "GPU"}, {"group_idx", 0}})
		want(i + 1)
	}
}

// An adapter of a version that does not name it is credited to nobody, its later
// blocks included.
func TestAdapterUnnamed(t *testing.T) {
	var d kvwire.Decoder
	tr := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: 2})
	ids := []dynamo.TokenID{1, 2, 3, 4}
	batch := batchOf(
		[]any{"BlockStored", []any{7, 8}, nil, ids, 2, 1, "GPU"},
		[]any{"BlockStored", []any{9, 10}, 8, ids, 2, 1, "GPU"},
		[]any{"BlockRemoved", []any{10, 9, 8, 7}, "GPU"},
	)
	if got := tr.Translate(decode(t, &d, batch)); len(got) != 0 {
		t.Errorf("got %+v, want nothing: nobody says whose these blocks are", got)
	}
}
