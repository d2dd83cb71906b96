package router

import (
	"context"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
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

// Measured is how fast the workers are: the model of one of which enough was seen. false:
// of none was.
func (r *Router) Measured() (perfmodel.ClosedForm, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.mu.list {
		if m.estimate.Known() {
			return m.estimate.Model(), true
		}
	}
	return perfmodel.ClosedForm{}, false
}

// Assume has those workers taken for as fast as that of which nothing else is known.
func (r *Router) Assume(model perfmodel.ClosedForm) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.mu.list {
		if !m.estimate.Known() {
			_ = r.mu.fleet.Touch(m.index).SetModel(model) // one that is refused leaves what was there
		}
	}
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
