package transfer

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Shared is memory that other processes of this host can map: zeroed, page-aligned,
// outside the garbage-collected heap. Pages that are never touched cost nothing.
type Shared struct {
	bytes []byte
	file  *os.File
	close func() error
}

// NewShared makes shared memory. The name shows in /proc and in errors.
func NewShared(name string, bytes int64) (*Shared, error) {
	if bytes < 1 || len(name) > 200 {
		return nil, invalid("shared memory of %d bytes, with a name of %d: give at least 1 byte, and a name of at most 200", bytes, len(name))
	}
	file, mapped, err := newMemfd("dynamo-"+name, bytes, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err != nil {
		return nil, fmt.Errorf("make shared memory %q of %d bytes: %w", name, bytes, err)
	}
	_ = unix.Madvise(mapped, unix.MADV_HUGEPAGE) // advice; many kernels have none for shared memory
	s := &Shared{bytes: mapped, file: file}
	s.close = sync.OnceValue(func() error {
		s.bytes = nil
		if err := unix.Munmap(mapped); err != nil {
			return fmt.Errorf("unmap shared memory %q: %w", name, err)
		}
		return file.Close()
	})
	return s, nil
}

// Bytes returns the memory.
func (s *Shared) Bytes() []byte { return s.bytes }

// File is the memory's file, for a process that is handed it in another way; nil
// on systems without such files. It is closed by Close.
func (s *Shared) File() *os.File { return s.file }

// Populate takes the pages of a part of the memory from the system, those that it has
// not got yet; otherwise each costs a fault when it is first touched.
func (s *Shared) Populate(r Range) error {
	if !within(r.Offset, r.Length, int64(len(s.bytes))) {
		return invalid("%d bytes at %d of shared memory, which has %d", r.Length, r.Offset, len(s.bytes))
	}
	page := int64(os.Getpagesize())
	begin := r.Offset / page * page
	err := unix.Madvise(s.bytes[begin:r.Offset+r.Length], unix.MADV_POPULATE_WRITE)
	if err != nil && !errors.Is(err, unix.EINVAL) { // a kernel that cannot
		return fmt.Errorf("take %d bytes of shared memory: %w", r.Length, err)
	}
	return nil
}

// Close gives the memory back. Deregister it first.
func (s *Shared) Close() error { return s.close() }

func (s *Shared) mappable() bool { return s.file != nil }

// newMemfd makes a file in memory of a size that cannot change, and maps it.
func newMemfd(name string, bytes int64, seals int) (*os.File, []byte, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := file.Truncate(bytes); err != nil {
		_ = file.Close() // nothing was written
		return nil, nil, err
	}
	mapped, err := unix.Mmap(fd, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, nil, fmt.Errorf("mmap: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = unix.Munmap(mapped) // the fault is reported
		_ = file.Close()
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	return file, mapped, nil
}

// words sees mapped memory as words.
func words(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

// newTable makes the words of a memory's fence.
func newTable(pages int, s *Shared, m Medium) (*table, error) {
	if m != MediumShared {
		return &table{words: make([]uint64, pages)}, nil
	}
	file, mapped, err := newMemfd("dynamo-fence", int64(pages)*8, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL)
	if err != nil {
		return nil, fmt.Errorf("make the fence of shared memory: %w", err)
	}
	return &table{words: words(mapped), file: file, mapped: mapped, shared: s}, nil
}

// free gives the words back; the table is not used again.
func (t *table) free() {
	if t.mapped == nil {
		return
	}
	_ = unix.Munmap(t.mapped) // fails for a bug only
	_ = t.file.Close()
	t.mapped = nil
}
