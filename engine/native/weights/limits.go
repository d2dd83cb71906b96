package weights

// The bounds on what a file may claim. They lie far above any published model.
const (
	// maxDims is the number of dimensions of a tensor.
	maxDims = 8
	// maxDim bounds one dimension and maxElements their product, so that sizes
	// in bytes cannot overflow.
	maxDim      = 1 << 40
	maxElements = 1 << 44
	// maxName bounds the length of a tensor's name or metadata key, in bytes.
	maxName = 1 << 16
	// maxArrayDepth bounds arrays within arrays in GGUF metadata.
	maxArrayDepth = 4
	// maxAlignment bounds the alignment of GGUF tensors, in bytes.
	maxAlignment = 1 << 20
	// maxHeader bounds the JSON header of a safetensors file, in bytes, as the
	// format itself does.
	maxHeader = 100_000_000
	// maxIndex bounds model.safetensors.index.json, in bytes.
	maxIndex = 64 << 20
	// maxShards is the number of files a sharded model may have.
	maxShards = 4096
)
