package perfmodel

import (
	"math"
	"math/bits"
)

// gram holds a weighted least-squares problem: x minimises Σ w(y − row·x)², which
// depends on Σ w·row·rowᵀ, Σ w·row·y and Σ w·y² alone.
type gram struct {
	a  [coefficients]vector
	b  vector
	yy float64
}

// add takes a row in.
func (g *gram) add(r vector, y, weight float64) {
	for i := range r {
		for j := range r {
			g.a[i][j] += weight * r[i] * r[j]
		}
		g.b[i] += weight * r[i] * y
	}
	g.yy += weight * y * y
}

// residual is the weighted sum of squares that x leaves.
func (g *gram) residual(x vector) float64 {
	s := g.yy
	for i := range x {
		s += x[i] * (dot(g.a[i], x) - 2*g.b[i])
	}
	return max(0, s)
}

// side is an estimate of the coefficients under one rule of who pays the fixed part
// of a mixed step.
type side struct {
	g       gram
	x       vector
	free    uint     // the coefficients that are not held at zero
	spreads spreads  // of the relative error; Fit only
	full    cholesky // of g.a; Online only
	known   bool     // full is a factor of g.a; Online only
	square  float64  // mean of its predictions' squared relative errors; Online only
}

// everything is the set of all coefficients.
const everything = 1<<coefficients - 1

// cholesky factors the rows and columns in set of g.a, scaled to a unit diagonal.
type cholesky struct {
	index [coefficients]int
	n     int
	l     [coefficients]vector
	scale vector
}

// factor fails where the columns in set are dependent.
func (g *gram) factor(set uint) (c cholesky, ok bool) {
	for i := range coefficients {
		if set>>i&1 == 1 {
			if !(g.a[i][i] > 0) {
				return c, false
			}
			c.scale[c.n] = 1 / math.Sqrt(g.a[i][i])
			c.index[c.n] = i
			c.n++
		}
	}
	for i := range c.n {
		for j := range i + 1 {
			s := g.a[c.index[i]][c.index[j]] * c.scale[i] * c.scale[j]
			for k := range j {
				s -= c.l[i][k] * c.l[j][k]
			}
			if i != j {
				c.l[i][j] = s / c.l[j][j]
				continue
			}
			if !(s > dependent) {
				return c, false
			}
			c.l[i][i] = math.Sqrt(s)
		}
	}
	return c, true
}

// dependent is the share of a column's square, left after the others explain what
// they can, below which the column counts as explained.
const dependent = 1e-11

// solve finds x with a·x = b over the factored set; other elements are zero.
func (c *cholesky) solve(b vector) (x vector) {
	var y vector
	for i := range c.n {
		s := b[c.index[i]] * c.scale[i]
		for k := range i {
			s -= c.l[i][k] * y[k]
		}
		y[i] = s / c.l[i][i]
	}
	for i := c.n - 1; i >= 0; i-- {
		s := y[i]
		for k := i + 1; k < c.n; k++ {
			s -= c.l[k][i] * y[k]
		}
		y[i] = s / c.l[i][i]
		x[c.index[i]] = y[i] * c.scale[i]
	}
	return x
}

// optimal says whether x, the solution over set, is the least residual among all
// x ≥ 0: no element negative, and no zero element whose rise would help.
func (g *gram) optimal(x vector, set uint) bool {
	for i := range x {
		if set>>i&1 == 1 {
			if x[i] < 0 {
				return false
			}
			continue
		}
		slack := g.b[i] - dot(g.a[i], x)
		if slack > 1e-12*math.Sqrt(g.a[i][i]*g.yy) {
			return false
		}
	}
	return true
}

// nonNegative finds the x ≥ 0 of least residual, and the set of its free elements.
// It tries hint first; then every set, which for six coefficients is exact and
// cannot cycle. Among equals the one with fewest free elements wins, then the one
// with the leading ones, so a log that cannot tell fixed from variable cost calls
// it fixed.
func (g *gram) nonNegative(hint uint) (vector, uint) {
	if c, ok := g.factor(hint); ok && hint != 0 {
		if x := c.solve(g.b); g.optimal(x, hint) {
			return x, hint
		}
	}
	var best vector
	var bestSet uint
	least := g.yy
	for size := 1; size <= coefficients; size++ {
		for set := uint(1); set <= everything; set++ {
			if bits.OnesCount(set) != size {
				continue
			}
			c, ok := g.factor(set)
			if !ok {
				continue
			}
			x := c.solve(g.b)
			if !positive(x) {
				continue
			}
			if r := g.residual(x); r < least-1e-13*g.yy {
				best, bestSet, least = x, set, r
			}
		}
	}
	return best, bestSet
}

func positive(x vector) bool {
	for _, v := range x {
		if !(v >= 0) {
			return false
		}
	}
	return true
}

// rank is the number of independent columns.
func (g *gram) rank() int {
	set := uint(0)
	for i := range coefficients {
		if _, ok := g.factor(set | 1<<i); ok {
			set |= 1 << i
		}
	}
	return bits.OnesCount(set)
}
