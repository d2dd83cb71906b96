package stats

import (
	"iter"
	"math"
)

const (
	octaves   = maxExponent - minExponent + 1
	octaveLen = 1 << subBits
	// firstBits is the index, in units of a bucket, of the smallest bucket: the high
	// bits of an IEEE 754 double are the logarithm's whole part and a linear fraction,
	// which is the numbering wanted here.
	firstBits = (1023 + minExponent) << subBits
	bucketMax = octaves * octaveLen
	// largest is the value that all above it are counted as.
	largest = 1 << (maxExponent + 1)
)

// Histogram counts values in buckets that are at most 1/1,024 of their value wide, so
// each percentile it tells is within 0.1 % of the samples'. Mean, standard deviation,
// minimum and maximum are exact. Its memory is bounded: 8 KiB for each power of two
// that occurs, at most 500 KiB. The zero value is empty and ready.
type Histogram struct {
	octave [octaves]*[octaveLen]uint64
	count  uint64
	// zeros counts values that are 0, less, or not a number: they are taken as 0.
	zeros    uint64
	min, max float64
	// sum and squares are of the differences to shift, the first value: so the
	// standard deviation does not drown in the mean.
	shift, sum, squares float64
}

// Record counts v once. It allocates when a power of two first occurs, else nothing.
func (h *Histogram) Record(v float64) {
	if !(v > 0) {
		v = 0
		h.zeros++
	} else {
		if v > largest {
			v = largest
		}
		i := bucketOf(v)
		o := h.octave[i>>subBits]
		if o == nil {
			o = h.grow(i)
		}
		o[i&(octaveLen-1)]++
	}
	if h.count == 0 {
		h.shift, h.min, h.max = v, v, v
	}
	h.count++
	if v < h.min {
		h.min = v
	} else if v > h.max {
		h.max = v
	}
	d := v - h.shift
	h.sum += d
	h.squares += d * d
}

func (h *Histogram) grow(bucket int) *[octaveLen]uint64 {
	o := new([octaveLen]uint64)
	h.octave[bucket>>subBits] = o
	return o
}

// bucketOf is the bucket of v > 0.
func bucketOf(v float64) int {
	i := int(math.Float64bits(v)>>(52-subBits)) - firstBits
	if uint(i) < bucketMax {
		return i
	}
	return min(max(i, 0), bucketMax-1)
}

// lowerOf is the lower bound of a bucket, and the upper one of that before it.
func lowerOf(bucket int) float64 {
	return math.Float64frombits(uint64(bucket+firstBits) << (52 - subBits))
}

// Merge adds everything that o has counted.
func (h *Histogram) Merge(o *Histogram) {
	if o == nil || o.count == 0 {
		return
	}
	if h.count == 0 {
		h.shift, h.min, h.max = o.shift, o.min, o.max
	}
	for i, from := range o.octave {
		if from == nil {
			continue
		}
		to := h.octave[i]
		if to == nil {
			to = h.grow(i << subBits)
		}
		for j, n := range from {
			to[j] += n
		}
	}
	d, n := o.shift-h.shift, float64(o.count)
	h.squares += o.squares + 2*d*o.sum + n*d*d
	h.sum += o.sum + n*d
	h.count += o.count
	h.zeros += o.zeros
	h.min = min(h.min, o.min)
	h.max = max(h.max, o.max)
}

// Reset empties h and keeps its memory.
func (h *Histogram) Reset() {
	octave := h.octave
	for _, o := range octave {
		if o != nil {
			*o = [octaveLen]uint64{}
		}
	}
	*h = Histogram{octave: octave}
}

// Count is how many values were recorded.
func (h *Histogram) Count() int { return int(h.count) }

// Sum is the sum of the values.
func (h *Histogram) Sum() float64 { return h.shift*float64(h.count) + h.sum }

// Mean is the mean of the values, 0 without any.
func (h *Histogram) Mean() float64 {
	if h.count == 0 {
		return 0
	}
	return h.shift + h.sum/float64(h.count)
}

// Std is the standard deviation of the values, 0 without any.
func (h *Histogram) Std() float64 {
	if h.count == 0 {
		return 0
	}
	n := float64(h.count)
	mean := h.sum / n
	return math.Sqrt(max(0, h.squares/n-mean*mean))
}

// Min is the smallest value, 0 without any.
func (h *Histogram) Min() float64 { return h.min }

// Max is the largest value, 0 without any.
func (h *Histogram) Max() float64 { return h.max }

// Bucket is a part of a Histogram that is not empty: Count values from Lower up to,
// and without, Upper.
type Bucket struct {
	Lower, Upper float64
	Count        int
}

// Buckets yields the buckets that are not empty, in ascending order. The one of zeros
// has Upper 0.
func (h *Histogram) Buckets() iter.Seq[Bucket] {
	return func(yield func(Bucket) bool) {
		if h.zeros > 0 && !yield(Bucket{Count: int(h.zeros)}) {
			return
		}
		for i, n := range h.filled() {
			if !yield(Bucket{Lower: lowerOf(i), Upper: lowerOf(i + 1), Count: int(n)}) {
				return
			}
		}
	}
}

// filled yields number and count of the buckets above 0 that are not empty.
func (h *Histogram) filled() iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		for i, o := range h.octave {
			if o == nil {
				continue
			}
			for j, n := range o {
				if n > 0 && !yield(i<<subBits|j, n) {
					return
				}
			}
		}
	}
}

// Quantile is the value that the fraction q of the values does not exceed. For several
// quantiles of one Histogram, Sample is quicker.
func (h *Histogram) Quantile(q float64) float64 { return Quantile(h.Sample(), q) }

// Summary sums h up.
func (h *Histogram) Summary() Summary { return Summarize(h.Sample()) }

// Sample makes h readable by rank. It does not follow what is recorded later.
func (h *Histogram) Sample() Sample {
	s := &binned{count: h.Count(), mean: h.Mean(), std: h.Std(), min: h.min, max: h.max}
	before := 0
	for b := range h.Buckets() {
		s.buckets = append(s.buckets, b)
		s.before = append(s.before, before)
		before += b.Count
	}
	return s
}

// binned is a Histogram by rank. The values of a bucket are taken to lie evenly in it.
type binned struct {
	buckets        []Bucket
	before         []int // number of values before each bucket
	count          int
	mean, std      float64
	min, max       float64
	lastBucketSeen int
}

func (s *binned) Count() int    { return s.count }
func (s *binned) Mean() float64 { return s.mean }
func (s *binned) Std() float64  { return s.std }

func (s *binned) Order(k int) float64 {
	switch {
	case k <= 0:
		return s.min
	case k >= s.count-1:
		return s.max
	}
	i := s.find(k)
	b := s.buckets[i]
	share := (float64(k-s.before[i]) + 0.5) / float64(b.Count)
	return min(max(b.Lower+share*(b.Upper-b.Lower), s.min), s.max)
}

// find returns the last bucket with at most k values before it.
func (s *binned) find(k int) int {
	i := s.lastBucketSeen
	if s.before[i] <= k && k < s.before[i]+s.buckets[i].Count {
		return i
	}
	low, high := 0, len(s.before)
	for high-low > 1 {
		if mid := int(uint(low+high) >> 1); s.before[mid] <= k {
			low = mid
		} else {
			high = mid
		}
	}
	s.lastBucketSeen = low
	return low
}
