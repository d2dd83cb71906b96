package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// loop is the state of the batch loop. It belongs to Run's goroutine.
type loop struct {
	e      *Engine
	ctx    context.Context // of Run: what a step is computed under
	s      *sched.Scheduler
	live   map[sched.ID]*Task
	lastID sched.ID

	// over are those that ended while their blocks are written to, or kept in vain.
	over []ending

	commands []command // the inbox taken, whose memory is swapped with it
	results  []sched.Result
	sampled  []*Task // those of the batch that an id is wanted for
	failure  error   // why the batch was not computed

	stats Stats
	// Events of a scheduler made anew continue the numbers of the one before.
	eventBase, eventLast uint64
}

// ending is a task that has ended, and why.
type ending struct {
	t   *Task
	why sched.Reason
}

// Run is the batch loop. It returns nil after Drain, when all requests have ended,
// and the cause of ctx when that is done first; then it ends all requests with
// KindUnavailable. It is called once, and closes the computer in the end.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.mu.running {
		e.mu.Unlock()
		panic("BUG: loop: Run is called twice")
	}
	e.mu.running = true
	e.mu.Unlock()
	defer close(e.done)
	defer e.free()
	l, err := newLoop(e)
	if err != nil {
		l = &loop{e: e}
		l.stop(err)
		return err
	}
	l.ctx = ctx
	stopped := context.AfterFunc(ctx, e.signal)
	defer stopped()
	for {
		if end, over := errors.AsType[*End](l.failure); over {
			l.stop(ended(end))
			return end.Err
		}
		if ctx.Err() != nil {
			l.stop(stopping())
			return context.Cause(ctx)
		}
		if l.drained() {
			return nil
		}
		if !l.turn() {
			l.wait()
		}
	}
}

// free lets go of what the computer holds.
func (e *Engine) free() {
	if err := e.config.Computer.Close(); err != nil {
		e.config.Logger.Error("free the KV cache", "err", err)
	}
}

func newLoop(e *Engine) (*loop, error) {
	l := &loop{e: e, live: map[sched.ID]*Task{}}
	var err error
	l.s, err = sched.New(e.config.Sched)
	return l, err
}

// drained reports whether the engine drains and nothing is left. New requests are
// refused once it has.
func (l *loop) drained() bool {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	if !l.e.mu.draining || len(l.e.mu.inbox)+len(l.live) > 0 {
		return false
	}
	l.e.mu.stopped = true
	return true
}

// stop ends everything with err.
func (l *loop) stop(err error) {
	l.e.mu.Lock()
	l.e.mu.stopped = true
	inbox := l.e.mu.inbox
	l.e.mu.inbox = nil
	l.e.mu.Unlock()
	for id := range l.live {
		l.s.Cancel(id, time.Now())
		l.s.EndLease(id, time.Now())
	}
	if l.s != nil {
		l.publish()
	}
	for _, c := range inbox {
		switch {
		case c.check != nil:
			c.check <- err
		case c.task != nil && !c.cancel:
			c.task.fail(err)
		}
	}
	for _, t := range l.live {
		t.fail(err)
	}
}

// wait returns when there may be something to do.
func (l *loop) wait() {
	if l.e.config.Idle != nil {
		l.e.config.Idle()
	}
	at, ok := l.nextWake()
	if !ok || l.stalled() {
		<-l.e.wake
		return
	}
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-l.e.wake:
	case <-timer.C:
	}
}

// nextWake is when there is something to do without any event.
func (l *loop) nextWake() (time.Time, bool) {
	at, ok := l.s.NextWake()
	if l.e.config.Transfers != nil {
		if next, any := l.e.config.Transfers.Next(); any && (!ok || next.Before(at)) {
			return next, true
		}
	}
	return at, ok
}

// stalled reports whether the engine is stuck.
func (l *loop) stalled() bool { return l.e.config.Stalled != nil && l.e.config.Stalled() }

// turn takes in what was asked and computes one batch. It reports false when there
// is none.
func (l *loop) turn() (worked bool) {
	defer func() {
		if v := recover(); v != nil {
			l.broken(v)
			worked = true
		}
	}()
	l.takeIn(time.Now())
	l.arrive(time.Now())
	if l.stalled() {
		return false
	}
	batch, actions := l.s.Next(time.Now())
	if batch != nil && l.e.config.Observe != nil {
		l.e.config.Observe(actions, batch)
	}
	l.handle(actions)
	if batch == nil {
		l.publish()
		return false
	}
	l.results = slices.Grow(l.results[:0], len(batch.Entries))[:len(batch.Entries)]
	clear(l.results)
	// Life 9: the batch is computed, and an id drawn for each sequence that is due.
	began := time.Now()
	l.failure = l.e.config.Computer.Compute(l.ctx, batch, l.results)
	l.settle(batch)
	if l.failure != nil {
		l.sampled = l.sampled[:0]
		actions = l.fail(batch)
	} else {
		l.count(batch)
		if l.e.config.Tiers != nil {
			l.e.config.Tiers.Computed(batch, time.Since(began))
		}
		actions = l.s.Done(l.results, time.Now())
	}
	l.handle(actions)
	for _, t := range l.sampled {
		t.signal()
	}
	l.publish()
	if len(l.sampled) > 0 {
		// The model's threads may take every CPU as soon as the next step begins. The
		// readers just woken go first; otherwise a token waits for the middle of a
		// step (measured with 2 threads on 2 CPUs: 0.3–0.9 ms in the median, not 0.02).
		runtime.Gosched()
	}
	return true
}

// count notes which sequences got an id.
func (l *loop) count(b *sched.Batch) {
	l.sampled = l.sampled[:0]
	for i := range b.Entries {
		if e := &b.Entries[i]; e.Sample {
			t := e.Ref.(*Task)
			l.sampled = append(l.sampled, t)
			if t.Position > e.Output {
				l.stats.OutputTokens++
			}
		}
	}
}

// fail ends the requests of a batch that was not computed.
func (l *loop) fail(b *sched.Batch) []sched.Action {
	if l.ctx.Err() == nil {
		l.e.config.Logger.Error("step failed", obs.KeyError, l.failure, obs.KeyTokens, b.Tokens)
	}
	return l.s.Fail(time.Now())
}

// takeIn submits and cancels what Generate asked for.
func (l *loop) takeIn(now time.Time) {
	l.e.mu.Lock()
	l.commands, l.e.mu.inbox = l.e.mu.inbox, l.commands[:0]
	l.e.mu.Unlock()
	for _, c := range l.commands {
		if c.check != nil {
			err := l.s.Check()
			if c.held != nil {
				*c.held = l.s.Held(nil)
			}
			c.check <- err
			continue
		}
		if c.yield {
			l.yield(now)
			continue
		}
		if c.cancel {
			if l.live[c.task.id] == c.task {
				l.cancel(c.task, now)
			}
			continue
		}
		l.submit(c.task, now)
	}
	if len(l.commands) > 0 {
		l.publish()
	}
	clear(l.commands)
}

// cancel ends what the loop holds for t.
func (l *loop) cancel(t *Task, now time.Time) {
	switch {
	case !t.kept:
		l.handle(l.s.Cancel(t.id, now))
	case l.e.config.Loans == nil:
		l.handle(l.s.EndLease(t.id, now))
	default:
		l.e.config.Loans.Recall(t)
		l.returned(now)
		if l.live[t.id] == t { // somebody reads them still, for whom the caller does not wait
			delete(l.live, t.id)
			t.leaseEnded()
		}
	}
}

// returned frees the blocks that nobody reads any more.
func (l *loop) returned(now time.Time) {
	for t := l.e.config.Loans.Returned(); t != nil; t = l.e.config.Loans.Returned() {
		l.handle(l.s.EndLease(t.id, now))
	}
}

// hold is how long the scheduler is to keep blocks for others.
func (l *loop) hold() time.Duration {
	if l.e.config.Loans != nil {
		return maxHold
	}
	return l.e.config.Lease
}

// yield gives up the requests whose answers can go on elsewhere with their KV.
func (l *loop) yield(now time.Time) {
	for id, t := range l.live {
		if t.kept || t.keeps || t.loading || t.Request.Sampling.PromptLogprobs && !t.opened() {
			continue
		}
		t.keeps, t.yielded = true, true
		actions := l.s.Yield(id, l.hold(), now)
		if len(actions) == 0 {
			t.keeps, t.yielded = false, false // there is no KV of it, and it goes on
		}
		l.handle(actions)
	}
}

// arrive takes note of the KV that was brought, or will not be.
func (l *loop) arrive(now time.Time) {
	if l.e.config.Transfers != nil {
		for t, ok := l.e.config.Transfers.Ended(now); t != nil; t, ok = l.e.config.Transfers.Ended(now) {
			l.arrived(t, ok, now)
		}
		for t := l.e.config.Transfers.Arriving(); t != nil; t = l.e.config.Transfers.Arriving() {
			l.arriving(t, now)
		}
	}
	if l.e.config.Loans != nil {
		l.returned(now)
	}
	if l.e.config.Tiers != nil {
		for t, ok := l.e.config.Tiers.Ended(); t != nil; t, ok = l.e.config.Tiers.Ended() {
			l.arrived(t, ok, now)
		}
		for t := l.e.config.Tiers.Arriving(); t != nil; t = l.e.config.Tiers.Arriving() {
			l.arriving(t, now)
		}
	}
}

// arriving takes note that t may be computed while its KV comes.
func (l *loop) arriving(t *Task, now time.Time) {
	l.found(t) // what draws its first id tells of it
	l.handle(l.s.KVArriving(t.id, now))
}

// arrived takes note that the KV of t was brought, or will not be.
func (l *loop) arrived(t *Task, ok bool, now time.Time) {
	t.loading = false
	if ok {
		l.found(t)
		l.handle(l.s.KVArrived(t.id, now))
	} else {
		l.unfound(t)
		l.handle(l.s.KVFailed(t.id, now))
	}
}

// settle takes note of the KV that came while a batch was computed with it.
func (l *loop) settle(b *sched.Batch) {
	asked := false
	for i := range b.Entries {
		if e := &b.Entries[i]; e.Ref.(*Task).loading {
			asked = true
			if e.Void && l.failure == nil {
				l.handle(l.s.KVLate(e.ID, time.Now()))
			}
		}
	}
	if !asked {
		return
	}
	l.arrive(time.Now())
	for i := range b.Entries {
		if t := b.Entries[i].Ref.(*Task); t.loading && !(b.Entries[i].Void && l.failure == nil) {
			if l.failure == nil {
				panic("BUG: loop: a batch is computed, and not all of its KV is there")
			}
			l.giveUp(t, time.Now())
			l.unfound(t)
			l.handle(l.s.KVFailed(t.id, time.Now()))
		}
	}
}

// found counts what was brought for t as found in the cache: it was computed before, here
// or for somebody else. Of a prompt that was computed for t alone, elsewhere, whoever did
// that says what was found.
func (l *loop) found(t *Task) {
	if t.opened() || t.found > 0 || t.Request.Lend || !t.tiers && len(t.Request.Resume) > 0 {
		return
	}
	t.found = max(min(t.brought, len(t.Request.Tokens)-t.cached), 0)
	t.cached += t.found
	l.stats.CachedTokens += uint64(t.found)
}

// unfound takes back what found has counted of t, for it has not come.
func (l *loop) unfound(t *Task) {
	t.cached -= t.found
	l.stats.CachedTokens -= uint64(t.found)
	t.found = 0
}

// begin has the KV of a Load brought.
func (l *loop) begin(t *Task, a *sched.Action) {
	t.loading, t.brought = true, a.Tokens
	if t.tiers {
		l.e.config.Tiers.Begin(t, a.Start, a.Tokens, a.Blocks)
	} else {
		l.e.config.Transfers.Begin(t, a, time.Now())
	}
}

// giveUp ends the bringing of KV for t: its blocks are written to no more.
func (l *loop) giveUp(t *Task, now time.Time) {
	t.loading = false
	if t.tiers {
		l.e.config.Tiers.Cancel(t)
	} else {
		l.e.config.Transfers.Cancel(t, now)
	}
}

func (l *loop) submit(t *Task, now time.Time) {
	l.lastID++
	t.id = l.lastID
	r := t.Request
	q := sched.Request{
		ID: t.id, Ref: t, Prompt: r.Tokens, Resumed: r.Resume,
		MaxTokens: len(r.Resume) + max(t.Room, 1), Priority: r.Priority, Deadline: r.Deadline,
		Root: r.Root, PromptLogits: r.Sampling.PromptLogprobs, Blocks: tokens.Known(r, l.e.config.Sched.BlockSize),
	}
	switch {
	case r.Prefill:
		q.MaxTokens = len(r.Resume) + 1
		if t.keeps = t.Room > 1; t.keeps {
			q.Hold = l.hold()
		}
	case len(r.Handover) > 0 && l.e.config.Transfers != nil:
		q.External = l.e.config.Transfers.External(t)
	}
	t.tiers = q.External == 0
	if r.Lend {
		l.lend(t, &q, now)
		return
	}
	err := l.s.Submit(q, now)
	if err != nil {
		t.fail(err)
		return
	}
	l.live[t.id] = t
}

// handle acts on what the scheduler decided. The counts are published before any
// request ends, so that whoever sees its end sees what it left.
func (l *loop) handle(actions []sched.Action) {
	if len(actions) == 0 {
		return
	}
	l.publish()
	for _, a := range actions {
		t, _ := a.Ref.(*Task)
		switch a.Kind {
		case sched.Admitted:
			// Life 8: sched has given the request its blocks, those of its prefix among them.
			if !a.Again {
				t.cached = a.Cached
				l.stats.PromptTokens += uint64(len(t.Request.Tokens))
				l.stats.CachedTokens += uint64(a.Cached)
			}
		case sched.Preempted:
			l.e.config.Logger.Debug("preempted", obs.KeyRequest, t.Request.ID)
		case sched.Load:
			l.begin(t, &a)
		case sched.Ended:
			switch {
			case t.loading:
				l.over = append(l.over, ending{t, a.Reason})
			case t.keeps && a.Reason == sched.ReasonFinished: // Leased follows
			default:
				delete(l.live, a.ID)
				l.end(t, a.Reason)
			}
		case sched.Leased:
			l.leased(t, &a)
		case sched.LeaseEnded:
			if t := l.live[a.ID]; t != nil {
				delete(l.live, a.ID)
				t.leaseEnded()
			}
		}
	}
	if len(l.over) > 0 {
		l.letGo(time.Now())
	}
}

// leased tells where the KV of t is kept, or lets go of it.
func (l *loop) leased(t *Task, kept *sched.Action) {
	if t.failure == nil && t.reason != dynamo.FinishStop {
		if where := l.e.config.Handover(t, kept); len(where) > 0 {
			t.handOver(where)
			return
		}
	}
	l.over = append(l.over, ending{t, sched.ReasonFinished})
}

// letGo frees what the scheduler holds for those that have ended, and then tells
// them.
func (l *loop) letGo(now time.Time) {
	for _, e := range l.over {
		delete(l.live, e.t.id)
		if e.t.loading {
			l.giveUp(e.t, now)
			l.s.KVFailed(e.t.id, now) // of one that has ended nothing follows
		} else {
			l.s.EndLease(e.t.id, now) // nor here: it is not live any more
		}
	}
	l.publish()
	for i, e := range l.over {
		l.end(e.t, e.why)
		l.over[i] = ending{}
	}
	l.over = l.over[:0]
}

func (l *loop) end(t *Task, why sched.Reason) {
	switch why {
	case sched.ReasonFinished:
		switch {
		case t.failure != nil:
			t.fail(t.failure)
		case t.yielded:
			t.fail(leaving())
		default:
			t.finish(t.reason)
		}
	case sched.ReasonFailed:
		if t.Request.Lend { // what was to be brought first has not come
			t.finish(t.reason)
			return
		}
		t.fail(l.unfinished())
	case sched.ReasonDeadline:
		t.fail(engine.DeadlineError(nil))
	default:
		t.fail(&dynamo.Error{Kind: dynamo.KindCancelled, Message: "the request was cancelled"})
	}
}

// unfinished is the error of requests whose step was not computed.
func (l *loop) unfinished() error {
	if end, over := errors.AsType[*End](l.failure); over {
		return ended(end)
	}
	if l.ctx.Err() != nil {
		return stopping()
	}
	return &dynamo.Error{Kind: dynamo.KindInternal, Message: "the model could not compute a step; see the server's log", Err: l.failure}
}

// ended is the error of requests whose engine is over.
func ended(e *End) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the engine has failed; send the request elsewhere", Err: e.Err}
}

// publish shows the counts and the KV events to the outside.
func (l *loop) publish() {
	l.stats.Scheduler = l.s.Stats()
	l.e.mu.Lock()
	l.e.mu.stats = l.stats
	l.e.mu.Unlock()
	if l.e.config.Events == nil {
		return
	}
	// Life 10: blocks that became full, or were given up, are told in order.
	if events := l.s.Events(); len(events) > 0 {
		for i := range events {
			events[i].Seq += l.eventBase
		}
		l.eventLast = events[len(events)-1].Seq
		l.e.config.Events(events)
	}
}

// broken goes on after a panic in a step: what was in progress fails, and the
// scheduler, whose state cannot be trusted, is made anew with an empty cache.
func (l *loop) broken(v any) {
	l.stats.Panics++
	l.e.config.Logger.Error("step panicked; all requests in progress fail", obs.KeyError, fmt.Sprintf("%v\n%s", v, debug.Stack()))
	s, err := sched.New(l.s.Config())
	if err != nil {
		panic("BUG: loop: a scheduler's own config is refused: " + err.Error())
	}
	l.s = s
	l.publish()
	if l.e.config.Events != nil {
		l.eventLast++
		l.eventBase = l.eventLast
		l.e.config.Events([]kvbm.Event{{Seq: l.eventLast, Kind: kvbm.Cleared}})
	}
	failure := &dynamo.Error{Kind: dynamo.KindInternal, Message: "the engine met a bug while it computed a step; see the server's log"}
	for id, t := range l.live {
		delete(l.live, id)
		if t.loading {
			l.giveUp(t, time.Now())
		}
		if t.kept && l.e.config.Loans != nil {
			l.e.config.Loans.Recall(t)
		}
		t.fail(failure)
	}
	l.over = l.over[:0]
	// What was taken in with the step that broke is failed or submitted again.
	for _, c := range l.commands {
		switch {
		case c.check != nil:
			select {
			case c.check <- failure:
			default: // it is answered
			}
		case c.task != nil && !c.cancel && !c.task.ended():
			c.task.fail(failure)
		}
	}
}
