package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/tokenizer"
)

// phase is the warm-up or the measured part of a run.
type phase struct {
	*runner
	cfg    *Config
	mode   string
	warm   bool
	offset int // of indices

	start    time.Time
	meter    *meter
	schedule *schedule
	jobs     chan *node
	wake     chan struct{} // a request became ready
	workers  sync.WaitGroup
	count    int   // workers
	blocked  int   // requests that waited for a connection
	err      error // of the plan or of Record

	// soft ends sending, hard ends what is open.
	soft     context.Context
	stopSoft context.CancelCauseFunc
	hard     context.Context
	stopHard context.CancelCauseFunc
}

// run runs the phase to its end.
func (p *phase) run(ctx context.Context) {
	p.hard, p.stopHard = context.WithCancelCause(ctx)
	p.soft, p.stopSoft = context.WithCancelCause(p.hard)
	defer p.stopHard(nil)
	p.start = time.Now()
	p.meter = newMeter(p.cfg, p.mode, p.start)
	p.schedule = newSchedule(p.cfg, p.mode, p.warm, p.offset)
	defer p.schedule.close()
	p.jobs, p.wake = make(chan *node), make(chan struct{}, 1)

	var side sync.WaitGroup
	stopSampling := make(chan struct{})
	side.Go(func() { p.sample(stopSampling) })
	var recordErr error
	if p.cfg.Record != nil && !p.warm {
		p.meter.records = make(chan *Record, maxRecordsWaiting)
		side.Go(func() { recordErr = p.record() })
	}
	planErr := p.feed()
	close(p.jobs)
	p.drain()
	close(stopSampling)
	if p.meter.records != nil {
		close(p.meter.records)
	}
	side.Wait()
	p.err = errors.Join(planErr, recordErr)
}

// drain waits for open requests, and cuts them after the grace.
func (p *phase) drain() {
	cut := time.AfterFunc(p.cfg.Grace, func() { p.stopHard(errors.New("the run had ended")) })
	if p.cfg.Duration == 0 && p.soft.Err() == nil {
		cut.Stop() // all requests were asked for; each has its own timeout
	}
	p.workers.Wait()
	cut.Stop()
}

// sample closes the series' entries and tells the progress, once a second.
func (p *phase) sample(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for at := 0; ; at++ {
		select {
		case <-tick.C:
		case <-stop:
			p.meter.second(at)
			p.tell(true)
			return
		}
		p.meter.second(at)
		p.tell(false)
	}
}

func (p *phase) tell(final bool) {
	if p.cfg.Progress != nil {
		p.cfg.Progress(p.meter.progress(p.warm, final))
	}
}

// record passes records on. After an error the rest is dropped and the run ends.
func (p *phase) record() error {
	var failed error
	for r := range p.meter.records {
		if failed != nil {
			continue
		}
		if failed = p.cfg.Record(r); failed != nil {
			p.stopHard(failed)
		}
	}
	return failed
}

// feed hands requests to the connections when they are due, until the plan or the
// phase ends.
func (p *phase) feed() error {
	if p.cfg.Duration > 0 {
		end := time.AfterFunc(p.cfg.Duration, func() { p.stopSoft(nil) })
		defer end.Stop()
	}
	limit := p.cfg.Requests
	if limit > 0 {
		limit += p.offset
	}
	if p.mode == modeClosed {
		p.startClosed()
	}
	for {
		if err := p.schedule.fill(limit); err != nil {
			p.stopHard(err)
			return err
		}
		due, ok, idle := p.schedule.peek()
		switch {
		case !ok && idle && p.schedule.ended:
			return nil
		case !ok:
			if !p.wait(-1) {
				return nil
			}
		case due-int64(lead) > p.now():
			if !p.wait(time.Duration(due - int64(lead) - p.now())) {
				return nil
			}
		default:
			if !p.hand(p.schedule.pop()) {
				return nil
			}
		}
	}
}

func (p *phase) now() int64 { return int64(time.Since(p.start)) }

// wait waits for a time, forever if it is negative, or until a request became
// ready. False is the end of sending.
func (p *phase) wait(d time.Duration) bool {
	var timer <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-p.wake:
	case <-p.soft.Done():
		return false
	}
	return true
}

// hand gives a request to a connection, a new one if all are busy and there may be
// more.
func (p *phase) hand(n *node) bool {
	if p.mode != modeClosed {
		select {
		case p.jobs <- n:
			return true
		default:
		}
		if p.count < p.cfg.Connections {
			p.count++
			p.workers.Go(func() { p.work(n) })
			return true
		}
		p.blocked++
	}
	select {
	case p.jobs <- n:
		return true
	case <-p.soft.Done():
		return false
	}
}

// startClosed starts the workers of a closed loop, each after its share of the
// ramp.
func (p *phase) startClosed() {
	for i := range p.cfg.Concurrency {
		wait := p.cfg.RampUp * time.Duration(i) / time.Duration(p.cfg.Concurrency)
		p.workers.Go(func() {
			if wait > 0 && !p.alarm.sleep(p.soft, wait) {
				return
			}
			p.work(nil)
		})
	}
}

// work sends requests over one connection until there are no more, beginning with
// first unless it is nil.
func (p *phase) work(first *node) {
	w := &worker{phase: p, conn: p.conn(p.start)}
	w.conn.onGaps, w.conn.tokens = p.meter.gaps, &p.meter.tokens
	defer p.release(w.conn)
	if first != nil {
		w.do(first)
	}
	for n := range p.jobs {
		w.do(n)
	}
}

// worker is one connection at work.
type worker struct {
	*phase
	conn *conn
	made made
	body [1][]byte
}

// do sends one request, reads its answer and counts it.
func (w *worker) do(n *node) {
	w.bodies.make(&w.made, &n.request)
	if w.mode != modeClosed {
		if d := n.due - w.now(); d > 0 && !w.alarm.sleep(w.soft, time.Duration(d)) {
			return // it was not sent
		}
	} else if w.soft.Err() != nil {
		return
	}
	o := &outcome{record: Record{Index: n.index - w.offset, Input: n.Input, Session: n.Session, Turn: n.Turn}}
	r := &o.record
	r.Sent = w.now()
	if r.Scheduled = n.due; w.mode == modeClosed {
		r.Scheduled = r.Sent
	}
	w.meter.sent(r.Sent - r.Scheduled)
	status, err := w.exchange(n)
	w.fill(o, status, err)
	failed := w.meter.finish(o)
	if m := w.cfg.MaxErrors; m > 0 && failed > m {
		w.stopSoft(errLimit)
	}
	if w.schedule.end(n, r.End) {
		select {
		case w.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// exchange sends a request and reads its answer into the connection's stream.
func (w *worker) exchange(n *node) (status int, err error) {
	c := w.conn
	c.reset(!w.cfg.Unary, w.cfg.Tokenizer != nil, n.limit)
	c.told = 0
	deadline := time.Now().Add(w.cfg.Timeout)
	if n.patien > 0 {
		deadline = time.Now().Add(time.Duration(n.patien * float64(w.cfg.CancelAfter)))
	}
	w.body[0] = w.made.body
	keep := false
	defer func() {
		if c.tell(); !keep || err != nil {
			c.close()
		}
	}()
	stop := func() bool { return true }
	if err := c.send(w.hard, w.body[:], deadline, &stop); err != nil {
		return 0, w.reason(n, err)
	}
	defer stop()
	h, err := c.readHead()
	if err != nil {
		return 0, w.reason(n, ioFailure(err, false))
	}
	if h.status != 200 {
		c.sse = false
	} else if !w.cfg.Unary && !h.sse {
		return h.status, fail(ClassNotSSE, "the answer to a streaming request is no event stream")
	}
	if keep, err = c.body(h); err != nil {
		return h.status, w.reason(n, ioFailure(err, true))
	}
	if h.status != 200 {
		c.end = c.now
		return h.status, failStatus(h.status, c.acc)
	}
	return h.status, c.finishStream(c.now)
}

// reason is why an exchange ended, where that was the client.
func (w *worker) reason(n *node, err error) error {
	switch {
	case w.hard.Err() != nil:
		return &failure{ClassCut, context.Cause(w.hard)}
	case n.patien > 0 && isTimeout(err):
		return errGaveUp
	}
	return err
}

// fill writes what came of an answer into its record.
func (w *worker) fill(o *outcome, status int, err error) {
	c, r := w.conn, &o.record
	r.Status, r.First, r.Second, r.Last, r.Chunks, r.Finish = status, c.first, c.second, c.last, c.chunks, c.finish
	r.Output, o.from = w.output()
	if c.usage {
		o.told, r.Cached = c.prompt, c.cached
	}
	if w.cfg.Tokenizer == nil && !w.cfg.PromptIDs && c.usage && c.prompt > 0 {
		r.Input = c.prompt // words are only about tokens
	}
	if w.cfg.Unary {
		r.First, r.Second, r.Last = 0, 0, 0
	}
	if r.End = c.end; err != nil {
		r.End = w.now()
	}
	if w.cfg.Gaps {
		r.Gaps = append([]int64(nil), c.gaps...)
	}
	w.meter.gaps(c.gaps)
	switch {
	case errors.Is(err, errGaveUp):
		r.Cancelled = true
	case err != nil:
		r.Error, r.Detail = classOf(err)
	}
}

// output is the answer's length in tokens, and where that comes from.
func (w *worker) output() (n, from int) {
	c := w.conn
	switch {
	case c.usage:
		return c.output, fromUsage
	case w.cfg.Tokenizer != nil && len(c.text) > 0 && !c.textFull:
		q := append(append([]byte{'"'}, c.text...), '"')
		if text, err := jsontext.AppendUnquote(nil, q); err == nil {
			return len(w.cfg.Tokenizer.Encode(nil, string(text), tokenizer.EncodeOptions{})), fromTokenizer
		}
	}
	return c.chunks, fromChunks
}
