package trace

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"time"
)

// Lengths is a log-normal distribution, given by its median and mean, and cut to
// bounds. A mean that is not above the median is no spread at all; one without a median
// is an error.
type Lengths struct {
	Median, Mean float64
	Min, Max     float64 // 0 is no maximum
}

// draw returns a length.
func (l Lengths) draw(r *random) float64 {
	x := l.Median
	if l.Mean > l.Median && l.Median > 0 {
		x *= math.Exp(math.Sqrt(2*math.Log(l.Mean/l.Median)) * r.normal())
	}
	if x = max(x, l.Min); l.Max > 0 {
		x = min(x, l.Max)
	}
	return x
}

// tokens returns a length in whole tokens.
func (l Lengths) tokens(r *random) int { return int(math.Round(min(l.draw(r), MaxTokens/4))) }

func (l Lengths) validate(what string) error {
	if !(l.Median >= 0 && l.Mean >= 0 && l.Min >= 0 && l.Max >= 0) || l.Max > 0 && l.Max < l.Min || l.Median > MaxTokens || l.Mean > MaxTokens || l.Median == 0 && l.Mean > 0 {
		return fmt.Errorf("%s: median %v, mean %v, bounds %v to %v make no distribution of lengths", what, l.Median, l.Mean, l.Min, l.Max)
	}
	return nil
}

// Tree is what the prompts of different sessions share: a way from one of the roots
// down, each node of which is a piece of prompt. Roots and children are chosen by
// Zipf's law. A tree of depth 1 is groups with a common prefix, such as system
// prompts or documents.
type Tree struct {
	// System is a piece that every prompt begins with, in tokens.
	System int
	// Share is the share of sessions that begin with a way through the tree.
	Share float64
	// Roots, Depth and Branching are the tree's; Depth 0 is no tree.
	Roots, Depth, Branching int
	// Zipf is the exponent; 0 chooses evenly.
	Zipf float64
	// Node is the length of a node's piece.
	Node Lengths
}

// Fork is the calling of sub-agents: with a chance after each turn but the last, some
// are started at once, with the tree's way and a task of their own, and the next
// turn waits for all of them.
type Fork struct {
	Chance float64
	Agents int     // started at once, at most
	Turns  float64 // of each, on average
}

// Synth says what to make.
type Synth struct {
	// Name is the preset's, and Source where its statistics come from.
	Name, Source string
	// Seed makes one trace different from another.
	Seed uint64
	// Requests and Duration end the trace; 0 is no bound, and one of them is needed.
	Requests int
	Duration time.Duration
	// BlockSize is that of the hashes, in tokens.
	BlockSize int
	// Arrival says when sessions begin. Its rates are in requests, of which a session
	// has several.
	Arrival Arrival
	// Tree is what sessions share.
	Tree Tree
	// Turns is how many requests a session has on average (geometric), and MaxTurns
	// how many at most.
	Turns    float64
	MaxTurns int
	// First, Follow and Output are the new tokens of a session's first prompt, those
	// of a later one, and those of answers. Later prompts hold all that was before.
	First, Follow, Output Lengths
	// Gap is the time from an answer to the next prompt in seconds: a person who
	// thinks, or a tool that works.
	Gap Lengths
	// Fork starts sub-agents.
	Fork Fork
	// MaxInput ends a session whose prompt would be longer; a first prompt is cut.
	MaxInput int
	// Pace is the time an answer is taken to need for each token; it places the
	// later turns.
	Pace time.Duration
}

// Validate reports all faults at once.
func (s *Synth) Validate() error {
	faults := []error{s.Arrival.Validate()}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if s.Requests < 0 || s.Duration < 0 || s.Requests == 0 && s.Duration == 0 {
		fault("--requests is %d and --duration %v; one of them must be above 0, to end the trace", s.Requests, s.Duration)
	}
	if s.Requests > maxRequests || float64(s.Duration/time.Millisecond) > maxMillis {
		fault("--requests is %d and --duration %v; the limits are %d and ten years", s.Requests, s.Duration, uint64(maxRequests))
	}
	if s.BlockSize < 1 || s.BlockSize > MaxTokens {
		fault("--block-size is %d; it must be 1 or more", s.BlockSize)
	}
	if t := s.Tree; t.System < 0 || t.System > MaxTokens/4 || !(t.Share >= 0 && t.Share <= 1) || t.Depth < 0 || t.Depth > 64 || !(t.Zipf >= 0 && t.Zipf <= 10) ||
		t.Depth > 0 && (t.Roots < 1 || t.Roots > maxTreeNodes || t.Branching < 1 || t.Branching > maxTreeNodes) {
		fault("the prefix tree (--system %d, --share %v, --roots %d, --depth %d, --branching %d, --zipf %v) is not possible: a share is within 0 and 1, a depth at most 64, an exponent at most 10, and there are 1 to %d roots and children", t.System, t.Share, t.Roots, t.Depth, t.Branching, t.Zipf, maxTreeNodes)
	}
	if !(s.Turns >= 1) || s.MaxTurns < 1 || s.MaxTurns > 1e6 {
		fault("--turns is %v and --max-turns %d; they must be 1 or more", s.Turns, s.MaxTurns)
	}
	if f := s.Fork; !(f.Chance >= 0 && f.Chance <= 1) || f.Chance > 0 && (f.Agents < 1 || f.Agents > maxWaits || !(f.Turns >= 1)) {
		fault("--fork is %v with --fork-agents %d and --fork-turns %v; a chance is within 0 and 1, and the others 1 or more", f.Chance, f.Agents, f.Turns)
	}
	if s.MaxInput < 1 || s.MaxInput > MaxTokens {
		fault("--max-input is %d; it must be within 1 and %d", s.MaxInput, MaxTokens)
	}
	if s.Pace < 0 {
		fault("--pace is %v; it must be 0 or more", s.Pace)
	}
	for _, l := range []struct {
		what string
		l    Lengths
	}{{"nodes", s.Tree.Node}, {"--first", s.First}, {"--follow", s.Follow}, {"--output", s.Output}, {"--gap", s.Gap}} {
		faults = append(faults, l.l.validate(l.what))
	}
	return errors.Join(faults...)
}

// segment is a piece of a prompt; equal ids are equal text.
type segment struct {
	id     uint64
	tokens int
}

// agent is a session, or a sub-agent, which is a session of its own.
type agent struct {
	name     string
	key      uint64
	random   random
	segments []segment
	shared   int // of segments, those of the tree
	input    int // tokens of segments
	turn     int
	turns    int // in all
	parent   *agent
	waiting  int      // sub-agents that have not ended
	after    []string // their last requests
	ready    time.Duration
}

// event is a request that is due.
type event struct {
	at    time.Duration
	seq   int
	agent *agent
	delay time.Duration
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(e[i].at, e[j].at), cmp.Compare(e[i].seq, e[j].seq)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// maker makes a trace.
type maker struct {
	s        *Synth
	roots    zipf
	children zipf
	due      events
	seq      int
	sessions uint64
	bare     bool // without hashes
}

// All yields the trace. The configuration must be valid, and not change meanwhile.
func (s *Synth) All() iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if err := s.Validate(); err != nil {
			yield(Request{}, err)
			return
		}
		a := s.Arrival
		per := s.perSession()
		a.Rate, a.To = a.Rate/per, a.To/per
		m := newMaker(s)
		n := 0
		err := m.run(a.Times(s.Seed), func(q Request) bool {
			if s.Duration > 0 && q.At > s.Duration {
				return false
			}
			n++
			return yield(q, nil) && n != s.Requests
		})
		if err != nil {
			yield(Request{}, err)
		}
	}
}

func newMaker(s *Synth) *maker {
	m := &maker{s: s}
	if s.Tree.Depth > 0 {
		m.roots, m.children = newZipf(s.Tree.Roots, s.Tree.Zipf), newZipf(s.Tree.Branching, s.Tree.Zipf)
	}
	return m
}

// perSession is how many requests a session has on average, sub-agents' included,
// found by making some.
func (s *Synth) perSession() float64 {
	const probe, most = 400, 400_000
	m := newMaker(s)
	m.bare = true
	starts := func(yield func(time.Duration) bool) {
		for range probe {
			if !yield(0) {
				return
			}
		}
	}
	n := 0
	_ = m.run(starts, func(Request) bool { n++; return n < most }) // so few fit
	return max(1, float64(n)/probe)
}

// run begins a session at each start and emits the requests of all in order of
// time.
func (m *maker) run(starts iter.Seq[time.Duration], emit func(Request) bool) error {
	next, stop := iter.Pull(starts)
	defer stop()
	start, more := next()
	for more || len(m.due) > 0 {
		for more && (len(m.due) == 0 || start <= m.due[0].at) {
			m.push(start, m.session(), 0)
			start, more = next()
		}
		if len(m.due) > maxOpen {
			return fmt.Errorf("more than %d sessions are open at once; make --gap or --rate smaller", maxOpen)
		}
		e := heap.Pop(&m.due).(event)
		q := m.request(&e)
		if !emit(q) {
			return nil
		}
		m.advance(&e, &q)
	}
	return nil
}

func (m *maker) push(at time.Duration, a *agent, delay time.Duration) {
	m.seq++
	heap.Push(&m.due, event{at, m.seq, a, delay})
}

// session begins a session.
func (m *maker) session() *agent {
	s := m.s
	a := &agent{name: "s" + strconv.FormatUint(m.sessions, 10), key: mix(mix(s.Seed, saltSynth), m.sessions)}
	m.sessions++
	a.random = newRandom(a.key)
	a.turns = min(a.random.geometric(s.Turns), s.MaxTurns)
	if s.Tree.System > 0 {
		a.add(mix(s.Seed, saltGroup), s.Tree.System)
	}
	if s.Tree.Depth > 0 && a.random.float() < s.Tree.Share {
		m.descend(a)
	}
	a.shared = len(a.segments)
	first := s.First.tokens(&a.random)
	if a.input+first > s.MaxInput {
		first = max(1, s.MaxInput-a.input)
	}
	a.say(max(first, 1))
	return a
}

// descend adds a way through the tree.
func (m *maker) descend(a *agent) {
	node := mix(mix(m.s.Seed, saltNode), uint64(m.roots.draw(&a.random)))
	for range m.s.Tree.Depth {
		r := newRandom(node)
		n := m.s.Tree.Node.tokens(&r)
		if a.input+n >= m.s.MaxInput {
			return
		}
		a.add(node, n)
		node = mix(node, uint64(m.children.draw(&a.random)))
	}
}

// add appends a piece to the agent's prompt.
func (a *agent) add(id uint64, tokens int) {
	if tokens > 0 {
		a.segments = append(a.segments, segment{id, tokens})
		a.input += tokens
	}
}

// say appends a piece that nobody else has.
func (a *agent) say(tokens int) { a.add(mix(mix(a.key, saltSegment), uint64(len(a.segments))), tokens) }

// request makes an agent's next request.
func (m *maker) request(e *event) Request {
	a := e.agent
	q := Request{At: e.at, Input: a.input, BlockSize: m.s.BlockSize, Turn: a.turn, Delay: e.delay, After: a.after}
	q.Output = max(1, m.s.Output.tokens(&a.random))
	if m.s.MaxTurns > 1 && m.s.Turns > 1 || a.parent != nil {
		q.Session = a.name
	}
	if m.s.Fork.Chance > 0 {
		q.ID = a.name + "." + strconv.Itoa(a.turn)
	}
	if !m.bare {
		q.Hashes = blockHashes(a.segments, a.input, m.s.BlockSize)
	}
	a.after = nil
	a.turn++
	return q
}

// advance plans what follows a request: the next turn, sub-agents before it, or
// the end.
func (m *maker) advance(e *event, q *Request) {
	a, s := e.agent, m.s
	end := e.at + time.Duration(q.Output)*s.Pace
	follow := max(1, s.Follow.tokens(&a.random))
	if a.turn >= a.turns || a.input+q.Output+follow > s.MaxInput {
		m.ended(a, q, end)
		return
	}
	a.say(q.Output)
	a.say(follow)
	if a.parent == nil && a.random.float() < s.Fork.Chance {
		a.waiting = 1 + a.random.below(s.Fork.Agents)
		a.ready = end
		for i := range a.waiting {
			m.push(end, m.fork(a, i, q), 0)
		}
		return
	}
	delay := seconds(s.Gap.draw(&a.random))
	m.push(end+delay, a, delay)
}

// fork makes sub-agent i of a, which a turn of a has asked for.
func (m *maker) fork(a *agent, i int, q *Request) *agent {
	c := &agent{name: a.name + "." + strconv.Itoa(a.turn-1) + "-" + strconv.Itoa(i), key: mix(mix(a.key, uint64(a.turn)), uint64(i)), parent: a, after: []string{q.ID}}
	c.random = newRandom(c.key)
	c.turns = min(c.random.geometric(m.s.Fork.Turns), m.s.MaxTurns)
	c.segments = slices.Clone(a.segments[:a.shared])
	for _, g := range c.segments {
		c.input += g.tokens
	}
	c.say(max(1, min(m.s.Follow.tokens(&c.random), m.s.MaxInput-c.input)))
	return c
}

// ended tells the parent of a sub-agent's end.
func (m *maker) ended(a *agent, q *Request, end time.Duration) {
	p := a.parent
	if p == nil {
		return
	}
	p.after = append(p.after, q.ID)
	p.ready = max(p.ready, end)
	if p.waiting--; p.waiting == 0 {
		delay := seconds(m.s.Gap.draw(&p.random))
		m.push(p.ready+delay, p, delay)
	}
}

// blockHashes returns the hashes of the blocks of a prompt, the last of which may
// be partial. A hash stands for the pieces that its block and all before it hold.
func blockHashes(segments []segment, tokens, blockSize int) []uint64 {
	hashes := make([]uint64, 0, (tokens+blockSize-1)/blockSize)
	h := saltBlock
	left := blockSize // of the current block
	for _, g := range segments {
		for offset := 0; offset < g.tokens; {
			n := min(left, g.tokens-offset)
			h = mix(mix(h, g.id), uint64(offset)<<32|uint64(n))
			offset += n
			if left -= n; left == 0 {
				hashes = append(hashes, h)
				left = blockSize
			}
		}
	}
	if left < blockSize {
		hashes = append(hashes, h)
	}
	return hashes
}
