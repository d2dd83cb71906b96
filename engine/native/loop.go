package native

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
)

// loop is the state of the batch loop. It belongs to Run's goroutine.
type loop struct {
	e       *Engine
	s       *sched.Scheduler
	sampler sampler
	live    map[sched.ID]*task
	lastID  sched.ID

	commands []command // the inbox taken, whose memory is swapped with it
	results  []sched.Result
	sampled  []*task
	shared   []sched.Entry // the entries that are computed together
	where    []int         // their indices in the batch
	raw      []float32     // a row as the model gave it
	failure  error         // why the batch was not computed

	stats Stats
	// Events of a scheduler made anew continue the numbers of the one before.
	eventBase, eventLast uint64
}

// Run is the batch loop. It returns nil after Drain, when all requests have ended,
// and the cause of ctx when that is done first; then it ends all requests with
// KindUnavailable. It is called once, and frees the KV cache in the end.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.mu.running {
		e.mu.Unlock()
		panic("BUG: native: Run is called twice")
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
	stopped := context.AfterFunc(ctx, e.signal)
	defer stopped()
	for {
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

// free gives the KV cache back.
func (e *Engine) free() {
	if err := e.forward.close(); err != nil {
		e.config.Logger.Error("free the KV cache", "err", err)
	}
}

func newLoop(e *Engine) (*loop, error) {
	l := &loop{e: e, live: map[sched.ID]*task{}, sampler: sampler{kernels: e.kernels}}
	var err error
	l.s, err = sched.New(e.config.scheduler(&e.card))
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
	}
	if l.s != nil {
		l.publish()
	}
	for _, c := range inbox {
		if !c.cancel {
			c.task.fail(err)
		}
	}
	for _, t := range l.live {
		t.fail(err)
	}
}

// wait returns when there may be something to do.
func (l *loop) wait() {
	at, ok := l.s.NextWake()
	if !ok {
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
	batch, actions := l.s.Next(time.Now())
	l.handle(actions)
	if batch == nil {
		l.publish()
		return false
	}
	l.results = slices.Grow(l.results[:0], len(batch.Entries))[:len(batch.Entries)]
	clear(l.results)
	l.sampled = l.sampled[:0]
	// Life 9: the batch is computed, and an id drawn for each sequence that is due.
	if l.failure = l.compute(batch); l.failure != nil {
		l.e.config.Logger.Error("step failed", obs.KeyError, l.failure, obs.KeyTokens, batch.Tokens)
		actions = l.s.Fail(time.Now())
	} else {
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

// takeIn submits and cancels what Generate asked for.
func (l *loop) takeIn(now time.Time) {
	l.e.mu.Lock()
	l.commands, l.e.mu.inbox = l.e.mu.inbox, l.commands[:0]
	l.e.mu.Unlock()
	for _, c := range l.commands {
		if c.cancel {
			if l.live[c.task.id] == c.task {
				l.handle(l.s.Cancel(c.task.id, now))
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

func (l *loop) submit(t *task, now time.Time) {
	l.lastID++
	t.id = l.lastID
	r := t.r
	err := l.s.Submit(sched.Request{
		ID: t.id, Ref: t, Prompt: r.Tokens, Resumed: r.Resume,
		MaxTokens: len(r.Resume) + max(t.room, 1), Priority: r.Priority, Deadline: r.Deadline,
		Root: r.Root, PromptLogits: r.Sampling.PromptLogprobs,
	}, now)
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
		t, _ := a.Ref.(*task)
		switch a.Kind {
		case sched.Admitted:
			// Life 8: sched has given the request its blocks, those of its prefix among them.
			if !a.Again {
				t.cached = a.Cached
				l.stats.PromptTokens += uint64(len(t.r.Tokens))
				l.stats.CachedTokens += uint64(a.Cached)
			}
		case sched.Preempted:
			l.e.config.Logger.Debug("preempted", obs.KeyRequest, t.r.ID)
		case sched.Ended:
			delete(l.live, a.ID)
			l.end(t, a.Reason)
		}
	}
}

func (l *loop) end(t *task, why sched.Reason) {
	switch why {
	case sched.ReasonFinished:
		if t.failure != nil {
			t.fail(t.failure)
			return
		}
		t.finish(t.reason)
	case sched.ReasonDeadline:
		t.fail(engine.DeadlineError(nil))
	case sched.ReasonFailed:
		t.fail(&dynamo.Error{Kind: dynamo.KindInternal, Message: "the model could not compute a step; see the server's log", Err: l.failure})
	default:
		t.fail(&dynamo.Error{Kind: dynamo.KindCancelled, Message: "the request was cancelled"})
	}
}

// compute computes the batch and draws the ids. The entries whose logits are
// wanted at every position go one by one and in pieces, so that few rows are held;
// the others go together.
func (l *loop) compute(b *sched.Batch) error {
	l.shared, l.where = l.shared[:0], l.where[:0]
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Logits != sched.LogitsAll {
			l.shared, l.where = append(l.shared, *e), append(l.where, i)
		} else if err := l.score(e, &l.results[i]); err != nil {
			return err
		}
	}
	if len(l.shared) == 0 {
		return nil
	}
	if err := l.e.forward.run(l.shared); err != nil {
		return err
	}
	row := 0
	for i := range l.shared {
		e := &l.shared[i]
		if e.Logits == sched.LogitsNone {
			continue
		}
		if e.Sample {
			l.results[l.where[i]] = l.sample(e, l.e.forward.row(row))
		}
		row++
	}
	return nil
}

// score computes an entry of a request for prompt logprobs.
func (l *loop) score(e *sched.Entry, result *sched.Result) error {
	t := e.Ref.(*task)
	for at := 0; at < len(e.Tokens); at += scoreTokens {
		piece := *e
		piece.Tokens = e.Tokens[at:min(at+scoreTokens, len(e.Tokens))]
		piece.Start += at
		if err := l.e.forward.run([]sched.Entry{piece}); err != nil {
			return err
		}
		for i := range piece.Tokens {
			// A preempted prompt comes again: what is there already is passed over.
			next, row := piece.Start+i+1, l.e.forward.row(i)
			if next < len(t.r.Tokens) && next == len(t.prompt) {
				t.prompt = append(t.prompt, l.sampler.logprob(row, t.r.Tokens[next], t.r.Sampling.TopLogprobs))
			}
			if e.Sample && at+i+1 == len(e.Tokens) {
				*result = l.sample(e, row)
			}
		}
	}
	return nil
}

// sample draws the next id of a sequence.
func (l *loop) sample(e *sched.Entry, row []float32) sched.Result {
	t := e.Ref.(*task)
	if t.position != e.Output {
		panic(fmt.Sprintf("BUG: native: output %d is due, the scheduler asks for %d", t.position, e.Output))
	}
	if t.room == 0 { // the prompt alone was of interest
		t.reason = dynamo.FinishLength
		return sched.Result{Finished: true}
	}
	p := &t.r.Sampling
	if p.Logprobs {
		l.raw = append(l.raw[:0], row...)
	}
	id, ok := l.sampler.pick(&t.query, row, t.position)
	if !ok {
		t.failure = &dynamo.Error{Kind: dynamo.KindInternal, Message: "the model's output has no usable number to choose a token by; its weights may be damaged"}
		return sched.Result{Finished: true}
	}
	lp := dynamo.TokenLogprob{Logprob: float32(math.NaN())}
	if p.Logprobs {
		lp = l.sampler.logprob(l.raw, id, p.TopLogprobs)
	}
	l.stats.OutputTokens++
	stop := t.query.ends(id, t.position)
	switch {
	case stop:
		t.reason = dynamo.FinishStop
	case e.Last:
		t.reason = dynamo.FinishLength
	}
	t.post(id, lp)
	l.sampled = append(l.sampled, t)
	return sched.Result{Token: id, Finished: stop}
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
		panic("BUG: native: a scheduler's own config is refused: " + err.Error())
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
		t.fail(failure)
	}
	// What was taken in with the step that broke is failed or submitted again.
	for _, c := range l.commands {
		if c.task != nil && !c.cancel && !c.task.ended() {
			c.task.fail(failure)
		}
	}
}
