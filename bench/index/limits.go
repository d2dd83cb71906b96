package index

// The limits of a workload; a Config beyond them is refused.
const (
	minBlocks = 1_000 // so that it has sequences enough to be divided
	maxBlocks = 100_000_000
)
