package frontend

import (
	"maps"
	"slices"
	"strings"

	"github.com/dynamo-go/dynamo/obs"
)

// adapters are the LoRA adapters of the served models by name. Server.mu guards them.
type adapters struct {
	models map[string]*served
	// hidden are the names that cannot be asked for, because a model has them, or
	// another model's adapter; who has them is the value.
	hidden map[string]string
}

// SetAdapters makes names the adapters of a served model, which AddModel takes from
// its card. A model that is not served is no matter: it has just gone.
func (s *Server) SetAdapters(model string, names []string) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	s.mu.Lock()
	sv := s.mu.models[model]
	if sv == nil || slices.Equal(sv.Card.Adapters, names) {
		s.mu.Unlock()
		return
	}
	// Requests in progress keep the one they began with.
	next, m := *sv, *sv.Model
	m.Card.Adapters = names
	next.Model = &m
	s.mu.models[model] = &next
	hidden := s.nameAdaptersLocked()
	s.mu.Unlock()
	s.log.Info("adapters of a model", obs.KeyModel, model, "adapters", len(names))
	s.warnHidden(hidden)
}

// nameAdaptersLocked settles, after the set of models or of their adapters has
// changed, what each adapter's name means: a model of that name goes first, then the
// first model, in the order of names, that has such an adapter. It returns those
// that have become hidden.
func (s *Server) nameAdaptersLocked() (fresh map[string]string) {
	was := s.mu.adapters.hidden
	now := adapters{models: map[string]*served{}, hidden: map[string]string{}}
	for _, model := range slices.Sorted(maps.Keys(s.mu.models)) {
		sv := s.mu.models[model]
		for _, name := range sv.Card.Adapters {
			by := ""
			if s.mu.models[name] != nil {
				by = "the model of that name"
			} else if other := now.models[name]; other != nil {
				by = "the adapter of model " + other.Card.Model
			}
			if by == "" {
				now.models[name] = sv
				continue
			}
			now.hidden[name] = by
			if was[name] != by {
				if fresh == nil {
					fresh = map[string]string{}
				}
				fresh[name] = by
			}
		}
	}
	s.mu.adapters = now
	return fresh
}

// warnHidden tells of adapters that cannot be asked for, once for each.
func (s *Server) warnHidden(hidden map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(hidden)) {
		s.log.Warn("an adapter cannot be asked for: its name means something else; give it another", "adapter", name, "means", hidden[name])
	}
}

// namesLocked lists what can be asked for: every model, and some of the adapters.
func (s *Server) namesLocked() string {
	list := "none at the moment"
	if names := slices.Sorted(maps.Keys(s.mu.models)); len(names) > 0 {
		list = strings.Join(names, ", ")
	}
	names := slices.Sorted(maps.Keys(s.mu.adapters.models))
	if len(names) == 0 {
		return list
	}
	rest := ""
	if len(names) > shownAdapters {
		names, rest = names[:shownAdapters], ", …"
	}
	return list + "; and the adapters: " + strings.Join(names, ", ") + rest
}
