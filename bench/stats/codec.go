package stats

import (
	"fmt"
	"math"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
)

// stored is a Histogram as JSON. The bucket numbered i holds values from
// 2^(i div 1024 − 30) · (1 + (i mod 1024)/1024) up to where the next one starts;
// Buckets lists i and count of each bucket that is not empty, by ascending i.
type stored struct {
	Count   uint64      `json:"count"`
	Zeros   uint64      `json:"zeros"`
	Mean    float64     `json:"mean"`
	Std     float64     `json:"std"`
	Min     float64     `json:"min"`
	Max     float64     `json:"max"`
	Buckets [][2]uint64 `json:"buckets"`
}

// MarshalJSON writes h as an object with count, zeros, mean, std, min, max and
// buckets, pairs of a bucket's number and its count.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	s := stored{Count: h.count, Zeros: h.zeros, Mean: h.Mean(), Std: h.Std(), Min: h.min, Max: h.max}
	for i, n := range h.filled() {
		s.Buckets = append(s.Buckets, [2]uint64{uint64(i), n})
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote. It refuses what no Histogram can hold.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	if err := s.check(); err != nil {
		return err
	}
	*h = Histogram{count: s.Count, zeros: s.Zeros, min: s.Min, max: s.Max, shift: s.Mean}
	h.squares = s.Std * s.Std * float64(s.Count)
	for _, b := range s.Buckets {
		o := h.octave[b[0]>>subBits]
		if o == nil {
			o = h.grow(int(b[0]))
		}
		o[b[0]&(octaveLen-1)] = b[1]
	}
	return nil
}

func (s *stored) check() error {
	refuse := func(format string, args ...any) error {
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "histogram: " + fmt.Sprintf(format, args...)}
	}
	if s.Count > math.MaxInt64 || s.Zeros > s.Count {
		return refuse("%d zeros of %d values", s.Zeros, s.Count)
	}
	total := s.Zeros
	for i, b := range s.Buckets {
		if b[0] >= bucketMax || i > 0 && b[0] <= s.Buckets[i-1][0] {
			return refuse("bucket %d is out of place", b[0])
		}
		if b[1] == 0 || b[1] > s.Count-total {
			return refuse("bucket %d holds %d values, more than there are or none", b[0], b[1])
		}
		total += b[1]
	}
	if total != s.Count {
		return refuse("buckets hold %d values, count says %d", total, s.Count)
	}
	if s.Count == 0 {
		if s.Mean != 0 || s.Std != 0 || s.Min != 0 || s.Max != 0 {
			return refuse("no values, but figures of them")
		}
		return nil
	}
	first, last := s.Min, s.Max
	if s.Zeros == 0 {
		first = lowerOf(int(s.Buckets[0][0]))
	}
	if n := len(s.Buckets); n > 0 {
		last = lowerOf(int(s.Buckets[n-1][0]))
	}
	if s.Zeros > 0 && s.Min != 0 || s.Zeros == s.Count && s.Max != 0 || bucketOf(s.Min) != bucketOf(first) || bucketOf(s.Max) != bucketOf(last) {
		return refuse("min %g and max %g are not in the first and last bucket", s.Min, s.Max)
	}
	slack := 1e-9 * s.Max
	if !(s.Min >= 0 && s.Min <= s.Mean+slack && s.Mean <= s.Max+slack && s.Std >= 0 && s.Std <= s.Max-s.Min+slack) {
		return refuse("min %g, mean %g, max %g and std %g cannot be of one set of values", s.Min, s.Mean, s.Max, s.Std)
	}
	return nil
}
