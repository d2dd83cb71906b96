package kvwire_test

import (
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
)

// traffic returns payloads of an engine in steady state: prompts of 31 blocks of
// size tokens are stored, and older ones go, one event for each block.
func traffic(size int) (payloads [][]byte, blocks int) {
	const prompts, kept, each = 512, 256, 31
	hashOf := func(prompt, block int) any { return uint64(prompt*each+block+1) * 0x9e3779b97f4a7c15 }
	for p := range prompts {
		var events []any
		for b := each - 1; b >= 0 && p >= kept; b-- {
			events = append(events, []pair{{"type", "BlockRemoved"}, {"block_hashes", []any{hashOf(p-kept, b)}}, {"medium", "GPU"}, {"group_idx", 0}})
		}
		var hashes, extra []any
		ids := make([]dynamo.TokenID, each*size)
		for b := range each {
			hashes, extra = append(hashes, hashOf(p, b)), append(extra, nil)
		}
		for i := range ids {
			ids[i] = dynamo.TokenID((p*7919 + i*31) % 49152)
		}
		events = append(events, []pair{
			{"type", "BlockStored"}, {"block_hashes", hashes}, {"parent_block_hash", nil}, {"token_ids", ids}, {"block_size", size},
			{"lora_id", nil}, {"medium", "GPU"}, {"lora_name", nil}, {"extra_keys", extra}, {"group_idx", 0}, {"kv_cache_spec_kind", "full_attention"},
		})
		payloads = append(payloads, pack(nil, []any{1.5, events, 0}))
		blocks += each
	}
	return payloads, blocks
}

// BenchmarkDecodeTranslate counts stored blocks; about as many are removed.
func BenchmarkDecodeTranslate(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"16", 16}, {"32", 32}, {"128", 128}} {
		b.Run(c.name, func(b *testing.B) {
			payloads, blocks := traffic(c.size)
			var d kvwire.Decoder
			tr := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: c.size})
			b.ReportAllocs()
			for b.Loop() {
				tr.Reset()
				for _, p := range payloads {
					tr.Translate(decode(b, &d, p))
				}
			}
			b.ReportMetric(float64(blocks)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mblocks/s")
			if tr.Ignored() != 0 {
				b.Fatalf("%d were ignored", tr.Ignored())
			}
		})
	}
}

// TestAllocations: a steady stream allocates nothing once its buffers have grown.
func TestAllocations(t *testing.T) {
	payloads, _ := traffic(32)
	var d kvwire.Decoder
	tr := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: 32})
	n := testing.AllocsPerRun(5, func() {
		tr.Reset()
		for _, p := range payloads {
			tr.Translate(decode(t, &d, p))
		}
	})
	if n > 8 {
		t.Errorf("%.0f allocations for %d batches, want next to none", n, len(payloads))
	}
}
