package discovery

import "time"

const (
	// MaxInstanceBytes bounds a stored instance. A larger one is refused by
	// Register and passed over by watches.
	MaxInstanceBytes = 1 << 20
	// MaxInstances bounds what a watch of File takes in; entries beyond it, in the
	// order of their names, are passed over and reported.
	MaxInstances = 4096
	// MaxNameBytes bounds each part of a path, so that three of them and an id
	// make a file name.
	MaxNameBytes = 63
	// MaxAddresses bounds the addresses of an instance.
	MaxAddresses = 16
	// MinTTL and MaxTTL bound Config.TTL.
	MinTTL = 100 * time.Millisecond
	MaxTTL = time.Hour // of an owner that cannot be asked

	defaultTTL = 10 * time.Second
)

// Times of the file store.
const (
	// tendEvery is how often an owner looks whether its file is still there.
	tendEvery = 500 * time.Millisecond
	// lockEvery is how often a watch asks whether the owners live, and scanEvery
	// how often it reads the directory without having been told of a change.
	lockEvery = 250 * time.Millisecond
	scanEvery = time.Second
	// soonEvery is the pace while a file is gone whose owner still lives.
	soonEvery = 20 * time.Millisecond
	// recoverGrace is how long owners have to write their files again after the
	// directory or a file was removed.
	recoverGrace = 2*tendEvery + 200*time.Millisecond
	// claimTries and claimPause bound how long Register waits for the lock of a
	// file: a process that clears away a dead one holds it for a moment.
	claimTries = 6
	claimPause = 10 * time.Millisecond
	// placeAge is how long an empty file keeps its place where there are no locks.
	placeAge = 2 * time.Second
	// sweepEvery bounds how often a process clears away dead owners' files, and
	// sweepAge is how long the files of other hosts' dead owners stay.
	sweepEvery = time.Minute
	sweepAge   = time.Hour
	// maxNames bounds what is read of a directory.
	maxNames = 4 * MaxInstances
	// maxProblems bounds what one watch remembers of entries it passed over; more
	// are not reported.
	maxProblems = 1024
)
