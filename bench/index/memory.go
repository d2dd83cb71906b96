package index

import (
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
)

// memory is the bytes of the heap and of the process, after a collection.
func memory() (heap, rss int64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), resident()
}

func (c Config) mem(o *object) error {
	x, err := c.subject()
	if err != nil {
		return err
	}
	heap0, rss0 := memory()
	g := newGenerator(c.Params)
	var events []stored
	for i := 0; ; i++ {
		var ok bool
		if _, events, ok = g.sequence(events[:0]); !ok {
			break
		}
		for i := range events {
			x.store(&events[i])
		}
	}
	events = nil
	rss1 := resident()
	heap2, rss2 := memory()
	n := float64(g.blocks)
	o.int("blocks", int64(g.blocks))
	o.float("rss_b_per_hb", float64(rss1-rss0)/n, 1)
	o.float("rss_trim_b_per_hb", float64(rss2-rss0)/n, 1)
	o.float("heap_b_per_hb", float64(heap2-heap0)/n, 1)
	o.float("bytes_b_per_hb", float64(x.Bytes())/n, 1)
	runtime.KeepAlive(x)
	return nil
}

// mixed measures a writer that applies the second half of the events and a reader
// beside it.
func (c Config) mixed(o *object) error {
	w := generate(c.Params)
	x, err := c.subject()
	if err != nil {
		return err
	}
	half := w.events[len(w.events)/2:]
	for i := range w.events[:len(w.events)/2] {
		x.store(&w.events[i])
	}
	locals := queries(w.sequences[:len(w.sequences)/2], 128, c.queries(), c.Seed)
	hashes := make([][]dynamo.BlockHash, len(locals))
	for i := range locals {
		hashes[i] = chain(nil, locals[i])
	}
	runtime.GC()
	stop, done := make(chan struct{}), make(chan struct{})
	took := make([]time.Duration, 0, min(c.Blocks*2, 1<<22))
	var span time.Duration
	go func() { // ends with the writer
		defer close(done)
		var found []kvindex.Overlap
		began := time.Now()
		for i := 0; ; i++ {
			select {
			case <-stop:
				span = time.Since(began)
				return
			default:
			}
			t := time.Now()
			found = x.Find(hashes[i%len(hashes)], found[:0])
			took = append(took, time.Since(t))
		}
	}()
	t, n := time.Now(), 0
	for i := range half {
		x.store(&half[i])
		n += len(half[i].blocks)
	}
	d := time.Since(t)
	close(stop)
	<-done
	o.float("store_ev_s", rate(len(half), d), 0)
	o.float("store_blk_s", rate(n, d), 0)
	o.float("reads_s", rate(len(took), span), 0)
	slices.Sort(took)
	o.float("read_p50_us", micros(took, 0.5), 2)
	o.float("read_p99_us", micros(took, 0.99), 2)
	o.float("read_max_us", micros(took, 1), 0)
	return nil
}

// leak measures what is left of memory when all is removed.
func (c Config) leak(o *object) error {
	w := generate(c.Params)
	w.events = nil
	x, err := c.subject()
	if err != nil {
		return err
	}
	start, _ := memory()
	g := newGenerator(c.Params)
	var events []stored
	for {
		var ok bool
		if _, events, ok = g.sequence(events[:0]); !ok {
			break
		}
		for i := range events {
			x.store(&events[i])
		}
	}
	full, _ := memory()
	for i := range w.sequences {
		gone, _ := removals(w.sequences[i:i+1], c.Params, 16)
		for j := range gone {
			x.remove(&gone[j])
		}
	}
	tails, _ := memory()
	for _, s := range x.sources {
		x.Detach(s)
	}
	for !x.Sweep(1 << 10) {
	}
	empty, _ := memory()
	n := float64(g.blocks)
	o.float("heap_full_b", float64(full-start)/n, 1)
	o.float("heap_tails_removed_b", float64(tails-start)/n, 1)
	o.float("heap_workers_removed_b", float64(empty-start)/n, 1)
	o.int("bytes_left", x.Bytes())
	runtime.KeepAlive(x)
	return nil
}
