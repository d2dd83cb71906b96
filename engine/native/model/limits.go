package model

// The bounds on what a model's configuration may claim; no published model of
// the family comes near them.
const (
	maxLayers     = 1 << 10
	maxHidden     = 1 << 18
	maxFFN        = 1 << 20
	maxHeads      = 1 << 12
	maxHeadDim    = 1 << 10
	maxVocab      = 1 << 24
	maxContext    = 1 << 27
	maxEOS        = 1 << 8
	maxConfigFile = 16 << 20 // bytes of a JSON configuration

	// maxThreads bounds Options.Threads.
	maxThreads = 1 << 10
	// maxCacheBytes bounds a KV cache.
	maxCacheBytes = 1 << 46
)
