package layout

// The limits of this package. A layout beyond one is refused by Validate.
const (
	// MaxTextBytes bounds the text of a layout.
	MaxTextBytes = 192
	// MaxBlockBytes bounds the block of one shard.
	MaxBlockBytes = 1 << 30
	maxLayers     = 1 << 12
	maxHeads      = 1 << 12
	maxHeadDim    = 1 << 16
	maxTokens     = 1 << 12
	maxElement    = 16
	maxRanks      = 1 << 12
	// maxDType bounds the name of a data type.
	maxDType = 24
)
