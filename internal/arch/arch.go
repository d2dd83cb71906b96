// Package arch polices the tree: which package may import which, what pure
// packages may not do, how files and packages are named and how long they may
// grow, and that the lists in the documents match the code. It has no code of
// its own; `go test ./internal/arch` runs it (with -count=1 after changes
// elsewhere: the test cache does not see the files it reads).
package arch
