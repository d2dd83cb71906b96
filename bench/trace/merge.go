package trace

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// stream is a sorted list of requests that is merged with others.
type stream struct {
	rest []Request
	n    int // breaks ties: the earlier stream first
	more func() (Request, bool)
}

// eventsOf is a heap of streams by their next request.
type eventsOf []*stream

func (e eventsOf) Len() int { return len(e) }
func (e eventsOf) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(e[i].rest[0].At, e[j].rest[0].At), cmp.Compare(e[i].n, e[j].n)) < 0
}
func (e eventsOf) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push implements heap.Interface.
func (e *eventsOf) Push(x any) { *e = append(*e, x.(*stream)) }

// Pop implements heap.Interface.
func (e *eventsOf) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// add begins a stream of at least one request.
func (e *eventsOf) add(requests []Request, n int) { heap.Push(e, &stream{rest: requests, n: n}) }

// next takes the earliest request.
func (e *eventsOf) next() (Request, bool) {
	if len(*e) == 0 {
		return Request{}, false
	}
	s := (*e)[0]
	q := s.rest[0]
	s.rest = s.rest[1:]
	if len(s.rest) == 0 && s.more != nil {
		if more, ok := s.more(); ok {
			s.rest = []Request{more}
		}
	}
	if len(s.rest) == 0 {
		heap.Pop(e)
	} else {
		heap.Fix(e, 0)
	}
	return q, true
}

// Run is where a sorted part of a trace waits to be merged: it is written once,
// rewound, and read once.
type Run interface {
	io.ReadWriteCloser
	// Rewind makes Read begin at the first byte.
	Rewind() error
}

// SortOptions say how to sort.
type SortOptions struct {
	// Bytes is how much to keep in memory; 0 is DefaultSortBytes.
	Bytes int
	// Spill makes a Run; nil fails when memory does not do.
	Spill func() (Run, error)
}

// Sort yields requests in the order of their times; those of one time stay in
// order. It reads everything before it yields anything: into memory up to a bound,
// beyond that into runs.
func Sort(all iter.Seq2[Request, error], o SortOptions) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if o.Bytes == 0 {
			o.Bytes = DefaultSortBytes
		}
		s := sorter{options: o}
		err := s.fill(all)
		if err == nil {
			err = s.drain(yield)
		}
		for _, r := range s.runs {
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			yield(Request{}, err)
		}
	}
}

type sorter struct {
	options SortOptions
	held    []Request
	bytes   int
	runs    []Run
}

// heldBytes estimates the memory of a request.
func heldBytes(q *Request) int {
	n := 256 + 8*len(q.Hashes) + len(q.Session) + len(q.ID) + len(q.Model)
	for _, w := range q.After {
		n += 16 + len(w)
	}
	return n
}

func (s *sorter) fill(all iter.Seq2[Request, error]) error {
	for q, err := range all {
		if err != nil {
			return err
		}
		s.held = append(s.held, q)
		if s.bytes += heldBytes(&q); s.bytes > s.options.Bytes {
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	s.sort()
	return nil
}

func (s *sorter) sort() {
	slices.SortStableFunc(s.held, func(a, b Request) int { return cmp.Compare(a.At, b.At) })
}

// spill writes what is held as a run.
func (s *sorter) spill() error {
	if s.options.Spill == nil || len(s.runs) == maxRuns {
		return &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("the trace is too large to be sorted: more than %d parts of %d bytes; cut it into pieces first", len(s.runs), s.options.Bytes)}
	}
	run, err := s.options.Spill()
	if err != nil {
		return fmt.Errorf("sort a trace: %w", err)
	}
	s.runs = append(s.runs, run)
	s.sort()
	w := Write(run)
	for i := range s.held {
		if err := w.Request(&s.held[i]); err != nil {
			return fmt.Errorf("sort a trace: %w", err)
		}
	}
	clear(s.held)
	s.held, s.bytes = s.held[:0], 0
	if err := errors.Join(w.Close(), run.Rewind()); err != nil {
		return fmt.Errorf("sort a trace: %w", err)
	}
	return nil
}

// drain merges the runs and what is held.
func (s *sorter) drain(yield func(Request, error) bool) error {
	var due eventsOf
	var failed error
	for i, run := range s.runs {
		next, stop := iter.Pull2(Read(run, Options{Format: FormatDynamo}))
		defer stop()
		more := func() (Request, bool) {
			q, err, ok := next()
			if ok && err != nil {
				failed = fmt.Errorf("sort a trace: %w", err)
			}
			return q, ok && err == nil
		}
		if q, ok := more(); ok {
			heap.Push(&due, &stream{rest: []Request{q}, n: i, more: more})
		}
	}
	if len(s.held) > 0 {
		due.add(s.held, len(s.runs))
	}
	for failed == nil {
		q, ok := due.next()
		if !ok || failed != nil {
			break
		}
		if !yield(q, nil) {
			return nil
		}
	}
	return failed
}
