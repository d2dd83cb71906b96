package model

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// memory is zeroed, page-aligned storage outside the garbage-collected heap:
// pages that are never touched cost nothing, and a large arena does not make
// the collector let garbage grow with it.
type memory struct{ data []byte }

// newMemory reserves size bytes. Huge asks for large pages, which is worth it
// for memory that will be used whole.
func newMemory(size int64, huge bool) (*memory, error) {
	if size <= 0 {
		return &memory{}, nil
	}
	data, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	if huge {
		_ = unix.Madvise(data, unix.MADV_HUGEPAGE) // advice; kernels without large pages refuse it
	}
	return &memory{data}, nil
}

// free gives the storage back. Freeing twice does nothing.
func (m *memory) free() error {
	data := m.data
	m.data = nil
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}
