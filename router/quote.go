package router

import (
	"context"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Quote says what part of a request would cost at the worker that it would go to just now.
// It books and counts nothing.
func (r *Router) Quote(q *dynamo.Request, part placement.Role) placement.Quote {
	c := &call{q: q, arrived: time.Now(), params: r.params, role: part, cached: -1}
	if c.override() != nil {
		return placement.Quote{} // whoever serves it says what is wrong
	}
	if c.params.Policy.UsesOverlap() {
		c.look = r.prefixes.look(q, c.arrived)
		defer c.look.done()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.retired || r.mu.queue.Len() > 0 {
		return placement.Quote{}
	}
	d := r.decideLocked(c, c.arrived)
	return d.Quote()
}

type splitKey struct{}

// WithSplit has the decisions for a request say whether its prompt is computed apart from
// its answer, and why.
func WithSplit(ctx context.Context, s placement.Split) context.Context {
	return context.WithValue(ctx, splitKey{}, &s)
}

// splitOf is what WithSplit was told; nil: nothing.
func splitOf(ctx context.Context) *placement.Split {
	s, _ := ctx.Value(splitKey{}).(*placement.Split)
	return s
}
