package kvwire_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
)

// pair is a key of a map, in order.
type pair struct {
	key   string
	value any
}

// pack appends v in MessagePack.
func pack(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0xc0)
	case bool:
		return append(b, 0xc3)
	case int:
		switch {
		case v < 0:
			return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
		case v < 128:
			return append(b, byte(v))
		case v < 1<<8:
			return append(b, 0xcc, byte(v))
		case v < 1<<16:
			return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(v))
		case v < 1<<32:
			return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
		}
		return binary.BigEndian.AppendUint64(append(b, 0xcf), uint64(v))
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
	case string:
		return append(append(b, 0xd9, byte(len(v))), v...)
	case []byte:
		return append(append(b, 0xc4, byte(len(v))), v...)
	case []any:
		b = binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(len(v)))
		for _, x := range v {
			b = pack(b, x)
		}
		return b
	case []dynamo.TokenID:
		b = binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(len(v)))
		for _, x := range v {
			b = pack(b, int(x))
		}
		return b
	case []pair:
		b = append(b, 0x80|byte(len(v)))
		for _, p := range v {
			b = pack(pack(b, p.key), p.value)
		}
		return b
	}
	panic("no MessagePack form")
}

func batchOf(events ...any) []byte { return pack(nil, []any{1.5, events, 3}) }

// bytesHash is a hash in bytes that ends like the integer one.
func bytesHash(n byte) []byte { return append(bytes.Repeat([]byte{9}, 31), n) }

func TestDecodeForms(t *testing.T) {
	ids := []dynamo.TokenID{1, 200, 40000, 1 << 31}
	stored := func(change func(*kvwire.Event)) kvwire.Event {
		e := kvwire.Event{Kind: kvwire.Stored, Hashes: []kvwire.EngineHash{7, 8}, Tokens: ids, BlockSize: 2}
		if change != nil {
			change(&e)
		}
		return e
	}
	full := func(e *kvwire.Event) {
		e.Parent, e.HasParent, e.Medium, e.LoRA, e.Group, e.SpecKind = 6, true, "CPU", "ada", 1, "full_attention"
		e.LoRAID = true
		e.Extra = []kvwire.BlockKeys{{Block: 1, Names: []string{"ada"}, Others: 1}}
	}
	hashes := []any{7, 8}
	extra := []any{nil, []any{"ada", []any{"image", 3}}}
	for name, c := range map[string]struct {
		event any
		want  kvwire.Event
	}{
		"array, oldest":  {[]any{"BlockStored", hashes, nil, ids, 2}, stored(nil)},
		"array, newest":  {[]any{"BlockStored", hashes, 6, ids, 2, 4, "CPU", "ada", extra, 1, "full_attention", 128, "new"}, stored(full)},
		"array, SGLang":  {[]any{"BlockStored", hashes, nil, ids, 2, nil, "GPU", []pair{{"x", 1}, {"cache_salt", "s"}}}, stored(func(e *kvwire.Event) { e.Medium, e.CacheSalt = "GPU", "s" })},
		"array, bytes":   {[]any{"BlockStored", []any{append(make([]byte, 31), 7), append(make([]byte, 31), 8)}, nil, ids, 2}, stored(nil)},
		"array, removed": {[]any{"BlockRemoved", hashes, "GPU", 2, "new"}, kvwire.Event{Kind: kvwire.Removed, Hashes: []kvwire.EngineHash{7, 8}, Medium: "GPU", Group: 2}},
		"array, cleared": {[]any{"AllBlocksCleared"}, kvwire.Event{Kind: kvwire.Cleared}},
		"map, least":     {[]pair{{"type", "BlockStored"}, {"block_hashes", hashes}, {"token_ids", ids}, {"block_size", 2}}, stored(nil)},
		"map, tag last, unknown keys": {[]pair{{"extra_keys", extra}, {"new", []pair{{"a", []any{1.5, true}}}}, {"block_hashes", hashes}, {"parent_block_hash", 6},
			{"token_ids", ids}, {"block_size", 2}, {"lora_id", 1}, {"medium", "CPU"}, {"lora_name", "ada"}, {"group_idx", 1}, {"kv_cache_spec_kind", "full_attention"}, {"type", "BlockStored"}}, stored(full)},
		"map, SGLang": {[]pair{{"type", "BlockStored"}, {"block_hashes", []any{-1, -3}}, {"token_ids", ids}, {"block_size", 2}, {"cache_salt", "s"}, {"locality", "REMOTE"}},
			stored(func(e *kvwire.Event) {
				e.Hashes, e.CacheSalt, e.Locality = []kvwire.EngineHash{math.MaxUint64, math.MaxUint64 - 2}, "s", "REMOTE"
			})},
		"pairs of ids":  {[]any{"BlockStored", hashes, nil, []any{[]any{1, 2}, 3, []any{3, 4}}, 2}, stored(func(e *kvwire.Event) { e.Tokens, e.Foreign = nil, true })},
		"negative id":   {[]any{"BlockStored", hashes, nil, []any{1, -1, 3, 4}, 2}, stored(func(e *kvwire.Event) { e.Tokens, e.Foreign = nil, true })},
		"no tokens":     {[]any{"BlockStored", hashes, nil, []any{}, 2}, stored(func(e *kvwire.Event) { e.Tokens = nil })},
		"map, cleared":  {[]pair{{"type", "AllBlocksCleared"}, {"medium", "GPU"}}, kvwire.Event{Kind: kvwire.Cleared, Medium: "GPU"}},
		"map, removed":  {[]pair{{"type", "BlockRemoved"}, {"block_hashes", []any{bytesHash(5)}}}, kvwire.Event{Kind: kvwire.Removed, Hashes: []kvwire.EngineHash{0x0909090909090905}}},
		"parent, bytes": {[]any{"BlockStored", hashes, bytesHash(5), ids, 2}, stored(func(e *kvwire.Event) { e.Parent, e.HasParent = 0x0909090909090905, true })},
	} {
		var d kvwire.Decoder
		payload := batchOf([]any{"Other", 1}, c.event, []pair{{"type", "Third"}, {"block_hashes", hashes}})
		for range 2 {
			b := decode(t, &d, payload)
			if len(b.Events) != 1 || b.Skipped != 2 || b.Rank != 3 || b.Timestamp != 1.5 {
				t.Fatalf("%s: got %+v", name, b)
			}
			got := b.Events[0]
			if !same(got, c.want) {
				t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, c.want)
			}
		}
		for n := range payload {
			if _, err := d.Decode(payload[:n:n]); dynamo.KindOf(orNone(err)) != dynamo.KindCorrupt {
				t.Errorf("%s: cut to %d bytes: got %v, want a corrupt batch", name, n, err)
			}
		}
	}
}

func orNone(err error) error {
	if err == nil {
		return &dynamo.Error{Kind: dynamo.KindInternal}
	}
	return err
}

// same compares events; no slice and an empty one are the same.
func same(a, b kvwire.Event) bool {
	ok := slices.Equal(a.Hashes, b.Hashes) && slices.Equal(a.Tokens, b.Tokens) && slices.EqualFunc(a.Extra, b.Extra, func(x, y kvwire.BlockKeys) bool { return reflect.DeepEqual(x, y) })
	a.Hashes, a.Tokens, a.Extra, b.Hashes, b.Tokens, b.Extra = nil, nil, nil, nil, nil, nil
	return ok && reflect.DeepEqual(a, b)
}

func TestDecodeFixtures(t *testing.T) {
	want := map[string][4]int{ // stored events, blocks, removed, cleared
		"vllm-kv-events.bin":       {8, 101, 29, 1},
		"vllm-kv-events-bytes.bin": {13, 230, 132, 0},
	}
	for _, name := range fixtures {
		var got [4]int
		var d kvwire.Decoder
		for _, p := range capture(t, name) {
			for _, e := range decode(t, &d, p).Events {
				switch e.Kind {
				case kvwire.Stored:
					got[0]++
					got[1] += len(e.Hashes)
					if e.BlockSize != 32 || len(e.Tokens) != 32*len(e.Hashes) || e.Medium != "GPU" || e.SpecKind != "full_attention" {
						t.Errorf("%s: got %+v", name, e)
					}
				case kvwire.Removed:
					got[2] += len(e.Hashes)
				case kvwire.Cleared:
					got[3]++
				}
			}
			for n := range p {
				if _, err := d.Decode(p[:n:n]); err == nil {
					t.Fatalf("%s: a payload cut to %d of %d bytes is read", name, n, len(p))
				}
			}
			if _, err := d.Decode(append(slices.Clone(p), 0xc0)); err == nil {
				t.Errorf("%s: a payload with one value more is read", name)
			}
		}
		if got != want[name] {
			t.Errorf("%s: got %v, want %v", name, got, want[name])
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	var d kvwire.Decoder
	stored := func(change ...any) []byte { return batchOf(append([]any{"BlockStored"}, change...)) }
	for name, p := range map[string][]byte{
		"empty":            {},
		"a map":            {0x80},
		"no events":        pack(nil, []any{1.5}),
		"a text for time":  pack(nil, []any{"x", []any{}}),
		"events of nil":    pack(nil, []any{1.5, nil}),
		"a rank of -1":     pack(nil, []any{1.5, []any{}, -1}),
		"an event of 1":    batchOf(1),
		"an empty event":   batchOf([]any{}),
		"a tag of 1":       batchOf([]any{1}),
		"no block size":    stored([]any{7}, nil, []any{1, 2}),
		"block size 0":     stored([]any{7}, nil, []any{1, 2}, 0),
		"huge block size":  stored([]any{7}, nil, []any{1, 2}, kvwire.MaxBlockTokens+1),
		"hash of nil":      stored([]any{nil}, nil, []any{1, 2}, 2),
		"hash of 7 bytes":  stored([]any{[]byte("1234567")}, nil, []any{1, 2}, 2),
		"hash of text":     stored([]any{"12345678"}, nil, []any{1, 2}, 2),
		"announced array":  append(pack(nil, []any{1.5})[:3], 0xdd, 0xff, 0xff, 0xff, 0xff),
		"announced tokens": append([]byte{0x92, 0x01, 0x91, 0x94, 0xab}, "BlockStored\x91\x01\xc0\xdd\x7f\xff\xff\xff"...),
		"reserved byte":    {0x92, 0x01, 0xc1},
		"too long":         make([]byte, kvwire.MaxPayloadBytes+1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b, err := d.Decode(p)
		runtime.ReadMemStats(&after)
		if dynamo.KindOf(orNone(err)) != dynamo.KindCorrupt {
			t.Errorf("%s: got %+v, %v; want a corrupt batch", name, b, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes were allocated for what is not there", name, n)
		}
	}
	deep := append(bytes.Repeat([]byte{0x91}, 1<<20), 0xc0)
	if b := decode(t, &d, append(append([]byte{0x92, 0x01, 0x91, 0x92, 0xa1, 'x'}, deep...), []byte(nil)...)); b.Skipped != 1 {
		t.Errorf("got %+v, want one event passed over", b)
	}
	if _, err := d.Decode(pack(nil, []any{1.5, []any{[]pair{{"medium", strings.Repeat("x", 200)}, {"type", "AllBlocksCleared"}}}})); err != nil {
		t.Error(err) // no rank, and a medium that nobody knows
	}
}

func TestTier(t *testing.T) {
	for _, c := range []struct {
		medium, locality string
		want             dynamo.Tier
		ok               bool
	}{
		{"", "", dynamo.TierDevice, true}, {"GPU", "LOCAL", dynamo.TierDevice, true}, {"CPU", "", dynamo.TierHost, true},
		{"CPU_PINNED", "", dynamo.TierHost, true}, {"DISK", "", dynamo.TierDisk, true}, {"FS", "", dynamo.TierDisk, true},
		{"STORAGE", "LOCAL", dynamo.TierDisk, true}, {"STORAGE", "REMOTE", dynamo.TierRemote, true}, {"OBJ", "", dynamo.TierRemote, true},
		{"EXTERNAL", "", dynamo.TierRemote, true}, {"TAPE", "", 0, false},
	} {
		if got, ok := kvwire.Tier(c.medium, c.locality); got != c.want || ok != c.ok {
			t.Errorf("Tier(%q, %q) = %v, %v; want %v, %v", c.medium, c.locality, got, ok, c.want, c.ok)
		}
	}
}

// FuzzDecode wants no panic, and of what is read that it is within the payload.
func FuzzDecode(f *testing.F) {
	for _, name := range fixtures {
		for _, p := range capture(f, name)[:4] {
			f.Add(p)
		}
	}
	f.Add(batchOf([]any{"BlockStored", []any{7, -8}, 6, []any{1, []any{2, 3}}, 1, 4, "CPU", []pair{{"cache_salt", "s"}}, []any{nil, []any{"a"}}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		var d kvwire.Decoder
		b, err := d.Decode(p)
		if err != nil {
			if b != nil || dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Fatalf("got %v, %v", b, err)
			}
			return
		}
		n := 0
		for _, e := range b.Events {
			n += len(e.Hashes) + len(e.Tokens) + len(e.Extra)
		}
		if n+len(b.Events) > len(p) {
			t.Fatalf("%d bytes give %d things", len(p), n)
		}
		kvwire.NewTranslator(kvwire.TranslatorConfig{}).Translate(b)
	})
}
