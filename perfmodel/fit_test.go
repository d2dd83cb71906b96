package perfmodel_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// makeLog draws steps of m; noise is the relative standard deviation.
func makeLog(m perfmodel.Model, n int, noise float64, seed uint64) []perfmodel.Observation {
	r := rand.New(rand.NewPCG(seed, 0))
	log := make([]perfmodel.Observation, n)
	for i := range log {
		log[i].Batch = randomBatch(r)
		log[i].Seconds = m.StepSeconds(&log[i].Batch) * max(0.05, 1+noise*r.NormFloat64())
	}
	return log
}

func coefficients(m perfmodel.ClosedForm) [6]float64 {
	return [6]float64{m.PrefillFixedSeconds, m.PrefillSecondsPerToken, m.PrefillSecondsPerPair,
		m.DecodeFixedSeconds, m.DecodeSecondsPerSequence, m.DecodeSecondsPerKVToken}
}

func closeModels(t *testing.T, what string, got, want perfmodel.ClosedForm, tolerance float64) {
	t.Helper()
	w := coefficients(want)
	for i, g := range coefficients(got) {
		close(t, what+" coefficient "+string(rune('a'+i)), g, w[i], tolerance)
	}
}

func TestFitExact(t *testing.T) {
	decodeHeavy := closed
	decodeHeavy.PrefillFixedSeconds, decodeHeavy.DecodeFixedSeconds = 2e-3, 9e-3
	noSequence := closed
	noSequence.DecodeSecondsPerSequence = 0
	slow := perfmodel.ClosedForm{PrefillFixedSeconds: 0.5, PrefillSecondsPerToken: 4e-3, PrefillSecondsPerPair: 1e-7, DecodeFixedSeconds: 0.2, DecodeSecondsPerSequence: 1e-2, DecodeSecondsPerKVToken: 1e-6}
	for name, m := range map[string]perfmodel.ClosedForm{"prefill larger": closed, "decode larger": decodeHeavy, "a zero": noSequence, "slow": slow} {
		f, err := perfmodel.Fit(makeLog(&m, 200, 0, 3))
		if err != nil {
			t.Fatal(err)
		}
		w := coefficients(m)
		for i, g := range coefficients(f.Model) {
			if math.Abs(g-w[i]) > 1e-7*w[i]+1e-13 {
				t.Errorf("%s: coefficient %c is %v, want %v", name, 'a'+i, g, w[i])
			}
		}
		if f.Rank != 6 || f.Outliers != 0 || f.RelativeError > 1e-8 {
			t.Errorf("%s: rank %d, %d outliers, error %v; want 6, 0, 0", name, f.Rank, f.Outliers, f.RelativeError)
		}
	}
}

func TestFitNoiseAndOutliers(t *testing.T) {
	log := makeLog(&closed, 4000, 0.05, 4)
	for i := 0; i < len(log); i += 20 { // a stall every twentieth step
		log[i].Seconds *= 8
	}
	f, err := perfmodel.Fit(log)
	if err != nil {
		t.Fatal(err)
	}
	within := 0
	want, sigma := coefficients(closed), coefficients(f.StandardError)
	for i, g := range coefficients(f.Model) {
		if math.Abs(g-want[i]) < 4*sigma[i]+0.03*want[i] {
			within++
		}
	}
	if within != 6 {
		t.Errorf("fitted %+v ± %+v, want %+v", f.Model, f.StandardError, closed)
	}
	if f.Outliers < 190 || f.Outliers > 260 {
		t.Errorf("%d outliers, want about 200", f.Outliers)
	}
	close(t, "relative error", f.RelativeError, 0.05, 0.15)
	// A fit without the reduced weights would put the mean a third too high.
	for _, b := range []*perfmodel.Batch{chunks(perfmodel.Chunk{New: 4000}), decodes(100, 100000)} {
		close(t, "prediction", f.Model.StepSeconds(b), closed.StepSeconds(b), 0.03)
	}
}

func TestFitNonNegative(t *testing.T) {
	// Time falls with the KV read: least squares alone would make that coefficient negative.
	var log []perfmodel.Observation
	for i := range 50 {
		log = append(log, perfmodel.Observation{Batch: *decodes(1+i%7, 1000*i), Seconds: 0.02 - 1e-4*float64(i)})
	}
	f, err := perfmodel.Fit(log)
	if err != nil {
		t.Fatal(err)
	}
	if f.Model.DecodeSecondsPerKVToken != 0 {
		t.Errorf("seconds per KV token %v, want 0", f.Model.DecodeSecondsPerKVToken)
	}
	if err := f.Model.Validate(); err != nil {
		t.Error(err)
	}
	if !math.IsInf(f.StandardError.PrefillSecondsPerToken, 1) || f.Rank != 3 {
		t.Errorf("rank %d, prefill's standard error %v; want 3 and +Inf: the log has no prefill", f.Rank, f.StandardError.PrefillSecondsPerToken)
	}
}

// TestFitKinds: where decode steps agree to the digit, the wider scatter of prefill
// is no outlier.
func TestFitKinds(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 12))
	log := makeLog(&closed, 3000, 0, 12)
	for i := range log {
		if len(log[i].Batch.Chunks) > 0 {
			log[i].Seconds *= max(0.2, 1+0.15*r.NormFloat64())
		}
	}
	f, err := perfmodel.Fit(log)
	if err != nil {
		t.Fatal(err)
	}
	if f.Outliers > 60 {
		t.Errorf("%d outliers, want few", f.Outliers)
	}
	close(t, "prefill", f.Model.StepSeconds(chunks(perfmodel.Chunk{New: 4000})), closed.StepSeconds(chunks(perfmodel.Chunk{New: 4000})), 0.03)
	close(t, "decode", f.Model.StepSeconds(decodes(100, 100000)), closed.StepSeconds(decodes(100, 100000)), 0.02)
}

func TestFitConstant(t *testing.T) {
	log := make([]perfmodel.Observation, 30)
	for i := range log {
		log[i] = perfmodel.Observation{Batch: *decodes(8, 4000), Seconds: 6e-3}
	}
	f, err := perfmodel.Fit(log)
	if err != nil {
		t.Fatal(err)
	}
	close(t, "prediction", f.Model.StepSeconds(decodes(8, 4000)), 6e-3, 1e-9)
	close(t, "fixed", f.Model.DecodeFixedSeconds, 6e-3, 1e-9)
	if f.Rank != 1 {
		t.Errorf("rank %d, want 1", f.Rank)
	}
}

func TestFitRefuses(t *testing.T) {
	_, err := perfmodel.Fit(nil)
	refused(t, err, "empty")
	for _, s := range []float64{0, -1, math.NaN(), math.Inf(1), 1e9} {
		_, err = perfmodel.Fit([]perfmodel.Observation{{Batch: *decodes(1, 1), Seconds: 1}, {Batch: *decodes(1, 1), Seconds: s}})
		refused(t, err, "step 1")
	}
	_, err = perfmodel.Fit([]perfmodel.Observation{{Seconds: 1}})
	refused(t, err, "step 0", "neither")
}

func online(t *testing.T, forgetting float64) *perfmodel.Online {
	t.Helper()
	c := perfmodel.DefaultOnlineConfig()
	c.Forgetting = forgetting
	o, err := perfmodel.NewOnline(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func observe(t *testing.T, o *perfmodel.Online, log []perfmodel.Observation) {
	t.Helper()
	for i := range log {
		if err := o.Observe(&log[i].Batch, log[i].Seconds); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOnlineEqualsBatch: with nothing forgotten the recursive estimate is the batch one.
func TestOnlineEqualsBatch(t *testing.T) {
	heavy := closed
	heavy.PrefillFixedSeconds, heavy.DecodeFixedSeconds = 2e-3, 9e-3
	for i, noise := range []float64{0, 0.05, 0, 0.05} {
		truth := closed
		if i > 1 {
			truth = heavy
		}
		log := makeLog(&truth, 3000, noise, 5)
		f, err := perfmodel.Fit(log)
		if err != nil {
			t.Fatal(err)
		}
		o := online(t, 1)
		observe(t, o, log)
		closeModels(t, "online", o.Model(), f.Model, 1e-4+noise)
		for i := range log[:100] {
			b := &log[i].Batch
			got, sigma := o.Predict(b)
			close(t, "prediction", got, f.Model.StepSeconds(b), 1e-4+noise/10)
			if !(sigma >= 0) || sigma > 0.1*got {
				t.Errorf("standard error %v of a prediction %v", sigma, got)
			}
		}
		if o.Count() != 3000 {
			t.Errorf("count %d, want 3000", o.Count())
		}
	}
}

// TestOnlineStandardError: the standard error covers the truth about as often as it says.
func TestOnlineStandardError(t *testing.T) {
	covered, all := 0, 0
	for seed := range uint64(60) {
		log := makeLog(&closed, 300, 0.1, 100+seed)
		o := online(t, 1)
		observe(t, o, log)
		for _, b := range []*perfmodel.Batch{chunks(perfmodel.Chunk{New: 2000, Context: 4000}), decodes(50, 100000)} {
			got, sigma := o.Predict(b)
			all++
			if math.Abs(got-closed.StepSeconds(b)) < 2*sigma {
				covered++
			}
		}
	}
	if share := float64(covered) / float64(all); share < 0.8 {
		t.Errorf("two standard errors cover the truth in %.0f %% of %d, want about 95", 100*share, all)
	}
}

func TestOnlineFollows(t *testing.T) {
	o := online(t, 0.99)
	observe(t, o, makeLog(&closed, 1000, 0.05, 6))
	slow := perfmodel.ClosedForm{}
	slow.PrefillFixedSeconds, slow.PrefillSecondsPerToken, slow.PrefillSecondsPerPair = 3*closed.PrefillFixedSeconds, 3*closed.PrefillSecondsPerToken, 3*closed.PrefillSecondsPerPair
	slow.DecodeFixedSeconds, slow.DecodeSecondsPerSequence, slow.DecodeSecondsPerKVToken = 3*closed.DecodeFixedSeconds, 3*closed.DecodeSecondsPerSequence, 3*closed.DecodeSecondsPerKVToken
	observe(t, o, makeLog(&slow, 1000, 0.05, 7))
	for _, b := range []*perfmodel.Batch{chunks(perfmodel.Chunk{New: 4000}), decodes(100, 100000)} {
		got, _ := o.Predict(b)
		close(t, "after the machine slowed down", got, slow.StepSeconds(b), 0.1)
	}
}

// TestOnlineConstant: a constant batch for long neither blows up the estimate nor
// makes it forget what it cannot see, and the uncertainty says so.
func TestOnlineConstant(t *testing.T) {
	o := online(t, 0.99)
	observe(t, o, makeLog(&closed, 500, 0.03, 8))
	prompt := chunks(perfmodel.Chunk{New: 4000})
	before, sure := o.Predict(prompt)
	r := rand.New(rand.NewPCG(9, 9))
	same := decodes(16, 30000)
	for range 20000 {
		if err := o.Observe(same, closed.StepSeconds(same)*(1+0.03*r.NormFloat64())); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := o.Predict(same)
	close(t, "the constant batch", got, closed.StepSeconds(same), 0.02)
	after, unsure := o.Predict(prompt)
	close(t, "what was not seen for long", after, before, 0.1)
	if !(unsure > 10*sure) || math.IsInf(unsure, 0) || math.IsNaN(unsure) {
		t.Errorf("standard error went from %v to %v, want it to grow and stay finite", sure, unsure)
	}
	m := o.Model()
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
}

func TestOnlineOutliers(t *testing.T) {
	o := online(t, 0.999)
	log := makeLog(&closed, 2000, 0.03, 10)
	for i := 30; i < len(log); i += 25 {
		log[i].Seconds *= 20
	}
	observe(t, o, log)
	for _, b := range []*perfmodel.Batch{chunks(perfmodel.Chunk{New: 4000}), decodes(100, 100000)} {
		got, _ := o.Predict(b)
		close(t, "with outliers", got, closed.StepSeconds(b), 0.05)
	}
}

func TestOnlinePrior(t *testing.T) {
	c := perfmodel.DefaultOnlineConfig()
	c.Prior = closed
	o, err := perfmodel.NewOnline(c)
	if err != nil {
		t.Fatal(err)
	}
	got, sigma := o.Predict(decodes(10, 1000))
	close(t, "before any observation", got, closed.StepSeconds(decodes(10, 1000)), 1e-12)
	if !(sigma > 0) {
		t.Errorf("standard error %v before any observation", sigma)
	}
	for range 200 {
		if err := o.Observe(decodes(10, 1000), 2*closed.StepSeconds(decodes(10, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	got, _ = o.Predict(decodes(10, 1000))
	close(t, "what is observed", got, 2*closed.StepSeconds(decodes(10, 1000)), 0.02)
	got, _ = o.Predict(chunks(perfmodel.Chunk{New: 1000}))
	close(t, "what is not", got, closed.StepSeconds(chunks(perfmodel.Chunk{New: 1000})), 0.01)
}

// TestOnlineNonsense: whatever durations come, the model stays valid and predictions finite.
func TestOnlineNonsense(t *testing.T) {
	for _, forgetting := range []float64{0.6, 0.95, 1} {
		o := online(t, forgetting)
		r := rand.New(rand.NewPCG(14, 14))
		for range 3000 {
			b := randomBatch(r)
			if err := o.Observe(&b, math.Exp(20*r.Float64()-13)); err != nil {
				t.Fatal(err)
			}
			m := o.Model()
			if err := m.Validate(); err != nil {
				t.Fatal(err)
			}
			b = randomBatch(r)
			if s, sigma := o.Predict(&b); !(s >= perfmodel.MinStepSeconds) || math.IsInf(s, 0) || !(sigma >= 0) || math.IsInf(sigma, 0) {
				t.Fatalf("forgetting %v: %+v takes %v ± %v", forgetting, b, s, sigma)
			}
		}
	}
}

func TestOnlineRefuses(t *testing.T) {
	o := online(t, 1)
	refused(t, o.Observe(decodes(1, 1), 0), "seconds")
	refused(t, o.Observe(decodes(1, 1), math.NaN()), "seconds")
	refused(t, o.Observe(&perfmodel.Batch{KVTokens: 5}, 1), "batch")
	if o.Count() != 0 {
		t.Errorf("count %d after refusals", o.Count())
	}
	for _, c := range []perfmodel.OnlineConfig{{}, {Forgetting: 1.1, PriorSteps: 1}, {Forgetting: 1}, {Forgetting: 1, PriorSteps: 1, Prior: perfmodel.ClosedForm{DecodeFixedSeconds: -1}}} {
		if _, err := perfmodel.NewOnline(c); err == nil {
			t.Errorf("NewOnline(%+v) is not refused", c)
		}
	}
}

func TestLog(t *testing.T) {
	want := makeLog(&closed, 50, 0.1, 13)
	var data []byte
	for i := range want {
		var err error
		if data, err = perfmodel.AppendLog(data, &want[i]); err != nil {
			t.Fatal(err)
		}
	}
	var got []perfmodel.Observation
	for o, err := range perfmodel.ReadLog(strings.NewReader("\n" + string(data) + "\n")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	good := `{"decodes":1,"kv_tokens":5,"seconds":0.01}` + "\n"
	for line, parts := range map[string][]string{
		`{"decodes":1,"kv_tokens":5}`: {"line 2", "seconds"},
		`{"decodes":-1,"seconds":1}`:  {"line 2", "decodes"},
		`{"decode":1,"seconds":1}`:    {"line 2", "decode"},
		`{"decodes":1.5,"seconds":1}`: {"line 2", "decodes"},
		`{"seconds":1}`:               {"line 2", "neither"},
		`{"chunks":[{"new_tokens":1,"context_tokens":-2}],"seconds":1}`: {"line 2", "chunks[0].context_tokens"},
		`{"decodes":1,`:            {"line 2"},
		strings.Repeat("x", 2<<20): {"line 2"},
	} {
		var last error
		n := 0
		for _, err := range perfmodel.ReadLog(strings.NewReader(good + line + "\n" + good)) {
			n++
			last = err
		}
		refused(t, last, parts...)
		if n != 2 {
			t.Errorf("%.40q: %d results, want one step and one error", line, n)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(`{"chunks":[{"new_tokens":512,"context_tokens":1024}],"decodes":8,"kv_tokens":9000,"seconds":0.0214}` + "\n"))
	f.Add([]byte("{}\n\n{\"decodes\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var log []perfmodel.Observation
		for o, err := range perfmodel.ReadLog(bytes.NewReader(data)) {
			if err != nil {
				refused(t, err)
				return
			}
			log = append(log, o)
		}
		if len(log) == 0 {
			return
		}
		fitted, err := perfmodel.Fit(log)
		if err != nil {
			t.Fatalf("a log that was read is not fitted: %v", err)
		}
		for i := range log {
			if s := fitted.Model.StepSeconds(&log[i].Batch); !(s >= perfmodel.MinStepSeconds) || math.IsInf(s, 0) {
				t.Fatalf("%+v takes %v by %+v", log[i].Batch, s, fitted.Model)
			}
		}
		if err := fitted.Model.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}
