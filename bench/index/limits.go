package index

// maxBlocks is the largest workload; a Config with more is refused.
const maxBlocks = 100_000_000
