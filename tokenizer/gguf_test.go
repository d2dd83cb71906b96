package tokenizer_test

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/dynamo-go/dynamo/tokenizer"
)

// ggufVocab reads the tokenizer out of a sound GGUF file.
func ggufVocab(t testing.TB, path string) tokenizer.Vocab {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &ggufReader{data: data[8:]}
	r.u64() // tensors
	meta := map[string]any{}
	for n := r.u64(); n > 0; n-- {
		key := r.str()
		meta[key] = r.value(r.u32())
	}
	const prefix = "tokenizer.ggml."
	v := tokenizer.Vocab{BOS: id(meta[prefix+"bos_token_id"]), EOS: id(meta[prefix+"eos_token_id"]), UNK: id(meta[prefix+"unknown_token_id"])}
	v.Model, _ = meta[prefix+"model"].(string)
	v.Pre, _ = meta[prefix+"pre"].(string)
	for _, s := range meta[prefix+"tokens"].([]any) {
		v.Tokens = append(v.Tokens, s.(string))
	}
	for _, n := range meta[prefix+"token_type"].([]any) {
		v.Types = append(v.Types, int32(n.(uint32)))
	}
	for _, s := range meta[prefix+"merges"].([]any) {
		v.Merges = append(v.Merges, s.(string))
	}
	return v
}

func id(v any) int {
	if n, ok := v.(uint32); ok {
		return int(n)
	}
	return -1
}

type ggufReader struct{ data []byte }

func (r *ggufReader) take(n int) []byte {
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *ggufReader) str() string { return string(r.take(int(r.u64()))) }

func (r *ggufReader) value(kind uint32) any {
	switch kind {
	case 0, 1, 7:
		return r.take(1)[0]
	case 2, 3:
		return r.take(2)
	case 4, 5, 6:
		return r.u32()
	case 8:
		return r.str()
	case 9:
		kind, n := r.u32(), r.u64()
		list := make([]any, n)
		for i := range list {
			list[i] = r.value(kind)
		}
		return list
	}
	return r.u64()
}
