package native

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

const handoverTokens = 1009 // 63 blocks, and the id behind them

// BenchmarkHandover hands the KV of a prompt over between two engines, from one cache to
// another that are mapped apart, again and again: into blocks that were used before, and
// first of all into such as never were. It says in milliseconds how long the second engine
// takes to the next id (token2; first), how long a step takes there (step), how long it
// takes to copy the same bytes between the same mappings (copy), and what the hand-over
// costs beyond a step and the copy (beyond; of the least of each, where others use the
// machine). share is what it costs beyond a step as a share of the time to first token,
// overlapped in how many of them the step began before all of the KV was there, and faults
// how many pages were touched that were not mapped yet. In turn with these goes a hand-over
// for which the step waits for all of the KV (whole).
func BenchmarkHandover(b *testing.B) {
	m := loadModel(b, fixture.SmolLM2(b), model.Int8, 2)
	for _, way := range []string{"shm", "tcp"} {
		b.Run(way, func(b *testing.B) {
			shortDir = b.TempDir()
			from := startExchanging(b, m, way, func(c *Config) { prefills(c); c.Blocks, c.StepTokens = 1024, 512 })
			to := startExchanging(b, m, way, func(c *Config) { decodes(c); c.Blocks, c.StepTokens, c.PrefixCaching = 1024, 512, false })
			h := handing{b: b, from: from, to: to}
			h.prefilled(func(ids []dynamo.TokenID, where []byte) {
				h.one(ids, where)
				first, touched := h.token2[0], h.faults[0]
				h.one(ids, where)
				begun := to.metric(b, "dynamo_native_takeovers_overlapped_total")
				h.token2, h.step, h.faults = nil, nil, nil
				n, onTime := 0, to.moves.fetcher.inTime
				never := func(time.Duration, int, int) bool { return false }
				var split, whole []time.Duration
				for b.Loop() {
					n++
					h.one(ids, where)
					split, h.token2 = append(split, h.token2...), nil
					to.moves.fetcher.inTime = never // nothing is on its way
					h.one(ids, where)
					whole, h.token2 = append(whole, h.token2...), nil
					to.moves.fetcher.inTime = onTime
				}
				h.token2 = split
				raw := h.raw()
				ms := func(name string, d time.Duration) { b.ReportMetric(d.Seconds()*1000, name) }
				ms("first-ms", first)
				ms("token2-ms", median(h.token2))
				ms("whole-ms", median(whole))
				ms("step-ms", median(h.step))
				ms("copy-ms", median(raw))
				ms("beyond-ms", median(h.token2)-median(h.step)-median(raw))
				ms("beyond-least-ms", slices.Min(h.token2)-slices.Min(h.step)-slices.Min(raw))
				b.ReportMetric(float64(touched), "first-faults")
				b.ReportMetric(float64(median(h.faults)), "faults")
				b.ReportMetric(float64(to.metric(b, "dynamo_native_takeovers_overlapped_total")-begun)/float64(n), "overlapped")
				b.ReportMetric(100*(median(h.token2)-median(h.step)).Seconds()/h.ttft.Seconds(), "%share")
			})
		})
	}
}

// handing measures hand-overs from one engine to another.
type handing struct {
	b            *testing.B
	from, to     *exchanger
	ttft         time.Duration
	token2, step []time.Duration
	faults       []time.Duration // not times: pages
}

func (h *handing) request() *dynamo.Request {
	ids := make([]dynamo.TokenID, handoverTokens)
	for j := range ids {
		ids[j] = dynamo.TokenID(1000 + (j*j*31)%40000)
	}
	return &dynamo.Request{ID: "r", Tokens: ids, MaxTokens: 6, IgnoreEOS: true}
}

// prefilled calls during with what the first engine says of the prompt.
func (h *handing) prefilled(during func(ids []dynamo.TokenID, where []byte)) {
	r := h.request()
	r.Prefill = true
	asked := time.Now()
	for chunk, err := range h.from.Generate(h.b.Context(), r) {
		if err != nil {
			h.b.Fatal(err)
		}
		if chunk.Handover != nil {
			h.ttft = time.Since(asked)
			during(slices.Clone(chunk.Tokens), slices.Clone(chunk.Handover))
			return
		}
	}
}

// one has the second engine go on.
func (h *handing) one(ids []dynamo.TokenID, where []byte) {
	r := h.request()
	r.Resume, r.Handover = ids, where
	last, before, seen := time.Now(), faults(), 0
	for chunk, err := range h.to.Generate(h.b.Context(), r) {
		if err != nil {
			h.b.Fatal(err)
		}
		took := time.Since(last)
		last = last.Add(took)
		if seen == 0 {
			h.token2, h.faults = append(h.token2, took), append(h.faults, faults()-before)
		} else if n := len(chunk.Tokens); n > 0 {
			h.step = append(h.step, took/time.Duration(n))
		}
		seen += len(chunk.Tokens)
	}
}

// raw is how long a goroutine takes to copy as many blocks from the cache of the one,
// mapped anew, to that of the other.
func (h *handing) raw() (took []time.Duration) {
	shared := h.from.moves.shared
	there, err := unix.Mmap(int(shared.File().Fd()), 0, len(shared.Bytes()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		h.b.Fatal(err)
	}
	defer unix.Munmap(there)
	here := h.to.moves.cache
	size, n := here.BlockBytes(), blocksOf(handoverTokens)
	for range 30 {
		began := time.Now()
		for i := range n {
			at := here.Blocks() - 1 - 2*i // never used by the engine
			copy(here.Block(at), there[i*size:(i+1)*size])
		}
		took = append(took, time.Since(began))
	}
	return took[1:]
}

// faults is how many pages this process has touched that were not mapped.
func faults() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Minflt)
}

func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}
