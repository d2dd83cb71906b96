package vllm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Generate implements engine.Engine. A server tells how much of a prompt it had
// cached at the end of an answer only: Usage.Cached is that number, while
// Chunk.Cached is 0 unless the answer came in one chunk.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		a := &answer{e: e, r: r, yield: yield}
		if err := a.run(ctx); err != nil && !a.stopped {
			e.config.Metrics.failed(err)
			yield(dynamo.Chunk{}, err)
		}
	}
}

// answer is one request's progress.
type answer struct {
	e     *Engine
	d     *discovered
	r     *dynamo.Request
	yield func(dynamo.Chunk, error) bool

	room     int // ids that may still come
	came     int // ids that have
	last     dynamo.TokenID
	began    bool // a chunk has been yielded
	finish   dynamo.FinishReason
	usage    bool // the server has told its own
	cached   int
	stopped  bool // the caller wants no more
	held     int  // blocks that are counted for this request
	running  bool
	deferred []dynamo.TokenID      // of the chunk that waits for the end
	logprobs []dynamo.TokenLogprob // of it
	watch    *time.Timer           // ends a request whose server says nothing
	stall    time.Duration         // of the watch
	fetch    *time.Timer           // ends an attempt with KV from elsewhere that brings nothing; nil: none is under way
	keeps    bool                  // the server is to keep the KV of the prompt, and to answer no more
	cancel   context.CancelCauseFunc
}

func (a *answer) run(ctx context.Context) error {
	e, r := a.e, a.r
	if a.d = e.found.Load(); a.d == nil {
		return lost(nil, "the vLLM server is not ready yet")
	}
	if e.down.Load() {
		return lost(nil, "the vLLM server has ended and is not ready again")
	}
	if r.Guided.Kind != "" {
		if err := a.d.checkGuided(&r.Guided); err != nil {
			return err
		}
	}
	if err := engine.Accept(ctx, &a.d.card, r); err != nil {
		return err
	}
	if !r.Deadline.IsZero() {
		var end context.CancelFunc
		ctx, end = context.WithDeadlineCause(ctx, r.Deadline, engine.DeadlineError(nil))
		defer end()
	}
	a.room = engine.Room(&a.d.card, r)
	if a.finish = a.complete(); a.finish != dynamo.FinishNone {
		a.end()
		return nil
	}
	ctx, a.cancel = context.WithCancelCause(ctx)
	defer a.cancel(nil)
	a.stall = e.config.StallTimeout
	cancel, stall := a.cancel, a.stall
	a.watch = time.AfterFunc(stall, func() { cancel(stalled(stall)) })
	defer a.watch.Stop()
	e.tally.waiting.Add(1)
	a.hold()
	defer a.release()
	if a.keeps = r.Prefill && a.room > 1; a.keeps { // an answer of one id is complete with it
		a.room = 1
	}
	return a.ask(ctx)
}

// complete says how an answer ends of which nothing is left to ask.
func (a *answer) complete() dynamo.FinishReason {
	r := a.r
	if n := len(r.Resume); n > 0 && n >= r.MinTokens && a.stops(r.Resume[n-1]) {
		return dynamo.FinishStop
	}
	if a.room == 0 {
		return dynamo.FinishLength
	}
	return dynamo.FinishNone
}

func (a *answer) stops(id dynamo.TokenID) bool {
	return slices.Contains(a.r.StopTokens, id) || !a.r.IgnoreEOS && slices.Contains(a.d.card.EOS, id)
}

// post asks the server for an answer of a type; the one that it returns has begun well.
// body writes what is asked, with the request's priority or without.
func (a *answer) post(ctx context.Context, accept string, body func(priority bool) []byte) (*http.Response, error) {
	for {
		priority := !a.e.noPriority.Load()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.d.base+a.d.page(), bytes.NewReader(body(priority)))
		if err != nil {
			return nil, fmt.Errorf("ask the vLLM server: %w", err)
		}
		a.e.authorize(req)
		req.Header.Set("Content-Type", jsonPage)
		req.Header.Set("Accept", accept)
		if a.r.ID != "" && printable(string(a.r.ID)) {
			// Some versions refuse an id that is still in use, as that of a request which
			// has just moved may be.
			req.Header.Set("X-Request-Id", string(a.r.ID)+"-"+strconv.FormatUint(a.e.asked.Add(1), 36))
		}
		if g := a.r.Routing; g != nil && g.Rank != nil && a.e.Info().Ranks > 1 {
			req.Header.Set("X-data-parallel-rank", strconv.Itoa(*g.Rank))
		}
		if trace := obs.Trace(ctx); trace != "" {
			req.Header.Set("Traceparent", trace)
		}
		resp, err := a.e.client.Do(req)
		if err != nil {
			return nil, ended(ctx, err)
		}
		if resp.StatusCode == http.StatusOK {
			if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != accept {
				resp.Body.Close()
				return nil, corrupt("answered a request with %q, not with %s", resp.Header.Get("Content-Type"), accept)
			}
			return resp, nil
		}
		f := readFault(resp)
		if ctx.Err() != nil {
			return nil, engine.ContextError(ctx)
		}
		// Without --scheduling-policy priority some versions refuse what others pass
		// over.
		if f.status == http.StatusBadRequest && priority && a.r.Priority != 0 && strings.Contains(f.message, "priority") {
			a.e.noPriority.Store(true)
			a.e.log.Warn("the vLLM server refuses priorities, which are left out; start it with --scheduling-policy priority")
			continue
		}
		return nil, f.error(resp.Header.Get("Retry-After"))
	}
}

// printable reports whether s can stand in a header.
func printable(s string) bool {
	return len(s) <= maxExcerpt && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// readFault reads a page that is an error.
func readFault(resp *http.Response) *fault {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxFaultBytes))
	var f frame
	if err == nil && f.parse(b, 0) && f.fault != nil {
		f.fault.status = resp.StatusCode
		return f.fault
	}
	return &fault{status: resp.StatusCode, message: excerpt(b)}
}

// read yields the stream's chunks up to its end.
func (a *answer) read(ctx context.Context, resp *http.Response) error {
	lines := lineReader{r: bufio.NewReaderSize(resp.Body, readBuffer)}
	var f frame
	for {
		line, err := lines.next()
		switch {
		case ctx.Err() != nil:
			return engine.ContextError(ctx)
		case errors.Is(err, errLongLine):
			return corrupt("sent an event of more than %d bytes", maxFrame)
		case err != nil:
			return a.broken(ctx, err)
		}
		a.watch.Reset(a.stall)
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		switch {
		case len(line) == 0, line[0] == ':', bytes.HasPrefix(line, []byte("event:")), bytes.HasPrefix(line, []byte("id:")), bytes.HasPrefix(line, []byte("retry:")):
			continue
		case !ok:
			return corrupt("sent %q in a stream", excerpt(line))
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			return a.done(lines.r)
		}
		if !f.parse(data, a.r.Sampling.TopLogprobs) {
			return corrupt("sent %q in a stream", excerpt(data))
		}
		if more, err := a.take(ctx, &f); err != nil || !more {
			return err
		}
	}
}

// take deals with one event; false says that the caller wants no more.
func (a *answer) take(ctx context.Context, f *frame) (bool, error) {
	if more, err := a.settle(f); err != nil || !more {
		return true, err
	}
	if err := a.check(f); err != nil {
		return false, err
	}
	if a.finish != dynamo.FinishNone { // usage comes next, and belongs to the last chunk
		a.deferred, a.logprobs = append(a.deferred, f.ids...), keep(f.logprobs)
		return true, nil
	}
	a.began = true
	a.watch.Stop() // the caller's time is not the server's
	if !a.yield(dynamo.Chunk{Choice: a.r.Choice, Tokens: f.ids, Logprobs: f.logprobs}, nil) {
		a.stopped = true
		return false, nil
	}
	if ctx.Err() != nil {
		return false, engine.ContextError(ctx)
	}
	a.watch.Reset(a.stall)
	return true, nil
}

// settle deals with what an event says beside the answer; false says that it says nothing
// of that.
func (a *answer) settle(f *frame) (bool, error) {
	if f.fault != nil {
		if f.fault.status == 0 {
			f.fault.status = http.StatusInternalServerError
		}
		return false, f.fault.error("")
	}
	if f.usage {
		if came := a.came + len(f.ids); f.completion != came && a.e.miscounts.CompareAndSwap(false, true) {
			a.e.log.Warn("the vLLM server counts other ids than it sends; those that come are counted here", "counts", f.completion, "came", came)
		}
		if want := len(a.r.Tokens) + len(a.r.Resume); f.prompt != want || f.cached > want {
			return false, corrupt("counts a prompt of %d ids, %d of them cached; %d were sent", f.prompt, f.cached, want)
		}
		a.usage, a.cached = true, f.cached
	}
	return len(f.ids) > 0 || len(f.finish) > 0, nil
}

// keep copies logprobs out of a frame.
func keep(list []dynamo.TokenLogprob) []dynamo.TokenLogprob {
	list = slices.Clone(list)
	for i := range list {
		list[i].Top = slices.Clone(list[i].Top)
	}
	return list
}

// check counts an event's ids and finds out whether they are possible.
func (a *answer) check(f *frame) error {
	if a.finish != dynamo.FinishNone {
		return corrupt("went on after the end of an answer")
	}
	switch string(f.finish) {
	case "":
	case "stop":
		a.finish = dynamo.FinishStop
		if n := len(f.ids); f.stopped && f.stopID >= 0 && a.stops(dynamo.TokenID(f.stopID)) && (n == 0 || int64(f.ids[n-1]) != f.stopID) && !a.r.Sampling.Logprobs && a.came+n < a.room {
			f.ids = append(f.ids, dynamo.TokenID(f.stopID)) // some leave out the id that ends the answer
		}
	case "length":
		a.finish = dynamo.FinishLength
	case "error": // of the request alone
		return &dynamo.Error{Kind: dynamo.KindInternal, Message: "the vLLM server failed at the request; its log says more"}
	case "abort":
		return lost(nil, "the vLLM server ended the request on its own")
	default:
		return corrupt("ended an answer by %q", excerpt(f.finish))
	}
	for _, id := range f.ids {
		if int64(id) >= int64(a.d.card.VocabSize) {
			return corrupt("generated id %d; the tokenizer has %d: model and tokenizer do not belong together", id, a.d.card.VocabSize)
		}
	}
	if want := a.r.Sampling.Logprobs && !a.keeps; want && len(f.logprobs) != len(f.ids) || !want && len(f.logprobs) > 0 {
		return corrupt("sent %d logprobs for %d ids (asked for: %t)", len(f.logprobs), len(f.ids), want)
	}
	for i := range f.logprobs {
		if f.logprobs[i].ID != f.ids[i] {
			return corrupt("sent a logprob of id %d for id %d", f.logprobs[i].ID, f.ids[i])
		}
	}
	if n := len(f.ids); n > 0 {
		if a.fetch != nil {
			a.fetch.Stop()
		}
		a.last = f.ids[n-1]
		a.came += n
		a.progress()
	}
	if a.came > a.room {
		return corrupt("generated %d ids, %d were asked for", a.came, a.room)
	}
	return nil
}

// done ends an answer whose stream has come to its end. Versions that send no event
// without an id leave out the reason.
func (a *answer) done(r *bufio.Reader) error {
	if a.finish == dynamo.FinishNone {
		switch {
		case a.came > 0 && a.stops(a.last):
			a.finish = dynamo.FinishStop
		case a.came == a.room:
			a.finish = dynamo.FinishLength
		default:
			return lost(nil, "the vLLM server ended an answer after %d ids without saying why", a.came)
		}
	}
	a.end()
	// Only what is read to its end leaves its connection for the next request.
	a.watch.Reset(drainTimeout)
	for range maxDrain {
		if _, err := r.ReadByte(); err != nil {
			break
		}
	}
	return nil
}

// broken ends an answer whose connection has ended: whole, if its end has come.
func (a *answer) broken(ctx context.Context, err error) error {
	if a.finish == dynamo.FinishNone {
		return ended(ctx, err)
	}
	a.end()
	return nil
}

// end yields the last chunk.
func (a *answer) end() {
	prompt := len(a.r.Tokens)
	a.cached = min(a.cached, prompt)
	c := dynamo.Chunk{
		Choice: a.r.Choice, Tokens: a.deferred, Logprobs: a.logprobs, Finish: a.finish,
		Usage: dynamo.Usage{Prompt: prompt, Cached: a.cached, Completion: len(a.r.Resume) + a.came},
	}
	if !a.began {
		c.Cached = a.cached
	}
	a.yield(c, nil)
}

// progress counts what has come into the load.
func (a *answer) progress() {
	t := &a.e.tally
	t.steps.Add(1)
	if !a.running {
		a.running = true
		t.waiting.Add(-1)
		t.running.Add(1)
	}
	a.hold()
}

// hold counts the blocks that the request's ids fill.
func (a *answer) hold() {
	n := (len(a.r.Tokens) + len(a.r.Resume) + a.came + a.d.info.BlockSize - 1) / a.d.info.BlockSize
	if n != a.held {
		a.e.tally.held.Add(int64(n - a.held))
		a.held = n
	}
}

func (a *answer) release() {
	t := &a.e.tally
	t.held.Add(-int64(a.held))
	if a.running {
		t.running.Add(-1)
	} else {
		t.waiting.Add(-1)
	}
}

// errLongLine is a line of more than maxFrame bytes.
var errLongLine = errors.New("line too long")

// lineReader reads lines of any length up to maxFrame.
type lineReader struct {
	r    *bufio.Reader
	long []byte
}

// next returns a line without its end, valid until the next one.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) {
			if l.long = append(l.long, line...); len(l.long) > maxFrame {
				return nil, errLongLine
			}
			line, err = l.r.ReadSlice('\n')
		}
		l.long = append(l.long, line...)
		line = l.long
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
