package chat

import (
	"unicode/utf8"
	"unsafe"
)

// rangeValue is a range().
type rangeValue struct{ start, stop, step int64 }

func (g *rangeValue) length() int {
	switch {
	case g.step > 0 && g.start < g.stop:
		return int(uint64(g.stop-g.start-1)/uint64(g.step)) + 1
	case g.step < 0 && g.start > g.stop:
		return int(uint64(g.start-g.stop-1)/-uint64(g.step)) + 1
	}
	return 0
}

func (g *rangeValue) at(i int) int64 { return g.start + int64(i)*g.step }

func (g *rangeValue) same(o *rangeValue) bool {
	n := g.length()
	return n == o.length() && (n == 0 || g.start == o.start && (n == 1 || g.step == o.step))
}

// iterator is a generator or another iterator: it yields each element once.
type iterator struct {
	name string // its type
	next func(r *run) (Value, bool, error)
	done bool
}

func generator(next func(r *run) (Value, bool, error)) Value {
	return newIterator("generator", next)
}

func newIterator(name string, next func(r *run) (Value, bool, error)) Value {
	return Value{k: kIterator, p: unsafe.Pointer(&iterator{name: name, next: next})}
}

// cursor walks over a value.
type cursor struct {
	v     Value
	items []Value // of a list or tuple
	i     int
}

// cursor is iter(v).
func (r *run) cursor(v Value) (cursor, error) {
	switch v.k {
	case kList, kTuple:
		return cursor{v: v, items: v.items()}, nil
	case kDict, kView, kString, kRange, kUndefined, kIterator:
		return cursor{v: v}, nil
	}
	return cursor{}, fault("'%s' object is not iterable", v.typeName())
}

// length is the number of elements, if it is known without walking.
func (c *cursor) length() (int, bool) {
	switch c.v.k {
	case kList, kTuple:
		return len(c.items), true
	case kDict:
		return c.v.dict().Len(), true
	case kView:
		return c.v.view().d.Len(), true
	case kRange:
		return c.v.rng().length(), true
	case kString:
		return utf8.RuneCountInString(c.v.str()), true
	case kUndefined:
		return 0, true
	}
	return 0, false
}

// next yields the next element; the second result is false at the end.
func (c *cursor) next(r *run) (Value, bool, error) {
	i := c.i
	switch c.v.k {
	case kList, kTuple:
		if i < len(c.items) {
			c.i++
			return c.items[i], true, nil
		}
	case kDict:
		if d := c.v.dict(); i < d.Len() {
			c.i++
			return d.entries[i].key, true, nil
		}
	case kView:
		if w := c.v.view(); i < w.d.Len() {
			c.i++
			return w.at(i), true, nil
		}
	case kRange:
		if g := c.v.rng(); i < g.length() {
			c.i++
			return Int(g.at(i)), true, nil
		}
	case kString:
		if s := c.v.str(); i < len(s) {
			_, size := utf8.DecodeRuneInString(s[i:])
			c.i += size
			return String(s[i : i+size]), true, nil
		}
	case kIterator:
		it := c.v.iter()
		if it.done {
			return Value{}, false, nil
		}
		if err := r.step(1); err != nil {
			return Value{}, false, err
		}
		v, ok, err := it.next(r)
		it.done = !ok || err != nil
		return v, ok, err
	}
	return Value{}, false, nil
}

// listOf is list(v), as a slice that may be kept but not changed.
func (r *run) listOf(v Value) ([]Value, error) {
	if v.k == kList || v.k == kTuple {
		return v.items(), nil
	}
	c, err := r.cursor(v)
	if err != nil {
		return nil, err
	}
	n, _ := c.length()
	if err := r.room(24 * n); err != nil {
		return nil, err
	}
	list := make([]Value, 0, n)
	for {
		item, ok, err := c.next(r)
		if err != nil {
			return nil, err
		}
		if !ok {
			return list, nil
		}
		if list = append(list, item); 24*len(list) > r.most {
			return nil, r.room(-1)
		}
	}
}

// copyOf is list(v), as a slice of the caller's own.
func (r *run) copyOf(v Value) ([]Value, error) {
	list, err := r.listOf(v)
	if err != nil {
		return nil, err
	}
	if v.k != kList && v.k != kTuple {
		return list, nil
	}
	if err := r.room(24 * len(list)); err != nil {
		return nil, err
	}
	return append([]Value{}, list...), nil
}

// size is len(v).
func (r *run) size(v Value) (int, error) {
	switch v.k {
	case kString:
		if isASCII(v.str()) {
			return int(v.n), r.step(int(v.n) >> 6)
		}
		return utf8.RuneCountInString(v.str()), r.step(int(v.n) >> 4)
	case kLoop:
		return v.loop().length(r)
	case kIterator:
	default:
		if c, err := r.cursor(v); err == nil {
			n, _ := c.length()
			return n, nil
		}
	}
	return 0, fault("object of type '%s' has no len()", v.typeName())
}
