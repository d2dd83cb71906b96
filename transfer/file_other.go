//go:build !linux

package transfer

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// openDirect is for systems that have another way past the page cache, or none.
func openDirect(string) *os.File { return nil }

// lengthen makes a file longer.
func lengthen(f *os.File, bytes int64) error { return f.Truncate(bytes) }

// vector moves one part after the other.
func vector(f *os.File, write bool, parts [][]byte, offset int64) (done int, err error) {
	for _, p := range parts {
		var n int
		if write {
			n, err = f.WriteAt(p, offset+int64(done))
		} else {
			n, err = f.ReadAt(p, offset+int64(done))
		}
		done += n
		if n < len(p) {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return done, err
		}
	}
	return done, nil
}

func refuses(error) bool { return false }

// full reports whether an error says that there is no room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) }
