package trace

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"
)

// Description is what Describe finds in a trace. Rates of reuse are shares of the
// prompts' tokens.
type Description struct {
	Requests int     `json:"requests"`
	Seconds  float64 `json:"durationSeconds"`
	// Rate and PeakRate are requests a second, on average and in the busiest ten
	// seconds; Tokens are those of all prompts and answers.
	Rate         float64 `json:"requestsPerSecond"`
	PeakRate     float64 `json:"peakRequestsPerSecond"`
	InputTokens  int64   `json:"inputTokens"`
	OutputTokens int64   `json:"outputTokens"`
	// Burstiness is the coefficient of variation of the gaps between requests: 0 a
	// metronome, 1 chance, more is bursts.
	Burstiness float64 `json:"burstiness"`

	Input  Distribution `json:"input"`
	Output Distribution `json:"output"`

	BlockSize int   `json:"blockSize"`
	Blocks    int64 `json:"blocks"`
	Distinct  int64 `json:"distinctBlocks"`
	// IdealHitRate is what a cache without limits would find: the share of tokens in
	// the longest run of first blocks that came before. IdealBlockRate is the same
	// in blocks. Partial is set when blocks had to be forgotten: then both are lower
	// bounds, and Distinct is an upper one.
	IdealHitRate   float64 `json:"idealHitRate"`
	IdealBlockRate float64 `json:"idealBlockHitRate"`
	Partial        bool    `json:"partial,omitempty"`
	// Curve is what caches of limited size find.
	Curve []CachePoint `json:"cacheCurve,omitempty"`
	// Blocks90 and Blocks99 are the sizes that find nine tenths, and 99 hundredths,
	// of what is ideal.
	Blocks90 int64 `json:"blocksFor90"`
	Blocks99 int64 `json:"blocksFor99"`

	// Skew says how uneven the use of blocks is.
	Skew Skew `json:"skew"`

	Sessions *SessionStats `json:"sessions,omitempty"`
}

// Distribution sums up lengths in tokens. Quantiles are exact to 0.1 %.
type Distribution struct {
	Mean float64 `json:"mean"`
	Min  int64   `json:"min"`
	P50  int64   `json:"p50"`
	P90  int64   `json:"p90"`
	P95  int64   `json:"p95"`
	P99  int64   `json:"p99"`
	Max  int64   `json:"max"`
}

// CachePoint is the hit rate of a cache of so many blocks.
type CachePoint struct {
	Blocks  int64   `json:"blocks"`
	Tokens  int64   `json:"tokens"`
	HitRate float64 `json:"hitRate"`
}

// Skew is how uneven the use of blocks is.
type Skew struct {
	// Top1 and Top10 are the shares of all uses that go to the most used hundredth
	// and tenth of the distinct blocks; Once is the share of distinct blocks that
	// are used once.
	Top1  float64 `json:"top1Share"`
	Top10 float64 `json:"top10Share"`
	Once  float64 `json:"usedOnce"`
	// Zipf is the exponent of the law that the uses of the most used blocks follow
	// best; 0 if there are too few. First blocks alone are counted, of which a
	// prompt has one.
	Zipf  float64 `json:"zipfExponent"`
	Roots int     `json:"roots"`
}

// SessionStats describe sessions.
type SessionStats struct {
	Sessions  int          `json:"sessions"`
	Turns     Distribution `json:"turns"`
	MeanDelay float64      `json:"meanDelaySeconds"`
	// More is set when there are more sessions than could be told apart.
	More bool `json:"more,omitempty"`
}

// DescribeOptions say what to look at.
type DescribeOptions struct {
	// CacheBlocks are the sizes of Curve; nil takes powers of two.
	CacheBlocks []int64
	// MaxBlocks bounds the distinct blocks that are remembered; 0 is 8 million, some
	// 600 MB at most.
	MaxBlocks int
}

// Describe reads a trace to its end.
func Describe(all iter.Seq2[Request, error], o DescribeOptions) (Description, error) {
	d := newDescriber(o)
	for q, err := range all {
		if err != nil {
			return Description{}, err
		}
		d.add(&q)
	}
	return d.describe(), nil
}

// describer sums up.
type describer struct {
	options       DescribeOptions
	input, output tally
	reuse         *reuse
	roots         map[uint64]int
	sessions      map[string]int
	more          bool
	delays        float64
	delayed       int
	blockSize     int

	first, last   time.Duration
	gaps          int
	sumGap, sqGap float64
	window        int // of ten seconds
	inWindow      int
	peak          int
}

func newDescriber(o DescribeOptions) *describer {
	if o.MaxBlocks <= 0 {
		o.MaxBlocks = defaultBlocks
	}
	return &describer{options: o, reuse: newReuse(max(o.MaxBlocks, 16)), roots: map[uint64]int{}, sessions: map[string]int{}}
}

func (d *describer) add(q *Request) {
	d.times(q)
	d.input.add(int64(q.Input), 1)
	d.output.add(int64(q.Output), 1)
	if d.blockSize == 0 {
		d.blockSize = q.BlockSize
	}
	d.reuse.add(q)
	if len(q.Hashes) > 0 {
		if _, known := d.roots[q.Hashes[0]]; known || len(d.roots) < d.options.MaxBlocks {
			d.roots[q.Hashes[0]]++
		}
	}
	if q.Session != "" {
		if _, known := d.sessions[q.Session]; known || len(d.sessions) < maxSessions {
			d.sessions[q.Session]++
		} else {
			d.more = true
		}
		if q.Turn > 0 || q.Delay > 0 {
			d.delays += q.Delay.Seconds()
			d.delayed++
		}
	}
}

func (d *describer) times(q *Request) {
	const window = 10 * time.Second
	if d.input.total == 0 {
		d.first, d.last = q.At, q.At
	} else {
		gap := (q.At - d.last).Seconds()
		d.gaps++
		d.sumGap += gap
		d.sqGap += gap * gap
	}
	d.last = max(d.last, q.At)
	if w := int((q.At - d.first) / window); w != d.window {
		d.window, d.inWindow = w, 0
	}
	d.inWindow++
	d.peak = max(d.peak, d.inWindow)
}

func (d *describer) describe() Description {
	r := d.reuse
	out := Description{
		Requests: int(d.input.total), Seconds: (d.last - d.first).Seconds(), PeakRate: float64(d.peak) / 10,
		InputTokens: int64(d.input.sum), OutputTokens: int64(d.output.sum),
		Input: d.input.distribution(), Output: d.output.distribution(),
		BlockSize: d.blockSize, Blocks: r.blocks, Distinct: r.distinct, Partial: r.forgotten > 0,
	}
	if d.gaps > 0 {
		mean := d.sumGap / float64(d.gaps)
		if mean > 0 {
			out.Burstiness = math.Sqrt(max(0, d.sqGap/float64(d.gaps)-mean*mean)) / mean
			out.Rate = float64(d.gaps) / d.sumGap
		}
	}
	out.PeakRate = max(out.PeakRate, out.Rate)
	if d.input.sum > 0 && r.blocks > 0 {
		out.IdealHitRate = float64(r.foundTok) / d.input.sum
		out.IdealBlockRate = float64(r.found) / float64(r.blocks)
		out.Curve = d.curve()
		out.Blocks90, out.Blocks99 = r.ranks.quantile(0.9), r.ranks.quantile(0.99)
		out.Skew = d.skew()
	}
	if len(d.sessions) > 0 {
		out.Sessions = d.sessionStats()
	}
	return out
}

// curve evaluates the sizes asked for, or powers of two up to where nothing more
// is found.
func (d *describer) curve() []CachePoint {
	sizes := slices.Clone(d.options.CacheBlocks)
	if sizes == nil {
		for n := int64(64); ; n *= 4 {
			sizes = append(sizes, n)
			if n >= d.reuse.ranks.most {
				break
			}
		}
	}
	slices.Sort(sizes)
	points := make([]CachePoint, len(sizes))
	for i, n := range sizes {
		points[i] = CachePoint{Blocks: n, Tokens: n * int64(d.blockSize), HitRate: float64(d.reuse.ranks.upTo(n)) / d.input.sum}
	}
	return points
}

func (d *describer) skew() Skew {
	var counts []int32
	once, uses := 0, int64(0)
	for _, u := range d.reuse.last {
		counts = append(counts, u.count)
		uses += int64(u.count)
		if u.count == 1 {
			once++
		}
	}
	slices.SortFunc(counts, func(a, b int32) int { return cmp.Compare(b, a) })
	share := func(part int) float64 {
		var sum int64
		for _, c := range counts[:min(len(counts), (len(counts)+part-1)/part)] {
			sum += int64(c)
		}
		return float64(sum) / float64(uses)
	}
	roots := make([]int32, 0, len(d.roots))
	for _, n := range d.roots {
		roots = append(roots, int32(min(n, math.MaxInt32)))
	}
	slices.SortFunc(roots, func(a, b int32) int { return cmp.Compare(b, a) })
	return Skew{Top1: share(100), Top10: share(10), Once: float64(once) / float64(len(counts)), Zipf: zipfExponent(roots), Roots: len(roots)}
}

// zipfExponent fits log count = c − s·log rank by least squares over the ranks
// whose counts are large enough to say something.
func zipfExponent(sorted []int32) float64 {
	const least, most = 5, 1000 // uses of a block, ranks
	var n, sx, sy, sxx, sxy float64
	for i, c := range sorted[:min(len(sorted), most)] {
		if c < least {
			break
		}
		x, y := math.Log(float64(i+1)), math.Log(float64(c))
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if n < 3 {
		return 0
	}
	return max(0, -(n*sxy-sx*sy)/(n*sxx-sx*sx))
}

func (d *describer) sessionStats() *SessionStats {
	var turns tally
	for _, n := range d.sessions {
		turns.add(int64(n), 1)
	}
	s := &SessionStats{Sessions: len(d.sessions), Turns: turns.distribution(), More: d.more}
	if d.delayed > 0 {
		s.MeanDelay = d.delays / float64(d.delayed)
	}
	return s
}

func (t *tally) distribution() Distribution {
	if t.total == 0 {
		return Distribution{}
	}
	return Distribution{
		Mean: t.sum / float64(t.total), Min: t.least, Max: t.most,
		P50: t.quantile(0.5), P90: t.quantile(0.9), P95: t.quantile(0.95), P99: t.quantile(0.99),
	}
}
