package placement

import (
	"cmp"
	"math"
)

// contender is all that the last step of a decision looks at. A record holds
// contenders, so that step can be made again from it.
type contender struct {
	id      uint64
	rank    uint16
	doubted bool
	aside   bool
	cost    float32
	second  uint32
	tie     uint32
}

// rule says how contenders are compared.
type rule struct {
	// draws makes costs probabilities: exp(-cost/temperature), with low…high scaled
	// to 0…1.
	draws       bool
	low, high   float32
	temperature float32
}

// compare sorts the better contender first: whoever is beyond doubt, then who is not
// set aside, then by cost, and at last by keys that depend on the contender alone. So
// the winner of all is the winner of any of them that it is among.
func (r rule) compare(a, b contender) int {
	if c := cmp.Compare(a.level(), b.level()); c != 0 {
		return c
	}
	if r.draws {
		if c := cmp.Compare(r.draw(a), r.draw(b)); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.second, b.second), cmp.Compare(a.tie, b.tie), cmp.Compare(a.id, b.id), cmp.Compare(a.rank, b.rank))
}

func (c *contender) level() int {
	level := 0
	if c.doubted {
		level += 2
	}
	if c.aside {
		level++
	}
	return level
}

// draw is the contender's part in a draw, the least of which wins: by the Gumbel
// trick that is a draw from exp(-cost/temperature).
func (r rule) draw(c contender) float64 {
	scaled := 0.0
	if r.high > r.low {
		scaled = float64(c.cost-r.low) / float64(r.high-r.low) / float64(r.temperature)
	}
	u := (float64(c.tie) + 0.5) / (1 << 32)
	return scaled + math.Log(-math.Log(u))
}
