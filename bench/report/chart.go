package report

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// chart is one plot. Its title is a name, its note a sentence that says what is seen.
type chart struct {
	id, title, note string
	x, y            axis
	xName           string
	lines           []line
	bars            []bar
	ranges          []span
	rules           []rule
}

// line is a series of points. Lines are told apart by colour and by dash.
type line struct {
	name   string
	colour int
	dashed bool
	fill   bool
	step   bool
	points []point
	marks  []mark
	text   func(p point) string
}

type point struct{ x, y float64 }

// mark is a point of a line with its name beside it.
type mark struct {
	point
	text string
}

// bar is a count of a histogram, from x to x of neighbours.
type bar struct {
	low, high, y float64
	text         string
}

// rule is a value of x worth a line through the plot.
type rule struct {
	x    float64
	text string
}

// span is an interval with its middle, in a row of its own: a line of a forest plot.
type span struct {
	name, text        string
	low, middle, high float64
	colour            int
}

// The size of a chart, in units that are pixels where there is room. Small enough
// that its text is readable on a phone, where it is scaled to the width.
const (
	chartWidth   = 440
	chartHeight  = 262
	marginTop    = 64
	marginRight  = 18
	marginBottom = 42
	letterWidth  = 6.3 // of the 11.5 px text of ticks, about
)

// frame is where the plot lies within the chart.
type frame struct{ left, top, right, bottom float64 }

func (c *chart) frame() frame {
	widest := 0
	for _, t := range c.y.ticks {
		widest = max(widest, len([]rune(t.text)))
	}
	for _, s := range c.ranges {
		widest = max(widest, len([]rune(s.name)))
	}
	height := float64(chartHeight)
	if n := len(c.ranges); n > 0 {
		height = marginTop + marginBottom + 22*float64(n)
	}
	return frame{left: 14 + letterWidth*float64(max(widest, 2)), top: marginTop, right: chartWidth - marginRight, bottom: height - marginBottom}
}

func (f frame) x(a *axis, v float64) float64 { return f.left + a.place(v)*(f.right-f.left) }
func (f frame) y(a *axis, v float64) float64 { return f.bottom - a.place(v)*(f.bottom-f.top) }

// styles are the classes of a chart, for a file of its own; the page has its own, by
// the same names.
const styles = `<style>
svg{font-family:"Helvetica Neue",Helvetica,Arial,sans-serif;background:#fff}
text{fill:#3b424c;font-size:11.5px}.ct{font-size:14px;font-weight:600;fill:#14181d}.cn{font-size:11.5px;fill:#59626d}
.g{stroke:#e3e7ec;stroke-width:1}.ax{stroke:#8b949e;stroke-width:1}.ru{stroke:#59626d;stroke-width:1;stroke-dasharray:2 3}
.l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.d{stroke-dasharray:6 4}.f{stroke:none;opacity:.1}.b{opacity:.85}
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#00805e}.s3{stroke:#a6529a}.s4{stroke:#8a6d00}.s5{stroke:#4d4d4d}
.c0{fill:#0072b2}.c1{fill:#d55e00}.c2{fill:#00805e}.c3{fill:#a6529a}.c4{fill:#8a6d00}.c5{fill:#4d4d4d}
</style>`

// svg is the chart as an element; alone makes it a file of its own.
func (c *chart) svg(alone bool) string {
	var b strings.Builder
	f := c.frame()
	height := f.bottom + marginBottom
	size := ""
	if alone {
		size = fmt.Sprintf(` xmlns="http://www.w3.org/2000/svg" width="%d" height="%s"`, chartWidth, coordinate(height))
	}
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %s"%s role="img" aria-labelledby="%s-t %s-d">`,
		chartWidth, coordinate(height), size, c.id, c.id)
	fmt.Fprintf(&b, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, c.id, escaped(c.title), c.id, escaped(c.note))
	if alone {
		b.WriteString(styles)
	}
	text(&b, "ct", "start", 10, 20, c.title)
	text(&b, "cn", "start", 10, 37, c.note)
	c.drawAxes(&b, f)
	for _, r := range c.rules {
		x := f.x(&c.x, r.x)
		fmt.Fprintf(&b, `<line class="ru" x1="%s" y1="%s" x2="%s" y2="%s"/>`, coordinate(x), coordinate(f.top), coordinate(x), coordinate(f.bottom))
		if x > (f.left+f.right)/2 {
			text(&b, "cn", "end", x-4, f.bottom-6, r.text)
		} else {
			text(&b, "cn", "start", x+4, f.bottom-6, r.text)
		}
	}
	c.drawBars(&b, f)
	for i := range c.lines {
		c.drawLine(&b, f, &c.lines[i])
	}
	c.drawRanges(&b, f)
	c.drawLegend(&b, f)
	b.WriteString(`</svg>`)
	return b.String()
}

func (c *chart) drawAxes(b *strings.Builder, f frame) {
	for _, t := range c.y.ticks {
		y := f.y(&c.y, t.at)
		fmt.Fprintf(b, `<line class="g" x1="%s" y1="%s" x2="%s" y2="%s"/>`, coordinate(f.left), coordinate(y), coordinate(f.right), coordinate(y))
		text(b, "", "end", f.left-6, y+4, t.text)
	}
	last := -1e9
	for _, t := range c.x.ticks {
		x := f.x(&c.x, t.at)
		half := letterWidth * float64(len(t.text)) / 2
		fmt.Fprintf(b, `<line class="ax" x1="%s" y1="%s" x2="%s" y2="%s"/>`, coordinate(x), coordinate(f.bottom), coordinate(x), coordinate(f.bottom+4))
		if x-half < last+6 {
			continue // its text would run into the one before it
		}
		text(b, "", "middle", x, f.bottom+16, t.text)
		last = x + half
	}
	fmt.Fprintf(b, `<line class="ax" x1="%s" y1="%s" x2="%s" y2="%s"/>`, coordinate(f.left), coordinate(f.bottom), coordinate(f.right), coordinate(f.bottom))
	name := c.xName
	if unit := strings.TrimSpace(c.x.unit); unit != "" {
		name += ", " + unit
	}
	if c.x.log {
		name += " (log scale)"
	}
	text(b, "cn", "middle", (f.left+f.right)/2, f.bottom+33, name)
	if unit := strings.TrimSpace(c.y.unit); unit != "" {
		text(b, "cn", "start", 10, f.top-9, unit)
	}
}

func (c *chart) drawLine(b *strings.Builder, f frame, l *line) {
	if len(l.points) == 0 {
		return
	}
	var path strings.Builder
	beforeY := 0.0
	for i, p := range l.points {
		x, y := f.x(&c.x, p.x), f.y(&c.y, p.y)
		switch {
		case i == 0:
			fmt.Fprintf(&path, "M%s %s", coordinate(x), coordinate(y))
		case l.step:
			fmt.Fprintf(&path, "L%s %sL%s %s", coordinate(x), coordinate(beforeY), coordinate(x), coordinate(y))
		default:
			fmt.Fprintf(&path, "L%s %s", coordinate(x), coordinate(y))
		}
		beforeY = y
	}
	if l.fill {
		first, last := f.x(&c.x, l.points[0].x), f.x(&c.x, l.points[len(l.points)-1].x)
		fmt.Fprintf(b, `<path class="f c%d" d="%sL%s %sL%s %sZ"/>`, l.colour, path.String(), coordinate(last), coordinate(f.bottom), coordinate(first), coordinate(f.bottom))
	}
	class := ""
	if l.dashed {
		class = " d"
	}
	fmt.Fprintf(b, `<path class="l s%d%s" d="%s"/>`, l.colour, class, path.String())
	if len(l.points) == 1 {
		fmt.Fprintf(b, `<circle class="c%d" cx="%s" cy="%s" r="3"/>`, l.colour, coordinate(f.x(&c.x, l.points[0].x)), coordinate(f.y(&c.y, l.points[0].y)))
	}
	for _, m := range l.marks {
		x, y := f.x(&c.x, m.x), f.y(&c.y, m.y)
		fmt.Fprintf(b, `<circle class="c%d" cx="%s" cy="%s" r="3.2"/>`, l.colour, coordinate(x), coordinate(y))
		// A line of a distribution rises: left above it and right below it is room.
		if x > (f.left+f.right)/2 {
			text(b, "", "end", x-7, y-5, m.text)
		} else {
			text(b, "", "start", x+7, y+13, m.text)
		}
	}
}

func (c *chart) drawBars(b *strings.Builder, f frame) {
	for _, r := range c.bars {
		left, right, y := f.x(&c.x, r.low), f.x(&c.x, r.high), f.y(&c.y, r.y)
		if gap := right - left; gap > 3 {
			left, right = left+0.5, right-0.5
		}
		fmt.Fprintf(b, `<rect class="b c0" x="%s" y="%s" width="%s" height="%s"/>`, coordinate(left), coordinate(y), coordinate(right-left), coordinate(f.bottom-y))
	}
}

func (c *chart) drawRanges(b *strings.Builder, f frame) {
	for i, s := range c.ranges {
		y := f.top + 22*float64(i) + 11
		low, middle, high := f.x(&c.x, s.low), f.x(&c.x, s.middle), f.x(&c.x, s.high)
		text(b, "", "end", f.left-8, y+4, s.name)
		fmt.Fprintf(b, `<line class="g" x1="%s" y1="%s" x2="%s" y2="%s"/>`, coordinate(f.left), coordinate(y+11), coordinate(f.right), coordinate(y+11))
		fmt.Fprintf(b, `<line class="l s%d" x1="%s" y1="%s" x2="%s" y2="%s"><title>%s</title></line>`, s.colour, coordinate(low), coordinate(y), coordinate(high), coordinate(y), escaped(s.text))
		fmt.Fprintf(b, `<circle class="c%d" cx="%s" cy="%s" r="4"><title>%s</title></circle>`, s.colour, coordinate(middle), coordinate(y), escaped(s.text))
	}
}

// drawLegend names the lines, if there are several, above the plot's right end.
func (c *chart) drawLegend(b *strings.Builder, f frame) {
	if len(c.lines) < 2 {
		return
	}
	x := f.right
	for i := len(c.lines) - 1; i >= 0; i-- {
		l := &c.lines[i]
		name := clipped(l.name, 24)
		x -= letterWidth * float64(len([]rune(name)))
		text(b, "", "start", x, f.top-9, name)
		class := ""
		if l.dashed {
			class = " d"
		}
		fmt.Fprintf(b, `<line class="l s%d%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, l.colour, class, coordinate(x-24), coordinate(f.top-13), coordinate(x-6), coordinate(f.top-13))
		x -= 38
	}
}

// readout is what the page's script shows at the pointer: places in the chart's units
// and texts, made here so that the script only looks them up.
type readout struct {
	Top    float64       `json:"top"`
	Bottom float64       `json:"bottom"`
	Lines  []readoutLine `json:"lines"`
}

type readoutLine struct {
	Name   string    `json:"name"`
	Colour int       `json:"colour"`
	X      []float64 `json:"x"`
	Y      []float64 `json:"y"`
	Text   []string  `json:"text"`
}

// readings is the chart's readout as JSON; empty if there is nothing to read.
func (c *chart) readings() string {
	f := c.frame()
	r := readout{Top: f.top, Bottom: f.bottom}
	for i := range c.lines {
		l := &c.lines[i]
		out := readoutLine{Name: l.name, Colour: l.colour}
		for _, p := range l.points {
			out.X, out.Y, out.Text = append(out.X, tenth(f.x(&c.x, p.x))), append(out.Y, tenth(f.y(&c.y, p.y))), append(out.Text, l.text(p))
		}
		r.Lines = append(r.Lines, out)
	}
	if len(c.bars) > 0 {
		out := readoutLine{}
		for _, b := range c.bars {
			out.X, out.Y, out.Text = append(out.X, tenth(f.x(&c.x, (b.low+b.high)/2))), append(out.Y, tenth(f.y(&c.y, b.y))), append(out.Text, b.text)
		}
		r.Lines = append(r.Lines, out)
	}
	if len(r.Lines) == 0 {
		return ""
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic("BUG: report: readout: " + err.Error())
	}
	return string(text)
}

func text(b *strings.Builder, class, anchor string, x, y float64, s string) {
	if s == "" {
		return
	}
	b.WriteString("<text")
	if class != "" {
		b.WriteString(` class="` + class + `"`)
	}
	fmt.Fprintf(b, ` text-anchor="%s" x="%s" y="%s">%s</text>`, anchor, coordinate(x), coordinate(y), escaped(s))
}

// coordinate is v to a tenth, as short as can be.
func coordinate(v float64) string { return strconv.FormatFloat(tenth(v), 'f', -1, 64) }

func tenth(v float64) float64 {
	if v < 0 {
		return -tenth(-v)
	}
	return float64(int(v*10+0.5)) / 10
}

// escaped is s as text or an attribute of XML.
func escaped(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		panic("BUG: report: " + err.Error())
	}
	return b.String()
}

// clipped is s with at most n letters.
func clipped(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
