package tier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

// Bucket is a store in a bucket of an object store that instances share: an object for
// each key, named by it, put only where none is yet. What the store says is not
// believed: frames are checked when they are read, and what it says it has may be gone.
// A store that is down is left alone for a while (package s3): its blocks are computed.
type Bucket struct{ bucket *s3.Bucket }

var (
	_ Store  = (*Bucket)(nil)
	_ Finder = (*Bucket)(nil)
)

// NewBucket returns a store, which closes the bucket.
func NewBucket(b *s3.Bucket) *Bucket { return &Bucket{b} }

// object names the object of a key. Objects of one beginning are spread over many.
func object(k dynamo.ContentKey) string {
	name := k.String()
	return name[:2] + "/" + name
}

// Put implements Store.
func (b *Bucket) Put(ctx context.Context, r Ref, frame []byte) error {
	if err := b.bucket.PutNew(ctx, object(r.Key), frame); err != nil {
		return fmt.Errorf("write a block to the object store: %w", err)
	}
	return nil
}

// Get implements Store.
func (b *Bucket) Get(ctx context.Context, r Ref, frame []byte) error {
	if err := b.bucket.Get(ctx, object(r.Key), frame, 0); err != nil {
		return fmt.Errorf("read a block from the object store: %w", err)
	}
	return nil
}

// Delete implements Store.
func (b *Bucket) Delete(ctx context.Context, r Ref) error {
	if err := b.bucket.Delete(ctx, object(r.Key)); err != nil {
		return fmt.Errorf("delete a block from the object store: %w", err)
	}
	return nil
}

// Find implements Finder. A store is asked about findLanes keys at once, and of a longer
// sequence about a few spread over it, then about those between: blocks are put in their
// order, so that where one is, those before it are. One that is not after all is a miss
// when it is read.
func (b *Bucket) Find(ctx context.Context, keys []dynamo.ContentKey) (int, error) {
	found, end := 0, len(keys) // those before found are there, and that at end is not
	for found < end {
		n := min(end-found, findLanes)
		at, there, errs := make([]int, n), make([]bool, n), make([]error, n)
		var asked sync.WaitGroup
		for i := range n {
			at[i] = found + (i+1)*(end-found)/n - 1
			asked.Go(func() { there[i], errs[i] = b.bucket.Has(ctx, object(keys[at[i]])) })
		}
		asked.Wait()
		for i := range n {
			if errs[i] != nil {
				return found, fmt.Errorf("look into the object store: %w", errs[i])
			}
			if !there[i] {
				end = at[i]
				break
			}
			found = at[i] + 1
		}
	}
	return found, nil
}

// List implements Store.
func (b *Bucket) List(ctx context.Context, yield func(Ref) bool) error {
	err := b.bucket.List(ctx, "", func(name string) bool {
		r := Ref{Slot: -1}
		key, err := hex.DecodeString(name[min(3, len(name)):])
		if err != nil || copy(r.Key[:], key) != len(r.Key) || len(key) != len(r.Key) || name != object(r.Key) {
			return true // not ours
		}
		return yield(r)
	})
	if err != nil {
		return fmt.Errorf("list the object store: %w", err)
	}
	return nil
}

// Close implements Store.
func (b *Bucket) Close() error { return b.bucket.Close() }

// resting reports whether an error says that an object store is left alone, which it
// has logged itself.
func resting(err error) bool {
	var e *dynamo.Error
	return errors.As(err, &e) && e.Code == s3.CodeResting
}
