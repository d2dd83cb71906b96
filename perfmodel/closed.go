package perfmodel

import "math"

// ClosedForm is a model of six coefficients, none negative.
//
//	prefill = PrefillFixedSeconds + PrefillSecondsPerToken·new + PrefillSecondsPerPair·new·(context + new/2)
//	decode  = DecodeFixedSeconds + DecodeSecondsPerSequence·sequences + DecodeSecondsPerKVToken·kv tokens
//
// A chunk's tokens attend to its context and, on average, to half of the chunk;
// so a prompt costs the same in one chunk and in several, but for the fixed part.
// In a step with both kinds the variable parts add up, and the larger fixed part
// is paid once: the weights pass through the machine once for all of them.
type ClosedForm struct {
	PrefillFixedSeconds      float64 `json:"prefill_fixed_seconds"`
	PrefillSecondsPerToken   float64 `json:"prefill_seconds_per_token"`
	PrefillSecondsPerPair    float64 `json:"prefill_seconds_per_token_pair"`
	DecodeFixedSeconds       float64 `json:"decode_fixed_seconds"`
	DecodeSecondsPerSequence float64 `json:"decode_seconds_per_sequence"`
	DecodeSecondsPerKVToken  float64 `json:"decode_seconds_per_kv_token"`
}

var _ Model = (*ClosedForm)(nil)

// coefficients is the number of them in a ClosedForm.
const coefficients = 6

// coefficientNames are the names in files and errors, in vector order.
var coefficientNames = [coefficients]string{
	"prefill_fixed_seconds", "prefill_seconds_per_token", "prefill_seconds_per_token_pair",
	"decode_fixed_seconds", "decode_seconds_per_sequence", "decode_seconds_per_kv_token",
}

// vector is the coefficients, or a row of what they are multiplied with.
type vector [coefficients]float64

func (m *ClosedForm) vector() vector {
	return vector{m.PrefillFixedSeconds, m.PrefillSecondsPerToken, m.PrefillSecondsPerPair,
		m.DecodeFixedSeconds, m.DecodeSecondsPerSequence, m.DecodeSecondsPerKVToken}
}

func closedForm(v vector) ClosedForm { return ClosedForm{v[0], v[1], v[2], v[3], v[4], v[5]} }

// Validate refuses coefficients that are negative or not finite, by name, and a
// model in which everything is free.
func (m *ClosedForm) Validate() error {
	sum := 0.0
	for i, c := range m.vector() {
		if !(c >= 0) || c > MaxStepSeconds {
			return invalid(coefficientNames[i], "must be between 0 and %d, is %v", MaxStepSeconds, c)
		}
		sum += c
	}
	if sum == 0 {
		return invalid("closed_form", "every coefficient is zero; a step must take time")
	}
	return nil
}

// StepSeconds implements Model.
func (m *ClosedForm) StepSeconds(b *Batch) float64 {
	var fixed, seconds float64
	if len(b.Chunks) > 0 {
		if n, pairs := b.work(); n > 0 {
			fixed = m.PrefillFixedSeconds
			seconds = m.PrefillSecondsPerToken*n + m.PrefillSecondsPerPair*pairs
		}
	}
	if b.Decodes > 0 {
		fixed = max(fixed, m.DecodeFixedSeconds)
		seconds += m.DecodeSecondsPerSequence*float64(b.Decodes) + m.DecodeSecondsPerKVToken*float64(b.KVTokens)
	}
	return floor(fixed + seconds)
}

// row is what the coefficients are multiplied with in b, and whether b has any
// work. In a mixed step the fixed part belongs to prefill if prefillLarger.
func row(b *Batch, prefillLarger bool) (v vector, ok bool) {
	n, pairs := b.work()
	if n > 0 {
		v[0], v[1], v[2] = 1, n, pairs
	}
	if b.Decodes > 0 {
		v[3], v[4], v[5] = 1, float64(b.Decodes), float64(b.KVTokens)
	}
	if n > 0 && b.Decodes > 0 {
		if prefillLarger {
			v[3] = 0
		} else {
			v[0] = 0
		}
	}
	return v, n > 0 || b.Decodes > 0
}

func dot(a, b vector) float64 {
	s := 0.0
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

// measured says what is wrong with a measured duration, if anything.
func measured(field string, seconds float64) error {
	if !(seconds > 0) || seconds > MaxStepSeconds || math.IsInf(seconds, 0) {
		return invalid(field, "a step takes more than 0 and at most %d seconds, not %v", MaxStepSeconds, seconds)
	}
	return nil
}
