package native

import (
	"math"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// task is a request on its way through the engine. Its caller's goroutine and the
// batch loop share mu and ready; everything else belongs to the loop once the task
// was submitted.
type task struct {
	r        *dynamo.Request
	query    query
	room     int // ids that may still be generated
	position int // absolute index of the next output id, resumed ones included
	id       sched.ID
	cached   int // prompt tokens found in the cache
	prompt   []dynamo.TokenLogprob
	reason   dynamo.FinishReason // why the answer ends with the id just drawn
	failure  error               // why it ends without one

	// ready holds a token when there may be something to take. Its one place makes
	// any number of signals one wake.
	ready chan struct{}
	mu    struct {
		sync.Mutex
		mail   mail
		spare  mail // what the reader had last; it is read until the next take
		opened bool // the first mail was posted
	}
}

// mail is what the loop has for the reader. It holds at most the request's
// MaxTokens ids: a slow reader finds them in one piece and holds up nobody.
type mail struct {
	tokens   []dynamo.TokenID
	logprobs []dynamo.TokenLogprob
	prompt   []dynamo.TokenLogprob
	cached   int
	finish   dynamo.FinishReason
	usage    dynamo.Usage
	ended    bool // nothing follows, and the loop holds nothing for the task
	err      error
}

func newTask(r *dynamo.Request, eos []dynamo.TokenID, room int) *task {
	t := &task{
		r: r, query: newQuery(r, eos), room: room, position: len(r.Resume),
		ready: make(chan struct{}, 1),
	}
	if r.Sampling.PromptLogprobs {
		t.prompt = append(t.prompt, dynamo.TokenLogprob{ID: r.Tokens[0], Logprob: float32(math.NaN())})
	}
	return t
}

// complete says whether, and why, the answer is complete before anything is
// computed.
func (t *task) complete() dynamo.FinishReason {
	n := len(t.r.Resume)
	switch {
	case n > 0 && t.query.ends(t.r.Resume[n-1], n-1):
		return dynamo.FinishStop
	case t.room == 0 && !t.r.Sampling.PromptLogprobs:
		return dynamo.FinishLength
	}
	return dynamo.FinishNone
}

// signal wakes the reader; it never blocks.
func (t *task) signal() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// post adds the id drawn for the next position to the mail. The reader is woken at
// the end of the step, when the mail may hold the end of the answer too.
func (t *task) post(id dynamo.TokenID, lp dynamo.TokenLogprob) {
	t.query.saw(id)
	t.position++
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.mail
	m.tokens = append(m.tokens, id)
	if t.r.Sampling.Logprobs {
		m.logprobs = append(m.logprobs, lp)
	}
	t.openLocked()
}

// openLocked adds what goes with the first chunk only.
func (t *task) openLocked() {
	if t.mu.opened {
		return
	}
	t.mu.opened = true
	t.mu.mail.cached, t.mu.mail.prompt = t.cached, t.prompt
}

// finish ends the task well. The loop holds nothing for it any more.
func (t *task) finish(reason dynamo.FinishReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.mail
	if m.ended {
		return
	}
	m.ended, m.finish = true, reason
	m.usage = dynamo.Usage{Prompt: len(t.r.Tokens), Cached: t.cached, Completion: t.position}
	t.openLocked()
	t.signal()
}

// fail ends the task with err. The loop holds nothing for it any more.
func (t *task) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := &t.mu.mail; !m.ended {
		m.ended, m.err = true, err
	}
	t.signal()
}

// ended reports whether the loop is done with the task.
func (t *task) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.mail.ended
}

// take moves what has come since the last call into chunk, whose slices are valid
// until the next one. Without anything the chunk is empty; the error comes after
// all ids.
func (t *task) take(chunk *dynamo.Chunk) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, s := &t.mu.mail, &t.mu.spare
	if m.err != nil && len(m.tokens) == 0 {
		return m.err
	}
	*chunk = dynamo.Chunk{Choice: t.r.Choice, Tokens: m.tokens, Logprobs: m.logprobs, PromptLogprobs: m.prompt, Cached: m.cached}
	if m.err == nil {
		chunk.Finish, chunk.Usage = m.finish, m.usage
	} else {
		t.signal() // the error is still to be taken
	}
	m.tokens, s.tokens = s.tokens[:0], m.tokens
	m.logprobs, s.logprobs = s.logprobs[:0], m.logprobs
	m.prompt, m.cached = nil, 0
	return nil
}
