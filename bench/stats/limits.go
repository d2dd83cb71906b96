package stats

// The limits of the package, and what happens at each.
const (
	// minExponent and maxExponent bound what a Histogram tells apart: values from
	// 2^-30 (in seconds, a nanosecond) up to 2^31 (68 years; a length of 2 billion).
	// What is smaller falls into the smallest bucket, what is larger is taken as 2^31.
	minExponent = -30
	maxExponent = 30
	// subBits is the number of bits of a value's fraction that a Histogram keeps:
	// 1,024 buckets for each power of two, each at most 1/1,024 of its value wide.
	subBits = 10
	// maxPairs bounds the pairs of a paired bootstrap; more are thinned evenly, which
	// widens the interval a little and never narrows it.
	maxPairs = 1 << 16
	// resampleMeanMax is the number of samples up to which a mean is resampled draw
	// by draw; above it the resampled mean comes from its normal limit.
	resampleMeanMax = 1 << 12
	// maxResamples bounds Bootstrap.Resamples; more are cut to it.
	maxResamples = 100_000
)
