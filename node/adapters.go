package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/frontend"
)

// adapterSet are the LoRA adapters that can be asked for beside a model: those that
// one of its workers lists, and for a grace those of workers that have gone, whose
// requests are told that it is a matter of time. The fleet's lock guards it.
type adapterSet struct {
	until map[string]time.Time // zero while a worker lists the adapter
	timer *time.Timer          // runs while something is kept for its grace
}

// names lists the adapters in order.
func (a *adapterSet) names() []string { return slices.Sorted(maps.Keys(a.until)) }

// stop ends the timer.
func (a *adapterSet) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// update takes over what workers list now. grace says what becomes of the others:
// whether they are kept for a while, as after a worker has gone. It returns the next
// time at which something will have been kept long enough; zero if nothing is kept.
func (a *adapterSet) update(listed map[string]bool, now time.Time, grace bool) (next time.Time) {
	if a.until == nil {
		a.until = map[string]time.Time{}
	}
	for name := range listed {
		a.until[name] = time.Time{}
	}
	for name, until := range a.until {
		switch {
		case listed[name]:
			continue
		case until.IsZero() && grace:
			until = now.Add(modelGrace)
			a.until[name] = until
		case !now.Before(until):
			delete(a.until, name)
			continue
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	return next
}

// settleAdapters tells the HTTP server which adapters the workers of a model have by
// now. gone says that a worker has just left, whose adapters are kept for a while.
func (f *fleet) settleAdapters(mod *servedModel, gone bool) {
	f.serving.Lock()
	defer f.serving.Unlock()
	f.mu.Lock()
	f.updateAdaptersLocked(mod, gone)
	names, current := mod.adapters.names(), mod.ready && f.mu.models[mod.name] == mod
	f.mu.Unlock()
	if current {
		f.server.SetAdapters(mod.name, names)
	}
}

// updateAdaptersLocked brings the model's adapters up to date, and has them looked at
// again when the grace of one ends.
func (f *fleet) updateAdaptersLocked(mod *servedModel, gone bool) {
	listed := map[string]bool{}
	for _, m := range f.mu.members {
		if m.model == mod {
			for _, name := range m.instance.Card.Adapters {
				listed[name] = true
			}
		}
	}
	now := time.Now()
	next := mod.adapters.update(listed, now, gone)
	mod.adapters.stop()
	if !next.IsZero() && !f.mu.ended {
		mod.adapters.timer = time.AfterFunc(next.Sub(now), func() { f.settleAdapters(mod, false) })
	}
}

// adaptersChanged is told that a worker in use lists other adapters than before.
func (f *fleet) adaptersChanged(m *member, mod *servedModel, names []string) {
	mod.routerOf(m).SetAdapters(m.id, m.epoch, names)
	f.settleAdapters(mod, false)
}

// localAdapters lists the adapters of the engines of this process.
func localAdapters(all []*hosted) []string {
	var names []string
	for _, h := range all {
		names = append(names, h.adaptersNow()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// adaptersNow lists the engine's adapters.
func (h *hosted) adaptersNow() []string {
	if h.adapters == nil {
		return h.card.Adapters
	}
	return h.adapters()
}

// followAdapters tells the router and the HTTP server when the engines of this
// process have other adapters than before, until ctx ends.
func (n *Node) followAdapters(ctx context.Context, s *frontend.Server, l *local) {
	all := l.all
	if !slices.ContainsFunc(all, func(h *hosted) bool { return h.adapters != nil }) {
		return
	}
	tick := time.NewTicker(adaptersEvery)
	defer tick.Stop()
	had := make([][]string, len(all))
	for i, h := range all {
		had[i] = h.card.Adapters
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, h := range all {
			if now := h.adaptersNow(); !slices.Equal(now, had[i]) {
				had[i] = now
				l.routerOf(h).SetAdapters(dynamo.WorkerID(i+1), 1, now)
			}
		}
		s.SetAdapters(all[0].card.Model, localAdapters(all))
	}
}
