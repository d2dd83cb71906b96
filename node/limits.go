package node

// The files of a model beside its weights are bounded by these; published ones
// stay far below.
const (
	maxTokenizerBytes = 256 << 20 // Gemma 3's has 33 MB
	maxConfigBytes    = 16 << 20
	maxTemplateBytes  = 4 << 20
	maxKeysBytes      = 64 << 20
)
