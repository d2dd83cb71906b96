package report

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
)

// canvas is what a chart is drawn on: text of SVG, or pixels. Places are in the units
// of the chart, y downwards. What is drawn says what it is; how that looks is in the
// tables below, which both canvases follow.
type canvas interface {
	// segment is a straight line, with a tip for the pointer or none.
	segment(p pen, from, to point, tip string)
	// path is a line through points.
	path(p pen, points []point)
	// area is what points enclose, in a faint colour of a series.
	area(colour int, points []point)
	// rect is a bar in the colour of a series.
	rect(colour int, from, to point)
	// dot is a filled circle in the colour of a series.
	dot(colour int, at point, radius float64, tip string)
	// text is a line of letters whose start, middle or end is at a place of its baseline.
	text(s letters, a anchor, x, y float64, content string)
}

var (
	_ canvas = (*vectorCanvas)(nil)
	_ canvas = (*pixelCanvas)(nil)
)

// pen is a kind of line; of a series, with its colour.
type pen struct {
	kind   penKind
	colour int
	dashed bool
}

type penKind uint8

const (
	gridPen penKind = iota
	axisPen
	rulePen
	seriesPen
)

// letters is a kind of text.
type letters uint8

const (
	tickLetters letters = iota
	titleLetters
	noteLetters
)

// anchor says which part of a text is at its place.
type anchor uint8

const (
	start anchor = iota
	middle
	end
)

var anchorNames = [...]string{start: "start", middle: "middle", end: "end"}

// The looks of what is drawn on white. The page has colours of its own for the dark.
var (
	seriesColours = [maxRuns]string{"#0072b2", "#d55e00", "#00805e", "#a6529a", "#8a6d00", "#4d4d4d"}

	penLooks = [...]struct {
		class, colour string
		width         float64
		dash          [2]float64 // drawn, then not; zero: all is drawn
	}{
		gridPen:   {class: "g", colour: "#e3e7ec", width: 1},
		axisPen:   {class: "ax", colour: "#8b949e", width: 1},
		rulePen:   {class: "ru", colour: "#59626d", width: 1, dash: [2]float64{2, 3}},
		seriesPen: {class: "l", width: 2},
	}
	seriesDash = [2]float64{6, 4} // of a pen that is dashed

	letterLooks = [...]struct {
		class, colour string
		size          float64
		bold          bool
	}{
		tickLetters:  {colour: "#3b424c", size: 11.5},
		titleLetters: {class: "ct", colour: "#14181d", size: 14, bold: true},
		noteLetters:  {class: "cn", colour: "#59626d", size: 11.5},
	}
)

const (
	areaAlpha = .1
	barAlpha  = .85
)

// vectorCanvas writes the elements of an SVG. Their classes are styled by its file, or
// by the page around them.
type vectorCanvas struct{ strings.Builder }

// styles are the classes of a chart, for a file of its own; the page has its own, by
// the same names.
func styles() string {
	var b strings.Builder
	b.WriteString("<style>\n" + `svg{font-family:"Helvetica Neue",Helvetica,Arial,sans-serif;background:#fff}` + "\ntext")
	for _, l := range letterLooks {
		switch {
		case l.class == "":
			fmt.Fprintf(&b, "{fill:%s;font-size:%gpx}", l.colour, l.size)
		case l.bold:
			fmt.Fprintf(&b, ".%s{font-size:%gpx;font-weight:600;fill:%s}", l.class, l.size, l.colour)
		default:
			fmt.Fprintf(&b, ".%s{font-size:%gpx;fill:%s}", l.class, l.size, l.colour)
		}
	}
	b.WriteByte('\n')
	for _, l := range penLooks {
		switch {
		case l.colour == "":
			fmt.Fprintf(&b, "\n.%s{fill:none;stroke-width:%g;stroke-linejoin:round;stroke-linecap:round}", l.class, l.width)
		case l.dash[0] > 0:
			fmt.Fprintf(&b, ".%s{stroke:%s;stroke-width:%g;stroke-dasharray:%g %g}", l.class, l.colour, l.width, l.dash[0], l.dash[1])
		default:
			fmt.Fprintf(&b, ".%s{stroke:%s;stroke-width:%g}", l.class, l.colour, l.width)
		}
	}
	fmt.Fprintf(&b, ".d{stroke-dasharray:%g %g}.f{stroke:none;opacity:%s}.b{opacity:%s}\n", seriesDash[0], seriesDash[1], fraction(areaAlpha), fraction(barAlpha))
	for i, colour := range seriesColours {
		fmt.Fprintf(&b, ".s%d{stroke:%s}", i, colour)
	}
	b.WriteByte('\n')
	for i, colour := range seriesColours {
		fmt.Fprintf(&b, ".c%d{fill:%s}", i, colour)
	}
	b.WriteString("\n</style>")
	return b.String()
}

// fraction is v, below 1, as style sheets write it.
func fraction(v float64) string { return strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, 64), "0") }

func (p pen) class() string {
	class := penLooks[p.kind].class
	if p.kind == seriesPen {
		class += " s" + strconv.Itoa(p.colour)
	}
	if p.dashed {
		class += " d"
	}
	return class
}

func (v *vectorCanvas) segment(p pen, from, to point, tip string) {
	fmt.Fprintf(v, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"`, p.class(), coordinate(from.x), coordinate(from.y), coordinate(to.x), coordinate(to.y))
	v.closeTag("line", tip)
}

func (v *vectorCanvas) path(p pen, points []point) {
	fmt.Fprintf(v, `<path class="%s" d="`, p.class())
	v.through(points)
	v.WriteString(`"/>`)
}

func (v *vectorCanvas) area(colour int, points []point) {
	fmt.Fprintf(v, `<path class="f c%d" d="`, colour)
	v.through(points)
	v.WriteString(`Z"/>`)
}

func (v *vectorCanvas) through(points []point) {
	for i, p := range points {
		verb := byte('L')
		if i == 0 {
			verb = 'M'
		}
		v.WriteByte(verb)
		v.WriteString(coordinate(p.x) + " " + coordinate(p.y))
	}
}

func (v *vectorCanvas) rect(colour int, from, to point) {
	fmt.Fprintf(v, `<rect class="b c%d" x="%s" y="%s" width="%s" height="%s"/>`, colour, coordinate(from.x), coordinate(from.y), coordinate(to.x-from.x), coordinate(to.y-from.y))
}

func (v *vectorCanvas) dot(colour int, at point, radius float64, tip string) {
	fmt.Fprintf(v, `<circle class="c%d" cx="%s" cy="%s" r="%g"`, colour, coordinate(at.x), coordinate(at.y), radius)
	v.closeTag("circle", tip)
}

func (v *vectorCanvas) text(s letters, a anchor, x, y float64, content string) {
	if content == "" {
		return
	}
	v.WriteString("<text")
	if class := letterLooks[s].class; class != "" {
		v.WriteString(` class="` + class + `"`)
	}
	fmt.Fprintf(v, ` text-anchor="%s" x="%s" y="%s">%s</text>`, anchorNames[a], coordinate(x), coordinate(y), escaped(content))
}

// closeTag ends an element that was begun, with a tip in it if there is one.
func (v *vectorCanvas) closeTag(element, tip string) {
	if tip == "" {
		v.WriteString("/>")
		return
	}
	fmt.Fprintf(v, "><title>%s</title></%s>", escaped(tip), element)
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
