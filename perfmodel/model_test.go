package perfmodel_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
)

var closed = perfmodel.ClosedForm{
	PrefillFixedSeconds: 7e-3, PrefillSecondsPerToken: 2e-5, PrefillSecondsPerPair: 1.5e-9,
	DecodeFixedSeconds: 5e-3, DecodeSecondsPerSequence: 4e-6, DecodeSecondsPerKVToken: 5e-8,
}

func chunks(c ...perfmodel.Chunk) *perfmodel.Batch { return &perfmodel.Batch{Chunks: c} }

func decodes(n, kv int) *perfmodel.Batch { return &perfmodel.Batch{Decodes: n, KVTokens: kv} }

// randomBatch draws a step; sizes span the orders of magnitude of real ones.
func randomBatch(r *rand.Rand) perfmodel.Batch {
	size := func(limit float64) int { return int(math.Exp(r.Float64() * math.Log(limit))) }
	var b perfmodel.Batch
	if r.IntN(3) > 0 {
		for range r.IntN(4) {
			c := perfmodel.Chunk{New: size(9000)}
			if r.IntN(2) == 0 {
				c.Context = size(60000)
			}
			b.Chunks = append(b.Chunks, c)
		}
	}
	if len(b.Chunks) == 0 || r.IntN(2) == 0 {
		b.Decodes = size(600)
		b.KVTokens = b.Decodes * size(9000)
	}
	return b
}

func close(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(math.Abs(want), 1e-12)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func refused(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	if got := dynamo.KindOf(err); got != dynamo.KindInvalid {
		t.Errorf("kind %v, want invalid: %v", got, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not name %q", err, p)
		}
	}
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestClosedForm(t *testing.T) {
	for _, c := range []struct {
		name string
		b    *perfmodel.Batch
		want float64
	}{
		{"nothing", &perfmodel.Batch{}, perfmodel.MinStepSeconds},
		{"empty chunk", chunks(perfmodel.Chunk{Context: 100}), perfmodel.MinStepSeconds},
		{"prompt", chunks(perfmodel.Chunk{New: 1000}), 7e-3 + 2e-2 + 1.5e-9*500000},
		{"its second half", chunks(perfmodel.Chunk{New: 500, Context: 500}), 7e-3 + 1e-2 + 1.5e-9*375000},
		{"two", chunks(perfmodel.Chunk{New: 100}, perfmodel.Chunk{New: 10, Context: 1000}), 7e-3 + 2.2e-3 + 1.5e-9*(5000+10050)},
		{"decode", decodes(10, 5000), 5e-3 + 4e-5 + 2.5e-4},
		{"both", &perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: 1000}}, Decodes: 10, KVTokens: 5000}, 7e-3 + 2e-2 + 1.5e-9*500000 + 4e-5 + 2.5e-4},
	} {
		close(t, c.name, closed.StepSeconds(c.b), c.want, 1e-12)
	}
	bad := closed
	bad.DecodeSecondsPerSequence = -1e-9
	refused(t, bad.Validate(), "decode_seconds_per_sequence")
	bad.DecodeSecondsPerSequence = math.NaN()
	refused(t, bad.Validate(), "decode_seconds_per_sequence")
	refused(t, new(perfmodel.ClosedForm).Validate(), "zero")
}

func TestPolynomial(t *testing.T) {
	var vectors []struct {
		Chunks       []perfmodel.Chunk
		Decodes      int
		KVTokens     int `json:"kv_tokens"`
		Capacity     int `json:"capacity_tokens"`
		Milliseconds float64
	}
	if err := json.Unmarshal(testdata(t, "polynomial.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		m := perfmodel.Polynomial{KVCapacityTokens: v.Capacity}
		want := max(v.Milliseconds/1000, perfmodel.MinStepSeconds)
		close(t, "vector", m.StepSeconds(&perfmodel.Batch{Chunks: v.Chunks, Decodes: v.Decodes, KVTokens: v.KVTokens}), want, 1e-13)
	}
	if len(vectors) < 30 {
		t.Errorf("%d vectors, want at least 30", len(vectors))
	}
	refused(t, new(perfmodel.Polynomial).Validate(), "kv_capacity_tokens")
}

// models are one of each kind.
func models(t testing.TB) map[string]perfmodel.Model {
	t.Helper()
	all := map[string]perfmodel.Model{"closed": &closed, "polynomial": &perfmodel.Polynomial{KVCapacityTokens: 1 << 20}}
	for name, files := range map[string][]string{
		"mocker": {"mocker.npz"}, "raw": {"prefill_raw.npz", "decode_raw.npz"}, "raw JSON": {"prefill_raw_data.json", "decode_raw_data.json"},
	} {
		var data [][]byte
		for _, f := range files {
			data = append(data, testdata(t, f))
		}
		m, err := perfmodel.ParseProfile(data...)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = m
	}
	noisy, err := perfmodel.NewTable(noisyTable(rand.New(rand.NewPCG(1, 2))))
	if err != nil {
		t.Fatal(err)
	}
	all["noisy"] = noisy
	for _, p := range perfmodel.Presets() {
		m, _, err := perfmodel.Preset(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		all[p.Name] = m
	}
	return all
}

// noisyTable is measurements that fall where they should rise.
func noisyTable(r *rand.Rand) perfmodel.TableData {
	d := perfmodel.TableData{Prefill: perfmodel.PrefillGrid{NewTokens: []float64{64, 512, 2048, 8192}, ContextTokens: []float64{0, 1000, 20000}}}
	noise := func() float64 { return 1 + 0.4*(r.Float64()-0.5) }
	for _, n := range d.Prefill.NewTokens {
		var row []float64
		for _, c := range d.Prefill.ContextTokens {
			row = append(row, closed.StepSeconds(chunks(perfmodel.Chunk{New: int(n), Context: int(c)}))*noise())
		}
		d.Prefill.Seconds = append(d.Prefill.Seconds, row)
	}
	for range 60 {
		b, c := 1+r.IntN(200), 1+r.IntN(8000)
		d.Decode = append(d.Decode, perfmodel.DecodePoint{Sequences: float64(b), KVTokens: float64(b * c), Seconds: closed.StepSeconds(decodes(b, b*c)) * noise()})
	}
	return d
}

// TestMonotone raises one count at a time and expects no model to answer less, far
// beyond the tables too.
func TestMonotone(t *testing.T) {
	for name, m := range models(t) {
		r := rand.New(rand.NewPCG(7, 7))
		for range 3000 {
			b := randomBatch(r)
			before := m.StepSeconds(&b)
			if !(before >= perfmodel.MinStepSeconds) || math.IsInf(before, 0) {
				t.Fatalf("%s: %+v takes %v", name, b, before)
			}
			more := b
			more.Chunks = append([]perfmodel.Chunk(nil), b.Chunks...)
			by := 1 + r.IntN(1+r.IntN(20000))
			switch what := r.IntN(5); {
			case what == 0:
				more.KVTokens += by
			case what == 1:
				more.Decodes += by
			case what == 2 && len(b.Chunks) > 0:
				more.Chunks[0].New += by
			case what == 3 && len(b.Chunks) > 0:
				more.Chunks[0].Context += by
			default:
				more.Chunks = append(more.Chunks, perfmodel.Chunk{New: by, Context: r.IntN(3) * by})
			}
			if after := m.StepSeconds(&more); after < before*(1-1e-12) {
				t.Fatalf("%s: %+v takes %v, %+v only %v", name, b, before, more, after)
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	online, err := perfmodel.NewOnline(perfmodel.DefaultOnlineConfig())
	if err != nil {
		t.Fatal(err)
	}
	b := &perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: 500, Context: 1000}, {New: 20}}, Decodes: 30, KVTokens: 40000}
	for name, m := range models(t) {
		if n := testing.AllocsPerRun(100, func() { m.StepSeconds(b) }); n != 0 {
			t.Errorf("%s: StepSeconds allocates %v times", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := online.Observe(b, 0.02); err != nil {
			t.Fatal(err)
		}
		online.Predict(b)
	}); n != 0 {
		t.Errorf("Observe and Predict allocate %v times", n)
	}
}

func TestPresets(t *testing.T) {
	for _, m := range perfmodel.Presets() {
		if m.KVBlocks < 1000 || m.BlockTokens != 16 || m.KVBytesPerToken < 1000 || m.MaxBatchedTokens < 1024 || m.GPUs < 1 || len(m.Source) < 80 {
			t.Errorf("%s is incomplete: %+v", m.Name, m)
		}
		if m.Measured == strings.Contains(m.Source, "not measured") {
			t.Errorf("%s: Measured is %v, its source says %q", m.Name, m.Measured, m.Source)
		}
	}
	_, _, err := perfmodel.Preset("h300-8b")
	refused(t, err, "h300-8b", "h200-8b")
}

// TestPresetMeasured holds the measured presets to what was measured.
func TestPresetMeasured(t *testing.T) {
	for _, c := range []struct {
		preset    string
		b         *perfmodel.Batch
		seconds   float64
		tolerance float64
	}{
		{"h200-8b", chunks(perfmodel.Chunk{New: 128}), 10.0e-3, 0.02},
		{"h200-8b", chunks(perfmodel.Chunk{New: 1000}), 26.9e-3, 0.02},
		{"h200-8b", chunks(perfmodel.Chunk{New: 8000}), 208.1e-3, 0.02},
		{"h200-8b", decodes(1, 128), 4.87e-3, 0.02},
		{"h200-8b", decodes(1, 8000), 5.21e-3, 0.02},
		{"h200-8b", decodes(64, 64*1135), 7.7e-3, 0.1},
		{"h200-8b", decodes(256, 256*1135), 18.5e-3, 0.1},
		{"h100-70b-fp8-tp2", chunks(perfmodel.Chunk{New: 500}), 47.77e-3, 0.02},
		{"h100-70b-fp8-tp2", chunks(perfmodel.Chunk{New: 5000}), 406.77e-3, 0.02},
		{"h100-70b-fp8-tp2", decodes(1, 5250), 18.58e-3, 0.03},
	} {
		m, _, err := perfmodel.Preset(c.preset)
		if err != nil {
			t.Fatal(err)
		}
		close(t, c.preset, m.StepSeconds(c.b), c.seconds, c.tolerance)
	}
}

func BenchmarkStepSeconds(b *testing.B) {
	batch := &perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: 500, Context: 1000}}, Decodes: 30, KVTokens: 40000}
	for _, name := range []string{"closed", "polynomial", "mocker", "noisy", "h200-r1-tp8"} {
		m := models(b)[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.StepSeconds(batch)
			}
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	o, err := perfmodel.NewOnline(perfmodel.DefaultOnlineConfig())
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	log := make([]perfmodel.Observation, 1024)
	for i := range log {
		log[i].Batch = randomBatch(r)
		log[i].Seconds = closed.StepSeconds(&log[i].Batch) * (1 + 0.05*r.NormFloat64())
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := o.Observe(&log[i%1024].Batch, log[i%1024].Seconds); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
