package trace

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
)

// LikeOptions say how a trace is made after another.
type LikeOptions struct {
	// Seed makes one trace different from another.
	Seed uint64
	// Requests and Duration end the trace; both 0 takes as many requests as the
	// original has.
	Requests int
	Duration time.Duration
	// Speedup divides the times between sessions; 0 is 1.
	Speedup float64
	// Arrival replaces the original's own gaps; nil keeps them. Its rates are in
	// requests.
	Arrival *Arrival
}

// Model is what has been learned of a trace: its sessions, each with its times,
// lengths and blocks, the blocks that more than one session has, and the gaps
// between sessions.
type Model struct {
	sessions [][]Request
	shared   map[uint64]bool
	gaps     []time.Duration
	requests int
	span     time.Duration
	whole    bool
}

// Whole reports whether the whole original was learned from, and not only its
// beginning.
func (m *Model) Whole() bool { return m.whole }

// Requests is the number of requests learned from.
func (m *Model) Requests() int { return m.requests }

// Learn reads a trace. Requests without a session are sessions of their own.
func Learn(all iter.Seq2[Request, error]) (*Model, error) {
	m := &Model{shared: map[uint64]bool{}, whole: true}
	places := map[string]int{}
	hashes, last := 0, time.Duration(0)
	for q, err := range all {
		if err != nil {
			return nil, err
		}
		if hashes += len(q.Hashes); m.requests >= maxLiked || hashes > maxLikedHashes {
			m.whole = false
			break
		}
		m.requests++
		m.span = max(m.span, q.At)
		if i, known := places[q.Session]; known && q.Session != "" {
			m.sessions[i] = append(m.sessions[i], q)
			continue
		}
		if len(m.sessions) > 0 {
			m.gaps = append(m.gaps, max(0, q.At-last))
		}
		last = q.At
		places[q.Session] = len(m.sessions)
		m.sessions = append(m.sessions, []Request{q})
	}
	if m.requests == 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the trace to be like has no requests"}
	}
	m.share()
	return m, nil
}

// share finds the blocks that belong to more than one session.
func (m *Model) share() {
	owner := map[uint64]int{}
	for i, s := range m.sessions {
		for _, q := range s {
			for _, h := range q.Hashes {
				if o, known := owner[h]; !known {
					owner[h] = i
				} else if o != i {
					m.shared[h] = true
				}
			}
		}
	}
}

// Like yields a trace like the one learned from. Sessions are drawn from the
// original with their lengths, delays and the way they share blocks within; blocks
// that several sessions had in common are common again, and all others are new.
// After as many sessions as the original has, common blocks are new ones too, so
// that a longer trace meets new content at the original's pace.
func (m *Model) Like(o LikeOptions) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if o.Speedup == 0 {
			o.Speedup = 1
		}
		if o.Requests == 0 && o.Duration == 0 {
			o.Requests = m.requests
		}
		if err := o.validate(); err != nil {
			yield(Request{}, err)
			return
		}
		n := 0
		for q := range sortedSessions(m.drawn(o)) {
			if o.Duration > 0 && q.At > o.Duration {
				return
			}
			n++
			if !yield(q, nil) || n == o.Requests {
				return
			}
		}
	}
}

func (o *LikeOptions) validate() error {
	if !(o.Speedup > 0 && o.Speedup <= 1e6) || o.Requests < 0 || o.Requests > maxRequests || o.Duration < 0 {
		return fmt.Errorf("--speedup is %v, --requests %d and --duration %v; a speed is above 0 and at most a million, the others not negative", o.Speedup, o.Requests, o.Duration)
	}
	if o.Arrival != nil {
		return o.Arrival.Validate()
	}
	return nil
}

// drawn yields sessions in the order in which they begin.
func (m *Model) drawn(o LikeOptions) iter.Seq[[]Request] {
	return func(yield func([]Request) bool) {
		next, stop := iter.Pull(m.starts(o))
		defer stop()
		for i := uint64(0); ; i++ {
			at, more := next()
			if !more {
				return
			}
			r := newRandom(o.Seed, saltPick, i)
			original := m.sessions[r.below(len(m.sessions))]
			if !yield(m.copy(original, o, i, at)) {
				return
			}
		}
	}
}

// starts yields when sessions begin.
func (m *Model) starts(o LikeOptions) iter.Seq[time.Duration] {
	if o.Arrival != nil {
		a, per := *o.Arrival, float64(m.requests)/float64(len(m.sessions))
		a.Rate, a.To = a.Rate/per, a.To/per
		return a.Times(o.Seed)
	}
	return func(yield func(time.Duration) bool) {
		r := newRandom(o.Seed, saltGap)
		for at := 0.0; yield(seconds(at)); {
			if len(m.gaps) == 0 {
				return
			}
			at += m.gaps[r.below(len(m.gaps))].Seconds() / o.Speedup
			if at > maxMillis/1000 {
				return
			}
		}
	}
}

// copy makes session i of the new trace.
func (m *Model) copy(original []Request, o LikeOptions, i uint64, at time.Duration) []Request {
	epoch := mix(mix(o.Seed, saltEpoch), i/uint64(len(m.sessions)))
	own := mix(mix(o.Seed, saltUnique), i)
	made := make([]Request, len(original))
	for j := range original {
		q := original[j]
		q.At = at + q.At - original[0].At
		q.Hashes = slices.Clone(q.Hashes)
		for k, h := range q.Hashes {
			if m.shared[h] {
				q.Hashes[k] = mix(epoch, h)
			} else {
				q.Hashes[k] = mix(own, h)
			}
		}
		if q.Session != "" {
			q.Session = "s" + strconv.FormatUint(i, 10)
		}
		q.ID, q.After, q.Finish, q.FirstToken, q.Total = "", nil, "", 0, 0
		made[j] = q
	}
	return made
}

// sortedSessions merges sessions that come in the order of their beginnings into
// requests in the order of time.
func sortedSessions(all iter.Seq[[]Request]) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		var due eventsOf
		flush := func(until time.Duration) bool {
			for len(due) > 0 && due[0].rest[0].At <= until {
				q, _ := due.next()
				if !yield(q) {
					return false
				}
			}
			return true
		}
		n := 0
		for s := range all {
			if !flush(s[0].At) {
				return
			}
			n++
			due.add(s, n)
		}
		flush(1<<63 - 1)
	}
}
