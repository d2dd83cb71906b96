package perfmodel

// The limits, and what happens at each of them.
const (
	// MinStepSeconds is the shortest step there is; shorter predictions are raised
	// to it.
	MinStepSeconds = 1e-6
	// MaxStepSeconds is the longest step a log or a table may hold; a longer one is
	// KindInvalid.
	MaxStepSeconds = 3600
	// MaxTokens bounds every count of tokens in a file; a larger one is KindInvalid.
	MaxTokens = 1 << 40
	// MaxFileBytes bounds a file given to Parse; a larger one is KindInvalid.
	MaxFileBytes = 64 << 20
	// MaxPoints bounds the points of a table and the elements of an array in a
	// .npz file; more are KindInvalid.
	MaxPoints = 1 << 16
	// MaxObservations bounds the log given to Fit; more are KindInvalid.
	MaxObservations = 1 << 22

	maxAxis      = 512     // values kept of a table's axis; evenly thinned above
	minSequences = 1e-3    // in a point of a table; profilers report means
	maxArrays    = 64      // in a .npz file; more are KindInvalid
	maxHeader    = 1 << 14 // bytes of a .npy header; a longer one is KindInvalid
	maxLineBytes = 1 << 20 // of a log of steps; a longer one is KindInvalid
	maxNameBytes = 4096    // name and source in a model file; longer is KindInvalid
)
