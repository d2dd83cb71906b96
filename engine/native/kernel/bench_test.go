package kernel

import (
	"fmt"
	"testing"
)

// The matrices of one SmolLM2-135M layer (rows × columns), and its head.
var smolLayer = [][2]int{{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}

const smolVocab, smolHidden, smolLayers = 49152, 576, 30

// macs returns the multiplications of one token over ms.
func macs(ms []*Matrix) (n float64) {
	for _, m := range ms {
		n += float64(m.N) * float64(m.K)
	}
	return n
}

// smolModel returns layers' worth of matrices, so that a benchmark of one token
// streams its weights from where a model would.
func smolModel(b *testing.B, f Format, layers int) []*Matrix {
	r := newRand(1)
	var ms []*Matrix
	var one []*Matrix
	for _, s := range smolLayer {
		m, _ := randomMatrix(b, r, f, s[0], s[1])
		one = append(one, m)
	}
	for i := 0; i < layers; i++ {
		for _, m := range one {
			c, err := NewMatrix(f, m.N, m.K)
			if err != nil {
				b.Fatal(err)
			}
			copy(c.data, m.data)
			ms = append(ms, c)
		}
	}
	return ms
}

func reportGOPS(b *testing.B, tokens int, ms []*Matrix) {
	perSecond := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(2*macs(ms)*float64(tokens)*perSecond/1e9, "GOP/s")
	whole := macs(ms) / float64(len(ms)/len(smolLayer)) * smolLayers
	b.ReportMetric(macs(ms)*float64(tokens)*perSecond/whole, "tok/s-of-layers")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkMatMulQ(b *testing.B) {
	for _, k := range levels(b) {
		for _, f := range []Format{Q4, Q8} {
			layers := smolLayers
			if k.Level() == LevelScalar {
				layers = 1
			}
			ms := smolModel(b, f, layers)
			for _, m := range []int{1, 2, 4, 8, 16, 128} {
				if k.Level() == LevelScalar && m > 8 {
					continue
				}
				b.Run(fmt.Sprintf("%s/%s/m=%d", k.Level(), f, m), func(b *testing.B) {
					r := newRand(2)
					qs := map[int]*Quantized{}
					dst := make([]float32, m*3072)
					for _, w := range ms[:len(smolLayer)] {
						q := &Quantized{}
						q.Grow(m, w.K)
						for i := 0; i < m; i++ {
							k.Quantize(q, i, normal(r, w.K))
						}
						qs[w.K] = q
					}
					b.ReportAllocs()
					b.ResetTimer()
					for b.Loop() {
						for _, w := range ms {
							k.MatMulQ(dst, 3072, qs[w.K], m, w, 0, w.Groups())
						}
					}
					reportGOPS(b, m, ms)
				})
			}
		}
	}
}

func BenchmarkHeadQ8(b *testing.B) {
	for _, k := range levels(b) {
		if k.Level() == LevelScalar {
			continue
		}
		w, _ := NewMatrix(Q8, smolVocab, smolHidden)
		x := normal(newRand(1), smolHidden)
		for i := 0; i < smolVocab; i++ {
			w.SetRowF32(i, x)
		}
		var q Quantized
		q.Grow(1, smolHidden)
		k.Quantize(&q, 0, x)
		dst := make([]float32, smolVocab)
		b.Run(k.Level().String(), func(b *testing.B) {
			b.SetBytes(w.SizeBytes())
			for b.Loop() {
				k.MatMulQ(dst, smolVocab, &q, 1, w, 0, w.Groups())
			}
		})
	}
}

func BenchmarkMatMulF(b *testing.B) {
	for _, k := range levels(b) {
		if k.Level() == LevelScalar {
			continue
		}
		for _, f := range []Format{Q4, F32, BF16} {
			ms := smolModel(b, f, 4)
			for _, m := range []int{1, 8, 128} {
				b.Run(fmt.Sprintf("%s/%s/m=%d", k.Level(), f, m), func(b *testing.B) {
					x := normal(newRand(2), m*1536)
					dst := make([]float32, m*3072)
					for b.Loop() {
						for _, w := range ms {
							k.MatMulF(dst, 3072, x, 1536, m, w, 0, w.Groups())
						}
					}
					reportGOPS(b, m, ms)
				})
			}
		}
	}
}

// BenchmarkAttend is one layer of SmolLM2: three kv heads with three query
// heads each, one query (decode) or 128 (prefill) at the end of the context.
func BenchmarkAttend(b *testing.B) {
	for _, k := range levels(b) {
		if k.Level() == LevelScalar {
			continue
		}
		for _, typ := range []KVType{KVF16, KVF32} {
			for _, positions := range []int{128, 1024} {
				for _, queries := range []int{1, 128} {
					b.Run(fmt.Sprintf("%s/%s/context=%d/queries=%d", k.Level(), typ, positions, queries), func(b *testing.B) {
						c := newContext(b, newRand(1), k, typ, 64, positions)
						q := normal(newRand(2), queries*3*64)
						dst := make([]float32, len(q))
						var s AttendScratch
						a := &Attention{KV: c.kv, Layer: testLayer, Head: testHead, Blocks: c.blocks, First: positions - queries,
							Queries: queries, QHeads: 3, Scale: 0.125, Q: q, Dst: dst, QStride: 192, DstStride: 192}
						b.ReportAllocs()
						for b.Loop() {
							for h := 0; h < 3; h++ {
								k.Attend(a, &s)
							}
						}
						b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/float64(queries)*smolLayers, "µs/token-of-30-layers")
					})
				}
			}
		}
	}
}

func BenchmarkVectors(b *testing.B) {
	for _, k := range levels(b) {
		x, y := normal(newRand(1), 1536), normal(newRand(2), 1536)
		dst := make([]float32, 1536)
		vocab := normal(newRand(3), smolVocab)
		cos, sin := make([]float32, 32), make([]float32, 32)
		for i := range cos {
			cos[i], sin[i] = 0.6, 0.8
		}
		var q Quantized
		q.Grow(1, 1536)
		for _, c := range []struct {
			name string
			f    func()
		}{
			{"Quantize1536", func() { k.Quantize(&q, 0, x) }},
			{"RMSNorm576", func() { k.RMSNorm(dst[:576], x[:576], y[:576], 1e-5) }},
			{"SiluMul1536", func() { k.SiluMul(dst, x, y) }},
			{"Add576", func() { k.Add(dst[:576], x[:576]) }},
			{"Rope12x64", func() { k.Rope(dst[:768], cos, sin, 12, 64, false) }},
			{"LogSumExp49152", func() { k.LogSumExp(vocab) }},
			{"Argmax49152", func() { k.Argmax(vocab) }},
		} {
			b.Run(k.Level().String()+"/"+c.name, func(b *testing.B) {
				for b.Loop() {
					c.f()
				}
			})
		}
	}
}
