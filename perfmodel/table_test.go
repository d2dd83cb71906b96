package perfmodel_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// decodeAt evaluates at counts that need not be whole, through a table of one more
// size: tests use whole ones only.
func decodeAt(m perfmodel.Model, p perfmodel.DecodePoint) float64 {
	return m.StepSeconds(decodes(int(math.Round(p.Sequences)), int(math.Round(p.KVTokens))))
}

func TestTableReproduces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	d := perfmodel.TableData{Prefill: perfmodel.PrefillGrid{NewTokens: []float64{1, 100, 700, 4000}, ContextTokens: []float64{0, 500, 9000}}}
	for _, n := range d.Prefill.NewTokens {
		var row []float64
		for _, c := range d.Prefill.ContextTokens {
			row = append(row, closed.StepSeconds(chunks(perfmodel.Chunk{New: int(n), Context: int(c)})))
		}
		d.Prefill.Seconds = append(d.Prefill.Seconds, row)
	}
	for range 200 { // anywhere, and monotone
		b, c := 1+r.IntN(100), 1+r.IntN(5000)
		d.Decode = append(d.Decode, perfmodel.DecodePoint{Sequences: float64(b), KVTokens: float64(b * c), Seconds: closed.StepSeconds(decodes(b, b*c))})
	}
	m, err := perfmodel.NewTable(d)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range d.Prefill.NewTokens {
		for j, c := range d.Prefill.ContextTokens {
			close(t, "prefill cell", m.StepSeconds(chunks(perfmodel.Chunk{New: int(n), Context: int(c)})), d.Prefill.Seconds[i][j], 1e-9)
		}
	}
	for _, p := range d.Decode {
		close(t, "decode point", decodeAt(m, p), p.Seconds, 1e-9)
		if !m.Covers(decodes(int(p.Sequences), int(p.KVTokens))) {
			t.Errorf("does not cover its own point %+v", p)
		}
	}
	// The truth is a plane, so between the points too the table is near it.
	for range 200 {
		b, c := 5+r.IntN(80), 200+r.IntN(4000)
		close(t, "between points", m.StepSeconds(decodes(b, b*c)), closed.StepSeconds(decodes(b, b*c)), 0.1)
	}
	for _, b := range []*perfmodel.Batch{decodes(200, 1000), decodes(2, 90000), chunks(perfmodel.Chunk{New: 5000}), chunks(perfmodel.Chunk{New: 5, Context: 10000})} {
		if m.Covers(b) {
			t.Errorf("covers %+v, which is beyond its points", b)
		}
		close(t, "beyond the points", m.StepSeconds(b), closed.StepSeconds(b), 0.35)
	}
	far, edge := decodes(90, 5_000_000), decodes(90, 500_000)
	close(t, "the rise beyond the last KV tokens", m.StepSeconds(far)-m.StepSeconds(edge), closed.StepSeconds(far)-closed.StepSeconds(edge), 0.35)
	far, edge = decodes(20_100, 300_000), decodes(100, 300_000)
	close(t, "the rise beyond the last sequences", m.StepSeconds(far)-m.StepSeconds(edge), closed.StepSeconds(far)-closed.StepSeconds(edge), 0.5)
}

// TestTableEnvelope: a point that fell is raised to the one before it, others stay.
func TestTableEnvelope(t *testing.T) {
	m, err := perfmodel.NewTable(perfmodel.TableData{
		Prefill: perfmodel.PrefillGrid{NewTokens: []float64{100, 200, 300}, Seconds: [][]float64{{0.02}, {0.01}, {0.03}}},
		Decode:  []perfmodel.DecodePoint{{Sequences: 1, KVTokens: 100, Seconds: 0.006}, {Sequences: 2, KVTokens: 200, Seconds: 0.005}, {Sequences: 4, KVTokens: 400, Seconds: 0.007}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]float64{100: 0.02, 200: 0.02, 300: 0.03} {
		close(t, "prefill", m.StepSeconds(chunks(perfmodel.Chunk{New: n})), want, 1e-9)
	}
	for n, want := range map[int]float64{1: 0.006, 2: 0.006, 4: 0.007} {
		close(t, "decode", m.StepSeconds(decodes(n, 100*n)), want, 1e-9)
	}
	// A step of both kinds pays the shortest step once.
	both := m.StepSeconds(&perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: 300}}, Decodes: 4, KVTokens: 400})
	if both >= 0.037 || both <= 0.03 {
		t.Errorf("a step of both kinds takes %v, want between 0.03 and 0.037", both)
	}
}

func TestTableRefuses(t *testing.T) {
	good := func() perfmodel.TableData {
		return perfmodel.TableData{
			Prefill: perfmodel.PrefillGrid{NewTokens: []float64{1, 10}, Seconds: [][]float64{{0.01}, {0.02}}},
			Decode:  []perfmodel.DecodePoint{{Sequences: 1, KVTokens: 10, Seconds: 0.01}},
		}
	}
	if _, err := perfmodel.NewTable(good()); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(d *perfmodel.TableData){
		"prefill.new_tokens":           func(d *perfmodel.TableData) { d.Prefill.NewTokens = nil },
		"prefill.new_tokens[1]":        func(d *perfmodel.TableData) { d.Prefill.NewTokens[1] = 1 },
		"prefill.new_tokens[0]":        func(d *perfmodel.TableData) { d.Prefill.NewTokens[0] = math.NaN() },
		"prefill.context_tokens":       func(d *perfmodel.TableData) { d.Prefill.ContextTokens = []float64{5} },
		"prefill.seconds":              func(d *perfmodel.TableData) { d.Prefill.Seconds = d.Prefill.Seconds[:1] },
		"prefill.seconds[1]":           func(d *perfmodel.TableData) { d.Prefill.Seconds[1] = nil },
		"prefill.seconds[1][0]":        func(d *perfmodel.TableData) { d.Prefill.Seconds[1][0] = -1 },
		"decode":                       func(d *perfmodel.TableData) { d.Decode = nil },
		"decode[0].seconds":            func(d *perfmodel.TableData) { d.Decode[0].Seconds = 0 },
		"decode[0].sequences":          func(d *perfmodel.TableData) { d.Decode[0].Sequences = 0 },
		"decode[0].kv_tokens":          func(d *perfmodel.TableData) { d.Decode[0].KVTokens = math.Inf(1) },
		"prefill.seconds[0][0]: a ste": func(d *perfmodel.TableData) { d.Prefill.Seconds[0][0] = math.NaN() },
	} {
		d := good()
		spoil(&d)
		_, err := perfmodel.NewTable(d)
		refused(t, err, field)
	}
}

// TestProfile compares with the figures that the files were made of.
func TestProfile(t *testing.T) {
	all := models(t)
	mocker := all["mocker"].(*perfmodel.Table)
	for _, n := range []int{100, 8000} {
		x := float64(n)
		close(t, "prefill", mocker.StepSeconds(chunks(perfmodel.Chunk{New: n})), (5+0.03*x+1e-6*x*x)/1000, 1e-9)
	}
	for _, p := range mocker.Data().Decode { // 200,000 tokens in steps of 25,000, contexts of 500 to 8000 in steps of 1500
		if p.Sequences != math.Round(p.Sequences) {
			continue
		}
		close(t, "decode", decodeAt(mocker, p), (6+0.02*p.Sequences+4e-5*p.KVTokens)/1000, 1e-9)
	}
	for _, name := range []string{"raw", "raw JSON"} {
		for _, n := range []int{100, 1000, 8000} {
			close(t, name+" prefill", all[name].StepSeconds(chunks(perfmodel.Chunk{New: n})), (4+0.03*float64(n))/1000, 1e-6)
		}
		for _, p := range all[name].(*perfmodel.Table).Data().Decode {
			close(t, name+" decode", decodeAt(all[name], p), (5+0.1*p.Sequences+2e-4*p.KVTokens)/1000, 1e-6)
		}
	}
}

func TestProfileRefuses(t *testing.T) {
	raw := map[string]any{"x_kv_usage": []float64{0.1}, "y_context_length": []float64{10}, "z_itl": []float64{5}, "max_kv_tokens": 1000, "prefill_isl": []int{10, 20}, "prefill_ttft": []int{5, 6}}
	parse := func(change func(m map[string]any)) error {
		m := map[string]any{}
		for k, v := range raw {
			m[k] = v
		}
		change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = perfmodel.ParseProfile(data)
		return err
	}
	if err := parse(func(map[string]any) {}); err != nil {
		t.Fatal(err)
	}
	for name := range raw {
		refused(t, parse(func(m map[string]any) { delete(m, name) }), name, "missing")
	}
	refused(t, parse(func(m map[string]any) { m["z_itl"] = []float64{1, 2} }), "z_itl")
	refused(t, parse(func(m map[string]any) { m["z_itl"] = []float64{-1}; m["y_context_length"] = []float64{0} }), "y_context_length[0]")
	refused(t, parse(func(m map[string]any) { m["prefill_ttft"] = []float64{-5, 6} }), "prefill.seconds[0]")
	refused(t, parse(func(m map[string]any) { m["prefill_isl"] = [][]int{{1, 2}} }), "prefill_isl", "dimensions")
	refused(t, parse(func(m map[string]any) { m["decode_itl"] = [][]int{{1, 2}, {3}} }), "decode_itl")
	_, err := perfmodel.ParseProfile(testdata(t, "prefill_raw.npz"))
	refused(t, err, "x_kv_usage", "give both")
	whole := testdata(t, "mocker.npz")
	_, err = perfmodel.ParseProfile(whole[:len(whole)/2])
	refused(t, err, "npz")
	for name, content := range map[string]string{
		"no array": "hello", "Fortran": npy("{'descr': '<f8', 'fortran_order': True, 'shape': (1, 2), }", 16),
		"short": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", 16), "huge": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4096, 4096, 4096), }", 16),
		"overflow": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 2147483648), }", 16),
		"no shape": npy("{'descr': '<f8', 'fortran_order': False}", 16), "infinite": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", 0) + "\x00\x00\x00\x00\x00\x00\xf0\x7f",
	} {
		_, err = perfmodel.ParseProfile(archive(t, map[string]string{"prefill_isl.npy": content}))
		if err == nil || !strings.Contains(err.Error(), "prefill_isl") {
			t.Errorf("%s: got %v, want an error naming prefill_isl", name, err)
		}
	}
}

// npy makes a .npy array of zeros.
func npy(header string, size int) string {
	return "\x93NUMPY\x01\x00" + string([]byte{byte(len(header)), byte(len(header) >> 8)}) + header + strings.Repeat("\x00", size)
}

func archive(t testing.TB, members map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range members {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFile(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	for name, m := range models(t) {
		data, err := (&perfmodel.File{Name: name, Source: "a test", Model: m}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		f, err := perfmodel.ParseFile(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f.Name != name || f.Source != "a test" {
			t.Errorf("%s: name %q, source %q", name, f.Name, f.Source)
		}
		back, err := perfmodel.Open(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			b := randomBatch(r)
			if got, want := back.StepSeconds(&b), m.StepSeconds(&b); got != want {
				t.Fatalf("%s: %+v takes %v once read back, want %v", name, b, got, want)
			}
		}
		again, err := f.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: encoding twice differs (%v)", name, err)
		}
	}
	m, err := perfmodel.Parse([]byte(`{"format":"dynamo-perfmodel/1","table":{"prefill":{"new_tokens":[1,100],"seconds":[[0.01],[0.02]]},
		"decode_grid":{"sequences":[1,8],"context_tokens":[100,1000],"seconds":[[0.005,0.006],[0.007,0.009]]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	close(t, "a cell of a grid", m.StepSeconds(decodes(8, 8000)), 0.009, 1e-9)
}

func TestFileRefuses(t *testing.T) {
	head := `{"format":"dynamo-perfmodel/1",`
	six := `"prefill_fixed_seconds":1,"prefill_seconds_per_token":1,"prefill_seconds_per_token_pair":1,"decode_fixed_seconds":1,"decode_seconds_per_sequence":1,"decode_seconds_per_kv_token":`
	for text, parts := range map[string][]string{
		``:                                       {"not a model file"},
		`[1]`:                                    {""},
		`{"format":"dynamo-perfmodel/9"}`:        {"format", "dynamo-perfmodel/1"},
		head + `"name":"x"}`:                     {"exactly one", "0"},
		head + `"nam":"x"}`:                      {"nam"},
		head + `"closed_form":{"a":1}}`:          {"closed_form.prefill_fixed_seconds", "missing"},
		head + `"closed_form":{` + six + `-1}}`:  {"closed_form", "decode_seconds_per_kv_token"},
		head + `"closed_form":{` + six + `"1"}}`: {"closed_form.decode_seconds_per_kv_token"},
		head + `"closed_form":{` + six + `1,"g":2}}`:      {"closed_form.g"},
		head + `"polynomial":{"kv_capacity_tokens":0}}`:   {"polynomial", "kv_capacity_tokens"},
		head + `"polynomial":{"kv_capacity_tokens":1.5}}`: {"polynomial.kv_capacity_tokens"},
		head + `"table":{"prefill":{"new_tokens":[1],"seconds":[[0.1]]},"decode":[{"sequences":1,"kv_tokens":1,"second":1}]}}`: {"table.decode.0.second"},
		head + `"table":{"prefill":{"new_tokens":[1],"seconds":[[0.1]]},"decode":[]}}`:                                         {"table", "decode"},
		head + `"polynomial":{"kv_capacity_tokens":9},"closed_form":{` + six + `1}}`:                                           {"exactly one", "2"},
		head + `"polynomial":{"kv_capacity_tokens":9},"polynomial":{"kv_capacity_tokens":8}}`:                                  {"polynomial"},
	} {
		_, err := perfmodel.Parse([]byte(text))
		refused(t, err, parts...)
	}
	if _, err := (&perfmodel.File{}).Encode(); err == nil {
		t.Error("a file without a model is not refused")
	}
}

// FuzzParse: whatever the bytes, no panic; what is accepted obeys the laws and
// survives being written.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"mocker.npz", "prefill_raw.npz", "decode_raw.npz", "decode_raw_data.json"} {
		f.Add(testdata(f, name))
	}
	for _, m := range []perfmodel.Model{&closed, &perfmodel.Polynomial{KVCapacityTokens: 5}} {
		data, err := (&perfmodel.File{Model: m}).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"format":"dynamo-perfmodel/1","table":{"prefill":{"new_tokens":[1,100],"context_tokens":[0,5],"seconds":[[0.01,0.02],[0.02,0.01]]},"decode":[{"sequences":1,"kv_tokens":5,"seconds":0.01},{"sequences":3,"kv_tokens":0,"seconds":0.02}]}}`))
	f.Add([]byte(`{"prefill_isl":[1,2],"prefill_ttft_ms":[1,2],"decode_active_kv_tokens":[0,10],"decode_context_length":[1,2],"decode_itl":[[1,2],[3,4]]}`))
	f.Add(archive(f, map[string]string{"prefill_isl.npy": npy("{'descr': '>i2', 'fortran_order': False, 'shape': (2, 1), }", 4)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := perfmodel.Parse(data)
		if err != nil {
			refused(t, err)
			return
		}
		batches := []perfmodel.Batch{{}, *decodes(1, 1), *decodes(2, 1), *decodes(2, 5000), *decodes(900, 900000),
			{Chunks: []perfmodel.Chunk{{New: 1}}, Decodes: 900, KVTokens: 900000}, {Chunks: []perfmodel.Chunk{{New: 5000}}, Decodes: 900, KVTokens: 900000},
			{Chunks: []perfmodel.Chunk{{New: 5000, Context: 7000}}, Decodes: 900, KVTokens: 900000}}
		before := 0.0
		for i := range batches {
			s := m.StepSeconds(&batches[i])
			if !(s >= perfmodel.MinStepSeconds) || s < before*(1-1e-9) {
				t.Fatalf("%+v takes %v after %v", batches[i], s, before)
			}
			before = s
		}
		if out, err := (&perfmodel.File{Model: m}).Encode(); err != nil {
			t.Fatal(err)
		} else if _, err := perfmodel.Parse(out); err != nil {
			t.Fatalf("written, it is refused: %v", err)
		}
	})
}
