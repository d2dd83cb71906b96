package engine

import (
	"context"
	"iter"
	"sync"

	"github.com/dynamo-go/dynamo"
)

// BringOnce returns an engine that brings the KV of a prompt once for all choices of a
// request (dynamo.Request.Group) whose prompt was computed elsewhere. The first one to come
// goes ahead until it answers; by then e has the KV, and the others find it there. They wait
// in their callers' goroutines. One that fails, or gives up, holds up nobody.
func BringOnce(e Engine) Engine {
	b := &bringer{next: e}
	b.mu.groups = map[dynamo.RequestID]*siblings{}
	return b
}

type bringer struct {
	next Engine
	mu   struct {
		sync.Mutex
		groups map[dynamo.RequestID]*siblings // an entry while one of the group is here
	}
}

// siblings are the choices of one request that are here.
type siblings struct {
	n       int
	arrived chan struct{} // closed when the first one needs nothing more from elsewhere
}

var _ Engine = (*bringer)(nil)

// Generate implements Engine.
func (b *bringer) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	if r.Group == "" || len(r.Handover) == 0 {
		return b.next.Generate(ctx, r)
	}
	return func(yield func(dynamo.Chunk, error) bool) {
		s, first := b.join(r.Group)
		defer b.leave(r.Group, s)
		arrived := func() {}
		if first {
			arrived = sync.OnceFunc(func() { close(s.arrived) })
			defer arrived()
		} else {
			select {
			case <-s.arrived:
			case <-ctx.Done():
				yield(dynamo.Chunk{}, ContextError(ctx))
				return
			}
		}
		for chunk, err := range b.next.Generate(ctx, r) {
			arrived()
			if !yield(chunk, err) {
				return
			}
		}
	}
}

func (b *bringer) join(group dynamo.RequestID) (s *siblings, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s = b.mu.groups[group]; s == nil {
		s, first = &siblings{arrived: make(chan struct{})}, true
		b.mu.groups[group] = s
	}
	s.n++
	return s, first
}

func (b *bringer) leave(group dynamo.RequestID, s *siblings) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.n--; s.n == 0 {
		delete(b.mu.groups, group)
	}
}
