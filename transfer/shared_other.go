//go:build !linux

package transfer

import "os"

// Shared is memory that other processes of this host could map; on this system it
// is ordinary memory.
type Shared struct{ bytes []byte }

// NewShared makes the memory.
func NewShared(name string, bytes int64) (*Shared, error) {
	if bytes < 1 || len(name) > 200 {
		return nil, invalid("shared memory of %d bytes, with a name of %d: give at least 1 byte, and a name of at most 200", bytes, len(name))
	}
	return &Shared{make([]byte, bytes)}, nil
}

// Bytes returns the memory.
func (s *Shared) Bytes() []byte { return s.bytes }

// File is nil on this system.
func (s *Shared) File() *os.File { return nil }

// Populate does nothing on this system.
func (s *Shared) Populate(Range) error { return nil }

// Close gives the memory back. Deregister it first.
func (s *Shared) Close() error { s.bytes = nil; return nil }

func (s *Shared) mappable() bool { return false }

// newTable makes the words of a memory's fence.
func newTable(pages int, _ *Shared, _ Medium) (*table, error) {
	return &table{words: make([]uint64, pages)}, nil
}

func (t *table) free() {}
