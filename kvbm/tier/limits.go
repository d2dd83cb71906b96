package tier

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxBlockBytes is the largest block; a config with more is refused.
	MaxBlockBytes = 1 << 30
	// MaxGroups is the largest number of groups of layers in a block.
	MaxGroups = 4
	// maxContentBytes bounds the words of a header, with two bytes more for each; a
	// sequence under longer ones is not kept.
	maxContentBytes = 1 << 10
	// MaxListed bounds the blocks of a tier that a Command lists; there is no more of the
	// list.
	MaxListed = 10_000
	// minBounce and maxBounce bound the number of frames on their way from an engine into
	// a store, where there is no host tier, and bounceBytes is what they may take beyond
	// the least number; more are not taken. An engine offers the blocks of a whole step at
	// once.
	minBounce, maxBounce = 16, 512
	bounceBytes          = 64 << 20
	// maxDeletes is the number of deletions that wait; more are left to when their blocks
	// are found again.
	maxDeletes = 1 << 10
	// maxRemoteList bounds the blocks that are learned from a remote store at the start.
	maxRemoteList = 1 << 20
	// shortestLoad and longestLoad bound the time that a Load is given, which is
	// loadPatience times what was planned: then it fails.
	shortestLoad = 500 * time.Millisecond
	longestLoad  = 30 * time.Second
	loadPatience = 20
	// operationTime bounds one call of a store that honours its context.
	operationTime = 30 * time.Second
	// stopTime bounds the wait for stores when Run ends; what hangs longer is left behind.
	stopTime = 10 * time.Second
	// probeTime bounds the question to a remote store which blocks it has; then the
	// answer is that there are none.
	probeTime = 100 * time.Millisecond
	// maxProbe bounds the blocks asked about at once.
	maxProbe = 1 << 12
	// findLanes is the number of questions to an object store at once; more come after.
	findLanes = 16
	// logEvery is the least time between two log lines of one sort.
	logEvery = time.Second
	// staleAfter is the age at which a file that a process left half written in a shared
	// store is removed.
	staleAfter = time.Hour
)
