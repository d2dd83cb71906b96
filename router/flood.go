package router

import "time"

// flood bounds what the events of one worker may cost: a bucket of blocks that fills
// at floodRate up to floodBurst, far above what an engine computes. A worker that
// empties it is isolated: its events are passed over, and what it holds is guessed
// from what it is sent, until isolateFor is over and its cache is begun anew.
type flood struct {
	left  float64
	at    time.Time
	until time.Time // isolated before that; zero: it is not
}

// take counts blocks that the worker tells of.
func (f *flood) take(blocks int, now time.Time) (isolated bool) {
	if f.at.IsZero() {
		f.left, f.at = floodBurst, now
	}
	f.left = min(f.left+now.Sub(f.at).Seconds()*floodRate, floodBurst) - float64(blocks)
	f.at = now
	if f.left < 0 {
		f.until = now.Add(isolateFor)
	}
	return f.left < 0
}

// isolated reports whether the worker's events are passed over, and whether that has
// just ended.
func (f *flood) isolated(now time.Time) (yes, ended bool) {
	switch {
	case f.until.IsZero():
		return false, false
	case now.Before(f.until):
		return true, false
	}
	*f = flood{}
	return false, true
}
