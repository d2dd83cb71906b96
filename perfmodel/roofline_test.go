package perfmodel

import (
	"math"
	"testing"
)

// TestRoofline holds the derivation to the machines that were measured.
func TestRoofline(t *testing.T) {
	tolerance := map[string]float64{"h200-8b": 0.03, "h100-70b-fp8-tp2": 0.2}
	for i := range presets {
		p := &presets[i]
		if p.measured == nil {
			continue
		}
		m := p.cluster.closedForm()
		for _, b := range []Batch{
			{Chunks: []Chunk{{New: 1000}}}, {Chunks: []Chunk{{New: 5000}}},
			{Decodes: 1, KVTokens: 1000}, {Decodes: 64, KVTokens: 64000},
		} {
			got, want := m.StepSeconds(&b), p.measured.StepSeconds(&b)
			if math.Abs(got-want) > tolerance[p.name]*want {
				t.Errorf("%s: %+v takes %v by roofline, %v measured", p.name, b, got, want)
			}
		}
	}
}
