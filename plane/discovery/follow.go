package discovery

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/dynamo-go/dynamo/obs"
)

// Watch follows what is below p.
func (f *File) Watch(ctx context.Context, p Path) iter.Seq[Update] {
	return func(yield func(Update) bool) {
		w := &fileWatch{f: f, scanner: newScanner(f, p), follower: NewFollower(f.metrics)}
		defer w.end()
		for {
			for _, u := range w.next(time.Now()) {
				if w.over(ctx) || !yield(u) {
					return
				}
			}
			if !w.wait(ctx) {
				return
			}
		}
	}
}

// fileWatch is a running watch. It is told of changes by inotify where that
// works, and looks for itself besides: inotify knows nothing of other hosts, of
// deaths, or of a directory that came in another's place.
type fileWatch struct {
	f        *File
	scanner  *scanner
	follower *Follower

	notifier *fsnotify.Watcher // nil: not armed
	quiet    bool              // inotify has failed, which is logged once
	dirty    bool              // something has changed
	scanned  time.Time
	// back is when a lost directory was seen again; zero: it is not lost, or gone.
	back time.Time
	lost bool
}

func (w *fileWatch) end() {
	w.disarm()
	w.scanner.close()
	w.follower.End()
}

func (w *fileWatch) over(ctx context.Context) bool {
	select {
	case <-w.f.closed:
		return true
	default:
		return ctx.Err() != nil
	}
}

// next looks at the directory and returns what there is to tell.
func (w *fileWatch) next(now time.Time) []Update {
	if w.scanner.lost() {
		w.disarm()
		w.scanner.forgetDir()
		w.lost, w.back = true, time.Time{}
		if !w.follower.Stale() { // said even if the owners have been quicker than this watch
			return w.follower.Next(nil, true, nil)
		}
	}
	w.arm()
	if w.dirty || w.lost || w.notifier == nil || w.scanner.limbo(now) || now.Sub(w.scanned) >= scanEvery {
		w.dirty, w.scanned = false, now
		if w.lost && w.back.IsZero() {
			w.scanner.wait(now)
		}
		if err := w.scanner.scan(now); err != nil {
			w.lost, w.back = true, time.Time{}
			return w.follower.Next(nil, true, nil)
		}
	} else {
		w.scanner.check(now)
	}
	problems := w.scanner.problemsOnce()
	if w.lost && !w.recovered(now) {
		return w.follower.Next(nil, true, problems)
	}
	return w.follower.Next(w.scanner.state(), false, problems)
}

// recovered reports whether a directory that was lost can be believed: the owners
// have had the time to write their files again, or all have done so.
func (w *fileWatch) recovered(now time.Time) bool {
	if w.back.IsZero() {
		w.back = now
	}
	if now.Sub(w.back) < recoverGrace && !w.scanner.settled(w.follower.View()) {
		return false
	}
	w.lost = false
	return true
}

// arm asks inotify to tell of changes. What happens before it is armed is seen by
// the scan that follows.
func (w *fileWatch) arm() {
	if w.notifier != nil || w.f.poll {
		return
	}
	before, err := os.Stat(w.f.dir)
	if err != nil {
		return // lost; the scan says so
	}
	n, err := fsnotify.NewWatcher()
	if err == nil {
		if err = n.Add(w.f.dir); err != nil {
			_ = n.Close() // it watches nothing
		}
	}
	if err != nil {
		if !w.quiet {
			w.quiet = true
			w.f.log.Warn("changes of the store are found by polling", obs.KeyError, err)
		}
		return
	}
	if after, err := os.Stat(w.f.dir); err != nil || !os.SameFile(before, after) {
		_ = n.Close() // it may watch another directory; the next round arms again
		return
	}
	w.notifier, w.dirty = n, true
}

func (w *fileWatch) disarm() {
	if w.notifier != nil {
		_ = w.notifier.Close() // it watches nothing that is needed
		w.notifier = nil
	}
}

// wait returns when it is time to look again; false: the watch ends.
func (w *fileWatch) wait(ctx context.Context) bool {
	pace := w.f.pace
	if w.scanner.limbo(time.Now()) || w.lost {
		pace = soonEvery
	}
	t := time.NewTimer(pace)
	defer t.Stop()
	var events chan fsnotify.Event
	var errs chan error
	if w.notifier != nil {
		events, errs = w.notifier.Events, w.notifier.Errors
	}
	for !w.dirty {
		select {
		case <-ctx.Done():
			return false
		case <-w.f.closed:
			return false
		case <-t.C:
			return true
		case e, ok := <-events:
			if !ok {
				w.disarm()
				return true
			}
			w.take(e)
		case <-errs: // events were lost, at worst
			w.dirty = true
		}
	}
	for { // those that have come meanwhile need no scan of their own
		select {
		case _, ok := <-events:
			if !ok {
				w.disarm()
				return true
			}
		default:
			return !w.over(ctx)
		}
	}
}

// take looks at what inotify tells. Touches and files that are being written are
// of no interest.
func (w *fileWatch) take(e fsnotify.Event) {
	if e.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename|fsnotify.Write) && (e.Name == w.f.dir || filepath.Base(e.Name)[0] != '.') {
		w.dirty = true
	}
}
