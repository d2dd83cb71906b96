package trace

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"iter"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Reblock returns q with blocks of another size. Smaller blocks are numbered within
// theirs, larger ones made of several; sizes of which neither divides the other go
// by their greatest common divisor. Requests that shared a block share its tokens
// in every size; a larger block is shared where all its parts are.
func (q Request) Reblock(size int) Request {
	if size == q.BlockSize || len(q.Hashes) == 0 {
		q.BlockSize = size
		return q
	}
	if part := divisor(q.BlockSize, size); part != q.BlockSize {
		q = q.split(part)
	}
	return q.join(size)
}

func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// split makes smaller blocks of a size that divides.
func (q Request) split(size int) Request {
	hashes := make([]uint64, 0, (q.Input+size-1)/size)
	for i, h := range q.Hashes {
		for j := range (q.blockTokens(i) + size - 1) / size {
			hashes = append(hashes, mix(mix(h, saltSub), uint64(j)))
		}
	}
	own := q.own(saltSub)
	for j := len(hashes); j < q.Input/size; j++ { // full ones in a block that had no hash
		hashes = append(hashes, mix(own, uint64(j)))
	}
	q.Hashes, q.BlockSize = hashes, size
	return q
}

// join makes larger blocks of a size that is a multiple. The last may be partial,
// and is left out if its end is unknown.
func (q Request) join(size int) Request {
	if size == q.BlockSize {
		return q
	}
	per := size / q.BlockSize
	hashes := make([]uint64, 0, len(q.Hashes)/per+1)
	for i := 0; i < len(q.Hashes); i += per {
		end := min(i+per, len(q.Hashes))
		if end-i < per && end < q.Blocks() {
			break
		}
		h := saltGroup
		for _, part := range q.Hashes[i:end] {
			h = mix(h, part)
		}
		hashes = append(hashes, h)
	}
	q.Hashes, q.BlockSize = hashes, size
	return q
}

// Change says how a trace is changed on its way. The zero Change changes nothing.
type Change struct {
	// From and To cut the trace to the requests in between; To 0 is the end. The
	// first request's time becomes what it is after From.
	From, To time.Duration
	// Skip passes over the first requests, Requests ends after so many; 0 is all.
	Skip, Requests int
	// Rebase makes the first request come at 0.
	Rebase bool
	// Speedup divides all times; 0 is 1. Delays within sessions are of people and
	// tools, and stay.
	Speedup float64
	// BlockSize is the new size of blocks; 0 keeps them.
	BlockSize int
	// MaxInput leaves out longer requests; 0 none.
	MaxInput int
	// Anonymize replaces hashes and names.
	Anonymize *Anonymizer
	// Renumber gives hashes small numbers, as published traces have.
	Renumber bool
}

// Validate reports a fault.
func (c *Change) Validate() error {
	switch {
	case c.Speedup != 0 && !(c.Speedup > 0 && c.Speedup <= 1e6):
		return fmt.Errorf("--speedup is %v; it must be above 0 and at most a million", c.Speedup)
	case c.BlockSize < 0 || c.BlockSize > MaxTokens:
		return fmt.Errorf("--to-block-size is %d; it must be within 1 and %d", c.BlockSize, MaxTokens)
	case c.From < 0 || c.To < 0 || c.To > 0 && c.To <= c.From:
		return fmt.Errorf("--from is %v and --to %v; the end must come after the beginning", c.From, c.To)
	case c.Skip < 0 || c.Requests < 0 || c.MaxInput < 0:
		return fmt.Errorf("--skip is %d, --requests %d and --max-input %d; they must be 0 or more", c.Skip, c.Requests, c.MaxInput)
	}
	return nil
}

// Apply yields what a trace becomes.
func (c Change) Apply(all iter.Seq2[Request, error]) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if err := c.Validate(); err != nil {
			yield(Request{}, &dynamo.Error{Kind: dynamo.KindInvalid, Message: err.Error()})
			return
		}
		numbers := map[uint64]uint64{}
		var zero time.Duration
		seen, n := 0, 0
		for q, err := range all {
			if err != nil {
				yield(q, err)
				return
			}
			if c.To > 0 && q.At > c.To {
				continue // in an unsorted trace earlier ones may follow
			}
			if seen++; seen <= c.Skip || q.At < c.From || c.MaxInput > 0 && q.Input > c.MaxInput {
				continue
			}
			if n == 0 && c.Rebase {
				zero = q.At
			}
			q = c.one(q, max(zero, c.From), numbers)
			if n++; !yield(q, nil) || n == c.Requests {
				return
			}
		}
	}
}

// one changes a request.
func (c *Change) one(q Request, zero time.Duration, numbers map[uint64]uint64) Request {
	q.At = max(0, q.At-zero)
	if c.Speedup > 0 {
		q.At = seconds(q.At.Seconds() / c.Speedup)
	}
	if c.BlockSize > 0 {
		q = q.Reblock(c.BlockSize)
	}
	if c.Anonymize != nil {
		q = c.Anonymize.request(q)
	}
	if c.Renumber {
		q.Hashes = renumber(q.Hashes, numbers)
	}
	return q
}

// Renumber gives the hashes of a trace small numbers in the order in which they
// come, as published traces have; beyond maxNumbered distinct ones they stay as
// they are.
func renumber(hashes []uint64, numbers map[uint64]uint64) []uint64 {
	small := make([]uint64, len(hashes))
	for i, h := range hashes {
		n, known := numbers[h]
		switch {
		case known:
		case len(numbers) < maxNumbered:
			n = uint64(len(numbers))
			numbers[h] = n
		default:
			n = h | 1<<63 // apart from the small ones
		}
		small[i] = n
	}
	return small
}

// Anonymizer replaces what could be linked to another file: hashes, names of
// sessions and requests, models, and what became of requests. What prompts share,
// lengths and order stay.
type Anonymizer struct {
	mac    hash.Hash
	sum    []byte
	jitter float64
	seed   random
	last   time.Duration // of the original
	at     time.Duration // of the new trace
	begun  bool
}

// NewAnonymizer returns one that works under a secret key: files that are given the
// same key can be linked to one another, and without it no hash can be traced back.
// Each gap between requests is changed by at most the share jitter, 0 to 1. It is
// for one trace, read once, and not safe for concurrent use.
func NewAnonymizer(key []byte, jitter float64) (*Anonymizer, error) {
	if len(key) < 16 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the key has %d bytes; it needs 16 or more, at random", len(key))}
	}
	if !(jitter >= 0 && jitter <= 1) {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--jitter is %v; it must be within 0 and 1", jitter)}
	}
	a := &Anonymizer{mac: hmac.New(sha256.New, key), jitter: jitter}
	a.seed = newRandom(a.keyed("jitter", nil), saltJitter)
	return a, nil
}

// keyed is a keyed hash of something of a kind.
func (a *Anonymizer) keyed(kind string, b []byte) uint64 {
	a.mac.Reset()
	a.sum = append(append(a.sum[:0], byte(len(kind))), kind...)
	a.mac.Write(append(a.sum, b...)) // a hash takes everything
	a.sum = a.mac.Sum(a.sum[:0])
	return binary.LittleEndian.Uint64(a.sum)
}

func (a *Anonymizer) name(kind, s string) string {
	if s == "" {
		return ""
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, a.keyed(kind, []byte(s))))
}

func (a *Anonymizer) request(q Request) Request {
	made := Request{ // whatever else a request has is left behind
		At: a.time(q.At), Input: q.Input, Output: q.Output, BlockSize: q.BlockSize, Turn: q.Turn, Delay: q.Delay, Priority: q.Priority, Choices: q.Choices,
		Session: a.name("session", q.Session), ID: a.name("request", q.ID), Model: a.name("model", q.Model),
	}
	for _, w := range q.After {
		made.After = append(made.After, a.name("request", w))
	}
	var b [8]byte
	made.Hashes = make([]uint64, 0, len(q.Hashes))
	for _, h := range q.Hashes {
		binary.LittleEndian.PutUint64(b[:], h)
		made.Hashes = append(made.Hashes, a.keyed("block", b[:]))
	}
	return made
}

// time stretches the gap before a request.
func (a *Anonymizer) time(at time.Duration) time.Duration {
	if !a.begun {
		a.begun, a.last, a.at = true, at, at
		return at
	}
	gap := at - a.last
	a.last = at
	if gap > 0 && a.jitter > 0 {
		gap = seconds(gap.Seconds() * (1 + a.jitter*(2*a.seed.float()-1)))
	}
	a.at = max(0, a.at+gap)
	return a.at
}
