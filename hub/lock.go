package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock takes the lock of key, waiting for another process that holds it. The
// kernel releases it when the holder dies; its file stays.
func (h *Hub) lock(ctx context.Context, key, ref string) (release func(), err error) {
	dir := filepath.Join(h.cfg.CacheDir, "locks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, diskError("make the cache folder (--cache-dir)", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, key), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, diskError("open the lock of "+ref, err)
	}
	waiting := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil // closing releases it; nothing was written
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", ref, err)
		}
		if !waiting {
			waiting = true
			h.emit(Event{Kind: EventWaiting, Ref: ref, Text: "another process is fetching " + ref + "; waiting for it"})
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// FreeBytes says how much the file system of dir, or of its nearest existing
// parent, can take from this user.
func FreeBytes(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Bsize), nil
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, unix.ENOENT) || up == dir {
			return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
		}
		dir = up
	}
}
