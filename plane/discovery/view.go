package discovery

import (
	"cmp"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Key names an instance across its lives.
type Key struct {
	Path
	ID dynamo.WorkerID
}

// Key returns the key of i.
func (i *Instance) Key() Key { return Key{i.Path, i.ID} }

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Component, o.Component),
		cmp.Compare(k.Endpoint, o.Endpoint), cmp.Compare(k.ID, o.ID))
}

// Entry is what a store holds of an instance. Rev differs between any two
// contents of one key.
type Entry struct {
	Instance Instance
	Rev      uint64
}

// View is what a watch has told its caller so far. It turns the state of a store
// into updates; it belongs to one goroutine. The zero View is empty and has told
// nothing.
type View struct {
	told map[Key]Entry
}

// Len returns the number of instances.
func (v *View) Len() int { return len(v.told) }

// Has reports whether the caller was told of that life of k and not of its end.
func (v *View) Has(k Key, epoch uint64) bool {
	e, ok := v.told[k]
	return ok && e.Instance.Epoch == epoch
}

// Entries returns what the view holds, for reading only.
func (v *View) Entries() map[Key]Entry { return v.told }

// Snapshot takes over the state and returns the update that tells it.
func (v *View) Snapshot(state map[Key]Entry) Update {
	v.told = make(map[Key]Entry, len(state))
	all := make([]Entry, 0, len(state))
	for k, e := range state {
		v.told[k] = e
		all = append(all, e)
	}
	return Update{Kind: Snapshot, Instances: instancesOf(all)}
}

// Deltas takes over the state and returns what has changed: at most one Delete,
// then at most one Put. Another epoch of a key is in both.
func (v *View) Deltas(state map[Key]Entry) []Update {
	var gone, put []Entry
	for k, old := range v.told {
		e, ok := state[k]
		if !ok || e.Instance.Epoch != old.Instance.Epoch {
			gone = append(gone, old)
			delete(v.told, k)
		}
	}
	for k, e := range state {
		if old, ok := v.told[k]; !ok || old.Rev != e.Rev {
			put = append(put, e)
			v.told[k] = e
		}
	}
	var out []Update
	if len(gone) > 0 {
		out = append(out, Update{Kind: Delete, Instances: instancesOf(gone)})
	}
	if len(put) > 0 {
		out = append(out, Update{Kind: Put, Instances: instancesOf(put)})
	}
	return out
}

// instancesOf returns the instances in the order of their keys.
func instancesOf(entries []Entry) []Instance {
	slices.SortFunc(entries, func(a, b Entry) int { return a.Instance.Key().compare(b.Instance.Key()) })
	list := make([]Instance, len(entries))
	for n, e := range entries {
		list[n] = e.Instance
	}
	return list
}
