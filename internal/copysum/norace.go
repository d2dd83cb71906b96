//go:build !race

package copysum

// announce is for the race detector.
func announce(_, _ []byte) {}
