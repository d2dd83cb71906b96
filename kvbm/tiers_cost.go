package kvbm

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Recompute is what it costs the engine to compute tokens again: so long for each,
// and so long more for each token before it.
type Recompute struct {
	Token, Context time.Duration
}

// defaultRecompute holds until the engine has measured its own: a slow engine, for
// which most loads are worth it.
var defaultRecompute = Recompute{Token: time.Millisecond}

// SetRecompute says what the engine has measured.
func (t *Tiers) SetRecompute(r Recompute) { t.costs = r }

// block is the cost of a block behind depth others, in nanoseconds.
func (r Recompute) block(depth, tokens int) float64 {
	n := float64(tokens)
	return n * (float64(r.Token) + float64(r.Context)*n*(float64(depth)+0.5))
}

// Plan says what the tiers have of a sequence, and what of it is worth bringing.
type Plan struct {
	// Found is the number of leading blocks that are stored somewhere.
	Found int
	// Blocks is the number of them that are to be brought: those for which bringing
	// takes the least time against computing them, and less than it.
	Blocks int
	// Load and Recompute are the times for Blocks.
	Load, Recompute time.Duration
}

// Plan looks at the blocks of a sequence from number depth on, in order.
func (t *Tiers) Plan(keys []dynamo.ContentKey, depth int, now time.Time) (p Plan) {
	var each, tier [numTiers]float64
	for i := range t.tiers {
		if ts := &t.tiers[i]; ts.slots > 0 {
			each[i] = ts.service.each(now) / float64(ts.config.Workers)
			tier[i] = float64(ts.config.Latency) + each[i]*float64(ts.reads)
		}
	}
	var load, recompute, best float64
	var taken [numTiers]int
	full := false // a queue is: no more is brought
	for i, key := range keys {
		e := t.find(key)
		if e == none {
			break
		}
		from := t.source(e, now)
		if from < 0 {
			break
		}
		p.Found++
		taken[from]++
		if full = full || taken[from]+int(t.tiers[from].reads) > t.tiers[from].config.Queue; full {
			continue
		}
		tier[from] += each[from]
		load = max(load, tier[from])
		recompute += t.costs.block(depth+i, t.config.BlockTokens)
		if saved := recompute - load; saved > best {
			best = saved
			p.Blocks, p.Load, p.Recompute = i+1, time.Duration(load), time.Duration(recompute)
		}
	}
	return p
}

// service is how long a tier takes to read a block, in nanoseconds: measured, and
// believed less as time passes, so that one bad moment does not end all loads.
type service struct {
	prior, mean float64
	at          time.Time
}

func newService(c TierConfig, blockBytes int64) service {
	prior := 0.0
	if c.Bandwidth > 0 {
		prior = float64(blockBytes) / c.Bandwidth * 1e9
	}
	return service{prior: prior, mean: prior}
}

// each is the estimate at a time.
func (s *service) each(now time.Time) float64 {
	if s.at.IsZero() {
		return s.prior
	}
	return s.prior + (s.mean-s.prior)*math.Exp2(-float64(now.Sub(s.at))/float64(serviceHalf))
}

// observe takes a measurement in.
func (s *service) observe(took time.Duration, now time.Time) {
	s.mean = s.each(now) + (float64(took)-s.each(now))/serviceWeight
	s.at = now
}

// bucket bounds bytes by time: rate a second on average, most at once.
type bucket struct {
	rate, most, level float64
	at                time.Time
}

// take reports whether n bytes may go now. A bucket without rate lets all through.
func (b *bucket) take(n float64, now time.Time) bool {
	if b.rate == 0 {
		return true
	}
	if b.at.IsZero() {
		b.level = b.most
	} else if d := now.Sub(b.at); d > 0 {
		b.level = min(b.most, b.level+b.rate*d.Seconds())
	}
	b.at = now
	if b.level < n {
		return false
	}
	b.level -= n
	return true
}

// sketch counts the uses of many keys in little memory: four small counters a key,
// shared with others, the least of which bounds the count from above. All are halved
// from time to time, so that what was used long ago counts less.
type sketch struct {
	counters []uint8
	mask     uint32
	adds     int
}

func newSketch(blocks int) sketch {
	n := minSketch
	for n < 8*blocks && n < maxSketch {
		n *= 2
	}
	return sketch{counters: make([]uint8, n), mask: uint32(n - 1)}
}

// add counts a use.
func (s *sketch) add(key dynamo.ContentKey) {
	least := s.count(key)
	if least < maxUses {
		for i := 0; i < 16; i += 4 {
			if c := &s.counters[binary.LittleEndian.Uint32(key[i:])&s.mask]; int(*c) == least {
				*c++
			}
		}
	}
	if s.adds++; s.adds >= 2*len(s.counters) {
		s.adds = 0
		for i := range s.counters {
			s.counters[i] /= 2
		}
	}
}

// count is the number of uses, or somewhat more.
func (s *sketch) count(key dynamo.ContentKey) int {
	least := s.counters[binary.LittleEndian.Uint32(key[:])&s.mask]
	for i := 4; i < 16; i += 4 {
		least = min(least, s.counters[binary.LittleEndian.Uint32(key[i:])&s.mask])
	}
	return int(least)
}
