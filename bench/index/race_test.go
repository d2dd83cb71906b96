//go:build race

package index

// raced says that the race detector is on, under which hashing takes a hundred times
// as long.
const raced = true
