//go:build !race

package tokenizer_test

// raceDetector tells that the race detector is compiled in.
const raceDetector = false
