package placement

import (
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
)

// Key names one life of a worker.
type Key struct {
	ID    dynamo.WorkerID
	Epoch uint64
}

// State says whether a worker can be used.
type State uint8

// The states.
const (
	Down     State = iota // not connected
	Up                    // in use
	Draining              // leaves, and takes nothing new
)

var states = [...]string{Down: "down", Up: "up", Draining: "draining"}

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Role says which part of the work a worker does, or a request is.
type Role uint8

// The roles.
const (
	Whole   Role = iota // a worker that does both, a request that is both
	Prefill             // prompts
	Decode              // answers, to prompts computed elsewhere
)

var roles = [...]string{Whole: "whole", Prefill: "prefill", Decode: "decode"}

// String returns the role's name.
func (r Role) String() string {
	if int(r) < len(roles) {
		return roles[r]
	}
	return "role(" + strconv.Itoa(int(r)) + ")"
}

// takes reports whether a worker of the role takes requests of another.
func (r Role) takes(asked Role) bool { return r == Whole || r == asked }

// Candidate is what a decision knows of a worker, or of one data-parallel rank of
// it. It lives as long as the worker does and is changed in place: SetReport and
// SetModel take in what comes from outside and clamp or refuse what cannot be,
// Book and what follows it keep the load.
type Candidate struct {
	Key
	// Rank is the data-parallel rank; those of one worker are candidates each.
	Rank  int32
	State State
	// Role is what the worker does.
	Role Role
	// Lost says, while HeldUntil is ahead, that it lost a request.
	Lost bool
	// Kind numbers the workers' cards: those of one kind can do the same.
	Kind int
	// MaxRunning and MaxQueue are the requests it takes; MaxRunning 0 is unknown
	// and bounds nothing.
	MaxRunning, MaxQueue int
	// HeldUntil keeps the worker from winning before that time: it has refused, or
	// lost, a request a moment ago. Lost says which of them.
	HeldUntil time.Time
	// DoubtedUntil lets the worker win before that time only when no other may: it
	// has stalled on a request.
	DoubtedUntil time.Time
	// Turn is the number of the router's decision that it won last; 0 is never.
	Turn uint64

	// Booked and BookedTokens are the requests that the router has in progress at
	// it, exactly.
	Booked, BookedTokens int
	// Prefills are those of them that have not had their first token, with so many
	// prompt tokens between them that the worker did not hold, and PrefillPairs pairs
	// of such a token with one that it attends to.
	Prefills, PrefillTokens int
	PrefillPairs            float64
	// PrefillSince is since when the worker can be at work on the first of them.
	PrefillSince time.Time
	// KVTokens are those whose KV the requests past their first token hold.
	KVTokens int

	// Report is what it said of itself last.
	Report Report

	// Model is how long its steps take; the zero model is unknown.
	Model perfmodel.ClosedForm
	// Timed says that Model is made of prompts that were computed, and not of answers alone.
	Timed bool
	// StepTokens bounds the prompt tokens of a step, KVCapacity those that its KV
	// cache holds; 0 is unknown.
	StepTokens, KVCapacity int
	// Reuse is the part of its prompt tokens, in 0…1, that it has lately found in
	// its cache: the likelihood that what it holds is wanted again.
	Reuse float64
	// LoadSecondsPerToken is what it takes to bring a token's KV to the device from
	// host, disk and remote store; 0 is unknown: a quarter, three quarters and all
	// of what computing it takes.
	LoadSecondsPerToken [3]float64

	// Adapters are those it has, and Labels, as "key=value", say where it is; the
	// slices do not change.
	Adapters, Labels []string
}

// Report is a worker's own count of its requests, other routers' included.
type Report struct {
	// At is when it came; zero is never.
	At time.Time
	// Requests are those it ran or had waiting, and Booked is how many of them the
	// router had booked when the report came.
	Requests, Booked int
	// MaxRunning is what it says it runs at once; it stands in for the candidate's
	// own, and bounds nothing. 0 is unknown.
	MaxRunning int
	// Detailed says that what follows is known. PrefillTokens are those of prompts
	// that it had still to compute, and KVTokens those whose KV its requests held;
	// PrefillBooked and KVBooked are what the router had booked of each when the
	// report came.
	Detailed                     bool
	PrefillTokens, PrefillBooked int
	KVTokens, KVBooked           int
}

// SetReport takes in what a worker says. What cannot be is made the nearest thing
// that can: no count is negative, and none is absurdly large.
func (c *Candidate) SetReport(r Report) {
	r.Requests = clamp(r.Requests, 0, maxRequests)
	r.Booked = clamp(r.Booked, 0, maxRequests)
	r.MaxRunning = clamp(r.MaxRunning, 0, maxRequests)
	r.PrefillTokens = clamp(r.PrefillTokens, 0, maxTokens)
	r.PrefillBooked = clamp(r.PrefillBooked, 0, maxTokens)
	r.KVTokens = clamp(r.KVTokens, 0, maxTokens)
	r.KVBooked = clamp(r.KVBooked, 0, maxTokens)
	c.Report = r
}

// SetModel takes in a model, or refuses one that is not a number, negative or
// free; the candidate then keeps the one it has.
func (c *Candidate) SetModel(m perfmodel.ClosedForm) error {
	if err := m.Validate(); err != nil {
		return err
	}
	c.Model = m
	return nil
}

func clamp(n, least, most int) int { return min(max(n, least), most) }

// Booking is what one request adds to a candidate's load, from Book to Release.
// The zero Booking is one that has ended.
type Booking struct {
	// Tokens is what the request may come to hold, Prompt its prompt and New the part
	// of that which is to be computed, both 0 for one that is not known.
	Tokens, Prompt, New int
	pairs               float64
	kv                  int
	at                  time.Time // when it was booked
	stage               stage
}

type stage uint8

const (
	ended stage = iota
	prefilling
	decoding
)

// Book adds a request to the load. The booking is to be kept, and given back to
// Started, Grown and Release of the same candidate.
func (c *Candidate) Book(b *Booking, now time.Time) {
	if b.stage != ended {
		panic("BUG: a booking begins twice")
	}
	b.Tokens, b.Prompt = clamp(b.Tokens, 0, maxTokens), clamp(b.Prompt, 0, maxTokens)
	b.New = clamp(b.New, 0, b.Prompt)
	b.pairs = pairs(b.New, b.Prompt-b.New)
	b.stage, b.at = prefilling, now
	if c.Prefills == 0 {
		c.PrefillSince = now
	}
	c.Booked++
	c.BookedTokens += b.Tokens
	c.Prefills++
	c.PrefillTokens += b.New
	c.PrefillPairs += b.pairs
}

// Started says that the first token has come: the prompt is computed, and its KV
// held. It returns what can be learned from that, for Estimator.First.
func (c *Candidate) Started(b *Booking, now time.Time) Sample {
	if b.stage != prefilling {
		return Sample{}
	}
	// Prompts are computed one after another: this one since it was booked, or since
	// the one before it was done.
	since := b.at
	if c.PrefillSince.After(since) {
		since = c.PrefillSince
	}
	s := Sample{New: b.New, Pairs: b.pairs, Decodes: max(c.Booked-c.Prefills, 0), KVTokens: c.KVTokens, StepTokens: c.StepTokens, Took: now.Sub(since)}
	c.prefilled(b, now)
	b.stage, b.kv = decoding, b.Prompt
	c.KVTokens += b.kv
	return s
}

// Grown says that the answer has grown by n tokens.
func (c *Candidate) Grown(b *Booking, n int) {
	if b.stage == decoding {
		n = max(n, 0)
		b.kv += n
		c.KVTokens += n
	}
}

// Release takes the request off the load. One that has ended stays so.
func (c *Candidate) Release(b *Booking, now time.Time) {
	switch b.stage {
	case ended:
		return
	case prefilling:
		c.prefilled(b, now)
	case decoding:
		c.KVTokens -= b.kv
	}
	c.Booked--
	c.BookedTokens -= b.Tokens
	*b = Booking{}
}

// prefilled takes a prompt off what is pending.
func (c *Candidate) prefilled(b *Booking, now time.Time) {
	c.Prefills--
	c.PrefillTokens -= b.New
	c.PrefillPairs -= b.pairs
	c.PrefillSince = now
	if c.Prefills == 0 {
		c.PrefillPairs = 0 // what rounding has left
	}
}

// pairs counts those of a computed token with one that it attends to.
func pairs(computed, context int) float64 {
	n := float64(computed)
	return n * (float64(context) + n/2)
}
