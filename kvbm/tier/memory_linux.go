package tier

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve gives zeroed, page-aligned memory outside the heap.
func reserve(size int64, huge bool) ([]byte, func() error, error) {
	if size == 0 {
		return nil, func() error { return nil }, nil
	}
	data, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	if huge {
		_ = unix.Madvise(data, unix.MADV_HUGEPAGE) // advice; kernels without large pages refuse it
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
