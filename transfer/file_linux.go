package transfer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens a file past the page cache; nil if the file system refuses.
func openDirect(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	if _, err := unix.Pread(int(f.Fd()), alignedBytes(directAlign), 0); err != nil {
		_ = f.Close() // nothing was written
		return nil
	}
	return f
}

// lengthen makes a file longer and reserves its room, where the file system can.
func lengthen(f *os.File, bytes int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, bytes)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(bytes)
	}
	return err
}

// vector moves parts by one call, and returns how far it came.
func vector(f *os.File, write bool, parts [][]byte, offset int64) (n int, err error) {
	for {
		if write {
			n, err = unix.Pwritev(int(f.Fd()), parts, offset)
		} else {
			n, err = unix.Preadv(int(f.Fd()), parts, offset)
		}
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// refuses reports whether an error says that a file system takes no direct I/O.
func refuses(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// full reports whether an error says that there is no room.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
