package perfmodel

import (
	"math"
	"slices"
	"strconv"
)

// TableData is what was measured.
type TableData struct {
	// Prefill is a grid over tokens computed and tokens before them.
	Prefill PrefillGrid `json:"prefill"`
	// Decode is points anywhere, at least one.
	Decode []DecodePoint `json:"decode"`
}

// PrefillGrid holds the seconds of prefill steps of one prompt.
type PrefillGrid struct {
	// NewTokens ascend, each at least 1.
	NewTokens []float64 `json:"new_tokens"`
	// ContextTokens ascend from 0. None means that context costs nothing, as
	// profilers that measure whole prompts leave it.
	ContextTokens []float64 `json:"context_tokens,omitzero"`
	// Seconds has one row per NewTokens, one column per ContextTokens.
	Seconds [][]float64 `json:"seconds"`
}

// DecodePoint is the duration of a step in which Sequences produce a token each
// and read KVTokens in all. Profilers report means, so neither need be whole.
type DecodePoint struct {
	Sequences float64 `json:"sequences"`
	KVTokens  float64 `json:"kv_tokens"`
	Seconds   float64 `json:"seconds"`
}

// Table is a model that interpolates measured points.
//
// Prefill. The time of a step is base(new tokens of all chunks) + Σ surcharge(new,
// context) over the chunks, where base is the grid's column without context and the
// surcharge what the grid's other columns lie above it. Decode. A step reads a
// surface over sequences and KV tokens. A step with both kinds takes the sum of the
// two less the smaller of their shortest times, which is paid once.
//
// Between points a table is linear or bilinear. Beyond the last ones it continues
// linearly, and Covers says that it does. Measurements that fall where they must not
// are raised to the greatest value before them (the monotone envelope); a point of
// monotone data is reproduced to rounding.
type Table struct {
	data    TableData
	base    curve
	extra   surface // over new tokens and context
	context bool
	decode  surface // over sequences and KV tokens
	once    float64 // paid once in a step of both kinds
	longest float64 // context of any decode point, tokens
}

var _ Model = (*Table)(nil)

// NewTable makes a table of d, which it copies.
func NewTable(d TableData) (*Table, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	t := &Table{data: d.clone(), decode: scatter(d.Decode)}
	p := &t.data.Prefill
	column := make([]float64, len(p.NewTokens))
	for i := range column {
		column[i] = p.Seconds[i][0]
	}
	t.base = newCurve(p.NewTokens, column)
	if m := len(p.ContextTokens); m > 1 {
		t.context = true
		z := make([]float64, m, (len(p.NewTokens)+1)*m) // no surcharge without new tokens
		for i, r := range p.Seconds {
			for j := range r {
				z = append(z, max(0, r[j]-t.base.at(p.NewTokens[i])))
			}
		}
		t.extra = newSurface(append([]float64{0}, p.NewTokens...), p.ContextTokens, z)
	}
	for _, q := range d.Decode {
		t.longest = max(t.longest, q.KVTokens/q.Sequences)
	}
	t.once = min(t.base.at(0), t.decode.z[0])
	return t, nil
}

// Data returns a copy of what the table was made of.
func (t *Table) Data() TableData { return t.data.clone() }

// StepSeconds implements Model.
func (t *Table) StepSeconds(b *Batch) float64 {
	seconds := 0.0
	n, _ := b.work()
	if n > 0 {
		seconds = t.base.at(n)
		if t.context {
			for i := range b.Chunks {
				if c := &b.Chunks[i]; c.Context > 0 && c.New > 0 {
					seconds += t.extra.at(float64(c.New), float64(c.Context))
				}
			}
		}
	}
	if b.Decodes > 0 {
		seconds += t.decode.at(max(t.decode.x[0], float64(b.Decodes)), float64(b.KVTokens))
		if n > 0 {
			seconds -= t.once
		}
	}
	return floor(seconds)
}

// Covers says whether b lies within what was measured; beyond it StepSeconds
// extrapolates.
func (t *Table) Covers(b *Batch) bool {
	n, _ := b.work()
	if n > 0 && (n < t.data.Prefill.NewTokens[0] || n > t.base.last()) {
		return false
	}
	if n > 0 && t.context {
		for _, c := range b.Chunks {
			if float64(c.Context) > t.extra.y[len(t.extra.y)-1] {
				return false
			}
		}
	}
	if b.Decodes == 0 {
		return true
	}
	s, kv := float64(b.Decodes), float64(b.KVTokens)
	return s >= t.decode.x[0] && s <= t.decode.x[len(t.decode.x)-1] && kv <= t.decode.y[len(t.decode.y)-1] && kv/s <= t.longest*(1+1e-9)
}

func (d *TableData) clone() TableData {
	c := TableData{Decode: slices.Clone(d.Decode), Prefill: PrefillGrid{
		NewTokens: slices.Clone(d.Prefill.NewTokens), ContextTokens: slices.Clone(d.Prefill.ContextTokens)}}
	for _, r := range d.Prefill.Seconds {
		c.Prefill.Seconds = append(c.Prefill.Seconds, slices.Clone(r))
	}
	return c
}

func (d *TableData) validate() error {
	p := &d.Prefill
	if err := ascending("prefill.new_tokens", p.NewTokens, 1); err != nil {
		return err
	}
	columns := 1
	if len(p.ContextTokens) > 0 {
		columns = len(p.ContextTokens)
		if err := ascending("prefill.context_tokens", p.ContextTokens, 0); err != nil {
			return err
		}
		if p.ContextTokens[0] != 0 {
			return invalid("prefill.context_tokens", "must begin with 0, the prompt without context, not %v", p.ContextTokens[0])
		}
	}
	if len(p.NewTokens)*columns > MaxPoints {
		return invalid("prefill.seconds", "has more than %d cells; thin the grid", MaxPoints)
	}
	if len(p.Seconds) != len(p.NewTokens) {
		return invalid("prefill.seconds", "has %d rows for %d new_tokens", len(p.Seconds), len(p.NewTokens))
	}
	for i, r := range p.Seconds {
		at := "prefill.seconds[" + strconv.Itoa(i) + "]"
		if len(r) != columns {
			return invalid(at, "has %d cells for %d context_tokens", len(r), columns)
		}
		for j, v := range r {
			if err := measured(at+"["+strconv.Itoa(j)+"]", v); err != nil {
				return err
			}
		}
	}
	return d.validateDecode()
}

func (d *TableData) validateDecode() error {
	if len(d.Decode) == 0 || len(d.Decode) > MaxPoints {
		return invalid("decode", "must have 1 to %d points, has %d", MaxPoints, len(d.Decode))
	}
	for i, p := range d.Decode {
		at := "decode[" + strconv.Itoa(i) + "]"
		if !(p.Sequences >= minSequences) || p.Sequences > MaxTokens {
			return invalid(at+".sequences", "must be between %v and %d, is %v", minSequences, MaxTokens, p.Sequences)
		}
		if !(p.KVTokens >= 0) || p.KVTokens > MaxTokens {
			return invalid(at+".kv_tokens", "must be between 0 and %d, is %v", MaxTokens, p.KVTokens)
		}
		if err := measured(at+".seconds", p.Seconds); err != nil {
			return err
		}
	}
	return nil
}

// ascending refuses an axis that is empty, does not rise, or starts below least.
func ascending(field string, values []float64, least float64) error {
	if len(values) == 0 {
		return invalid(field, "is empty; a table needs at least one value")
	}
	for i, v := range values {
		at := field + "[" + strconv.Itoa(i) + "]"
		if !(v >= least) || v > MaxTokens || math.IsInf(v, 0) {
			return invalid(at, "must be between %v and %d, is %v", least, MaxTokens, v)
		}
		if i > 0 && v-values[i-1] <= 1e-9*v {
			return invalid(at, "is %v after %v; the values must ascend", v, values[i-1])
		}
	}
	return nil
}
