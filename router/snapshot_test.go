package router_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
)

func noPause(time.Duration) error { return nil }

// snapshot is what a router writes.
func snapshot(t testing.TB, all ...*router.Router) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := router.WriteSnapshot(&b, all, noPause); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reopen(t testing.TB, b []byte) *router.Snapshot {
	t.Helper()
	s, err := router.OpenSnapshot(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Who begins with a snapshot serves from it before the worker has said a word, and goes
// on with the events behind it: no cache is begun anew, and all is exact.
func TestSnapshot(t *testing.T) {
	watched(t, func(w *kvWorker) {
		for range 50 {
			w.store(100)
		}
		w.awaitExact()
		saved := snapshot(t, w.r)
		gone := w.store(40) // what the file knows nothing of
		w.remove(gone[20:])
		later := w.store(7)
		w.awaitExact()

		second := &kvWorker{t: w.t, rng: w.rng, held: w.held, source: w.source}
		second.r = open(t, func(c *router.Config) { c.Mode, c.Restored = "kv", reopen(t, saved) })
		if err := second.r.Add(router.Worker{ID: 7, Epoch: 1, Engine: takes(time.Second), Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}); err != nil {
			t.Fatal(err)
		}
		end := second.connectAndFollow()
		defer end()
		synctest.Wait()
		if all, exact := second.r.Held(7, 1); !exact || len(all) != 1 || len(all[0].Hashes) != 5027 {
			t.Errorf("followed: %d parts, exact %t", len(all), exact)
		}
		w.remove(later)
		time.Sleep(time.Second)
		if !second.exact() || second.resets.Load() != 0 || second.snapshots.Load() != 0 {
			t.Errorf("exact %t, begun anew %d times with %d bytes", second.exact(), second.resets.Load(), second.snapshots.Load())
		}
		time.Sleep(2 * time.Minute) // digests find nothing
		if !second.exact() || second.asked.Load() != 0 {
			t.Errorf("exact %t, %d bytes asked for", second.exact(), second.asked.Load())
		}
	})
}

// A snapshot of an index that had missed something is found to be wrong by the worker's
// digest, and mended without asking for all.
func TestSnapshotRepaired(t *testing.T) {
	watched(t, func(w *kvWorker) {
		for range 50 {
			w.store(100)
		}
		w.awaitExact()
		time.Sleep(20 * time.Second)
		w.lose.Store(1)
		w.store(30)
		w.store(1)
		time.Sleep(time.Second)
		saved := snapshot(t, w.r)
		second := &kvWorker{t: w.t, rng: w.rng, held: w.held, source: w.source}
		second.r = open(t, func(c *router.Config) { c.Mode, c.Restored = "kv", reopen(t, saved) })
		if err := second.r.Add(router.Worker{ID: 7, Epoch: 1, Engine: takes(time.Second), Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}); err != nil {
			t.Fatal(err)
		}
		defer second.connectAndFollow()()
		time.Sleep(500 * time.Millisecond)
		if second.exact() {
			t.Fatal("nothing is missing in the snapshot")
		}
		if took := second.awaitExact(); took > 10*time.Second || second.resets.Load() > 0 || second.asked.Load() == 0 {
			t.Errorf("exact after %v, begun anew %d times, %d bytes asked for", took, second.resets.Load(), second.asked.Load())
		}
	})
}

// What was restored serves while its worker is silent, is stale, and gives way to what
// the worker tells if that cannot go on where the snapshot ends.
func TestSnapshotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := caching(t, 3, func(c *router.Config) { c.PredictTTL = 0 })
		apply(t, r, 2, event.Delivery{Kind: event.Reset})
		d := stored(blockSize, text(1, 400))
		d.Kind, d.Seq = event.Snapshot, 9
		d.Source.Epoch = 1
		apply(t, r, 2, d) // half a snapshot of the worker
		saved := snapshot(t, r)
		file := reopen(t, saved)
		again, all := caching(t, 3, func(c *router.Config) { c.PredictTTL, c.Restored = 0, file })
		if file.Left() != 1 {
			t.Errorf("%d lives in the file, want 1", file.Left())
		}
		apply(t, again, 2, event.Delivery{Kind: event.Gap})
		if s := again.State().Workers[1]; s.Cache != "repairing" || s.Blocks != 100 || file.Left() != 0 {
			t.Errorf("restored: %s with %d blocks, %d lives left", s.Cache, s.Blocks, file.Left())
		}
		if got := sent(t, again, all, "1", text(1, 420), nil); got != 2 {
			t.Errorf("went to %d", got)
		}
		apply(t, again, 2, event.Delivery{Kind: event.Reset, Last: true})
		if s := again.State().Workers[1]; s.Cache != "exact" || s.Blocks != 0 {
			t.Errorf("begun anew: %s with %d blocks", s.Cache, s.Blocks)
		}
		idle(t, again)
	})
}

// Where a router begins again: only where all up to an event is in the snapshot, in a
// form from which events lead on.
func TestSnapshotPosition(t *testing.T) {
	event9 := func(d event.Delivery) event.Delivery {
		d.Seq, d.Source.Epoch = 9, 1
		return d
	}
	names := event.KVBatch{BlockSize: blockSize, Events: []event.KVEvent{{Kind: kvbm.Stored, HasEngine: true, Blocks: []event.KVBlock{{Engine: 4}}}}}
	names.Events[0].Blocks[0].Hash = 5
	for _, c := range []struct {
		name string
		last []event.Delivery
		want uint64
	}{
		{"events", []event.Delivery{event9(stored(blockSize, text(2, 8)))}, 9},
		{"a gap", []event.Delivery{event9(stored(blockSize, text(2, 8))), {Kind: event.Gap}}, 0},
		{"ids of the engine", []event.Delivery{event9(event.Delivery{Kind: event.Event, Payload: names.Append(nil)})}, 0},
		{"an event of a later version", []event.Delivery{event9(event.Delivery{Kind: event.Event, Payload: []byte{1, 0, 0, blockSize, 0x40}})}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, _ := caching(t, 1, func(*router.Config) {})
			apply(t, r, 1, event9(stored(blockSize, text(1, 400))))
			for _, d := range c.last {
				apply(t, r, 1, d)
			}
			b := snapshot(t, r)
			again, _ := caching(t, 1, func(c *router.Config) { c.Restored = reopen(t, b) })
			if got := subscribed(again, 1); got.Seq != c.want || (got.Seq > 0) != (got.Epoch == 1) {
				t.Errorf("%s: goes on at %+v, want event %d", c.name, got, c.want)
			}
		})
	}
}

// A file that is cut anywhere, or changed anywhere, or is no snapshot, is found to be.
func TestSnapshotDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := caching(t, 3, func(*router.Config) {})
		for i := range 3 {
			apply(t, r, i+1, stored(blockSize, text(i, 90)))
		}
		whole := snapshot(t, r)
		refused := func(what string, n int, b []byte) {
			t.Helper()
			s, err := router.OpenSnapshot(bytes.NewReader(b), int64(len(b)))
			if s != nil || dynamo.KindOf(err) != dynamo.KindCorrupt || !strings.Contains(err.Error(), "the file ") {
				t.Errorf("%s %d: got %v, %v", what, n, s, err)
			}
		}
		if reopen(t, whole).Left() != 3 {
			t.Fatal("the snapshot as it is cannot be used")
		}
		for i := range whole {
			refused("cut at", i, whole[:i])
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1 << (i % 8)
			refused("changed at", i, flipped)
		}
		refused("longer by", 1, append(bytes.Clone(whole), 0))
		refused("twice", 2, append(bytes.Clone(whole), whole...))
		newer := bytes.Clone(whole)
		newer[8] = 2
		if _, err := router.OpenSnapshot(bytes.NewReader(newer), int64(len(newer))); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("of version 2: %v", err)
		}
	})
}

// A snapshot that is right in itself and does not fit the worker is not used, and the
// log is told why, once.
func TestSnapshotOfAnother(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*router.Worker)
		model  string
		word   string
	}{
		{"model", func(w *router.Worker) { w.Card.Model = "other" }, "other", "serves model"},
		{"block size", func(w *router.Worker) { w.Card.BlockSize = 8 }, "m", "blocks of 4 tokens"},
		{"ranks", func(w *router.Worker) { w.Ranks = 2 }, "m", "rank 3"},
		{"life", func(w *router.Worker) { w.Epoch = 2 }, "m", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, _ := caching(t, 1, func(*router.Config) {})
			b := event.KVBatch{BlockSize: blockSize, Rank: 3, Events: []event.KVEvent{{Kind: kvbm.Stored, Blocks: []event.KVBlock{{}}}}}
			apply(t, r, 1, event.Delivery{Kind: event.Event, Seq: 3, Source: event.Source{Epoch: 1}, Payload: b.Append(nil)})
			saved := snapshot(t, r)
			var log bytes.Buffer
			again := open(t, func(rc *router.Config) {
				rc.Mode, rc.Model, rc.Restored, rc.Logger = "kv", c.model, reopen(t, saved), textLog(&log)
			})
			w := router.Worker{ID: 1, Epoch: 1, Engine: takes(time.Second), Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}
			c.change(&w)
			if err := again.Add(w); err != nil {
				t.Fatal(err)
			}
			if got := subscribed(again, w.Epoch); got != (event.Position{}) {
				t.Errorf("%s: goes on at %+v", c.name, got)
			}
			if n := again.State().Index.Blocks; n != 0 {
				t.Errorf("%s: %d blocks", c.name, n)
			}
			if n := strings.Count(log.String(), "not used"); (n == 1) != (c.word != "") || !strings.Contains(log.String(), c.word) {
				t.Errorf("%s: the log says %q", c.name, log.String())
			}
		})
	}
}

// Writing ends when it is told to, and what nobody has followed is dropped.
func TestSnapshotEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := caching(t, 2, func(*router.Config) {})
		apply(t, r, 1, stored(blockSize, text(1, 400)))
		stop := errors.New("stop")
		if err := router.WriteSnapshot(&bytes.Buffer{}, []*router.Router{r}, func(time.Duration) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
		s := reopen(t, snapshot(t, r))
		if s.Left() != 1 || s.Close() != 1 || s.Left() != 0 || s.Close() != 0 || (*router.Snapshot)(nil).Close() != 0 {
			t.Errorf("%d lives are left", s.Left())
		}
		again, _ := caching(t, 1, func(c *router.Config) { c.Restored = s })
		if got := subscribed(again, 1); got != (event.Position{}) || again.State().Index.Blocks != 0 {
			t.Errorf("a life that was dropped goes on at %+v", got)
		}
	})
}

// FuzzSnapshot reads files whose checksums are right.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'm'}, []byte{2, 0, 0, 4, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0}, []byte{3, 5, 0, 0, 0, 0, 0, 0, 0}, []byte{4, 3, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1}, []byte{2, 9}, []byte{3}, []byte{4})
	f.Fuzz(func(t *testing.T, a, b, c, d []byte) {
		file := binary.LittleEndian.AppendUint32([]byte("dynkvidx"), 1)
		for _, p := range [][]byte{a, b, c, d} {
			file = binary.LittleEndian.AppendUint32(file, uint32(len(p)))
			file = binary.LittleEndian.AppendUint32(file, crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
			file = append(file, p...)
		}
		s, err := router.OpenSnapshot(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			if dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Errorf("got %v", err)
			}
			return
		}
		r := open(t, func(c *router.Config) { c.Mode, c.Restored = "kv", s })
		if err := r.Add(router.Worker{ID: 1, Epoch: 1, Engine: takes(0), Card: engine.Card{Model: "m", BlockSize: 4}}); err != nil {
			t.Fatal(err)
		}
		subscribed(r, 1)
		_ = r.State()
	})
}

// BenchmarkSnapshot writes what is known of 64 workers with 8,192 blocks each, of which
// eight hold the same, and begins with it again.
func BenchmarkSnapshot(b *testing.B) {
	fleet := func(s *router.Snapshot) *router.Router {
		r := open(b, func(c *router.Config) { c.Mode, c.Restored = "kv", s })
		for i := range 64 {
			w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: takes(0), Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}
			if err := r.Add(w); err != nil {
				b.Fatal(err)
			}
		}
		return r
	}
	r := fleet(nil)
	for i := range 64 {
		ids := make([]dynamo.TokenID, blockSize*128)
		for chain := range 64 {
			for k := range ids {
				ids[k] = dynamo.TokenID(i/8<<24 + chain<<16 + k)
			}
			deliver(r, dynamo.WorkerID(i+1), stored(blockSize, ids))
		}
	}
	var file []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			file = snapshot(b, r)
		}
		b.ReportMetric(float64(len(file))/(64*8192), "B/block")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(64*8192), "ns/block")
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			again := fleet(reopen(b, file))
			for i := range 64 {
				deliver(again, dynamo.WorkerID(i+1), event.Delivery{Kind: event.Gap})
			}
			if n := again.State().Index.Blocks; n != 64*8192 {
				b.Fatalf("%d blocks", n)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(64*8192), "ns/block")
	})
}
