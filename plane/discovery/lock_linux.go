package discovery

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Locks belong to the open file (open file description locks): they end with the
// process however it dies, other files of the process do not disturb them, and
// unlike flock's they can be asked for without being taken. NFS carries them.

var (
	errLocked  = errors.New("locked by another process")
	errNoLocks = errors.New("no file locks here")
)

// lockFile takes the lock of f, which must be open for writing: nil, errLocked or
// errNoLocks.
func lockFile(f *os.File) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return errLocked
	}
	return errNoLocks
}

// lockHeld reports whether anybody else holds the lock of f.
func lockHeld(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, errNoLocks
	}
	return l.Type != unix.F_UNLCK, nil
}
