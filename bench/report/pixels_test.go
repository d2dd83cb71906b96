package report_test

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// plots reads the plots in dir by name.
func plots(t *testing.T, dir string) map[string]plot {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := filepath.Glob(filepath.Join(dir, "*.png"))
	if err != nil || len(images) != len(paths) {
		t.Errorf("got %d images, %v; want one for each of %d SVGs", len(images), err, len(paths))
	}
	out := map[string]plot{}
	for _, path := range paths {
		var p plot
		if p.svg, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		base := strings.TrimSuffix(path, ".svg")
		if p.png, err = os.ReadFile(base + ".png"); err != nil {
			t.Fatal(err)
		}
		decoded, err := png.Decode(bytes.NewReader(p.png))
		if err != nil {
			t.Fatalf("%s: %v", base, err)
		}
		p.image = image.NewRGBA(decoded.Bounds())
		draw.Draw(p.image, p.image.Rect, decoded, image.Point{}, draw.Src)
		out[filepath.Base(base)] = p
	}
	return out
}

type plot struct {
	svg, png []byte
	image    *image.RGBA
}

// at is the colour of the pixel at a place of the SVG.
func (p *plot) at(x, y float64) color.RGBA {
	return p.image.RGBAAt(int(x*2), int(y*2))
}

var white = color.RGBA{255, 255, 255, 255}

// ink is the box of what is darker than limit within a box of the SVG, in its units.
func (p *plot) ink(left, top, right, bottom float64, limit uint8) (minX, maxX float64, ok bool) {
	minX, maxX = math.Inf(1), math.Inf(-1)
	for x := left; x < right; x += 0.5 {
		for y := top; y < bottom; y += 0.5 {
			if p.at(x, y).R < limit {
				minX, maxX, ok = min(minX, x), max(maxX, x+0.5), true
			}
		}
	}
	return minX, maxX, ok
}

func number(text []byte) float64 {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		panic(err)
	}
	return v
}

func hex(text []byte) color.RGBA {
	v, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil {
		panic(err)
	}
	return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
}

func near(a, b color.RGBA, by int) bool {
	for _, d := range []int{int(a.R) - int(b.R), int(a.G) - int(b.G), int(a.B) - int(b.B)} {
		if d > by || d < -by {
			return false
		}
	}
	return true
}

var (
	sizeOf    = regexp.MustCompile(`width="(\d+)" height="(\d+)"`)
	fillOf    = regexp.MustCompile(`\.c(\d)\{fill:#([0-9a-f]{6})\}`)
	circles   = regexp.MustCompile(`<circle class="c(\d)" cx="([0-9.]+)" cy="([0-9.]+)"`)
	linePath  = regexp.MustCompile(`<path class="l s(\d)( d)?" d="([^"]+)"`)
	pathPoint = regexp.MustCompile(`[ML]([0-9.]+) ([0-9.]+)`)
	anyText   = regexp.MustCompile(`<text(?: class="(\w+)")? text-anchor="(\w+)" x="([0-9.]+)" y="([0-9.]+)">([^<]+)<`)
)

// everyPlot is the plots of a run and of a comparison of six, whose texts are long.
func everyPlot(t *testing.T) map[string]plot {
	t.Helper()
	r, _ := sample(1000, 1, 1)
	r.Errors[strings.Repeat("Mo", 30)] = 1 // wider than there is room, at its size
	dir := t.TempDir()
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	run := &report.Run{Name: "a run", Result: r}
	c, err := report.Compare([]*report.Run{run, run, run, run, run, run}, report.CompareOptions{Bootstrap: stats.Bootstrap{Resamples: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WritePlots(dir); err != nil {
		t.Fatal(err)
	}
	all := plots(t, dir)
	if want := 12 + 5 + 4 + 4; len(all) != want {
		t.Fatalf("got %d plots, want %d", len(all), want)
	}
	return all
}

func TestImages(t *testing.T) {
	all, again := everyPlot(t), everyPlot(t)
	for name, p := range all {
		if !bytes.Equal(p.png, again[name].png) {
			t.Errorf("%s differs the second time", name)
		}
	}
	checkPlots(t, all)
	checkEdges(t, all)
}

// checkPlots sees that an image shows what the SVG of its name does: the same size in
// twice the pixels, with dots, lines and texts of the same colours at the same places.
func checkPlots(t *testing.T, all map[string]plot) {
	t.Helper()
	for name, p := range all {
		size := sizeOf.FindSubmatch(p.svg)
		if got, want := p.image.Bounds(), image.Rect(0, 0, 2*int(number(size[1])), 2*int(number(size[2]))); got != want {
			t.Errorf("%s: got an image of %v, want %v", name, got, want)
		}
		fills := map[string]color.RGBA{}
		for _, m := range fillOf.FindAllSubmatch(p.svg, -1) {
			fills[string(m[1])] = hex(m[2])
		}
		drawn := 0
		for _, m := range circles.FindAllSubmatch(p.svg, -1) {
			if got, want := p.at(number(m[2]), number(m[3])), fills[string(m[1])]; got != want {
				t.Errorf("%s: the dot at %s, %s is %v, want %v", name, m[2], m[3], got, want)
			}
			drawn++
		}
		paths := linePath.FindAllSubmatch(p.svg, -1)
		for _, m := range paths[max(len(paths)-1, 0):] { // the last lies above the others
			if len(m[2]) > 0 {
				continue // dashed
			}
			for _, at := range pathPoint.FindAllSubmatch(m[3], -1) {
				if got := p.at(number(at[1]), number(at[2])); !near(got, fills[string(m[1])], 40) {
					t.Errorf("%s: the line at %s, %s is %v, want %v", name, at[1], at[2], got, fills[string(m[1])])
				}
				drawn++
			}
		}
		if drawn == 0 && len(paths) == 0 && !bytes.Contains(p.svg, []byte("<rect")) {
			t.Errorf("%s: nothing is plotted", name)
		}
		checkTexts(t, name, &p)
	}
}

// checkTexts looks for each text of an SVG at its place in the image: ink up to the
// anchor, none beyond.
func checkTexts(t *testing.T, name string, p *plot) {
	t.Helper()
	for _, m := range anyText.FindAllSubmatch(p.svg, -1) {
		class, x, y := string(m[1]), number(m[3]), number(m[4])
		letters := float64(len([]rune(string(m[5]))))
		if class == "" && (y > 60 && x > 130 && string(m[2]) != "middle") {
			continue // marks lie on lines of the plot
		}
		width := letters * 8
		left, right := x, x+width
		switch string(m[2]) {
		case "end":
			left, right = x-width, x
		case "middle":
			left, right = x-letters*5, x+letters*5
		}
		left, right = max(left, 0), min(right, 439)
		minX, maxX, ok := p.ink(left, y-7, right, y, 160)
		if !ok {
			t.Errorf("%s: no ink of %q at %v, %v", name, m[5], x, y)
			continue
		}
		switch string(m[2]) {
		case "start":
			if _, _, before := p.ink(max(x-3, 0), y-7, x-0.5, y, 160); before || minX > x+3 {
				t.Errorf("%s: %q begins at %v, want %v (ink before: %v)", name, m[5], minX, x, before)
			}
		case "end":
			if _, _, beyond := p.ink(x+0.5, y-7, x+2.5, y, 160); beyond || class == "" && maxX < x-2 {
				t.Errorf("%s: %q ends at %v, want %v (ink beyond: %v)", name, m[5], maxX, x, beyond)
			}
		case "middle":
			if got := (minX + maxX) / 2; class == "" && math.Abs(got-x) > 1.5 {
				t.Errorf("%s: the middle of %q is at %v, want %v", name, m[5], got, x)
			}
		}
	}
}

// checkEdges sees that nothing is cut off, long texts neither, and that most is paper.
func checkEdges(t *testing.T, all map[string]plot) {
	t.Helper()
	for name, p := range all {
		b := p.image.Bounds()
		paper := 0
		for y := range b.Max.Y {
			for x := range b.Max.X {
				is := p.image.RGBAAt(x, y) == white
				if is {
					paper++
				} else if x == 0 || y == 0 || x == b.Max.X-1 || y == b.Max.Y-1 {
					t.Fatalf("%s: ink at the edge, %d, %d", name, x, y)
				}
			}
		}
		if share := float64(paper) / float64(b.Dx()*b.Dy()); share < 0.4 || share > 0.98 {
			t.Errorf("%s: %.2f of it is blank", name, share)
		}
	}
}

// Bars and areas let the lines of the grid through as much as in the SVG.
func TestImagesMixColours(t *testing.T) {
	r, _ := sample(2000, 1, 1)
	dir := t.TempDir()
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	all := plots(t, dir)
	blue := color.RGBA{0x00, 0x72, 0xb2, 255}
	mixed := func(alpha float64) color.RGBA {
		f := func(c uint8) uint8 { return uint8(math.Round(255 + alpha*(float64(c)-255))) }
		return color.RGBA{f(blue.R), f(blue.G), f(blue.B), 255}
	}
	for name, want := range map[string]color.RGBA{"tokens": mixed(.1), "input-lengths": mixed(.85)} {
		p := all[name]
		if got := p.at(200, 210); !near(got, want, 2) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// What has no place is left out; what lies far off ends at the edge.
func TestImagesOfOddNumbers(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300, 5e-324} {
		r := &bench.Result{E2EHist: new(stats.Histogram)}
		r.E2EHist.Record(1)
		for i := range 5 {
			r.Series = append(r.Series, bench.Second{At: i, Finished: 1, InFlight: math.MaxInt, TTFTP50: v, TTFTP99: v})
		}
		dir := t.TempDir()
		run := &report.Run{Result: r}
		if err := compared(t, run, run).WritePlots(dir); err != nil {
			t.Errorf("%v: %v", v, err)
		}
		if all := plots(t, dir); len(all) < 5 {
			t.Errorf("%v: got %d plots", v, len(all))
		}
	}
}

// The plots of a comparison may lie beside those of a run.
func TestPlotsOfAComparison(t *testing.T) {
	r, _ := sample(600, 1, 1)
	dir := t.TempDir()
	if err := report.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	before := plots(t, dir)
	run, err := report.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := sample(600, 2, 1.5)
	c := compared(t, run, &report.Run{Result: other})
	if err := c.WritePlots(dir); err != nil {
		t.Fatal(err)
	}
	after := plots(t, dir)
	for name := range before {
		if !bytes.Equal(before[name].png, after[name].png) || !bytes.Equal(before[name].svg, after[name].svg) {
			t.Errorf("%s was replaced", name)
		}
	}
	for _, name := range []string{"ratios-b", "ttft", "e2e", "tokens", "ttft-p99-series"} {
		if _, ok := after["compare-"+name]; !ok {
			t.Errorf("no plot %s", name)
		}
	}
	if err := c.WritePlots(filepath.Join(dir, report.ResultFile, "x")); err == nil {
		t.Error("plots were written below a file")
	}
}
