package report

import (
	"fmt"
	"slices"
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

// svg is the chart as an element; alone makes it a file of its own.
func (c *chart) svg(alone bool) string {
	var v vectorCanvas
	f := c.frame()
	height := coordinate(f.bottom + marginBottom)
	size := ""
	if alone {
		size = fmt.Sprintf(` xmlns="http://www.w3.org/2000/svg" width="%d" height="%s"`, chartWidth, height)
	}
	fmt.Fprintf(&v, `<svg viewBox="0 0 %d %s"%s role="img" aria-labelledby="%s-t %s-d">`, chartWidth, height, size, c.id, c.id)
	fmt.Fprintf(&v, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, c.id, escaped(c.title), c.id, escaped(c.note))
	if alone {
		v.WriteString(styles())
	}
	c.draw(&v, f)
	v.WriteString(`</svg>`)
	return v.String()
}

// draw draws the chart, with its plot in f.
func (c *chart) draw(on canvas, f frame) {
	on.text(titleLetters, start, 10, 20, c.title)
	on.text(noteLetters, start, 10, 37, c.note)
	c.drawAxes(on, f)
	for _, r := range c.rules {
		x := f.x(&c.x, r.x)
		on.segment(pen{kind: rulePen}, point{x, f.top}, point{x, f.bottom}, "")
		if x > (f.left+f.right)/2 {
			on.text(noteLetters, end, x-4, f.bottom-6, r.text)
		} else {
			on.text(noteLetters, start, x+4, f.bottom-6, r.text)
		}
	}
	c.drawBars(on, f)
	for i := range c.lines {
		c.drawLine(on, f, &c.lines[i])
	}
	c.drawRanges(on, f)
	c.drawLegend(on, f)
}

func (c *chart) drawAxes(on canvas, f frame) {
	for _, t := range c.y.ticks {
		y := f.y(&c.y, t.at)
		on.segment(pen{kind: gridPen}, point{f.left, y}, point{f.right, y}, "")
		on.text(tickLetters, end, f.left-6, y+4, t.text)
	}
	last := -1e9
	for _, t := range c.x.ticks {
		x := f.x(&c.x, t.at)
		half := letterWidth * float64(len(t.text)) / 2
		on.segment(pen{kind: axisPen}, point{x, f.bottom}, point{x, f.bottom + 4}, "")
		if x-half < last+6 {
			continue // its text would run into the one before it
		}
		on.text(tickLetters, middle, x, f.bottom+16, t.text)
		last = x + half
	}
	on.segment(pen{kind: axisPen}, point{f.left, f.bottom}, point{f.right, f.bottom}, "")
	name := c.xName
	if unit := strings.TrimSpace(c.x.unit); unit != "" {
		name += ", " + unit
	}
	if c.x.log {
		name += " (log scale)"
	}
	on.text(noteLetters, middle, (f.left+f.right)/2, f.bottom+33, name)
	if unit := strings.TrimSpace(c.y.unit); unit != "" {
		on.text(noteLetters, start, 10, f.top-9, unit)
	}
}

func (c *chart) drawLine(on canvas, f frame, l *line) {
	if len(l.points) == 0 {
		return
	}
	var through []point
	for i, p := range l.points {
		at := point{f.x(&c.x, p.x), f.y(&c.y, p.y)}
		if l.step && i > 0 {
			through = append(through, point{at.x, through[len(through)-1].y})
		}
		through = append(through, at)
	}
	first, last := through[0], through[len(through)-1]
	if l.fill {
		on.area(l.colour, append(slices.Clone(through), point{last.x, f.bottom}, point{first.x, f.bottom}))
	}
	on.path(pen{kind: seriesPen, colour: l.colour, dashed: l.dashed}, through)
	if len(l.points) == 1 {
		on.dot(l.colour, first, 3, "")
	}
	for _, m := range l.marks {
		at := point{f.x(&c.x, m.x), f.y(&c.y, m.y)}
		on.dot(l.colour, at, 3.2, "")
		// A line of a distribution rises: left above it and right below it is room.
		if at.x > (f.left+f.right)/2 {
			on.text(tickLetters, end, at.x-7, at.y-5, m.text)
		} else {
			on.text(tickLetters, start, at.x+7, at.y+13, m.text)
		}
	}
}

func (c *chart) drawBars(on canvas, f frame) {
	for _, r := range c.bars {
		left, right, y := f.x(&c.x, r.low), f.x(&c.x, r.high), f.y(&c.y, r.y)
		if gap := right - left; gap > 3 {
			left, right = left+0.5, right-0.5
		}
		on.rect(0, point{left, y}, point{right, f.bottom})
	}
}

func (c *chart) drawRanges(on canvas, f frame) {
	for i, s := range c.ranges {
		y := f.top + 22*float64(i) + 11
		low, at, high := f.x(&c.x, s.low), f.x(&c.x, s.middle), f.x(&c.x, s.high)
		on.text(tickLetters, end, f.left-8, y+4, s.name)
		on.segment(pen{kind: gridPen}, point{f.left, y + 11}, point{f.right, y + 11}, "")
		on.segment(pen{kind: seriesPen, colour: s.colour}, point{low, y}, point{high, y}, s.text)
		on.dot(s.colour, point{at, y}, 4, s.text)
	}
}

// drawLegend names the lines, if there are several, above the plot's right end.
func (c *chart) drawLegend(on canvas, f frame) {
	if len(c.lines) < 2 {
		return
	}
	x := f.right
	for i := len(c.lines) - 1; i >= 0; i-- {
		l := &c.lines[i]
		name := clipped(l.name, 24)
		x -= letterWidth * float64(len([]rune(name)))
		on.text(tickLetters, start, x, f.top-9, name)
		on.segment(pen{kind: seriesPen, colour: l.colour, dashed: l.dashed}, point{x - 24, f.top - 13}, point{x - 6, f.top - 13}, "")
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

// clipped is s with at most n letters.
func clipped(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
