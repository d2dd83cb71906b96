package transfer

import (
	"context"
	"fmt"
	"sync"

	"github.com/dynamo-go/dynamo"
)

// Objects keeps strings of bytes by name, as an object store does; s3.Bucket is one.
// Calls come from several goroutines, and end when ctx does; the bytes are the
// caller's when they return.
type Objects interface {
	// Get fills b from offset on of an object. What is not there is KindNotFound, and
	// what ends before is KindCorrupt.
	Get(ctx context.Context, name string, b []byte, offset int64) error
	// Put makes or replaces an object; nobody sees half of it.
	Put(ctx context.Context, name string, b []byte) error
}

// objects is a memory whose pages are objects.
type objects struct {
	of         Objects
	name       string
	page, size int64

	mu struct {
		sync.Mutex
		writing map[int64]chan struct{} // pages that a transfer puts; closed at its end
	}
}

var _ store = (*objects)(nil)

func newObjects(s *Section, page int64) *objects {
	o := &objects{of: s.Objects, name: s.Name, page: page, size: s.Size}
	o.mu.writing = map[int64]chan struct{}{}
	return o
}

func (o *objects) unit() (most, multiple int64) { return o.page, o.page }
func (o *objects) lanes() int                   { return objectLanes }

func (o *objects) key(page int64) string { return fmt.Sprintf("%s/%08x", o.name, page) }

// move moves within one page.
func (o *objects) move(ctx context.Context, write bool, parts [][]byte, offset int64) error {
	page, n := offset/o.page, length(parts)
	at := offset - page*o.page
	if !write {
		return o.read(ctx, page, parts, at, n)
	}
	end, err := o.claim(ctx, page)
	if err != nil {
		return err
	}
	defer end()
	whole := min(o.page, o.size-page*o.page)
	b := parts[0]
	if len(parts) > 1 || n < whole {
		b = make([]byte, whole)
		if n < whole {
			if err := o.read(ctx, page, [][]byte{b}, 0, whole); err != nil {
				return err
			}
		}
		gather(b[at:], parts)
	}
	if err := o.of.Put(ctx, o.key(page), b); err != nil {
		return o.fault(ctx, "put", page, err)
	}
	return nil
}

func (o *objects) read(ctx context.Context, page int64, parts [][]byte, at, n int64) error {
	b := parts[0]
	if len(parts) > 1 {
		b = make([]byte, n)
	}
	err := o.of.Get(ctx, o.key(page), b, at)
	switch {
	case err != nil && dynamo.KindOf(err) == dynamo.KindNotFound:
		clear(b) // it was never written
	case err != nil:
		return o.fault(ctx, "get", page, err)
	}
	if len(parts) > 1 {
		scatter(parts, b)
	}
	return nil
}

// claim waits until nobody else of this process puts a page.
func (o *objects) claim(ctx context.Context, page int64) (end func(), err error) {
	for {
		o.mu.Lock()
		other := o.mu.writing[page]
		if other == nil {
			mine := make(chan struct{})
			o.mu.writing[page] = mine
			o.mu.Unlock()
			return func() {
				o.mu.Lock()
				delete(o.mu.writing, page)
				o.mu.Unlock()
				close(mine)
			}, nil
		}
		o.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}

// fault is an error of the store, in words of this package and of its kind.
func (o *objects) fault(ctx context.Context, verb string, page int64, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return failing(dynamo.KindOf(err), err, "%s object %s: the object store failed; see what it says", verb, o.key(page))
}
