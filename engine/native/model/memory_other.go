//go:build !linux

package model

import "unsafe"

// memory is zeroed, 64-byte aligned storage.
type memory struct{ data []byte }

// newMemory allocates size bytes; the hint about large pages is for Linux.
func newMemory(size int64, _ bool) (*memory, error) {
	if size <= 0 {
		return &memory{}, nil
	}
	buf := make([]byte, size+63)
	skip := int64(-uintptr(unsafe.Pointer(&buf[0])) & 63)
	return &memory{buf[skip : skip+size : skip+size]}, nil
}

// free lets the collector have the storage.
func (m *memory) free() error {
	m.data = nil
	return nil
}
