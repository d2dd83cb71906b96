package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/engine/native/model"
)

// job is one sequence of a random schedule.
type job struct {
	id     int
	tokens []dynamo.TokenID
	table  []int32
	done   int
}

// reference computes every position of a sequence alone, one token at a time.
func reference(t *testing.T, m *model.Model, tokens []dynamo.TokenID) [][]float32 {
	t.Helper()
	c := newCache(t, m, len(tokens)/model.BlockSize+1)
	var out model.Output
	var rows [][]float32
	for i := range tokens {
		forward(t, m, c, &out, model.Seq{Tokens: tokens[i : i+1], Start: i, Blocks: blocks(0, len(tokens)), Logits: model.LogitsAll})
		rows = append(rows, append([]float32(nil), out.Row(0)...))
	}
	return rows
}

// schedule runs the sequences in random chunks and company, over blocks in random
// order that hold garbage to begin with, the shared prefix once for all; every
// row of logits must have the bits of the reference.
func schedule(t *testing.T, r *rand.Rand, m *model.Model, seqs [][]dynamo.TokenID, shared int, want [][][]float32) {
	t.Helper()
	jobs, need := []*job{}, shared/model.BlockSize
	for id, tokens := range seqs {
		jobs = append(jobs, &job{id: id, tokens: tokens})
		need += (len(tokens)-shared)/model.BlockSize + 1
	}
	c := newCache(t, m, need)
	for b := range c.Blocks() {
		junk := c.Block(b)
		for i := range junk {
			junk[i] = byte(0xff - i%2*0x80*(b%2)) // NaN of both types
		}
	}
	free := r.Perm(need)
	take := func(n int) (out []int32) {
		for range n {
			out = append(out, int32(free[0]))
			free = free[1:]
		}
		return out
	}
	common := take(shared / model.BlockSize)
	for i, j := range jobs {
		j.table = append(append([]int32(nil), common...), take((len(j.tokens)-shared)/model.BlockSize+1)...)
		if i > 0 {
			j.done = shared // computed by the first, maybe in the same step
		}
	}
	var out model.Output
	for step := 0; ; step++ {
		var batch []model.Seq
		var who []*job
		ready := jobs[0].done // positions of the first sequence after this step
		for i, j := range jobs {
			left := len(j.tokens) - j.done
			if left == 0 || i > 0 && ready < shared || r.IntN(3) == 0 {
				continue
			}
			n := 1 + r.IntN(min(left, []int{1, 3, 40, 200}[r.IntN(4)]))
			if i == 0 {
				ready += n
			}
			batch = append(batch, model.Seq{Tokens: j.tokens[j.done : j.done+n], Start: j.done, Blocks: j.table, Logits: model.LogitsMode(r.IntN(3))})
			who = append(who, j)
		}
		r.Shuffle(len(batch), func(i, j int) {
			batch[i], batch[j] = batch[j], batch[i]
			who[i], who[j] = who[j], who[i]
		})
		if err := m.Forward(c, batch, &out); err != nil {
			t.Fatal(err)
		}
		row, left := 0, 0
		for i, s := range batch {
			j := who[i]
			for p := range s.Tokens {
				if s.Logits == model.LogitsAll || s.Logits == model.LogitsLast && p == len(s.Tokens)-1 {
					equalBits(t, fmt.Sprintf("step %d, sequence %d, position %d", step, j.id, j.done+p), out.Row(row), want[j.id][j.done+p])
					row++
				}
			}
			j.done += len(s.Tokens)
		}
		if row != out.Rows() {
			t.Fatalf("%d rows of logits, want %d", out.Rows(), row)
		}
		for _, j := range jobs {
			left += len(j.tokens) - j.done
		}
		if left == 0 {
			return
		}
	}
}

func equalBits(t *testing.T, where string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) || got[i] != got[i] {
			t.Fatalf("%s: logit %d is %v, want %v", where, i, got[i], want[i])
		}
	}
}

// TestBatchInvariant is the package's law: over random schedules, in both
// precisions, at every instruction level and with one to three threads, the
// logits have the bits of a lone sequence computed token by token on one thread.
func TestBatchInvariant(t *testing.T) {
	const shared = 2 * model.BlockSize
	path := mixedFile(t, 3, false)
	for _, p := range []model.Precision{model.Int8, model.F32} {
		r := rand.New(rand.NewPCG(5, uint64(p)))
		seqs := make([][]dynamo.TokenID, 5)
		if testing.Short() {
			seqs = seqs[:3]
		}
		for i := range seqs {
			seqs[i] = make([]dynamo.TokenID, shared+1+r.IntN(70))
			for j := range seqs[i] {
				seqs[i][j] = dynamo.TokenID(r.IntN(mixedVocab))
			}
			copy(seqs[i], seqs[0][:shared])
		}
		var want [][][]float32
		o := model.DefaultOptions()
		o.Precision, o.Threads = p, 1
		lone := loadWith(t, path, o)
		for _, s := range seqs {
			want = append(want, reference(t, lone, s))
		}
		for _, l := range kernel.Levels() {
			for threads := 1; threads <= 3; threads++ {
				if l == kernel.LevelScalar && threads != 2 {
					continue // the definition is slow, and the threads are the same
				}
				t.Run(fmt.Sprintf("%s/%s/%d", p, l, threads), func(t *testing.T) {
					o.Level, o.Threads = l, threads
					m := loadWith(t, path, o)
					schedules := 10
					if l == kernel.LevelScalar {
						schedules = 1
					}
					if testing.Short() {
						schedules = 1
					}
					for i := range schedules {
						r := rand.New(rand.NewPCG(uint64(i), uint64(threads)))
						schedule(t, r, m, seqs, shared, want)
					}
				})
			}
		}
	}
}

// TestExactWeights checks that full precision computes with exactly the weights
// of the file: a model of all types and the same values as F32 agree bit by bit.
func TestExactWeights(t *testing.T) {
	tokens := make([]dynamo.TokenID, 60)
	for i := range tokens {
		tokens[i] = dynamo.TokenID(i * 37 % mixedVocab)
	}
	a := all(t, load(t, mixedFile(t, 9, false), model.F32, 1), tokens)
	b := all(t, load(t, mixedFile(t, 9, true), model.F32, 1), tokens)
	compare(t, "quantized against plain", a, b, 0)
	if a[0][0] == a[0][1] && a[1][0] == a[2][0] {
		t.Error("all logits are alike")
	}
}
