package native

// The limits of this package, and what happens at each.
const (
	// MaxTopLogprobs is the largest number of alternatives beside an id's
	// log-probability; a request for more is refused.
	MaxTopLogprobs = 20
	// scoreTokens is the number of prompt positions whose logits are held at a
	// time; longer chunks of a request for prompt logprobs are computed in pieces.
	scoreTokens = 64
)
