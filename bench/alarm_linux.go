package bench

import (
	"container/heap"
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// timerFD is an alarm made of one of Linux's timers, which the runtime waits for
// like for a connection: it is late by tens of microseconds. One goroutine reads
// it, from newAlarm until close.
type timerFD struct {
	file *os.File
	fd   int
	done sync.WaitGroup
	mu   struct {
		sync.Mutex
		sleepers sleepers
	}
}

// sleeper is a goroutine that waits; its channel is closed at its time.
type sleeper struct {
	at time.Time
	ch chan struct{}
}

// sleepers are ordered by their times.
type sleepers []sleeper

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].at.Before(s[j].at) }
func (s sleepers) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *sleepers) Push(x any) { *s = append(*s, x.(sleeper)) }

// Pop implements heap.Interface.
func (s *sleepers) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}

// newAlarm returns the most exact alarm there is.
func newAlarm() alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return timers{} // an old or confined system
	}
	a := &timerFD{file: os.NewFile(uintptr(fd), "timer"), fd: fd}
	a.done.Go(a.run)
	return a
}

func (a *timerFD) close() {
	_ = a.file.Close() // it was only read
	a.done.Wait()
}

func (a *timerFD) sleep(ctx context.Context, d time.Duration) bool {
	s := sleeper{time.Now().Add(d), make(chan struct{})}
	a.mu.Lock()
	heap.Push(&a.mu.sleepers, s)
	if a.mu.sleepers[0].ch == s.ch {
		a.armLocked()
	}
	a.mu.Unlock()
	select {
	case <-s.ch:
		return true
	case <-ctx.Done():
		return false // its place in the heap goes when its time comes
	}
}

// armLocked sets the timer to the earliest sleeper. The call does not wait, so that
// the lock may be held over it.
func (a *timerFD) armLocked() {
	d := max(time.Until(a.mu.sleepers[0].at), 1) // 0 would disarm it
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		panic("BUG: bench: set a timer: " + err.Error())
	}
}

// run wakes sleepers until the timer is closed.
func (a *timerFD) run() {
	for b := make([]byte, 8); ; {
		if _, err := a.file.Read(b); err != nil {
			return
		}
		now := time.Now()
		a.mu.Lock()
		for len(a.mu.sleepers) > 0 && !a.mu.sleepers[0].at.After(now) {
			close(heap.Pop(&a.mu.sleepers).(sleeper).ch)
		}
		if len(a.mu.sleepers) > 0 {
			a.armLocked()
		}
		a.mu.Unlock()
	}
}
