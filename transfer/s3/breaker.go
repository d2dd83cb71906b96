package s3

import (
	"sync"
	"time"
)

// breaker leaves a store alone that goes on failing. It decides by what it is told,
// and has no clock.
type breaker struct {
	mu struct {
		sync.Mutex
		failures int
		rest     time.Duration // the last one; 0: the store is in use
		until    time.Time
		trying   bool // an operation finds out whether it is back
	}
}

// verdict is how an operation ended, for the breaker.
type verdict int

const (
	served  verdict = iota // the store did its work, whatever it said
	failed                 // it did not
	unknown                // the caller gave up before that could be seen
)

// enter reports whether an operation may begin, and whether it is the one that finds
// out if the store is back; if not, until when none may.
func (b *breaker) enter(now time.Time) (ok, trial bool, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.rest == 0 {
		return true, false, now
	}
	if now.Before(b.mu.until) || b.mu.trying {
		return false, false, b.mu.until
	}
	b.mu.trying = true
	return true, true, now
}

// leave says how an operation that had entered ended, and for how long the store has asked
// to be left alone, or 0. It reports whether that began or ended a time in which it is.
func (b *breaker) leave(v verdict, trial bool, asked time.Duration, now time.Time) (began, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if trial {
		b.mu.trying = false
	}
	resting := b.mu.rest > 0
	switch {
	case v == served && (trial || !resting):
		b.mu.failures, b.mu.rest = 0, 0
		return false, trial
	case v == failed && trial:
		b.mu.rest = max(min(2*b.mu.rest, breakerMost), asked)
		b.mu.until = now.Add(b.mu.rest)
	case v == failed && !resting:
		if b.mu.failures++; b.mu.failures >= breakerFailures || asked > 0 {
			b.mu.rest = max(breakerFirst, asked)
			b.mu.until = now.Add(b.mu.rest)
			return true, false
		}
	}
	return false, false
}
