package tier

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes f for this process alone, or fails at once.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// openDirect opens a file to be read and written past the page cache, where the file
// system allows it; or else as usual.
func openDirect(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err == nil {
		if _, err := unix.Pread(int(f.Fd()), Buffer(frameAlign), 0); err == nil {
			return f, nil
		}
		_ = f.Close() // nothing was written
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
