package router

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Worker is one life of a worker: its id, and an epoch that is higher the later
// its process began.
type Worker struct {
	ID    dynamo.WorkerID
	Epoch uint64
	// Engine reaches it.
	Engine engine.Engine
	Card   engine.Card
	// MaxRunning and MaxQueue are the requests it takes at once; a MaxRunning of 0
	// bounds nothing.
	MaxRunning, MaxQueue int
	// KVBlocks is the size of its KV cache, StepTokens the most tokens that it computes
	// in a step, and Ranks how many data-parallel ranks it has; 0 is unknown.
	KVBlocks, StepTokens, Ranks int
	Labels                      map[string]string
	// Silent says that it sends no KV events: what it holds is guessed from what it was
	// sent.
	Silent bool
}

// labels are those of a worker as placement has them.
func labels(m map[string]string) []string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return all
}

// member is a worker in the set. Its fields are guarded by Router.mu, but for
// Worker, which does not change; the adapters that it has by now are those of its
// candidate.
type member struct {
	Worker
	index        int // in list and candidates; -1 once it is taken out
	kind         int // in kinds
	up, draining bool
	ups          uint64 // how often it was said to be up
	booked       int
	load         engine.Load
	doubtSteps   uint64 // load.Steps when it stalled
	fault        string // its word of why it lost the last request; empty if it did not
	hits         hits
	ttft         pace
	estimate     *placement.Estimator
	ranks        atomic.Int32 // data-parallel ranks: as registered, or that have told of blocks
	rankNext     int
	rankBooked   []int     // requests booked at each of them
	prefilled    uint64    // prompts that have come to their first token
	tellsCached  bool      // with the first token it says how much of the prompt it held
	shared       time.Time // when its speed was last taken for that of others
	lending      int       // requests that it is asked to lend KV for
	lendsAgain   time.Time // it is not asked before
	link         placement.Link
}

func (m *member) key() placement.Key { return placement.Key{ID: m.ID, Epoch: m.Epoch} }

// tokens is what q may come to hold at the worker.
func (m *member) tokens(q *dynamo.Request) int {
	n := len(q.Tokens) + q.MaxTokens
	if limit := m.Card.ContextLength; limit > 0 {
		n = min(n, limit)
	}
	return n
}

// Add takes a worker in. It gets no request before SetUp says that it is up. A
// later life of a worker takes the place of the earlier one, whose requests in
// progress go on; an earlier one, or one of another model, is refused.
func (r *Router) Add(w Worker) error {
	if r.config.Model != "" && w.Card.Model != r.config.Model {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("worker %v serves model %q, not %q", w.ID, w.Card.Model, r.config.Model)}
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.mu.list {
		switch {
		case m.ID != w.ID:
		case m.Epoch == w.Epoch:
			return &dynamo.Error{Kind: dynamo.KindInternal, Message: fmt.Sprintf("BUG: worker %v with epoch %d is added twice", w.ID, w.Epoch)}
		case m.Epoch > w.Epoch:
			return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("worker %v with epoch %d is an earlier life of one that is known with epoch %d; it is not used", w.ID, w.Epoch, m.Epoch)}
		}
	}
	if i := slices.IndexFunc(r.mu.list, func(m *member) bool { return m.ID == w.ID }); i >= 0 {
		r.detachLocked(r.mu.list[i])
	}
	m := &member{Worker: w, index: len(r.mu.list), kind: r.mu.kinds.add(w.Card)}
	believed := r.believedLocked(m)
	m.estimate = placement.NewEstimator(believed)
	m.ranks.Store(int32(min(max(w.Ranks, 0), maxSources)))
	r.prefixes.add(m, r.config.Approximate || w.Silent)
	r.mu.members[m.key()] = m
	r.mu.list = append(r.mu.list, m)
	cand := placement.Candidate{
		Key: m.key(), Kind: m.kind, MaxRunning: w.MaxRunning, MaxQueue: w.MaxQueue, KVCapacity: max(w.KVBlocks*w.Card.BlockSize, 0), StepTokens: max(w.StepTokens, 0),
		Adapters: slices.Clone(w.Card.Adapters), Labels: labels(w.Labels),
	}
	_ = cand.SetModel(believed) // the zero model is refused: nothing is known
	r.mu.fleet.Add(cand)
	r.publishLocked()
	r.wakeLocked(now)
	return nil
}

// Remove takes a worker out; its requests in progress go on. One that is not
// known is no matter, here and below: a later life may have taken its place.
func (r *Router) Remove(id dynamo.WorkerID, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.mu.members[placement.Key{ID: id, Epoch: epoch}]; m != nil {
		r.detachLocked(m)
		r.publishLocked()
		r.missLocked(time.Now())
	}
}

// SetUp says whether a worker can be reached.
func (r *Router) SetUp(id dynamo.WorkerID, epoch uint64, up bool) {
	r.change(id, epoch, func(m *member, c *placement.Candidate, _ time.Time) {
		m.up = up
		if up {
			m.ups++
			m.fault = ""
			c.HeldUntil, c.Lost = time.Time{}, false
		}
	})
	r.log.Debug("worker reachable", slog.String(obs.KeyWorker, id.String()), slog.Bool("up", up))
}

// SetDraining says that a worker leaves: it gets nothing new.
func (r *Router) SetDraining(id dynamo.WorkerID, epoch uint64) {
	r.change(id, epoch, func(m *member, _ *placement.Candidate, _ time.Time) { m.draining = true })
}

// SetAdapters says which adapters a worker has by now; Add takes those of its card.
// Requests in progress go on.
func (r *Router) SetAdapters(id dynamo.WorkerID, epoch uint64, names []string) {
	names = slices.Clone(names)
	r.change(id, epoch, func(_ *member, c *placement.Candidate, _ time.Time) { c.Adapters = names })
}

// Report takes in what a worker says of its load.
func (r *Router) Report(id dynamo.WorkerID, epoch uint64, l engine.Load) {
	r.change(id, epoch, func(m *member, c *placement.Candidate, now time.Time) {
		if m.load.Down && !l.Down {
			m.fault = "" // the engine is back
		}
		m.load = l
		c.SetReport(placement.Report{
			At: now, Requests: l.Running + l.Waiting, Booked: c.Booked, MaxRunning: l.MaxRunning,
			Detailed: l.Detailed, PrefillTokens: l.PrefillTokens, PrefillBooked: c.PrefillTokens,
			KVTokens: l.KVUsed * m.Card.BlockSize, KVBooked: c.KVTokens,
		})
		if !c.Lost && (c.MaxRunning == 0 || c.Report.Requests < c.MaxRunning+c.MaxQueue) {
			c.HeldUntil = time.Time{}
		}
		if l.Steps > m.doubtSteps {
			c.DoubtedUntil = time.Time{}
		}
	})
}

// change applies f to a worker, under the lock, and lets those in that wait.
func (r *Router) change(id dynamo.WorkerID, epoch uint64, f func(*member, *placement.Candidate, time.Time)) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mu.members[placement.Key{ID: id, Epoch: epoch}]
	if m == nil {
		return
	}
	f(m, r.mu.fleet.Touch(m.index), now)
	r.stateLocked(m)
	r.missLocked(now)
	r.wakeLocked(now)
}

// stateLocked shows placement, and the metrics, the state that m is in.
func (r *Router) stateLocked(m *member) {
	state := placement.Down
	switch {
	case m.up && m.load.Down:
		// as if it were not connected
	case m.up && m.draining:
		state = placement.Draining
	case m.up:
		state = placement.Up
	}
	if r.mu.fleet.Candidates()[m.index].State != state {
		r.mu.fleet.Touch(m.index).State = state
		r.publishLocked()
	}
}

// detachLocked takes m out of the set; the last one takes its index.
func (r *Router) detachLocked(m *member) {
	last := len(r.mu.list) - 1
	r.mu.list[m.index] = r.mu.list[last]
	r.mu.list[m.index].index = m.index
	r.mu.list[last] = nil
	r.mu.list = r.mu.list[:last]
	r.mu.fleet.Remove(m.index)
	m.index = -1
	r.prefixes.drop(m)
	r.mu.kinds.drop(m.kind)
	delete(r.mu.members, m.key())
}

// publishLocked brings the metrics' count of workers up to date.
func (r *Router) publishLocked() {
	mm := r.config.Metrics
	if mm == nil {
		return
	}
	var states [len(r.mu.states)]int
	all := r.mu.fleet.Candidates()
	for i := range all {
		states[all[i].State]++
	}
	for i, n := range states {
		mm.workers[i].Add(float64(n - r.mu.states[i]))
	}
	r.mu.states = states
}
