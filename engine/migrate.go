package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// MigrateConfig says when a request goes on at another worker.
type MigrateConfig struct {
	// Limit is how often one request may; 0 is never. Default 3.
	// (--migration-limit)
	Limit int
	// StallTimeout is how long a worker that has a request may yield nothing for it
	// before it counts as failed; it is found out at most a quarter later. 0 waits
	// for ever. Default 0. (--stall-timeout)
	StallTimeout time.Duration
	// Card is that of the engine below, or what several of them can do together (see
	// Union); its Model is the label of the metrics, and what it claims decides each
	// request's class (see RequestClass), as does what the one claims that began the
	// answer (see GoesOn).
	Card Card
	// Logger is told of each migration; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil does not.
	Metrics *MigrateMetrics
}

// DefaultMigrateConfig returns the defaults.
func DefaultMigrateConfig() MigrateConfig { return MigrateConfig{Limit: 3} }

// Validate reports all faults at once.
func (c MigrateConfig) Validate() error {
	var faults []error
	if c.Limit < 0 {
		faults = append(faults, fmt.Errorf("--migration-limit is %d; it must be 0 (never) or more", c.Limit))
	}
	if c.StallTimeout < 0 {
		faults = append(faults, fmt.Errorf("--stall-timeout is %v; it must be 0 (never) or more", c.StallTimeout))
	}
	return errors.Join(faults...)
}

// The classes of migration. In every class a request of whose answer nothing has
// come yet is asked again elsewhere: nobody can tell.
const (
	// ClassLive is a request's alone: a worker that leaves has kept its KV for the one that
	// goes on, which computes nothing again. It comes of ClassReplay.
	ClassLive = "live"
	// ClassReplay: the ids so far are prefilled elsewhere and the answer goes on.
	ClassReplay = "replay"
	// ClassReplayUnseeded is a card's alone: its requests replay but for those that
	// depend on a client's seed or on penalties of generated ids or whose answer is
	// restricted, which refuse.
	ClassReplayUnseeded = "replay-unseeded"
	// ClassRefuse: once something has come the worker's failure is the request's.
	ClassRefuse = "refuse"
)

// MigrationClass says how requests of an engine with card c survive its failure.
func MigrationClass(c *Card) string {
	switch {
	case !c.Resume || c.TextOnly:
		return ClassRefuse
	case c.ResumeSeeded:
		return ClassReplay
	}
	return ClassReplayUnseeded
}

// RequestClass is ClassReplay or ClassRefuse for r at an engine with card c. What
// is replayed goes on exactly when it is greedy, and otherwise with draws from the
// same distribution; that will not do for a client that gave a seed. An engine
// without ResumeSeeded takes resumed ids for prompt, where the penalties on
// generated ids do not see them, and where a restricted answer would begin anew.
// The repetition penalty sees both alike.
func RequestClass(c *Card, r *dynamo.Request) string {
	class := MigrationClass(c)
	if class != ClassReplayUnseeded {
		return class
	}
	s := &r.Sampling
	if s.Temperature > 0 && s.Seeded || s.PresencePenalty != 0 || s.FrequencyPenalty != 0 || r.Guided.Kind != "" {
		return ClassRefuse
	}
	return ClassReplay
}

// Migrate is an Engine that asks the next one again, for the rest of the answer,
// when a worker below has failed (see Lost). What its caller sees is one unbroken
// sequence: the ids that came are handed down as Resume and do not come again.
//
// It does so within the request's class, and among engines of several kinds where
// the answer may go on: see GoesOn, which the router below asks of each.
//
// A worker that leaves may say where the KV of a request is (dynamo.Chunk.Handover): then
// another is asked while the first one keeps it.
//
// Usage.Cached of an answer that went on elsewhere is what its first worker said on
// its first chunk: how much of the client's prompt was found. A worker that tells so
// at the end alone, and failed before, leaves it at 0; what the later ones found is
// the work of the earlier.
//
// It remembers the ids of each answer and nothing else, and it holds no goroutine.
// A chunk passes whole or not at all, so ids and their logprobs never part.
type Migrate struct {
	next   Engine
	config MigrateConfig
	class  string
	log    *slog.Logger
}

var _ Engine = (*Migrate)(nil)

// NewMigrate returns a Migrate in front of next.
func NewMigrate(next Engine, c MigrateConfig) (*Migrate, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Migrate{next: next, config: c, class: MigrationClass(&c.Card), log: obs.For(c.Logger, "engine")}
	if c.Metrics != nil {
		c.Metrics.limit.WithLabelValues(c.Card.Model).Set(float64(c.Limit))
	}
	return m, nil
}

// Class says which class of migration the engine below is in (see MigrationClass).
func (m *Migrate) Class() string { return m.class }

// Generate implements Engine.
func (m *Migrate) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		j := &journey{m: m, ctx: ctx, first: r, r: r, yield: yield, at: &m.config.Card, class: RequestClass(&m.config.Card, r)}
		if err := j.run(); err != nil {
			yield(dynamo.Chunk{}, err)
		}
	}
}

// placed takes in which worker has the request.
func (j *journey) placed(p *Place) {
	j.worker = p.Worker
	if p.Card != nil {
		j.at = p.Card
	}
	j.watch.pause(p.Worker == 0)
}

// Begun returns the card of the engine that the answer so far is from; nil if no
// part of it has come. It must be called where Placed is.
func Begun(ctx context.Context) *Card {
	if j, _ := ctx.Value(placedKey{}).(*journey); j != nil && j.spoke {
		return j.from
	}
	return nil
}

// journey is one request on its way over workers.
type journey struct {
	m     *Migrate
	ctx   context.Context // the caller's
	first *dynamo.Request // as the caller asked it
	r     *dynamo.Request // as it is asked at the moment
	yield func(dynamo.Chunk, error) bool
	class string // ClassReplay or ClassRefuse
	text  bool   // the answer comes as text, of which no ids are known

	ids     []dynamo.TokenID // first.Resume and what has come; nil until something has
	began   bool             // a chunk has been yielded
	spoke   bool             // and some of the answer with one
	elder   bool             // one of an earlier attempt has
	cached  int              // of the first one
	worker  dynamo.WorkerID  // that has it; 0 if nobody said
	at      *Card            // of that worker, or of the last one that had it
	from    *Card            // of the one that said the last part of the answer
	watch   *watch           // nil without StallTimeout
	tried   []string         // what became of the attempts that failed
	barren  int              // attempts in a row that brought nothing
	failed  time.Time        // when the last one failed; zero once a chunk has come since
	live    bool             // the KV went along when it went on elsewhere the last time
	ended   bool             // the chunk with Finish has been yielded
	stopped bool             // the caller wants no more
}

// run asks until the answer is complete or will not be; it returns the error that
// the caller has not been told of.
func (j *journey) run() error {
	l := j.begin()
	for {
		next, done, err := j.attempt(l)
		switch {
		case next != nil:
			l = next
			continue
		case done:
			j.count(migratedCompleted)
			return nil
		case j.stopped:
			j.count(migratedAbandoned)
			return nil
		}
		again, err := j.judge(err)
		if err != nil || !again {
			return err
		}
		if err := j.pauseBefore(); err != nil {
			j.count(migratedAbandoned)
			return err
		}
		j.resume()
		l = j.begin()
	}
}

// leg is one attempt.
type leg struct {
	ctx context.Context
	seq iter.Seq2[dynamo.Chunk, error]
	end func()
}

// begin asks the next engine.
func (j *journey) begin() *leg {
	l := &leg{ctx: context.WithValue(j.ctx, placedKey{}, j), end: func() {}}
	j.worker, j.elder = 0, j.began
	if j.m.config.StallTimeout > 0 {
		ctx, cancel := context.WithCancelCause(l.ctx)
		w := newWatch(j.m.config.StallTimeout, cancel)
		l.ctx, j.watch = ctx, w
		l.end = func() {
			w.stop()
			cancel(nil)
		}
	}
	l.seq = j.m.next.Generate(l.ctx, j.r)
	return l
}

// attempt takes what an engine says. done says that the sequence came to its end, which
// without an error it does only with Finish; next is the attempt that has taken this one
// over.
func (j *journey) attempt(l *leg) (next *leg, done bool, failure error) {
	defer l.end()
	brought := false
	for chunk, err := range l.seq {
		if err != nil {
			if !j.ended { // what happens to a worker after its answer is of no matter
				failure = j.cause(l.ctx, err)
			}
			break
		}
		where := j.leaves(&chunk)
		if !j.adapt(&chunk) && (where == nil || len(chunk.Tokens) > 0) {
			brought = true
			j.watch.pause(true)
			if !j.yield(chunk, nil) {
				j.stopped = !j.ended
				return nil, j.ended, nil
			}
			j.watch.pause(false)
		}
		if where != nil {
			next, failure = j.takeOver(where)
			break
		}
	}
	if brought || next != nil {
		j.barren = 0
	} else {
		j.barren++
	}
	return next, failure == nil && next == nil, failure
}

// leaves takes out of a chunk where the KV is of a request that its worker gives up.
func (j *journey) leaves(c *dynamo.Chunk) (where []byte) {
	if len(c.Handover) == 0 || c.Finish != dynamo.FinishNone || j.first.Prefill {
		return nil
	}
	where, c.Handover = slices.Clone(c.Handover), nil
	return where
}

// takeOver has another worker go on with the KV that the one which leaves keeps until its
// sequence ends: that worker has said something when takeOver returns. The error is why
// nobody can.
func (j *journey) takeOver(where []byte) (*leg, error) {
	left := &dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeDraining, Message: "the worker leaves"}
	if j.ctx.Err() != nil || j.overdue() || j.finish() != dynamo.FinishNone || len(j.tried) >= j.m.config.Limit || j.spoke && j.class == ClassRefuse {
		return nil, left
	}
	if mm := j.m.config.Metrics; mm != nil {
		mm.causes.WithLabelValues(causeLabels[CodeDraining]).Inc()
	}
	j.tried = append(j.tried, j.epitaph(CodeDraining))
	j.migrating(CodeDraining, left)
	j.watch.pause(true)
	j.resume()
	j.r.Handover, j.live = where, true
	l := j.begin()
	next, stop := iter.Pull2(l.seq)
	chunk, err, more := next()
	l.seq = func(yield func(dynamo.Chunk, error) bool) {
		defer stop()
		for ; more; chunk, err, more = next() {
			if !yield(chunk, err) {
				return
			}
		}
	}
	return l, nil
}

// cause tells a stall from the caller's own cancel: either ends the context that
// the engine sees.
func (j *journey) cause(ctx context.Context, err error) error {
	if _, lost := Lost(err); !lost && ctx.Err() != nil && j.ctx.Err() == nil {
		return ContextError(ctx)
	}
	return err
}

// adapt makes a chunk of one attempt a chunk of the whole and keeps its ids; it
// reports whether nothing is left of it.
func (j *journey) adapt(c *dynamo.Chunk) (empty bool) {
	if !j.failed.IsZero() {
		j.closeGap()
	}
	said := len(c.Tokens) > 0 || c.Text != ""
	if j.elder {
		c.Cached, c.PromptLogprobs = 0, nil
		if !said && c.Finish == dynamo.FinishNone {
			return true
		}
	} else if !j.began {
		j.began, j.cached = true, c.Cached
	}
	if c.Text != "" {
		j.text, j.class = true, ClassRefuse
	}
	if said {
		j.spoke, j.from = true, j.at
	}
	j.ended = c.Finish != dynamo.FinishNone
	if c.Finish != dynamo.FinishNone && j.elder {
		c.Usage.Cached = j.cached
	}
	if j.m.config.Limit > 0 && c.Finish == dynamo.FinishNone {
		j.keep(c.Tokens)
	}
	return false
}

func (j *journey) keep(ids []dynamo.TokenID) {
	if j.ids == nil {
		n := len(j.first.Resume)
		j.ids = append(make([]dynamo.TokenID, 0, n+max(len(ids), min(j.first.MaxTokens, keepFirst))), j.first.Resume...)
	}
	j.ids = append(j.ids, ids...)
}

func (j *journey) closeGap() {
	if mm := j.m.config.Metrics; mm != nil {
		mm.gap.Observe(time.Since(j.failed).Seconds())
	}
	j.failed = time.Time{}
}

// judge says whether the request goes on after a failed attempt, and with which
// error it ends if not.
func (j *journey) judge(failure error) (again bool, err error) {
	code, lost := Lost(failure)
	switch {
	case !lost:
		return false, j.end(failure)
	case j.ctx.Err() != nil:
		return false, j.end(ContextError(j.ctx))
	case j.overdue():
		return false, j.end(DeadlineError(failure))
	}
	if mm := j.m.config.Metrics; mm != nil {
		mm.causes.WithLabelValues(causeLabels[code]).Inc()
	}
	j.tried = append(j.tried, j.epitaph(code))
	if finish := j.finish(); finish != dynamo.FinishNone {
		j.synthesise(finish)
		return false, nil
	}
	if j.spoke && seeded(j.first) && !j.from.ResumeSeeded {
		j.class = ClassRefuse // whatever others can do: see GoesOn
	}
	if j.m.config.Limit == 0 || j.spoke && j.class == ClassRefuse {
		j.count(migratedRefused)
		return false, failure
	}
	if len(j.tried) > j.m.config.Limit {
		j.count(migratedLimit)
		return false, j.exhausted(failure)
	}
	j.migrating(code, failure)
	return true, nil
}

// end is the error of a request that ends by err, which says nothing of a worker.
func (j *journey) end(err error) error {
	if len(j.tried) == 0 {
		return err
	}
	switch dynamo.KindOf(err) {
	case dynamo.KindCancelled, dynamo.KindDeadline:
		j.count(migratedAbandoned)
		return err
	}
	j.count(migratedFailed)
	e := &dynamo.Error{Kind: dynamo.KindOf(err), Err: err}
	var inner *dynamo.Error
	if errors.As(err, &inner) {
		e.Param, e.Code, e.RetryAfter = inner.Param, inner.Code, inner.RetryAfter
	}
	e.Message = fmt.Sprintf("the answer could not go on after %d tokens (%s)", j.generated(), strings.Join(j.tried, "; "))
	return e
}

func (j *journey) exhausted(failure error) error {
	return &dynamo.Error{
		Kind: dynamo.KindUnavailable, Code: "migration_limit", RetryAfter: retryMin, Err: failure,
		Message: fmt.Sprintf("the answer could not be completed: %d workers were tried and each failed (%s); send the request again, or allow more with --migration-limit (%d)", len(j.tried), strings.Join(j.tried, "; "), j.m.config.Limit),
	}
}

// epitaph says what became of the attempt that failed.
func (j *journey) epitaph(code string) string {
	who := "a worker"
	if j.worker != 0 {
		who = "worker " + j.worker.String()
	}
	return fmt.Sprintf("%s %s after %d tokens", who, map[string]string{
		CodeLost: "was lost", CodeStalled: "stalled", CodeDraining: "left", CodeRefused: "refused",
	}[code], j.generated())
}

// generated is the number of ids the answer has, resumed ones included.
func (j *journey) generated() int { return max(len(j.ids), len(j.first.Resume)) }

func (j *journey) overdue() bool {
	return !j.first.Deadline.IsZero() && !time.Now().Before(j.first.Deadline)
}

// finish says by which reason the ids so far already complete the answer: the
// worker failed between the last of them and the word that it was the last.
func (j *journey) finish() dynamo.FinishReason {
	if !j.began || j.text || j.at.TextOnly || j.m.config.Limit == 0 {
		return dynamo.FinishNone
	}
	n := j.generated()
	if n > 0 && n == len(j.ids) && n >= j.first.MinTokens && j.stops(j.ids[n-1]) {
		return dynamo.FinishStop
	}
	limit := j.first.MaxTokens
	if c := j.at.ContextLength; c > 0 {
		limit = min(limit, c-len(j.first.Tokens))
	}
	if n >= limit {
		return dynamo.FinishLength
	}
	return dynamo.FinishNone
}

func (j *journey) stops(id dynamo.TokenID) bool {
	return slices.Contains(j.first.StopTokens, id) || !j.first.IgnoreEOS && slices.Contains(j.at.EOS, id)
}

// synthesise yields the chunk that the failed worker still owed.
func (j *journey) synthesise(finish dynamo.FinishReason) {
	c := dynamo.Chunk{Choice: j.first.Choice, Finish: finish, Usage: dynamo.Usage{Prompt: len(j.first.Tokens), Cached: j.cached, Completion: j.generated()}}
	j.count(migratedCompleted)
	j.yield(c, nil)
}

// migrating tells of a migration that begins.
func (j *journey) migrating(code string, failure error) {
	j.failed = time.Now()
	if mm := j.m.config.Metrics; mm != nil {
		kind := "new_request"
		if j.began {
			kind = "ongoing_request"
		}
		mm.migrations.WithLabelValues(j.m.config.Card.Model, kind).Inc()
	}
	attrs := []slog.Attr{
		slog.String(obs.KeyRequest, string(j.first.ID)), slog.String(obs.KeyModel, j.first.Model), slog.String("cause", causeLabels[code]),
		slog.Int(obs.KeyTokens, j.generated()), slog.Int("migrations", len(j.tried)), slog.Any(obs.KeyError, failure),
	}
	if j.worker != 0 {
		attrs = append(attrs, slog.String(obs.KeyWorker, j.worker.String()))
	}
	j.m.log.LogAttrs(j.ctx, slog.LevelInfo, "request migrates", attrs...)
}

// pauseBefore waits before an attempt that follows one that brought nothing, each
// time longer: what makes workers fail at once would use up the limit at once.
func (j *journey) pauseBefore() error {
	if j.barren < 2 {
		return nil
	}
	wait := min(migratePause<<min(j.barren-2, 10), migratePauseMax)
	if d := j.first.Deadline; !d.IsZero() {
		wait = min(wait, time.Until(d))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-j.ctx.Done():
		return ContextError(j.ctx)
	}
	if j.overdue() {
		return DeadlineError(nil)
	}
	return nil
}

// resume makes the request for the rest of the answer.
func (j *journey) resume() {
	r := *j.first
	if j.ids != nil {
		r.Resume = slices.Clip(j.ids)
	}
	if j.began {
		r.Sampling.PromptLogprobs = false
	}
	j.r, j.live = &r, false
}

// count counts the end of a request that a worker failed.
func (j *journey) count(outcome string) {
	if mm := j.m.config.Metrics; mm != nil && len(j.tried) > 0 {
		class := j.class
		if j.live {
			class = ClassLive
		}
		mm.requests.WithLabelValues(class, outcome).Inc()
	}
}

// watch ends an attempt that yields nothing for a whole timeout. What the token
// path does is count: every change of state is a step, and an odd number of steps
// means that nobody waits for the worker. A timer looks four times within the
// timeout whether there were steps.
type watch struct {
	steps atomic.Uint64
	mu    struct {
		sync.Mutex
		timer *time.Timer
		seen  uint64
		quiet int // looks since the last step
		over  bool
	}
	every  time.Duration
	cancel context.CancelCauseFunc
}

const looks = 4 // within the timeout

func newWatch(timeout time.Duration, cancel context.CancelCauseFunc) *watch {
	w := &watch{every: max(timeout/looks, 1), cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.timer = time.AfterFunc(w.every, w.look)
	return w
}

// pause says that the worker is not waited for, or is again; nil does nothing.
func (w *watch) pause(on bool) {
	if w != nil && (w.steps.Load()&1 == 1) != on {
		w.steps.Add(1)
	}
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.over = true
	w.mu.timer.Stop()
}

func (w *watch) look() {
	if w.stalled() {
		w.cancel(&dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeStalled, Message: fmt.Sprintf("the worker sent nothing for %v (--stall-timeout)", w.every*looks)})
	}
}

// stalled reports whether the attempt is to end, and looks again later if not.
func (w *watch) stalled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.over {
		return false
	}
	if n := w.steps.Load(); n != w.mu.seen || n&1 == 1 {
		w.mu.seen, w.mu.quiet = n, 0
	} else {
		w.mu.quiet++
	}
	if w.mu.quiet >= looks {
		w.mu.over = true
		return true
	}
	w.mu.timer.Reset(w.every)
	return false
}
