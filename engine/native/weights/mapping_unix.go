//go:build linux || darwin

package weights

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, size int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
}

func unmapFile(data []byte) error { return unix.Munmap(data) }

// releasePages gives the mapped pages back. It is advice: an error costs memory
// and nothing else.
func releasePages(data []byte) { _ = unix.Madvise(data, unix.MADV_DONTNEED) }
