package perfmodel

// Batch is one step of an engine. No count is negative.
type Batch struct {
	// Chunks are the pieces of prompts computed in the step.
	Chunks []Chunk
	// Decodes is the number of sequences that produce one token each.
	Decodes int
	// KVTokens is the number of tokens of KV that the decoding sequences read,
	// summed over them.
	KVTokens int
}

// Chunk is a piece of one prompt.
type Chunk struct {
	// New is the number of tokens computed now.
	New int
	// Context is the number of tokens before them, cached or computed earlier.
	Context int
}

// Model predicts the time of a step.
type Model interface {
	// StepSeconds is the duration of b: at least MinStepSeconds, never shorter when
	// a count rises. It does not allocate, keep or change b.
	StepSeconds(b *Batch) float64
}

// work sums what the chunks of b ask for: tokens computed, and pairs of a token
// with one that it attends to.
func (b *Batch) work() (newTokens, pairs float64) {
	for i := range b.Chunks {
		c := &b.Chunks[i]
		n := float64(c.New)
		newTokens += n
		pairs += n * (float64(c.Context) + n/2)
	}
	return newTokens, pairs
}

// floor raises a prediction to the shortest step.
func floor(seconds float64) float64 {
	if seconds > MinStepSeconds {
		return seconds
	}
	return MinStepSeconds
}
