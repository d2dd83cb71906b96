//go:build !amd64 || purego

package placement

// hasCostBlocks says that there is code that costs blocks of prices.
const hasCostBlocks = false

const lanes = 1

type block struct{}

func (*block) set(int, *price) {}

func costBlocks(_ *float32, _ *block, _ int, _, _ *float32, _ *features, _ int64) {}
