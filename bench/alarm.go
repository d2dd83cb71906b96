package bench

import (
	"context"
	"time"
)

// alarm wakes goroutines at points in time. The runtime's timers are late by up to a
// millisecond in a process that is mostly idle, because it waits for the network in
// whole milliseconds; where the system has something better, and time is the
// system's, an alarm uses that.
type alarm interface {
	// sleep waits; false is that ctx ended before.
	sleep(ctx context.Context, d time.Duration) bool
	// close ends its goroutine and wakes nobody.
	close()
}

// timers is the alarm made of the runtime's timers.
type timers struct{}

func (timers) close() {}

func (timers) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
