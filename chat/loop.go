package chat

import "unsafe"

// loop is the variable loop.
type loop struct {
	stmt  *forStmt
	src   source
	up    *activation // where a recursive loop was defined
	index int         // from 0
	depth int         // of recursion, from 0

	size           int // -1: not known yet
	prev, cur      Value
	peeked         Value
	hasPeeked, end bool
	changed        Value // the arguments of the last changed(), a tuple
}

// source yields the elements a for loop runs over.
type source struct {
	stmt *forStmt
	c    cursor
	// rest is what is left once the length of an iterator has been asked for.
	rest    []Value
	drained bool
	started bool
}

func (s *source) next(r *run) (Value, bool, error) {
	if s.drained {
		if len(s.rest) == 0 {
			return Value{}, false, nil
		}
		v := s.rest[0]
		s.rest = s.rest[1:]
		return v, true, nil
	}
	if s.stmt.cond == nil {
		return s.c.next(r)
	}
	if !s.started {
		s.started = true
		r.load(s.stmt.scope.test)
	}
	for {
		v, ok, err := s.c.next(r)
		if err != nil || !ok {
			return v, ok, err
		}
		if err := r.assign(s.stmt.scope.target, v); err != nil {
			return v, false, err
		}
		yes, err := r.holds(s.stmt.cond)
		if err != nil {
			return v, false, err
		}
		if yes {
			return v, true, nil
		}
		if err := r.step(s.stmt.scope.weight); err != nil {
			return v, false, err
		}
	}
}

func (s *forStmt) exec(r *run) (flow, error) {
	v, err := s.in.eval(r)
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	if !s.recursive {
		return s.over(r, v, 0)
	}
	return flowNext, s.recurse(r, v, r.f, 0)
}

// recurse runs a recursive loop, which is a function of its own.
func (s *forStmt) recurse(r *run, v Value, up *activation, depth int) error {
	if err := r.enter(); err != nil {
		return err
	}
	back := r.begin(s.scope.fn, up)
	_, err := s.over(r, v, depth)
	r.end(back)
	r.leave()
	return err
}

// over runs the loop over v.
func (s *forStmt) over(r *run, v Value, depth int) (flow, error) {
	c, err := r.cursor(v)
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	src := source{stmt: s, c: c}
	var completed bool
	if s.scope.loop >= 0 {
		completed, err = s.extended(r, src, depth)
	} else {
		completed, err = s.plain(r, &src)
	}
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	if s.other != nil && !completed {
		r.load(s.scope.other)
		return r.body(s.other)
	}
	return flowNext, nil
}

// plain runs a loop that does not look at its variable loop. As in jinja2, the
// else branch runs unless a pass came to its end.
func (s *forStmt) plain(r *run, src *source) (completed bool, err error) {
	for {
		item, ok, err := src.next(r)
		if err != nil || !ok {
			return completed, err
		}
		how, err := s.pass(r, item)
		if err != nil || how == flowBreak {
			return completed, err
		}
		completed = completed || how == flowNext
	}
}

func (s *forStmt) extended(r *run, src source, depth int) (completed bool, err error) {
	l := &loop{stmt: s, src: src, index: -1, depth: depth, size: -1, up: r.f.up}
	if n, ok := src.c.length(); ok && s.cond == nil {
		l.size = n
	}
	r.f.slots[s.scope.loop] = Value{k: kLoop, p: unsafe.Pointer(l)}
	for {
		item, ok, err := l.advance(r)
		if err != nil || !ok {
			return completed, err
		}
		r.f.slots[s.scope.loop] = Value{k: kLoop, p: unsafe.Pointer(l)}
		how, err := s.pass(r, item)
		if err != nil || how == flowBreak {
			return completed, err
		}
		completed = completed || how == flowNext
	}
}

// pass runs the body once.
func (s *forStmt) pass(r *run, item Value) (flow, error) {
	if err := r.step(s.scope.weight); err != nil {
		return flowNext, err
	}
	if err := r.assign(s.target, item); err != nil {
		return flowNext, err
	}
	r.load(s.scope.enter)
	return r.body(s.body)
}

// advance goes to the next element.
func (l *loop) advance(r *run) (Value, bool, error) {
	v, ok, err := l.peek(r)
	if err != nil || !ok {
		return v, false, err
	}
	l.hasPeeked = false
	l.index++
	l.prev, l.cur = l.cur, v
	return v, true, nil
}

// peek looks at the next element.
func (l *loop) peek(r *run) (Value, bool, error) {
	if l.hasPeeked || l.end {
		return l.peeked, !l.end, nil
	}
	v, ok, err := l.src.next(r)
	if err != nil {
		return v, false, err
	}
	l.peeked, l.hasPeeked, l.end = v, ok, !ok
	return v, ok, nil
}

func (l *loop) length(r *run) (int, error) {
	if l.size >= 0 {
		return l.size, nil
	}
	for {
		v, ok, err := l.src.next(r)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		if err := r.step(1); err != nil {
			return 0, err
		}
		l.src.rest = append(l.src.rest, v)
	}
	l.src.drained = true
	l.size = len(l.src.rest) + l.index + 1
	if l.hasPeeked {
		l.size++
	}
	return l.size, nil
}

var (
	noPrevious = &undefined{hint: "there is no previous item"}
	noNext     = &undefined{hint: "there is no next item"}
)

// attribute returns loop.name; the second result says whether there is one.
func (l *loop) attribute(r *run, a *attribute) (Value, bool, error) {
	switch a.loop {
	case loopFirst:
		return Bool(l.index == 0), true, nil
	case loopLast:
		_, more, err := l.peek(r)
		return Bool(!more), true, err
	case loopIndex:
		return Int(int64(l.index) + 1), true, nil
	case loopIndex0:
		return Int(int64(l.index)), true, nil
	case loopLength:
		n, err := l.length(r)
		return Int(int64(n)), true, err
	case loopRevindex:
		n, err := l.length(r)
		return Int(int64(n - l.index)), true, err
	case loopRevindex0:
		n, err := l.length(r)
		return Int(int64(n - l.index - 1)), true, err
	case loopPrevitem:
		if l.index == 0 {
			return undef(noPrevious), true, nil
		}
		return l.prev, true, nil
	case loopNextitem:
		v, more, err := l.peek(r)
		if err == nil && !more {
			v = undef(noNext)
		}
		return v, true, err
	case loopDepth:
		return Int(int64(l.depth) + 1), true, nil
	case loopDepth0:
		return Int(int64(l.depth)), true, nil
	case loopCycle:
		return bound("cycle", Value{k: kLoop, p: unsafe.Pointer(l)}, loopCycleCall), true, nil
	case loopChanged:
		return bound("changed", Value{k: kLoop, p: unsafe.Pointer(l)}, loopChangedCall), true, nil
	}
	return Value{}, false, nil
}

// loopAttribute is an attribute of the variable loop.
type loopAttribute uint8

const (
	loopNone loopAttribute = iota
	loopFirst
	loopLast
	loopIndex
	loopIndex0
	loopLength
	loopRevindex
	loopRevindex0
	loopPrevitem
	loopNextitem
	loopDepth
	loopDepth0
	loopCycle
	loopChanged
)

var loopAttributes = map[string]loopAttribute{
	"first": loopFirst, "last": loopLast, "index": loopIndex, "index0": loopIndex0, "length": loopLength,
	"revindex": loopRevindex, "revindex0": loopRevindex0, "previtem": loopPrevitem, "nextitem": loopNextitem,
	"depth": loopDepth, "depth0": loopDepth0, "cycle": loopCycle, "changed": loopChanged,
}

func loopCycleCall(_ *run, self Value, a *args) (Value, error) {
	if len(a.pos) == 0 {
		return Value{}, fault("no items for cycling given")
	}
	return a.pos[max(0, self.loop().index)%len(a.pos)], nil
}

func loopChangedCall(r *run, self Value, a *args) (Value, error) {
	l := self.loop()
	now := tuple(append([]Value{}, a.pos...)...)
	if l.changed.k != kMissing {
		same, err := r.equal(l.changed, now)
		if err != nil || same {
			return Bool(false), err
		}
	}
	l.changed = now
	return Bool(true), nil
}

// again is loop(v): the body of a recursive loop over v, as text.
func (l *loop) again(r *run, a *args) (Value, error) {
	got, err := a.take("__call__", 1, "iterable")
	if err != nil {
		return Value{}, err
	}
	if !l.stmt.recursive {
		return Value{}, fault("The loop must have the 'recursive' marker to be called recursively.")
	}
	start := len(r.out)
	if err := l.stmt.recurse(r, got[0], l.up, l.depth+1); err != nil {
		return Value{}, err
	}
	return String(r.cut(start)), nil
}
