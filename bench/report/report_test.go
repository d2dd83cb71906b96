package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

var update = flag.Bool("update", false, "write the golden files")

// small is a result that fits a golden file.
func small() *bench.Result {
	r := &bench.Result{
		Config:  map[string]string{"url": "http://127.0.0.1:8000", "model": "m", "concurrency": "2"},
		Started: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Duration: 1500 * time.Millisecond,
		Machine: "2 × CPU", Version: "0.0.0", Partial: "interrupted", Requests: 3, Cancelled: 1,
		Errors: map[string]int{"http_500": 2, "timeout": 1}, ErrorDetails: map[string]string{"timeout": "nothing came"},
		TokensFrom: "usage", RequestThroughput: 2, OutputThroughput: 28.5, InputThroughput: 1024, Goodput: 1.5,
		GoodputTargets: map[string]time.Duration{"ttft": 200 * time.Millisecond}, CachedTokens: 64, Chunks: 42, Mismatched: 1, TemplateTokens: 9,
		Client:    bench.ClientHealth{CPUSeconds: 0.25, CPUShare: 0.125, LateP99: time.Millisecond, Bottleneck: true, Why: "busy"},
		Processes: []bench.ProcessUse{{Name: "frontend", PID: 7, CPUSeconds: 0.5, RSSBytes: 1 << 20, PeakBytes: 2 << 20}},
		Series:    []bench.Second{{At: 0, Started: 3, Finished: 1, InFlight: 2, Tokens: 20, TTFTP50: 0.01, TTFTP99: 0.02, ITLP50: 0.005}, {At: 1, Finished: 2, Errors: 3, Tokens: 22}},
	}
	of := func(values ...float64) (stats.Summary, *stats.Histogram) {
		h := new(stats.Histogram)
		for _, v := range values {
			h.Record(v)
		}
		return stats.Summarize(stats.NewExact(values)), h
	}
	r.TTFT, r.TTFTHist = of(0.0125, 0.025, 0.05)
	r.TTST, _ = of(0.004, 0.004)
	r.ITL, r.ITLHist = of(0.005, 0.005, 0.006)
	r.ICL, r.ICLHist = of(0.005, 0.005, 0.006, 0)
	r.TPOT, _ = of(0.005, 0.006)
	r.E2E, r.E2EHist = of(0.25, 0.5, 1)
	r.InputTokens, r.InputHist = of(512, 512, 512)
	r.OutputTokens, r.OutputHist = of(8, 16, 32)
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nif that is meant, run with -update", path, got)
	}
}

func TestGoldenFiles(t *testing.T) {
	dir := t.TempDir()
	if err := report.Write(dir, small()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{report.ResultFile, report.CSVFile, "e2e.svg"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Whatever a Result holds is in result.json: a field that is forgotten there is found
// here.
func TestResultComesBack(t *testing.T) {
	r := small()
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves %s empty", v.Type().Field(i).Name)
		}
	}
	text, err := report.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := report.Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	b := reflect.ValueOf(back).Elem()
	for i := range v.NumField() {
		if _, ok := v.Field(i).Interface().(*stats.Histogram); ok {
			got, want := b.Field(i).Interface().(*stats.Histogram), v.Field(i).Interface().(*stats.Histogram)
			if got == nil || got.Quantile(0.5) != want.Quantile(0.5) || got.Count() != want.Count() {
				t.Errorf("%s: got %v, want %v", v.Type().Field(i).Name, got, want)
			}
			continue
		}
		if got, want := b.Field(i).Interface(), v.Field(i).Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", v.Type().Field(i).Name, got, want)
		}
	}
}

// A run that measured nothing, or less than nothing, still has its report.
func TestEmptyAndOddResults(t *testing.T) {
	odd := small()
	odd.RequestThroughput, odd.TTFT.Mean, odd.Goodput = math.NaN(), math.Inf(1), math.Inf(-1)
	one := &bench.Result{Requests: 1, TTFTHist: new(stats.Histogram), InputHist: new(stats.Histogram), Series: make([]bench.Second, 5)}
	one.TTFTHist.Record(0)
	one.InputHist.Record(0)
	one.InputHist.Record(1)
	long, _ := sample(100, 1, 1)
	long.Series = make([]bench.Second, 100_000)
	for i := range long.Series {
		long.Series[i] = bench.Second{At: i, Finished: i % 7}
	}
	long.Duration = 100_000 * time.Second
	for name, r := range map[string]*bench.Result{"empty": {}, "odd": odd, "one": one, "long": long} {
		dir := t.TempDir()
		if err := report.Write(dir, r); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := report.Open(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		page, err := os.ReadFile(filepath.Join(dir, report.PageFile))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(page, []byte("NaN")) || bytes.Contains(page, []byte("Inf")) {
			t.Errorf("%s: the page holds what is not a number", name)
		}
		if len(page) > 1<<20 {
			t.Errorf("%s: the page is %d bytes", name, len(page))
		}
	}
}

// wellFormed reads text as XML and returns its elements and attributes.
func wellFormed(t *testing.T, text []byte) (elements map[string]int, attributes []xml.Attr) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(text))
	elements = map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return elements, attributes
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
			attributes = append(attributes, e.Attr...)
		}
	}
}

func TestPageIsWholeAndAlone(t *testing.T) {
	r, _ := sample(2000, 1, 1)
	var page bytes.Buffer
	if err := report.WriteHTML(&page, r); err != nil {
		t.Fatal(err)
	}
	elements, attributes := wellFormed(t, page.Bytes())
	for name, want := range map[string]int{"svg": 12, "figure": 12, "script": 1, "style": 1, "h1": 1} {
		if elements[name] != want {
			t.Errorf("got %d %s, want %d", elements[name], name, want)
		}
	}
	for _, name := range []string{"img", "link", "iframe", "object", "a", "base", "form"} {
		if elements[name] > 0 {
			t.Errorf("the page has %s", name)
		}
	}
	ids := map[string]bool{}
	for _, a := range attributes {
		switch {
		case a.Name.Local == "id" && ids[a.Value]:
			t.Errorf("two elements have the id %s", a.Value)
		case a.Name.Local == "id":
			ids[a.Value] = true
		case a.Name.Local == "src" || a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on"):
			t.Errorf("attribute %s=%q", a.Name.Local, a.Value)
		}
	}
	outside := regexp.MustCompile(`(?i)https?://|url\(|@import|//[a-z]+\.`)
	for _, found := range outside.FindAll(bytes.ReplaceAll(page.Bytes(), []byte(r.Config["url"]), nil), -1) {
		t.Errorf("the page refers to the outside: %s", found)
	}
}

// hostile is what a configuration, an error or a name could hold.
var hostile = []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</title></style></script>`, "]]>&<!--", "a\x00\xff\x1b[31m", "{{.}}", strings.Repeat("long ", 10_000)}

func TestHostileTextIsText(t *testing.T) {
	for _, evil := range hostile {
		r, _ := sample(500, 1, 1)
		r.Config, r.Machine, r.Version, r.Partial = map[string]string{"model": evil, "url": evil, evil: evil}, evil, evil, evil
		r.Errors, r.ErrorDetails = map[string]int{evil: 3}, map[string]string{evil: evil}
		r.Client.Bottleneck, r.Client.Why, r.TokensFrom = true, evil, evil
		r.Processes[0].Name = evil
		dir := t.TempDir()
		if err := report.Write(dir, r); err != nil {
			t.Fatal(err)
		}
		if _, err := report.Open(dir); err != nil && !strings.Contains(evil, "\xff") {
			t.Error(err)
		}
		page, err := os.ReadFile(filepath.Join(dir, report.PageFile))
		if err != nil {
			t.Fatal(err)
		}
		c, err := report.Compare([]*report.Run{{Name: evil, Result: r}, {Name: "b", Result: small()}}, report.CompareOptions{Bootstrap: stats.Bootstrap{Resamples: 10}})
		if err != nil {
			t.Fatal(err)
		}
		var other bytes.Buffer
		if err := c.WriteHTML(&other); err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := errors.Join(c.WriteText(&text), c.WriteJSON(io.Discard)); err != nil {
			t.Fatal(err)
		}
		for _, b := range []string{"\x00", "\x1b", "\xff"} {
			if strings.Contains(text.String(), b) {
				t.Errorf("%.30q reaches the terminal with its %q", evil, b)
			}
		}
		for _, text := range [][]byte{page, other.Bytes()} {
			elements, _ := wellFormed(t, text)
			if elements["script"] != 1 || elements["img"] != 0 {
				t.Errorf("%.30q became an element", evil)
			}
			if len(text) > 1<<20 {
				t.Errorf("%.30q makes a page of %d bytes", evil, len(text))
			}
		}
	}
}

func TestPlotsAreFilesOfTheirOwn(t *testing.T) {
	r, _ := sample(2000, 1, 1)
	dir := t.TempDir()
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	plots, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(plots) != 12 {
		t.Fatalf("got %d plots, %v", len(plots), err)
	}
	for _, path := range plots {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		elements, _ := wellFormed(t, text)
		if elements["title"] < 1 || elements["desc"] != 1 || elements["style"] != 1 {
			t.Errorf("%s has %v", path, elements)
		}
		if !bytes.HasPrefix(text, []byte(`<svg `)) || !bytes.Contains(text[:200], []byte(`xmlns="http://www.w3.org/2000/svg"`)) {
			t.Errorf("%s begins %.60s", path, text)
		}
	}
}

var tickText = regexp.MustCompile(`<text text-anchor="middle" x="([0-9.]+)" y="[0-9.]+">([0-9.]+)</text>`)

// The numbers below an axis stand where they belong, whatever the range: in equal
// steps, or steps of equal ratio on a logarithmic axis.
func TestTicksSayWhereTheyAre(t *testing.T) {
	for e := -80; e < 80; e++ {
		h := new(stats.Histogram)
		low := math.Pow(10, float64(e)/20-3)
		spread := []float64{1.3, 2.2, 4, 17, 90, 130, 3000}[(e+80)%7]
		for i := range 100 {
			h.Record(low * math.Pow(spread, float64(i)/99))
		}
		var page bytes.Buffer
		if err := report.WriteHTML(&page, &bench.Result{E2EHist: h}); err != nil {
			t.Fatal(err)
		}
		text := page.Bytes()
		var at, says []float64
		for _, m := range tickText.FindAllSubmatch(text, -1) {
			x, _ := strconv.ParseFloat(string(m[1]), 64)
			v, _ := strconv.ParseFloat(string(m[2]), 64)
			if bytes.Contains(text, []byte("log scale")) {
				v = math.Log(v)
			}
			at, says = append(at, x), append(says, v)
		}
		if len(at) < 2 {
			t.Errorf("%v to %v: %d ticks", low, low*spread, len(at))
			continue
		}
		n := len(at) - 1
		for i := range at {
			want := at[0] + (says[i]-says[0])/(says[n]-says[0])*(at[n]-at[0])
			if math.Abs(at[i]-want) > 0.5 {
				t.Errorf("%v to %v: the tick at %v belongs at %v", low, low*spread, at[i], want)
			}
			if i > 0 && at[i]-at[i-1] < 10 {
				t.Errorf("%v to %v: ticks at %v and %v are too close", low, low*spread, at[i-1], at[i])
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ path, want string }{
		"nothing":     {filepath.Join(dir, "none"), "result.json"},
		"a folder":    {dir, "result.json"},
		"not JSON":    {write("a.json", "hello"), "not a result.json"},
		"other JSON":  {write("b.json", `{"schema":"x"}`), "not a result.json"},
		"the future":  {write("c.json", `{"schema":2}`), "schema 2"},
		"a histogram": {write("d.json", `{"schema":1,"histograms":{"ttft_seconds":{"count":1,"zeros":0,"buckets":[]}}}`), "histogram"},
	} {
		if _, err := report.Open(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	text, err := report.Marshal(small())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"schema":1,"duration_seconds":1e300,"series":[{"at_seconds":-9223372036854775808}],"goodput_targets_seconds":{"ttft":-1e300}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := report.Unmarshal(text)
		if err != nil {
			return
		}
		if err := report.WriteHTML(io.Discard, r); err != nil {
			t.Error(err)
		}
		c, err := report.Compare([]*report.Run{{Result: r}, {Result: small()}}, report.CompareOptions{Bootstrap: stats.Bootstrap{Resamples: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.WriteText(io.Discard), c.WriteJSON(io.Discard), c.WriteHTML(io.Discard)); err != nil {
			t.Error(err)
		}
	})
}

func Example() {
	if err := report.WriteCSV(os.Stdout, &bench.Result{Requests: 2, TTFT: stats.Summarize(stats.NewExact([]float64{0.010, 0.020}))}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// metric,unit,avg,min,p25,p50,p75,p90,p95,p99,max,std,count
	// time_to_first_token,ms,15,10,12.5,15,17.5,19,19.5,19.9,20,5,2
	// time_to_second_token,ms,0,0,0,0,0,0,0,0,0,0,0
	// inter_token_latency,ms,0,0,0,0,0,0,0,0,0,0,0
	// inter_chunk_latency,ms,0,0,0,0,0,0,0,0,0,0,0
	// time_per_output_token,ms,0,0,0,0,0,0,0,0,0,0,0
	// request_latency,ms,0,0,0,0,0,0,0,0,0,0,0
	// input_sequence_length,tokens,0,0,0,0,0,0,0,0,0,0,0
	// output_sequence_length,tokens,0,0,0,0,0,0,0,0,0,0,0
	// request_throughput,requests/s,0,,,,,,,,,,
	// output_token_throughput,tokens/s,0,,,,,,,,,,
	// input_token_throughput,tokens/s,0,,,,,,,,,,
	// request_count,requests,2,,,,,,,,,,
	// error_request_count,requests,0,,,,,,,,,,
	// cancelled_request_count,requests,0,,,,,,,,,,
	// cached_tokens,tokens,0,,,,,,,,,,
	// benchmark_duration,s,0,,,,,,,,,,
}
