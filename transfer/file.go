package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/dynamo-go/dynamo"
)

// File is a file to be registered as a section. Bytes go past the page cache
// (O_DIRECT) where the file system lets them: straight from and to memory that is
// aligned to 4096 bytes as the file's offsets are, else by a buffer that is; small
// parts that are not aligned, and everything on file systems that refuse, go through
// the cache. Both ways see the same bytes. Nothing is forced to the medium. A call that
// hangs in the kernel holds its transfer beyond the deadline: memory that the kernel
// still may touch is not given back (law 1).
type File struct {
	name    string
	size    int64
	plain   *os.File
	direct  *os.File // nil if the file system refuses
	refused atomic.Bool
	bounce  buffers
}

var _ store = (*File)(nil)

// OpenFile opens the first so many bytes of a file, which is made, or made longer, if
// need be; then its room is reserved. KindExhausted says that there is none.
func OpenFile(path string, bytes int64) (*File, error) {
	if bytes < 1 {
		return nil, invalid("file %s of %d bytes; give at least 1", path, bytes)
	}
	plain, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a file for transfers: %w", err)
	}
	f := &File{name: path, size: bytes, plain: plain, bounce: newBuffers()}
	info, err := plain.Stat()
	if err == nil && info.Size() < bytes {
		err = lengthen(plain, bytes)
	}
	if err != nil {
		_ = plain.Close() // the fault is reported
		return nil, f.fault("open", err)
	}
	f.direct = openDirect(path)
	return f, nil
}

// Direct reports whether bytes go past the page cache.
func (f *File) Direct() bool { return f.direct != nil && !f.refused.Load() }

// Close closes the file. Deregister it first.
func (f *File) Close() error {
	err := f.plain.Close()
	if f.direct != nil {
		err = errors.Join(err, f.direct.Close())
	}
	return err
}

func (f *File) unit() (most, multiple int64) { return fileBytes, 0 }
func (f *File) lanes() int                   { return fileLanes }

func (f *File) move(_ context.Context, write bool, parts [][]byte, offset int64) error {
	end := offset + length(parts)
	first, last := (offset+directAlign-1)&^(directAlign-1), end&^(directAlign-1)
	switch {
	case !f.Direct() || last-first < directAlign:
		return f.vectored(f.plain, write, parts, offset)
	case alignedParts(parts, offset):
		return f.vectored(f.direct, write, parts, offset)
	case end-offset < directBytes:
		return f.vectored(f.plain, write, parts, offset)
	}
	head, rest := ahead(parts, first-offset)
	middle, tail := ahead(rest, last-first)
	b := f.bounce.get(last - first)
	defer f.bounce.put(b)
	if write {
		gather(b, middle)
	}
	err := f.vectored(f.direct, write, [][]byte{b}, first)
	if err == nil && !write {
		scatter(middle, b)
	}
	if err == nil && len(head) > 0 {
		err = f.vectored(f.plain, write, head, offset)
	}
	if err == nil && len(tail) > 0 {
		err = f.vectored(f.plain, write, tail, last)
	}
	return err
}

// vectored moves parts by as few calls as the system needs.
func (f *File) vectored(to *os.File, write bool, parts [][]byte, offset int64) error {
	for len(parts) > 0 {
		n, err := vector(to, write, parts, offset)
		switch {
		case err != nil && to == f.direct && refuses(err):
			f.refused.Store(true)
			to = f.plain
			continue
		case err != nil:
			return f.fault(verb(write), err)
		case n == 0:
			return failing(dynamo.KindCorrupt, nil, "file %s ends at %d, before the %d bytes that were registered; somebody cut it: register it anew", f.name, offset, f.size)
		}
		_, parts = ahead(parts, int64(n))
		offset += int64(n)
		if offset%directAlign != 0 {
			to = f.plain // what is left of a short call
		}
	}
	return nil
}

func verb(write bool) string {
	if write {
		return "write"
	}
	return "read"
}

// fault is an error of the file, in words of this package.
func (f *File) fault(verb string, err error) error {
	if full(err) {
		return failing(dynamo.KindExhausted, err, "%s %s: the file system or the quota is full; make room there", verb, f.name)
	}
	return failing(dynamo.KindInternal, err, "%s %s: the file system failed; look at its disk", verb, f.name)
}

// alignedParts reports whether direct I/O takes the parts as they are.
func alignedParts(parts [][]byte, offset int64) bool {
	if offset%directAlign != 0 {
		return false
	}
	for _, p := range parts {
		if len(p)%directAlign != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directAlign != 0 {
			return false
		}
	}
	return true
}
