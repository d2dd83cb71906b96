package perfmodel

import (
	"cmp"
	"math"
	"slices"
)

// curve is a piecewise linear function that never falls, from 0 on; beyond its last
// point it goes on with the slope of the last piece.
type curve struct {
	x, y []float64 // x ascends from 0
}

// newCurve makes the monotone envelope of points with ascending positive x: no value
// is lower than one before it. Below the first point the first piece continues, but
// not below zero.
func newCurve(x, y []float64) curve {
	c := curve{x: make([]float64, 0, len(x)+1), y: make([]float64, 0, len(x)+1)}
	if x[0] > 0 {
		start := y[0]
		if len(x) > 1 {
			start = max(0, y[0]-max(0, (y[1]-y[0])/(x[1]-x[0]))*x[0])
		}
		c.x, c.y = append(c.x, 0), append(c.y, start)
	}
	c.x, c.y = append(c.x, x...), append(c.y, y...)
	for i := 1; i < len(c.y); i++ {
		c.y[i] = max(c.y[i], c.y[i-1])
	}
	return c
}

func (c *curve) at(x float64) float64 {
	i, t := cell(c.x, x)
	if i == len(c.x)-1 { // one point
		return c.y[i]
	}
	return c.y[i] + t*(c.y[i+1]-c.y[i])
}

func (c *curve) last() float64 { return c.x[len(c.x)-1] }

// cell finds the piece of axis that holds x, the last one for what lies beyond, and
// how far in it x lies: 0 to 1, more beyond the end. An axis of one value has none.
func cell(axis []float64, x float64) (int, float64) {
	n := len(axis) - 1
	if n == 0 {
		return 0, 0
	}
	low, high := 0, n
	for high-low > 1 {
		if mid := int(uint(low+high) / 2); axis[mid] <= x {
			low = mid
		} else {
			high = mid
		}
	}
	return low, max(0, (x-axis[low])/(axis[low+1]-axis[low]))
}

// surface is a bilinear function on a grid that never falls along either axis.
// Beyond the grid it continues linearly, with the mean slope of the outermost cells
// along that edge: one slope per edge, so that it stays monotone there too.
type surface struct {
	x, y           []float64 // ascending
	z              []float64 // len(x)·len(y), y fastest
	slopeX, slopeY float64   // beyond the last x, the last y
}

func newSurface(x, y, z []float64) surface {
	s := surface{x: x, y: y, z: z}
	for i := range x {
		for j := range y {
			v := &z[i*len(y)+j]
			if i > 0 {
				*v = max(*v, z[(i-1)*len(y)+j])
			}
			if j > 0 {
				*v = max(*v, z[i*len(y)+j-1])
			}
		}
	}
	if n, m := len(x), len(y); n > 1 {
		for j := range m {
			s.slopeX += (z[(n-1)*m+j] - z[(n-2)*m+j]) / (x[n-1] - x[n-2]) / float64(m)
		}
	}
	if n, m := len(x), len(y); m > 1 {
		for i := range n {
			s.slopeY += (z[i*m+m-1] - z[i*m+m-2]) / (y[m-1] - y[m-2]) / float64(n)
		}
	}
	return s
}

func (s *surface) at(x, y float64) float64 {
	endX, endY := s.x[len(s.x)-1], s.y[len(s.y)-1]
	beyond := s.slopeX*max(0, x-endX) + s.slopeY*max(0, y-endY)
	i, t := cell(s.x, min(x, endX))
	j, u := cell(s.y, min(y, endY))
	m := len(s.y)
	low, high := s.z[i*m:], s.z[i*m:]
	if len(s.x) > 1 {
		high = s.z[(i+1)*m:]
	}
	k := j
	if m > 1 {
		k++
	}
	a := low[j] + u*(low[k]-low[j])
	b := high[j] + u*(high[k]-high[j])
	return a + t*(b-a) + beyond
}

// scatter makes a surface over (sequences, kv tokens) from points anywhere. The grid's
// axes are the points' own values, so a point lies on a corner of the grid and is
// reproduced there if no point with fewer sequences and tokens took longer;
// otherwise it is raised to that one. A corner without a point is interpolated
// between the two nearest context lengths (kv tokens per sequence) at its number of
// sequences, and kept between the points below and above it.
func scatter(points []DecodePoint) surface {
	x := axis(points, func(p *DecodePoint) float64 { return p.Sequences })
	y := axis(points, func(p *DecodePoint) float64 { return p.KVTokens })
	if y[0] > 0 {
		y = slices.Insert(y, 0, 0)
	}
	m := len(y)
	low := make([]float64, len(x)*m)
	high := slices.Repeat([]float64{math.Inf(1)}, len(x)*m)
	for _, p := range points {
		i, j := slot(x, p.Sequences), slot(y, p.KVTokens)
		up := min(i+above(x[i], p.Sequences), len(x)-1)*m + min(j+above(y[j], p.KVTokens), m-1)
		low[up] = max(low[up], p.Seconds)
		high[i*m+j] = min(high[i*m+j], p.Seconds)
	}
	envelope(low, len(x), m)
	for i := len(x) - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			at := i*m + j
			if i+1 < len(x) {
				high[at] = min(high[at], high[at+m])
			}
			if j+1 < m {
				high[at] = min(high[at], high[at+1])
			}
		}
	}
	rows := contexts(points)
	z := make([]float64, len(x)*m)
	line := make([]float64, len(rows))
	for i := range x {
		for k := range rows {
			line[k] = rows[k].at(x[i])
		}
		for j := range y {
			v := between(rows, line, y[j]/x[i])
			z[i*m+j] = max(min(v, high[i*m+j]), low[i*m+j])
		}
	}
	return newSurface(x, y, z)
}

// envelope raises every corner to those before it.
func envelope(z []float64, n, m int) {
	for i := range n {
		for j := range m {
			if i > 0 {
				z[i*m+j] = max(z[i*m+j], z[(i-1)*m+j])
			}
			if j > 0 {
				z[i*m+j] = max(z[i*m+j], z[i*m+j-1])
			}
		}
	}
}

// axis collects the distinct values of the points, thinned evenly by rank.
func axis(points []DecodePoint, of func(*DecodePoint) float64) []float64 {
	all := make([]float64, len(points))
	for i := range points {
		all[i] = of(&points[i])
	}
	slices.Sort(all)
	all = slices.CompactFunc(all, same)
	if len(all) <= maxAxis {
		return all
	}
	thin := make([]float64, maxAxis)
	for i := range thin {
		thin[i] = all[i*(len(all)-1)/(maxAxis-1)]
	}
	return thin
}

// same holds for values that differ by rounding only.
func same(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) }

// slot is the greatest index whose value is not above v.
func slot(axis []float64, v float64) int {
	i, found := slices.BinarySearch(axis, v)
	switch {
	case found:
		return i
	case i < len(axis) && same(axis[i], v):
		return i
	}
	return max(0, i-1)
}

// above is 1 for a value that lies past the slot it fell into.
func above(slot, v float64) int {
	if v > slot && !same(slot, v) {
		return 1
	}
	return 0
}

// contextRow is the points of one context length, as a function of sequences.
type contextRow struct {
	tokens float64
	x, y   []float64
	slope  float64 // of a row with one point
}

// contexts groups points into rows, shortest context first.
func contexts(points []DecodePoint) []contextRow {
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b DecodePoint) int {
		return cmp.Compare(a.KVTokens/a.Sequences, b.KVTokens/b.Sequences)
	})
	var rows []contextRow
	for len(sorted) > 0 {
		row := contextRow{tokens: sorted[0].KVTokens / sorted[0].Sequences}
		n := 1
		for n < len(sorted) && same(sorted[n].KVTokens/sorted[n].Sequences, row.tokens) {
			n++
		}
		slices.SortFunc(sorted[:n], func(a, b DecodePoint) int { return cmp.Compare(a.Sequences, b.Sequences) })
		for _, p := range sorted[:n] {
			if k := len(row.x); k > 0 && same(row.x[k-1], p.Sequences) {
				row.y[k-1] = max(row.y[k-1], p.Seconds)
				continue
			}
			row.x, row.y = append(row.x, p.Sequences), append(row.y, p.Seconds)
		}
		rows, sorted = append(rows, row), sorted[n:]
	}
	trend(points, rows)
	return rows
}

// trend gives rows of one point the slope of a plane through all points.
func trend(points []DecodePoint, rows []contextRow) {
	var g gram
	for i := range points {
		p := &points[i]
		g.add(vector{3: 1, 4: p.Sequences, 5: p.KVTokens}, p.Seconds, 1/(p.Seconds*p.Seconds))
	}
	plane, _ := g.nonNegative(0)
	for i := range rows {
		rows[i].slope = plane[4] + plane[5]*rows[i].tokens
	}
}

// at evaluates the row: linear between its points and past them, never negative.
func (r *contextRow) at(sequences float64) float64 {
	n := len(r.x) - 1
	if n == 0 {
		return max(0, r.y[0]+r.slope*(sequences-r.x[0]))
	}
	i, t := cell(r.x, sequences)
	if sequences < r.x[0] {
		t = (sequences - r.x[0]) / (r.x[1] - r.x[0])
	}
	rise := r.y[i+1] - r.y[i]
	if t < 0 || t > 1 {
		rise = max(0, rise)
	}
	if t > 1 {
		return max(0, r.y[i+1]+(t-1)*rise)
	}
	return max(0, r.y[i]+t*rise)
}

// between interpolates at a context length between rows whose values are line.
func between(rows []contextRow, line []float64, tokens float64) float64 {
	if len(rows) == 1 {
		return line[0]
	}
	i, found := slices.BinarySearchFunc(rows, tokens, func(r contextRow, t float64) int {
		switch {
		case same(r.tokens, t):
			return 0
		case r.tokens < t:
			return -1
		}
		return 1
	})
	if found {
		return line[i]
	}
	i = min(max(i-1, 0), len(rows)-2)
	t := (tokens - rows[i].tokens) / (rows[i+1].tokens - rows[i].tokens)
	rise := line[i+1] - line[i]
	switch {
	case t < 0:
		return max(0, line[i]+t*max(0, rise))
	case t > 1:
		return line[i+1] + (t-1)*max(0, rise)
	}
	return max(0, line[i]+t*rise)
}
