package report

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strconv"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pixelScale is the number of pixels to a unit of the chart: text and lines are sharp
// on paper and on screens of high density.
const pixelScale = 2

// png is the chart as an image, on white.
func (c *chart) png() []byte {
	f := c.frame()
	p := newPixelCanvas(chartWidth, f.bottom+marginBottom)
	c.draw(p, f)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, p.image); err != nil {
		panic("BUG: report: " + err.Error()) // a buffer takes everything
	}
	return b.Bytes()
}

// pixelCanvas draws on an image. What lies outside of it is cut off, and what has no
// place (NaN) is left out. The same calls make the same pixels.
type pixelCanvas struct {
	image *image.RGBA
	fill  vector.Rasterizer
	mask  image.Alpha
	faces map[faceKey]font.Face
}

type faceKey struct {
	bold bool
	size float64
}

func newPixelCanvas(width, height float64) *pixelCanvas {
	p := &pixelCanvas{faces: map[faceKey]font.Face{}}
	p.image = image.NewRGBA(image.Rect(0, 0, int(math.Ceil(width*pixelScale)), int(math.Ceil(height*pixelScale))))
	draw.Draw(p.image, p.image.Rect, image.White, image.Point{}, draw.Src)
	return p
}

// paint is the colour #rrggbb with an alpha.
func paint(hex string, alpha float64) *image.Uniform {
	v, err := strconv.ParseUint(hex[1:], 16, 24)
	if err != nil {
		panic("BUG: report: colour " + hex)
	}
	return image.NewUniform(color.NRGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: uint8(math.Round(alpha * 255))})
}

func (p pen) paint() *image.Uniform {
	if p.kind == seriesPen {
		return paint(seriesColours[p.colour], 1)
	}
	return paint(penLooks[p.kind].colour, 1)
}

func (p *pixelCanvas) segment(n pen, from, to point, _ string) {
	if n.kind == seriesPen {
		p.path(n, []point{from, to})
		return
	}
	// Lines of the frame have square ends and lie along an axis: on whole pixels they
	// are sharp.
	look := penLooks[n.kind]
	all := scaled([]point{from, to})
	half := math.Max(1, math.Round(look.width*pixelScale/2))
	for _, d := range dashes(all, look.dash) {
		a, b := d[0], d[len(d)-1]
		if a.y == b.y {
			y := math.Round(a.y)
			p.polygon(n.paint(), []point{{a.x, y - half}, {b.x, y - half}, {b.x, y + half}, {a.x, y + half}})
		} else {
			x := math.Round(a.x)
			p.polygon(n.paint(), []point{{x - half, a.y}, {x + half, a.y}, {x + half, b.y}, {x - half, b.y}})
		}
	}
}

func (p *pixelCanvas) path(n pen, points []point) {
	look := penLooks[n.kind]
	dash := look.dash
	if n.dashed {
		dash = seriesDash
	}
	p.round(n.paint(), dashes(scaled(points), dash), look.width*pixelScale/2)
}

func (p *pixelCanvas) area(colour int, points []point) {
	p.polygon(paint(seriesColours[colour], areaAlpha), scaled(points))
}

func (p *pixelCanvas) rect(colour int, from, to point) {
	p.polygon(paint(seriesColours[colour], barAlpha), scaled([]point{from, {to.x, from.y}, to, {from.x, to.y}}))
}

func (p *pixelCanvas) dot(colour int, at point, radius float64, _ string) {
	p.round(paint(seriesColours[colour], 1), [][]point{scaled([]point{at})}, radius*pixelScale)
}

// scaled is points in pixels; none if one of them has no place.
func scaled(points []point) []point {
	out := make([]point, 0, len(points))
	for _, at := range points {
		if v := at.x + at.y; math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		out = append(out, point{at.x * pixelScale, at.y * pixelScale})
	}
	return out
}

// dashes cuts a line into the parts that a pattern in the chart's units draws.
func dashes(points []point, pattern [2]float64) [][]point {
	if len(points) == 0 {
		return nil
	}
	if pattern[0] <= 0 || pattern[1] <= 0 {
		return [][]point{points}
	}
	var out [][]point
	part, drawn := []point{points[0]}, true
	left := pattern[0] * pixelScale
	for i, to := range points[1:] {
		from := points[i]
		length := math.Hypot(to.x-from.x, to.y-from.y)
		done := 0.0
		for length-done > left {
			done += left
			at := point{from.x + (to.x-from.x)*done/length, from.y + (to.y-from.y)*done/length}
			if drawn {
				out, part = append(out, append(part, at)), nil
				left = pattern[1] * pixelScale
			} else {
				part = []point{at}
				left = pattern[0] * pixelScale
			}
			drawn = !drawn
		}
		left -= length - done
		if drawn {
			part = append(part, to)
		}
	}
	if drawn {
		out = append(out, part)
	}
	return out
}

// bounds is the part of the image that points may touch, with a margin around them.
func (p *pixelCanvas) bounds(points []point, margin float64) image.Rectangle {
	box := image.Rectangle{Min: p.image.Rect.Max, Max: p.image.Rect.Min}
	within := func(v float64, limit int) float64 { return min(max(v, 0), float64(limit)) }
	for _, at := range points {
		box.Min.X = min(box.Min.X, int(within(math.Floor(at.x-margin), box.Min.X)))
		box.Min.Y = min(box.Min.Y, int(within(math.Floor(at.y-margin), box.Min.Y)))
		box.Max.X = max(box.Max.X, int(within(math.Ceil(at.x+margin), p.image.Rect.Max.X)))
		box.Max.Y = max(box.Max.Y, int(within(math.Ceil(at.y+margin), p.image.Rect.Max.Y)))
	}
	if box.Empty() {
		return image.Rectangle{}
	}
	return box
}

// polygon fills what points, in pixels, enclose.
func (p *pixelCanvas) polygon(colour *image.Uniform, points []point) {
	box := p.bounds(points, 0)
	if box.Empty() {
		return
	}
	p.fill.Reset(box.Dx(), box.Dy())
	for i, at := range points {
		x, y := float32(at.x-float64(box.Min.X)), float32(at.y-float64(box.Min.Y))
		if i == 0 {
			p.fill.MoveTo(x, y)
		} else {
			p.fill.LineTo(x, y)
		}
	}
	p.fill.ClosePath()
	p.fill.Draw(p.image, box, colour, image.Point{})
}

// round draws lines, in pixels, with round ends and joins; a line of one point is a
// dot. A pixel is covered by how far its middle is from the nearest line, so that
// neither joins nor crossings are darker than the rest.
func (p *pixelCanvas) round(colour *image.Uniform, lines [][]point, radius float64) {
	p.mask.Rect, p.mask.Stride = p.image.Rect, p.image.Rect.Dx()
	if n := p.mask.Stride * p.image.Rect.Dy(); len(p.mask.Pix) < n {
		p.mask.Pix = make([]byte, n)
	}
	var touched image.Rectangle
	for _, l := range lines {
		if len(l) == 1 {
			l = []point{l[0], l[0]}
		}
		for i := 1; i < len(l); i++ {
			touched = touched.Union(p.cover(l[i-1], l[i], radius))
		}
	}
	draw.DrawMask(p.image, touched, colour, image.Point{}, &p.mask, touched.Min, draw.Over)
	for y := touched.Min.Y; y < touched.Max.Y; y++ {
		clear(p.mask.Pix[p.mask.PixOffset(touched.Min.X, y):][:touched.Dx()])
	}
}

// cover adds a straight piece of a line to the mask and returns what it may touch.
func (p *pixelCanvas) cover(from, to point, radius float64) image.Rectangle {
	box := p.bounds([]point{from, to}, radius+1)
	dx, dy := to.x-from.x, to.y-from.y
	square := dx*dx + dy*dy
	for y := box.Min.Y; y < box.Max.Y; y++ {
		row := p.mask.Pix[p.mask.PixOffset(box.Min.X, y):][:box.Dx()]
		py := float64(y) + 0.5 - from.y
		for i := range row {
			px := float64(box.Min.X+i) + 0.5 - from.x
			t := 0.0
			if square > 0 {
				t = min(max((px*dx+py*dy)/square, 0), 1)
			}
			if c := radius + 0.5 - math.Hypot(px-t*dx, py-t*dy); c > 0 {
				row[i] = max(row[i], uint8(min(c, 1)*255+0.5))
			}
		}
	}
	return box
}

// fonts are parsed once; faces of them are made for each image.
var fonts = sync.OnceValue(func() (out struct{ regular, bold *opentype.Font }) {
	for _, f := range []struct {
		to   **opentype.Font
		from []byte
	}{{&out.regular, goregular.TTF}, {&out.bold, gobold.TTF}} {
		var err error
		if *f.to, err = opentype.Parse(f.from); err != nil {
			panic("BUG: report: " + err.Error())
		}
	}
	return out
})

// face is a font in a size in pixels.
func (p *pixelCanvas) face(bold bool, size float64) font.Face {
	key := faceKey{bold, size}
	if f := p.faces[key]; f != nil {
		return f
	}
	of := fonts().regular
	if bold {
		of = fonts().bold
	}
	f, err := opentype.NewFace(of, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		panic("BUG: report: " + err.Error())
	}
	p.faces[key] = f
	return f
}

// smallest is the least part of its size to which a text shrinks to fit the image.
const smallest = 0.75

// text draws letters where they belong. The font is wider than those that browsers
// take, for which there is room: what would leave the image is set smaller.
func (p *pixelCanvas) text(s letters, a anchor, x, y float64, content string) {
	at := scaled([]point{{x, y}})
	if content == "" || at == nil {
		return
	}
	look := letterLooks[s]
	size := look.size * pixelScale
	d := font.Drawer{Dst: p.image, Src: paint(look.colour, 1), Face: p.face(look.bold, size)}
	part := [...]float64{start: 0, middle: 0.5, end: 1}[a]
	width := unfixed(d.MeasureString(content))
	room := math.Inf(1)
	if part > 0 {
		room = at[0].x / part
	}
	if part < 1 {
		room = min(room, (float64(p.image.Rect.Dx())-at[0].x)/(1-part))
	}
	room -= 2 * pixelScale
	if width > room {
		// In steps, so that few faces are made.
		shrink := max(math.Floor(room/width*40)/40, smallest)
		d.Face = p.face(look.bold, size*shrink)
		width = unfixed(d.MeasureString(content))
	}
	d.Dot = fixed.Point26_6{X: toFixed(at[0].x - part*width), Y: toFixed(at[0].y)}
	d.DrawString(content)
}

func unfixed(v fixed.Int26_6) float64 { return float64(v) / 64 }

func toFixed(v float64) fixed.Int26_6 { return fixed.Int26_6(math.Round(min(max(v, -1e6), 1e6) * 64)) }
