package discovery

// Follower turns what a watch reads of its store, again and again, into the
// updates its caller sees: a snapshot, deltas, Stale once, Fresh and a snapshot
// again. It counts them and belongs to the watch's goroutine.
type Follower struct {
	view    View
	metrics *WatchMetrics
	begun   bool // a snapshot was told
	stale   bool
}

// NewFollower begins the following of a watch; m may be nil.
func NewFollower(m *Metrics) *Follower { return &Follower{metrics: m.Watch()} }

// View is what the caller was told.
func (f *Follower) View() *View { return &f.view }

// Stale reports whether the caller was told that the view is stale.
func (f *Follower) Stale() bool { return f.stale }

// Next returns the updates that lead from what was told to state; with unread
// there is none, and nothing but the view's staleness is told. The problems are
// those that were not told before.
func (f *Follower) Next(state map[Key]Entry, unread bool, problems []error) []Update {
	var out []Update
	switch {
	case unread && !f.stale:
		f.stale = true
		out = append(out, Update{Kind: Stale})
	case unread:
	case f.stale || !f.begun:
		if f.stale {
			out = append(out, Update{Kind: Fresh})
		}
		f.stale, f.begun = false, true
		out = append(out, f.view.Snapshot(state))
	default:
		out = f.view.Deltas(state)
	}
	if len(problems) > 0 {
		if len(out) == 0 {
			out = append(out, Update{Kind: Put})
		}
		out[len(out)-1].Problems = problems
	}
	f.metrics.Stale(f.stale)
	f.metrics.Instances(f.view.Len())
	f.metrics.Problems(len(problems))
	return out
}

// End takes the watch out of the metrics.
func (f *Follower) End() { f.metrics.End() }
