package perfmodel

import (
	"slices"
	"strconv"
	"strings"
)

// Arrays that the profiler of NVIDIA Dynamo writes, times in milliseconds. They come
// as .npz or as a JSON object of arrays.
//
//	mocker's file    prefill_isl, prefill_ttft_ms; decode_active_kv_tokens,
//	                 decode_context_length, decode_itl [active kv tokens][context length]
//	prefill raw data prefill_isl, prefill_ttft (prefill_thpt_per_gpu is not needed)
//	decode raw data  x_kv_usage (share of max_kv_tokens in use), y_context_length, z_itl,
//	                 max_kv_tokens: points, not a grid (z_thpt_per_gpu is not needed)
type profile map[string]array

// ParseProfile reads a profile by the profiler of NVIDIA Dynamo from the contents of
// one file (as its mocker takes it) or of several (prefill and decode raw data), each
// .npz or JSON.
//
// The time to the first token of a prompt of n tokens becomes the time of a step
// with n new tokens; as in that mocker, context costs nothing in prefill. A decode
// point of k KV tokens and context length c is a step of max(1, k/c) sequences.
func ParseProfile(files ...[]byte) (*Table, error) {
	p := profile{}
	for _, data := range files {
		if len(data) > MaxFileBytes {
			return nil, invalid("profile", "has %d bytes, limit %d", len(data), MaxFileBytes)
		}
		var arrays map[string]array
		var err error
		if isZip(data) {
			arrays, err = readNPZ(data)
		} else {
			arrays, err = readJSONArrays(data)
		}
		if err != nil {
			return nil, err
		}
		for name, a := range arrays {
			p[name] = a
		}
	}
	var d TableData
	if err := p.prefill(&d); err != nil {
		return nil, err
	}
	if err := p.decode(&d); err != nil {
		return nil, err
	}
	return NewTable(d)
}

// prefill fills the grid: one column, sorted by length.
func (p profile) prefill(d *TableData) error {
	times := "prefill_ttft_ms"
	if _, ok := p[times]; !ok {
		times = "prefill_ttft"
	}
	lengths, err := p.column("prefill_isl", -1)
	if err != nil {
		return err
	}
	ttft, err := p.column(times, len(lengths))
	if err != nil {
		return err
	}
	order := ranks(lengths)
	for _, i := range order {
		n := max(1, lengths[i])
		if k := len(d.Prefill.NewTokens); k > 0 && same(d.Prefill.NewTokens[k-1], n) {
			d.Prefill.Seconds[k-1][0] = max(d.Prefill.Seconds[k-1][0], fromMilliseconds(ttft[i]))
			continue
		}
		d.Prefill.NewTokens = append(d.Prefill.NewTokens, n)
		d.Prefill.Seconds = append(d.Prefill.Seconds, []float64{fromMilliseconds(ttft[i])})
	}
	return nil
}

// fromMilliseconds keeps a profile's zero, which means that the phase was not
// measured, a step.
func fromMilliseconds(t float64) float64 {
	if t == 0 {
		return MinStepSeconds
	}
	return t / 1000
}

func (p profile) decode(d *TableData) error {
	if _, ok := p["decode_itl"]; ok {
		return p.decodeGrid(d)
	}
	usage, err := p.column("x_kv_usage", -1)
	if err != nil {
		return err
	}
	lengths, err := p.column("y_context_length", len(usage))
	if err != nil {
		return err
	}
	itl, err := p.column("z_itl", len(usage))
	if err != nil {
		return err
	}
	capacity, err := p.column("max_kv_tokens", 1)
	if err != nil {
		return err
	}
	for i, u := range usage {
		if err := checkLength("y_context_length", i, lengths[i]); err != nil {
			return err
		}
		d.Decode = append(d.Decode, decodePoint(u*capacity[0], lengths[i], itl[i]))
	}
	return nil
}

func (p profile) decodeGrid(d *TableData) error {
	tokens, err := p.column("decode_active_kv_tokens", -1)
	if err != nil {
		return err
	}
	lengths, err := p.column("decode_context_length", -1)
	if err != nil {
		return err
	}
	grid := p["decode_itl"]
	if !slices.Equal(grid.shape, []int{len(tokens), len(lengths)}) {
		return invalid("decode_itl", "has shape %v; %d decode_active_kv_tokens and %d decode_context_length need [%d %d]",
			grid.shape, len(tokens), len(lengths), len(tokens), len(lengths))
	}
	for i, k := range tokens {
		for j, c := range lengths {
			if err := checkLength("decode_context_length", j, c); err != nil {
				return err
			}
			d.Decode = append(d.Decode, decodePoint(k, c, grid.data[i*len(lengths)+j]))
		}
	}
	return nil
}

// checkLength refuses a context length that divides nothing.
func checkLength(name string, i int, length float64) error {
	if !(length > 0) {
		return invalid(name+"["+strconv.Itoa(i)+"]", "a context length must be above 0, is %v", length)
	}
	return nil
}

// decodePoint raises steps to the millisecond that the reference never goes below.
func decodePoint(tokens, length, milliseconds float64) DecodePoint {
	return DecodePoint{Sequences: max(1, tokens/length), KVTokens: tokens, Seconds: max(1, milliseconds) / 1000}
}

// column returns an array as a list of n values, any number with n < 0.
func (p profile) column(name string, n int) ([]float64, error) {
	a, ok := p[name]
	if !ok {
		return nil, invalid(name, "is missing; the profile has %s (prefill and decode raw data are two files: give both)", strings.Join(p.names(), ", "))
	}
	if len(a.shape) > 1 {
		return nil, invalid(name, "has %d dimensions, want 1", len(a.shape))
	}
	if len(a.data) == 0 || n >= 0 && len(a.data) != n {
		return nil, invalid(name, "has %d values, want %d", len(a.data), max(1, n))
	}
	return a.data, nil
}

func (p profile) names() []string {
	names := []string{"nothing"}
	for n := range p {
		names = append(names, n)
	}
	if len(names) > 1 {
		names = names[1:]
	}
	slices.Sort(names)
	return names
}

// ranks returns the indices of v in ascending order of value.
func ranks(v []float64) []int {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case v[a] < v[b]:
			return -1
		case v[a] > v[b]:
			return 1
		}
		return 0
	})
	return order
}
