package index

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// Modes are what Run can measure.
var Modes = []string{"bench", "mem", "mixed", "leak", "hash", "trees"}

// Config says what to measure.
type Config struct {
	Params
	// Mode is one of Modes.
	Mode string
	// EngineIDs gives blocks ids of their worker's own, by which they are removed.
	EngineIDs bool
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Params: Params{Workers: 64, Chunk: 64, Replicas: 1, Blocks: 2_000_000, Seed: 42}, Mode: "bench"}
}

// Validate reports whether c can be run.
func (c Config) Validate() error {
	switch {
	case c.Workers < 1 || c.Workers > kvindex.MaxSources:
		return invalid("--workers is %d; it must be 1 to %d", c.Workers, kvindex.MaxSources)
	case c.Chunk < 1 || c.Chunk > maxLen:
		return invalid("--chunk is %d; it must be 1 to %d", c.Chunk, maxLen)
	case c.Replicas < 1 || c.Replicas > c.Workers:
		return invalid("--replicas is %d; it must be 1 to the number of workers", c.Replicas)
	case c.Blocks < minBlocks || c.Blocks > maxBlocks:
		return invalid("--blocks is %d; it must be %d to %d", c.Blocks, minBlocks, maxBlocks)
	case !slices.Contains(Modes, c.Mode):
		return invalid("--mode is %q; it must be one of %v", c.Mode, Modes)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}

// Run measures and returns the result as one JSON object.
func Run(c Config) ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := new(object)
	impl := "kvindex"
	if c.EngineIDs {
		impl = "kvindex:engine"
	}
	o.text("impl", impl)
	o.text("mode", c.Mode)
	o.int("w", int64(c.Workers))
	o.int("chunk", int64(c.Chunk))
	o.int("rep", int64(c.Replicas))
	o.int("seed", int64(c.Seed))
	var err error
	switch c.Mode {
	case "bench":
		err = c.bench(o)
	case "mem":
		err = c.mem(o)
	case "mixed":
		err = c.mixed(o)
	case "leak":
		err = c.leak(o)
	case "trees":
		err = c.deep(o)
	default:
		hashing(o)
	}
	return o.bytes(), err
}

// subject is the index under test, with its workers attached.
type subject struct {
	*kvindex.Index
	sources []kvindex.Source
	engine  bool
	ids     []uint64
}

func (c Config) subject() (*subject, error) {
	conf := kvindex.DefaultConfig()
	conf.MaxBytes = max(conf.MaxBytes, int64(c.Blocks)*64)
	x, err := kvindex.New(conf)
	if err != nil {
		return nil, err
	}
	s := &subject{Index: x, engine: c.EngineIDs}
	for w := range c.Workers {
		s.sources = append(s.sources, x.Attach(kvindex.Worker{ID: dynamo.WorkerID(w + 1)}))
	}
	return s, nil
}

// engineID is what a worker's engine calls a block.
func engineID(h dynamo.BlockHash, worker int) uint64 { return Mix(uint64(h) ^ uint64(worker)) }

func (s *subject) store(e *stored) {
	if !s.engine {
		s.Store(s.sources[e.worker], dynamo.TierDevice, e.parent, e.hasParent, e.blocks)
		return
	}
	s.ids = s.ids[:0]
	for _, b := range e.blocks {
		s.ids = append(s.ids, engineID(b.Hash, e.worker))
	}
	s.StoreEngine(s.sources[e.worker], dynamo.TierDevice, e.parent, e.hasParent, e.blocks, s.ids)
}

func (s *subject) remove(e *removed) {
	if !s.engine {
		s.Remove(s.sources[e.worker], dynamo.TierDevice, e.hashes)
		return
	}
	s.ids = s.ids[:0]
	for _, h := range e.hashes {
		s.ids = append(s.ids, engineID(h, e.worker))
	}
	s.RemoveEngine(s.sources[e.worker], dynamo.TierDevice, s.ids)
}

// queryCount is the number of queries, of which digests are made; smaller workloads
// than the usual one have fewer.
const queryCount = 20_000

func (c Config) queries() int { return min(queryCount, max(c.Blocks/100, 10)) }

func (c Config) bench(o *object) error {
	w := generate(c.Params)
	x, err := c.subject()
	if err != nil {
		return err
	}
	runtime.GC()
	t, cpu := time.Now(), cpuTime()
	for i := range w.events {
		x.store(&w.events[i])
	}
	d, dc := time.Since(t), cpuTime()-cpu
	o.int("seqs", int64(len(w.sequences)))
	o.int("events", int64(len(w.events)))
	o.int("blocks", int64(w.held))
	o.hex("checksum", w.checksum)
	o.float("store_s", d.Seconds(), 4)
	o.float("store_cpu_s", dc.Seconds(), 4)
	o.float("store_ev_s", rate(len(w.events), d), 0)
	o.float("store_blk_s", rate(w.held, d), 0)
	w.events = nil
	runtime.GC()
	for _, n := range []int{128, 512} {
		c.find(o, x, w, n)
	}
	quarter := len(w.sequences) / 4
	for i, chunk := range []int{1, 16} {
		events, n := removals(w.sequences[i*quarter:][:quarter], c.Params, chunk)
		runtime.GC()
		t, cpu := time.Now(), cpuTime()
		for i := range events {
			x.remove(&events[i])
		}
		d, dc := time.Since(t), cpuTime()-cpu
		name := fmt.Sprintf("rm%d_", chunk)
		o.float(name+"ev_s", rate(len(events), d), 0)
		o.float(name+"blk_s", rate(n, d), 0)
		o.float(name+"cpu_ns_blk", float64(dc.Nanoseconds())/float64(n), 1)
	}
	c.detach(o, x, w)
	return nil
}

func rate(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// find measures lookups of n blocks.
func (c Config) find(o *object, x *subject, w *workload, n int) {
	locals := queries(w.sequences, n, c.queries(), c.Seed)
	hashes := make([][]dynamo.BlockHash, len(locals))
	for i := range locals {
		hashes[i] = chain(make([]dynamo.BlockHash, 0, n), locals[i])
	}
	var found []kvindex.Overlap
	for _, q := range hashes[:len(hashes)/10] { // warm up
		found = x.Find(q, found[:0])
	}
	digest, workers := uint64(0), 0
	for _, q := range hashes {
		found = x.Find(q, found[:0])
		workers += len(found)
		digest += x.digest(found)
	}
	runtime.GC()
	t := time.Now()
	for _, q := range hashes {
		found = x.Find(q, found[:0])
	}
	name := fmt.Sprintf("q%d_", n)
	o.float(name+"s", rate(len(hashes), time.Since(t)), 0)
	took := make([]time.Duration, len(hashes))
	for i, q := range hashes {
		t := time.Now()
		found = x.Find(q, found[:0])
		took[i] = time.Since(t)
	}
	o.percentiles(name, took)
	o.float(name+"workers", float64(workers)/float64(len(hashes)), 1)
	o.hex(name+"digest", digest)
	buf := make([]dynamo.BlockHash, 0, n)
	t = time.Now()
	for _, q := range locals {
		buf = chain(buf[:0], q)
		found = x.Find(buf, found[:0])
	}
	o.float(name+"chained_s", rate(len(locals), time.Since(t)), 0)
}

// digest is that of an answer.
func (s *subject) digest(found []kvindex.Overlap) (d uint64) {
	for _, f := range found {
		d += Mix(uint64(f.Source)<<32 | uint64(f.Blocks[0]))
	}
	return d
}

// detach measures removing workers, and lookups in the second after the last one.
func (c Config) detach(o *object, x *subject, w *workload) {
	k := min(c.Workers, 16)
	locals := queries(w.sequences[len(w.sequences)/2:], 128, c.queries(), c.Seed)
	hashes := make([][]dynamo.BlockHash, len(locals))
	for i := range locals {
		hashes[i] = chain(nil, locals[i])
	}
	var found []kvindex.Overlap
	lookups := func(d time.Duration) float64 {
		t, n := time.Now(), 0
		for time.Since(t) < d {
			for range 64 {
				found = x.Find(hashes[n%len(hashes)], found[:0])
				n++
			}
			x.Sweep(8) // what a write would do
		}
		return rate(n, time.Since(t))
	}
	before := lookups(time.Second)
	var took []time.Duration
	for i := range k {
		t := time.Now()
		x.Detach(x.sources[i])
		took = append(took, time.Since(t))
	}
	after := lookups(time.Second)
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	o.float("rmworker_ms_mean", sum.Seconds()*1e3/float64(k), 4)
	o.float("rmworker_ms_max", slices.Max(took).Seconds()*1e3, 4)
	o.int("rmworker_n", int64(k))
	o.float("rmworker_q128_s_before", before, 0)
	o.float("rmworker_q128_s_after", after, 0)
}

// hashing measures block hashing and chaining, and shows that both are right.
func hashing(o *object) {
	rng := random(7)
	ids := make([]dynamo.TokenID, 8192)
	for i := range ids {
		ids[i] = dynamo.TokenID(rng.below(150_000))
	}
	const times = 3000
	for _, size := range []int{16, 64} {
		locals := make([]dynamo.LocalHash, len(ids)/size)
		t := time.Now()
		for range times {
			for i := range locals {
				locals[i] = tokens.LocalHash(0, ids[i*size:(i+1)*size])
			}
		}
		local := time.Since(t)
		var hashes []dynamo.BlockHash
		t = time.Now()
		for range times {
			hashes = chain(hashes[:0], locals)
		}
		chained := time.Since(t)
		blocks := float64(times * len(locals))
		name := fmt.Sprintf("bs%d_", size)
		o.float(name+"mtok_s", float64(times*len(ids))/local.Seconds()/1e6, 0)
		o.float(name+"ns_block", float64(local.Nanoseconds())/blocks, 1)
		o.float(name+"chain_ns_block", float64(chained.Nanoseconds())/blocks, 1)
		o.hex(name+"first", uint64(locals[0]))
		o.hex(name+"last_seq", uint64(hashes[len(hashes)-1]))
	}
}
