package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// keeper keeps in a file what the routers know of the workers' KV caches, so that the
// next life of the process need not ask every worker for all of it. The file is
// replaced as a whole every so often and at a clean stop. Several processes may name
// one file: the last to write wins, and each can use what another one wrote.
//
// What is in the file when the process begins is kept for snapshotWait, for the workers
// to be found; until then, or until all of them are, it is not replaced.
type keeper struct {
	path    string
	every   time.Duration
	log     *slog.Logger
	routers func() []*router.Router

	old *router.Snapshot // nil: there is none that can be used

	// mu is held while the file is written, which takes its time; only run and last,
	// and at their ends, wait for it.
	mu struct {
		sync.Mutex
		file *os.File // old's, until nobody is waited for any more
	}
}

// openKeeper reads what an earlier life has left. A nil keeper keeps nothing.
func (n *Node) openKeeper() *keeper {
	c := &n.cfg.Cluster.Routing
	if c.Snapshot == "" {
		return nil
	}
	k := &keeper{path: c.Snapshot, every: c.SnapshotEvery, log: obs.For(n.cfg.Logger, "node")}
	sweepUnfinished(k.path)
	err := k.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.log.Info("no snapshot of a router yet; the workers tell what they hold", "path", k.path)
	case err != nil:
		k.log.Warn("the snapshot of the router is not used; the workers tell what they hold", "path", k.path, obs.KeyError, err)
	default:
		k.log.Info("snapshot of the router read", "path", k.path, "workers", k.old.Left())
	}
	return k
}

// read looks through the file.
func (k *keeper) read() error {
	f, err := os.Open(k.path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--router-snapshot: it is no regular file"}
	}
	if err == nil {
		k.old, err = router.OpenSnapshot(f, info.Size())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	k.mu.file = f
	return nil
}

// restored is what the routers begin with.
func (k *keeper) restored() *router.Snapshot {
	if k == nil {
		return nil
	}
	return k.old
}

// run writes the file every so often until ctx ends.
func (k *keeper) run(ctx context.Context) {
	wait := time.NewTimer(snapshotWait)
	defer wait.Stop()
	every := time.NewTicker(k.every)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
			if n := k.settle(); n > 0 {
				k.log.Info("workers of the router's snapshot have not come back; what it says of them is dropped", "workers", n)
			}
		case <-every.C:
			if k.waits() {
				continue
			}
			if err := k.write(func(worked time.Duration) error { return rest(ctx, worked) }); err != nil && ctx.Err() == nil {
				k.log.Warn("the router's snapshot cannot be written; the last one stays, if there is one", "path", k.path, obs.KeyError, err)
			}
		}
	}
}

// waits reports whether workers of the file are still to come.
func (k *keeper) waits() bool { return k.old != nil && k.old.Left() > 0 }

// settle ends the wait for the workers of the file, and returns how many there were.
func (k *keeper) settle() int {
	n := k.old.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.file != nil {
		_ = k.mu.file.Close() // it was only read
		k.mu.file = nil
	}
	return n
}

// rest keeps the writing to a tenth of a core.
func rest(ctx context.Context, worked time.Duration) error {
	t := time.NewTimer(9 * worked)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// last writes the file at the stop of the process, before the routers lose their
// workers. It takes snapshotStop at most.
func (k *keeper) last() {
	defer k.settle()
	if k.waits() {
		return
	}
	began := time.Now()
	err := k.write(func(time.Duration) error {
		if time.Since(began) > snapshotStop {
			return fmt.Errorf("it takes longer than %v", snapshotStop)
		}
		return nil
	})
	if err != nil {
		k.log.Warn("the router's snapshot cannot be written at the stop; the last one stays, if there is one", "path", k.path, obs.KeyError, err)
		return
	}
	k.log.Info("snapshot of the router written", "path", k.path, obs.KeyDuration, time.Since(began))
}

// write replaces the file by what the routers know now.
func (k *keeper) write(pause func(worked time.Duration) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return replaceFile(k.path, func(w io.Writer) error { return router.WriteSnapshot(w, k.routers(), pause) })
}

// unfinished names the files that replaceFile writes before they are whole.
func unfinished(path string) string { return filepath.Base(path) + ".*.tmp" }

// sweepUnfinished removes what processes have left that were killed as they wrote.
func sweepUnfinished(path string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), unfinished(path))) // a bad pattern matches nothing
	for _, name := range left[:min(len(left), maxSweep)] {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > snapshotUnfinished {
			_ = os.Remove(name) // another process may have been faster
		}
	}
}

// replaceFile has a file written beside path and puts it in its place once it is there
// as a whole.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), unfinished(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
