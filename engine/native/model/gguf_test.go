package model_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// writer makes GGUF files for tests.
type writer struct {
	keys, table, data bytes.Buffer
	nKeys, nTensors   uint64
}

func put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		if s, ok := v.(string); ok {
			put(b, uint64(len(s)))
			b.WriteString(s)
			continue
		}
		_ = binary.Write(b, binary.LittleEndian, v) // fixed-size values only
	}
}

// key adds a metadata value: uint32, float32 or string.
func (w *writer) key(name string, value any) {
	var kind uint32
	switch value.(type) {
	case uint32:
		kind = 4
	case float32:
		kind = 6
	case string:
		kind = 8
	}
	put(&w.keys, name, kind, value)
	w.nKeys++
}

// ggmlKinds are the numbers of types in GGUF files.
var ggmlKinds = map[weights.DType]uint32{weights.F32: 0, weights.F16: 1, weights.Q4_0: 2, weights.Q4_1: 3,
	weights.Q8_0: 8, weights.Q4_K: 12, weights.Q6_K: 14, weights.BF16: 30}

// tensor adds a tensor; dims come outermost first.
func (w *writer) tensor(name string, d weights.DType, data []byte, dims ...int) {
	put(&w.table, name, uint32(len(dims)))
	for i := len(dims) - 1; i >= 0; i-- {
		put(&w.table, uint64(dims[i]))
	}
	put(&w.table, ggmlKinds[d], uint64(w.data.Len()))
	w.data.Write(data)
	w.data.Write(make([]byte, (32-w.data.Len()%32)%32))
	w.nTensors++
}

func (w *writer) bytes() []byte {
	var b bytes.Buffer
	b.WriteString("GGUF")
	put(&b, uint32(3), w.nTensors, w.nKeys)
	b.Write(w.keys.Bytes())
	b.Write(w.table.Bytes())
	b.Write(make([]byte, (32-b.Len()%32)%32))
	b.Write(w.data.Bytes())
	return b.Bytes()
}

// half returns the binary16 bits of a positive normal number.
func half(f float64) uint16 {
	u := math.Float32bits(float32(f))
	return uint16((u - (127-15)<<23) >> 13)
}

// random returns rows × cols values of a type, with standard deviation about s.
func random(r *rand.Rand, d weights.DType, rows, cols int, s float64) []byte {
	var b bytes.Buffer
	for range rows * cols / d.BlockValues() {
		block := make([]byte, d.BlockBytes())
		for i := range block {
			block[i] = byte(r.Uint32())
		}
		le, f := binary.LittleEndian, s*(0.5+r.Float64())
		switch d {
		case weights.F32:
			le.PutUint32(block, math.Float32bits(float32(r.NormFloat64()*s)))
		case weights.BF16:
			le.PutUint16(block, uint16(math.Float32bits(float32(r.NormFloat64()*s))>>16))
		case weights.F16:
			le.PutUint16(block, half(f)|uint16(r.IntN(2))<<15)
		case weights.Q8_0:
			le.PutUint16(block, half(f/74))
		case weights.Q4_0:
			le.PutUint16(block, half(f/5))
		case weights.Q4_1:
			le.PutUint16(block, half(f/5))
			le.PutUint16(block[2:], half(f*1.5)|1<<15)
		case weights.Q4_K:
			le.PutUint16(block, half(f/5/32))
			le.PutUint16(block[2:], half(f*1.5/32))
		case weights.Q6_K:
			le.PutUint16(block[208:], half(f/20/70))
		}
		b.Write(block)
	}
	return b.Bytes()
}

// The shape of the random model: rows that are no multiple of 16, groups of three
// query heads, every stored type.
const (
	mixedVocab  = 299
	mixedHidden = 256
	mixedFFN    = 256
	mixedHeads  = 6
	mixedKV     = 2
	mixedDim    = 16
	mixedLayers = 3
	mixedLength = 200
)

// mixed returns a random model with matrices of all types; with plain, the same
// values as F32.
func mixed(t testing.TB, seed uint64, plain bool) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &writer{}
	w.key("general.architecture", "llama")
	for name, v := range map[string]uint32{"block_count": mixedLayers, "context_length": mixedLength, "embedding_length": mixedHidden,
		"feed_forward_length": mixedFFN, "attention.head_count": mixedHeads, "attention.head_count_kv": mixedKV, "attention.key_length": mixedDim} {
		w.key("llama."+name, v)
	}
	w.key("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	matrix := func(name string, d weights.DType, rows, cols int) {
		b := random(r, d, rows, cols, 1/math.Sqrt(float64(cols))*1.5)
		if plain {
			b = widen(t, weights.Tensor{Name: name, DType: d, Shape: []int{rows, cols}, Data: b})
			d = weights.F32
		}
		w.tensor(name, d, b, rows, cols)
	}
	norm := func(name string, n int) {
		var b bytes.Buffer
		for range n {
			put(&b, float32(1+r.NormFloat64()/4))
		}
		w.tensor(name, weights.F32, b.Bytes(), n)
	}
	matrix("token_embd.weight", weights.Q8_0, mixedVocab, mixedHidden)
	matrix("output.weight", weights.Q6_K, mixedVocab, mixedHidden)
	norm("output_norm.weight", mixedHidden)
	types := []weights.DType{weights.Q4_1, weights.Q4_K, weights.Q8_0, weights.Q4_0, weights.Q6_K, weights.BF16, weights.F16, weights.F32}
	for i := range mixedLayers {
		at := i * 3
		next := func() weights.DType { at++; return types[at%len(types)] }
		p := "blk." + string(rune('0'+i)) + "."
		norm(p+"attn_norm.weight", mixedHidden)
		matrix(p+"attn_q.weight", next(), mixedHeads*mixedDim, mixedHidden)
		matrix(p+"attn_k.weight", next(), mixedKV*mixedDim, mixedHidden)
		matrix(p+"attn_v.weight", next(), mixedKV*mixedDim, mixedHidden)
		matrix(p+"attn_output.weight", weights.Q4_1, mixedHidden, mixedHeads*mixedDim)
		norm(p+"ffn_norm.weight", mixedHidden)
		matrix(p+"ffn_gate.weight", next(), mixedFFN, mixedHidden)
		matrix(p+"ffn_up.weight", next(), mixedFFN, mixedHidden)
		matrix(p+"ffn_down.weight", next(), mixedHidden, mixedFFN)
	}
	return w.bytes()
}

// widen returns a tensor's values as float32 bytes.
func widen(t testing.TB, x weights.Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	row := make([]float32, x.Cols())
	for i := range x.Rows() {
		if err := weights.Dequantize(row, x, i); err != nil {
			t.Fatal(err)
		}
		put(&b, row)
	}
	return b.Bytes()
}

// mixedFile writes the random model and returns its path.
func mixedFile(t testing.TB, seed uint64, plain bool) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "mixed.gguf", mixed(t, seed, plain))
	return filepath.Join(dir, "mixed.gguf")
}
