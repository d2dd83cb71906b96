package loop

import (
	"fmt"
	"slices"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// Task is a request on its way through the engine. Its caller's goroutine and the
// batch loop share mu and ready; everything else belongs to the loop once the task
// was submitted.
type Task struct {
	// Request is what was asked; Stops are the ids that end the answer.
	Request *dynamo.Request
	Stops   []dynamo.TokenID
	// State is what Computer.Begin returned.
	State any
	// Position is the absolute index of the next output id, resumed ones included;
	// Room is the number of ids that may still be generated after Request.Resume.
	Position, Room int
	// Prompt are the log-probabilities of the prompt, where the computer gives any.
	Prompt []dynamo.TokenLogprob

	id      sched.ID
	cached  int                 // prompt tokens found in the cache
	reason  dynamo.FinishReason // why the answer ends with the id just drawn
	failure error               // why it ends without one
	keeps   bool                // its KV is kept when its id is drawn
	kept    bool                // it is: the scheduler knows a lease alone
	yielded bool                // it is, because the engine has given the request up
	loading bool                // KV is being brought into its blocks
	tiers   bool                // by Tiers, if it is, not by Transfers
	brought int                 // the ids that is for
	found   int                 // those of them that count as cached

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
	handover []byte
	finish   dynamo.FinishReason
	usage    dynamo.Usage
	ended    bool // nothing follows, and the loop holds nothing for the task
	err      error
}

func newTask(r *dynamo.Request, eos []dynamo.TokenID, room int) *Task {
	t := &Task{Request: r, Stops: r.StopTokens, Room: room, Position: len(r.Resume), ready: make(chan struct{}, 1)}
	if !r.IgnoreEOS {
		t.Stops = slices.Concat(r.StopTokens, eos)
	}
	return t
}

// Ends says whether id, at the output position, ends the answer.
func (t *Task) Ends(id dynamo.TokenID, position int) bool {
	return position+1 >= t.Request.MinTokens && slices.Contains(t.Stops, id)
}

// complete says whether, and why, the answer is complete before anything is
// computed.
func (t *Task) complete() dynamo.FinishReason {
	n := len(t.Request.Resume)
	switch {
	case n > 0 && t.Ends(t.Request.Resume[n-1], n-1):
		return dynamo.FinishStop
	case t.Room == 0 && !t.Request.Sampling.PromptLogprobs:
		return dynamo.FinishLength
	}
	return dynamo.FinishNone
}

// Post answers entry e, which is of t and has Sample set, by the id of its output.
// lp counts if the request asks for logprobs. The reader is woken at the end of the
// step, when the mail may hold the end of the answer too.
func (t *Task) Post(e *sched.Entry, id dynamo.TokenID, lp dynamo.TokenLogprob) sched.Result {
	if t.Position != e.Output {
		panic(fmt.Sprintf("BUG: loop: output %d is due, the scheduler asks for %d", t.Position, e.Output))
	}
	stop := t.Ends(id, t.Position)
	switch {
	case stop:
		t.reason = dynamo.FinishStop
	case e.Last:
		t.reason = dynamo.FinishLength
	}
	t.Position++
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.mail
	m.tokens = append(m.tokens, id)
	if t.Request.Sampling.Logprobs {
		m.logprobs = append(m.logprobs, lp)
	}
	t.openLocked()
	return sched.Result{Token: id, Finished: stop}
}

// Complete answers an entry of t where the prompt alone was of interest.
func (t *Task) Complete() sched.Result {
	t.reason = dynamo.FinishLength
	return sched.Result{Finished: true}
}

// Refuse answers an entry of t by the error that its request ends with.
func (t *Task) Refuse(err error) sched.Result {
	t.failure = err
	return sched.Result{Finished: true}
}

// signal wakes the reader; it never blocks.
func (t *Task) signal() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// openLocked adds what goes with the first chunk only.
func (t *Task) openLocked() {
	if t.mu.opened {
		return
	}
	t.mu.opened = true
	t.mu.mail.cached, t.mu.mail.prompt = t.cached, t.Prompt
}

// opened reports whether the first mail was posted.
func (t *Task) opened() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.opened
}

// handOver tells the reader where the task's KV is kept.
func (t *Task) handOver(where []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = true
	t.mu.mail.handover = where
	t.signal()
}

// leaseEnded ends a task whose KV is kept no longer.
func (t *Task) leaseEnded() {
	if t.yielded {
		t.fail(leaving())
		return
	}
	t.finish(dynamo.FinishLength)
}

// finish ends the task well. The loop holds nothing for it any more.
func (t *Task) finish(reason dynamo.FinishReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.mail
	if m.ended {
		return
	}
	m.ended, m.finish = true, reason
	m.usage = dynamo.Usage{Prompt: len(t.Request.Tokens), Cached: t.cached, Completion: t.Position}
	t.openLocked()
	t.signal()
}

// fail ends the task with err. The loop holds nothing for it any more.
func (t *Task) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := &t.mu.mail; !m.ended {
		m.ended, m.err = true, err
	}
	t.signal()
}

// ended reports whether the loop is done with the task.
func (t *Task) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.mail.ended
}

// take moves what has come since the last call into chunk, whose slices are valid
// until the next one. Without anything the chunk is empty; the error comes after
// all ids.
func (t *Task) take(chunk *dynamo.Chunk) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, s := &t.mu.mail, &t.mu.spare
	if m.err != nil && len(m.tokens) == 0 {
		return m.err
	}
	*chunk = dynamo.Chunk{Choice: t.Request.Choice, Tokens: m.tokens, Logprobs: m.logprobs, PromptLogprobs: m.prompt, Cached: m.cached, Handover: m.handover}
	if m.err == nil {
		chunk.Finish, chunk.Usage = m.finish, m.usage
	} else {
		t.signal() // the error is still to be taken
	}
	m.tokens, s.tokens = s.tokens[:0], m.tokens
	m.logprobs, s.logprobs = s.logprobs[:0], m.logprobs
	m.prompt, m.cached, m.handover = nil, 0, nil
	return nil
}
