package model

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// Model is a loaded model. Forward calls are serialized; everything else may be
// called at any time before Close.
type Model struct {
	config    Config
	precision Precision
	kernels   *kernel.Kernels
	arena     *memory
	packed    int64

	embed, head *kernel.Matrix
	outNorm     []float32
	layers      []layer
	frequencies []float32

	mu struct {
		sync.Mutex
		closed bool
		pool   *pool
		step   *step
	}
}

// layer is one transformer layer. Biases and head norms are nil where the model
// has none.
type layer struct {
	attnNorm, ffnNorm          []float32
	q, k, v, o, gate, up, down *kernel.Matrix
	qBias, kBias, vBias, oBias []float32
	qNorm, kNorm               []float32
}

// Load reads a .gguf file or a folder in Hugging Face layout and packs its
// weights. Errors name what is wrong with the model and have KindNotFound,
// KindInvalid, KindCorrupt or KindExhausted; ending ctx ends loading with its
// cause.
func Load(ctx context.Context, path string, o Options) (*Model, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer s.close()
	p, err := newPlan(s, o.Precision)
	if err != nil {
		return nil, err
	}
	m := p.model
	if m.kernels, err = kernel.New(o.Level); err != nil {
		return nil, fmt.Errorf("choose kernels: %w", err)
	}
	if err := p.place(); err != nil {
		return nil, err
	}
	m.mu.pool = newPool(o.Threads)
	if err := p.pack(ctx, o.Progress); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.mu.step = newStep(m)
	return m, nil
}

// EstimateBytes returns what Load would keep resident for the model's weights
// and what one block of a KV cache takes, without loading it. It fails as Load
// does for a model that cannot be loaded.
func EstimateBytes(path string, o Options) (weights, perBlock int64, err error) {
	s, err := openSource(path)
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	p, err := newPlan(s, o.Precision)
	if err != nil {
		return 0, 0, err
	}
	return p.bytes, int64(p.model.kvShape().BlockBytes()), nil
}

// Config returns the model's description.
func (m *Model) Config() Config {
	c := m.config
	c.EOS = append([]dynamo.TokenID(nil), c.EOS...)
	return c
}

// SizeBytes returns the bytes of the packed weights, all of them resident.
func (m *Model) SizeBytes() int64 { return m.packed }

// Threads returns the number of threads that compute.
func (m *Model) Threads() int { return m.mu.pool.threads() }

// Close stops the workers and frees the weights. It waits for a running Forward;
// later ones fail. Closing twice does nothing.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil
	}
	m.mu.closed = true
	m.mu.pool.close()
	return m.arena.free()
}

// place reserves one arena and lays the matrices out in it.
func (p *plan) place() error {
	m := p.model
	var err error
	if m.arena, err = newMemory(p.bytes, true); err != nil {
		return &dynamo.Error{Kind: dynamo.KindExhausted, Err: err,
			Message: fmt.Sprintf("the weights of %s need %d bytes of memory, which this machine does not give: use a smaller model", p.src.path, p.bytes)}
	}
	m.packed = p.bytes
	free := m.arena.data
	for _, it := range p.items {
		// Sizes are multiples of 64 bytes, so each matrix is aligned as the first.
		w, err := kernel.NewMatrixIn(it.format, it.tensor.Rows(), it.tensor.Cols(), free[:it.bytes:it.bytes])
		if err != nil {
			return errors.Join(fmt.Errorf("place tensor %s: %w", it.tensor.Name, err), m.arena.free())
		}
		*it.to, free = w, free[it.bytes:]
	}
	if m.config.Tied {
		m.head = m.embed
	}
	return nil
}

// packRows is the number of rows a thread packs at once; releaseBytes is how much
// of the file may stay in memory behind the packing.
const (
	packRows     = 4 * kernel.GroupRows
	releaseBytes = 16 << 20
)

// packer fills the matrices, unit after unit: some rows of one matrix.
type packer struct {
	ctx      context.Context
	plan     *plan
	units    []packUnit
	rows     []packRow // by thread
	done     atomic.Int64
	released int64
	progress func(done, total int64)
	fault    atomic.Pointer[error]
}

type packUnit struct {
	item       *item
	begin, end int
}

// packRow is one thread's room for a row taken apart.
type packRow struct {
	codes  []byte
	codes8 []int8
	scale  []float32
	low    []float32
	values []float32
}

// pack fills all matrices, on all threads.
func (p *plan) pack(ctx context.Context, progress func(done, total int64)) error {
	pk := &packer{ctx: ctx, plan: p, progress: progress, rows: make([]packRow, p.model.mu.pool.threads())}
	cols := 0
	for i := range p.items {
		it := &p.items[i]
		cols = max(cols, it.tensor.Cols())
		for r := 0; r < it.tensor.Rows(); r += packRows {
			pk.units = append(pk.units, packUnit{it, r, min(r+packRows, it.tensor.Rows())})
		}
	}
	for i := range pk.rows {
		blocks := cols/kernel.Block + 1
		pk.rows[i] = packRow{make([]byte, cols), make([]int8, cols), make([]float32, blocks), make([]float32, blocks), make([]float32, cols)}
	}
	p.model.mu.pool.run(len(pk.units), pk.unit)
	p.src.tensors.Release()
	if err := pk.fault.Load(); err != nil {
		return *err
	}
	if progress != nil {
		progress(p.bytes, p.bytes)
	}
	return nil
}

// unit packs one unit.
func (pk *packer) unit(thread, i int) {
	if pk.fault.Load() != nil {
		return
	}
	if pk.ctx.Err() != nil {
		err := context.Cause(pk.ctx)
		pk.fault.CompareAndSwap(nil, &err)
		return
	}
	u := &pk.units[i]
	for r := u.begin; r < u.end; r++ {
		if err := pk.rows[thread].pack(u.item, r); err != nil {
			pk.fault.CompareAndSwap(nil, &err)
			return
		}
	}
	done := pk.done.Add(u.item.bytes * int64(u.end-u.begin) / int64(u.item.tensor.Rows()))
	if thread != 0 {
		return
	}
	if pk.progress != nil {
		pk.progress(done, pk.plan.bytes)
	}
	if done-pk.released > releaseBytes {
		pk.released = done
		pk.plan.src.tensors.Release()
	}
}

// pack packs one row.
func (b *packRow) pack(it *item, row int) error {
	w, stored := *it.to, storedRow(row, it.pairs)
	var err error
	switch it.tensor.DType {
	case weights.Q4_0, weights.Q4_1, weights.Q4_K:
		if err = weights.UnpackQ4(b.codes, b.scale, b.low, it.tensor, stored); err == nil {
			w.SetRowQ4(row, b.codes, b.scale, b.low)
		}
	case weights.Q8_0:
		if err = weights.UnpackQ8(b.codes8, b.scale, it.tensor, stored); err == nil {
			w.SetRowQ8(row, b.codes8, b.scale)
		}
	default:
		if err = weights.Dequantize(b.values, it.tensor, stored); err == nil {
			w.SetRowF32(row, b.values)
		}
	}
	return err
}
