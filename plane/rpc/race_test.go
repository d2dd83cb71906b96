//go:build race

package rpc_test

// raceDetector: it makes sync.Pool forget at random.
const raceDetector = true
