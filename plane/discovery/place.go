package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// place is a file that this process owns, open and locked.
type place struct {
	path    string
	file    *os.File
	info    os.FileInfo // as it was written or touched last; nil: it must be written
	content []byte
}

// claim takes the place of i, if nobody alive has it, and writes the file there.
func (f *File) claim(ctx context.Context, i Instance, instance []byte) (place, error) {
	path := filepath.Join(f.dir, fileName(i.Key()))
	for try := 1; ; try++ {
		if err := f.makeDir(); err != nil {
			return place{}, err
		}
		p, err := f.tryClaim(ctx, i, instance, path)
		if err == nil || !errors.Is(err, errLocked) {
			return p, err
		}
		if try >= claimTries {
			holder, _, err := readFile(path) // what cannot be read is not named
			if err != nil {
				return place{}, Taken(i, nil)
			}
			return place{}, Taken(i, &holder)
		}
		if err := pause(ctx, claimPause); err != nil {
			return place{}, err
		}
	}
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// tryClaim is one attempt; errLocked says that somebody else has the file's lock,
// or has just replaced the file.
func (f *File) tryClaim(ctx context.Context, i Instance, instance []byte, path string) (place, error) {
	const flags = os.O_RDWR | os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	old, err := os.OpenFile(path, flags|os.O_EXCL, 0o600)
	made := err == nil
	if errors.Is(err, os.ErrExist) {
		old, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return place{}, f.unusable("write to", err)
	}
	defer old.Close() // gives up its lock, if there is one
	locked := f.lock(old)
	if errors.Is(locked, errLocked) || !inPlace(old, path) {
		return place{}, errLocked
	}
	if locked != nil && !made && beingWritten(old) {
		return place{}, errLocked
	}
	if err := f.waitDead(ctx, old, path, i); err != nil {
		return place{}, err
	}
	p, err := f.put(path, instance)
	if err != nil {
		if info, statErr := old.Stat(); statErr == nil && info.Size() == 0 && inPlace(old, path) {
			_ = os.Remove(path) // an empty file does no harm
		}
		return place{}, f.unusable("write to", err)
	}
	return p, nil
}

// beingWritten reports whether a file is empty and has not been so for long:
// without locks its maker counts as alive meanwhile.
func beingWritten(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Size() == 0 && time.Since(info.ModTime()).Abs() < placeAge
}

// inPlace reports whether file is what lies at path.
func inPlace(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// put writes the file at path, whose lock the caller has, and returns it locked.
func (f *File) put(path string, instance []byte) (p place, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return place{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	locked := f.lock(tmp) == nil // nobody else knows the file: there are no locks otherwise
	b, err := f.encodeFile(instance, locked)
	if err != nil {
		return place{}, err
	}
	if err := f.write(tmp, b); err != nil {
		return place{}, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return place{}, err
	}
	return place{path, tmp, info, b}, os.Rename(tmp.Name(), path)
}

// waitDead returns nil when the owner of the file in old is dead. Where its lock
// says so, which the caller has, that is at once; otherwise the owner has its TTL
// to touch the file.
func (f *File) waitDead(ctx context.Context, old *os.File, path string, i Instance) error {
	b, err := io.ReadAll(io.LimitReader(old, maxFileBytes))
	if err != nil || len(b) == 0 {
		return nil // nobody's
	}
	holder, owner, err := decodeFile(b)
	if err != nil || owner.Locked && owner.Kernel == f.kernel && f.kernel != "" {
		return nil
	}
	first, err := old.Stat()
	if err != nil {
		return err
	}
	f.log.Info("the worker id was used on another host; registering waits until that worker is known to be dead", obs.KeyWorker, i.ID, "host", owner.Host, "limit", owner.ttl())
	for end := time.Now().Add(owner.ttl()); time.Now().Before(end); {
		if err := pause(ctx, owner.ttl()/20); err != nil {
			return &dynamo.Error{Kind: dynamo.KindOf(err), Err: err, Message: fmt.Sprintf("the worker that had the id %v on host %s is not known to be dead yet; wait %v, or choose another --worker-id", i.ID, owner.Host, owner.ttl())}
		}
		info, err := os.Lstat(path)
		switch {
		case err != nil: // gone: its owner has left, or the directory was lost
			return errLocked
		case !os.SameFile(info, first) || !info.ModTime().Equal(first.ModTime()):
			return Taken(i, &holder)
		}
	}
	return nil
}

// maxFileBytes bounds a file: an instance and its envelope.
const maxFileBytes = MaxInstanceBytes + 4096

// readFile reads what lies at path.
func readFile(path string) (Instance, wireOwner, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Instance{}, wireOwner{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return Instance{}, wireOwner{}, err
	}
	return decodeFile(b)
}

// sweep clears away the files of dead owners, but for the one named own: those
// whose lock is free, and those of other hosts that nobody has touched for long.
// It does so once in sweepEvery.
func (f *File) sweep(own string) {
	f.mu.Lock()
	due := f.mu.swept.IsZero() || time.Since(f.mu.swept) >= sweepEvery
	if due {
		f.mu.swept = time.Now()
	}
	f.mu.Unlock()
	if !due {
		return
	}
	info, err := os.Lstat(filepath.Join(f.dir, own))
	if err != nil {
		return // another Register sweeps
	}
	dir, err := os.Open(f.dir)
	if err != nil {
		return // as above
	}
	defer dir.Close()
	names, err := readNames(dir)
	if err != nil {
		return // as above
	}
	for _, name := range names {
		path := filepath.Join(f.dir, name)
		if _, ok := parseFileName(name); ok && name != own {
			f.sweepOne(path, info.ModTime())
		} else if old, err := os.Lstat(path); err == nil && name[0] == '.' && info.ModTime().Sub(old.ModTime()) > sweepAge {
			_ = os.Remove(path) // left by a write that did not end; it does no harm
		}
	}
}

// sweepOne clears away the file at path if its owner is dead. Now is the time by
// the clock that files are touched by.
func (f *File) sweepOne(path string, now time.Time) {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return // not ours to clear away
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	if held, err := lockHeld(file); err == nil && held {
		return
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFileBytes))
	if err != nil {
		return
	}
	_, owner, err := decodeFile(b)
	known := err == nil && owner.Locked && owner.Kernel == f.kernel && f.kernel != ""
	if !known && (err != nil && len(b) > 0 || now.Sub(info.ModTime()) < max(sweepAge, 100*owner.ttl())) {
		return
	}
	if f.lock(file) == nil && inPlace(file, path) {
		_ = os.Remove(path) // it does no harm, and another Register sweeps again
	}
}
