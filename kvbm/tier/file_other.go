//go:build !linux

package tier

import "os"

// lockFile does nothing where files are not locked.
func lockFile(*os.File) error { return nil }

// openDirect opens a file.
func openDirect(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
