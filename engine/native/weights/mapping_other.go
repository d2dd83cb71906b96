//go:build !linux && !darwin

package weights

import (
	"io"
	"os"
)

// Systems without a mapping of ours read the file whole.
func mapFile(f *os.File, size int) ([]byte, error) {
	data := make([]byte, size)
	_, err := io.ReadFull(f, data)
	return data, err
}

func unmapFile([]byte) error { return nil }

func releasePages([]byte) {}
