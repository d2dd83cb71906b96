package perfmodel

// Polynomial is the built-in timing of NVIDIA Dynamo's mocker (releases 0.9 to
// 1.6). With T the new tokens of a step and u = KV tokens read / KVCapacityTokens, at most 1:
//
//	prefill = (4.209989e-7·T² + 1.518344e-2·T + 16.50142) ms, nothing without new tokens
//	decode  = (−25.74·u² + 54.01·u + 5.74) ms, nothing without sequences
//
// A step with both kinds takes the sum, as there. The decode polynomial rises up to
// u = 1.049, so it is monotone where it is used, and never reaches the least decode
// time of 1 ms that the mocker has. That mocker computes T as requests ×
// (truncated mean length − truncated mean prefix), which differs from the sum of
// the new tokens by less than one token per request.
type Polynomial struct {
	// KVCapacityTokens is the number of tokens that the KV cache holds, > 0. The
	// mocker's default is 16384 blocks of 64.
	KVCapacityTokens int `json:"kv_capacity_tokens"`
}

var _ Model = (*Polynomial)(nil)

// Validate refuses a capacity that is not a positive number of tokens.
func (m *Polynomial) Validate() error {
	if m.KVCapacityTokens <= 0 || m.KVCapacityTokens > MaxTokens {
		return invalid("kv_capacity_tokens", "must be between 1 and %d, is %d", MaxTokens, m.KVCapacityTokens)
	}
	return nil
}

// StepSeconds implements Model.
func (m *Polynomial) StepSeconds(b *Batch) float64 {
	milliseconds := 0.0
	if t, _ := b.work(); t > 0 {
		milliseconds = 4.209989e-07*t*t + 1.518344e-02*t + 1.650142e+01
	}
	if b.Decodes > 0 {
		u := min(1, float64(b.KVTokens)/float64(m.KVCapacityTokens))
		milliseconds += -25.74*u*u + 54.01*u + 5.74
	}
	return floor(milliseconds / 1000)
}
