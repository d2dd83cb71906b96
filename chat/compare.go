package chat

import (
	"sort"
	"strings"
)

// compare is "a op b".
func (r *run) compare(op comparison, a, b Value) (bool, error) {
	switch op {
	case cmpEQ:
		return r.equal(a, b)
	case cmpNE:
		same, err := r.equal(a, b)
		return !same, err
	case cmpIn:
		return r.in(a, b)
	case cmpNotIn:
		in, err := r.in(a, b)
		return !in, err
	}
	c, err := r.order(op, a, b)
	if err != nil || c == unordered {
		return false, err
	}
	switch op {
	case cmpLT:
		return c < 0, nil
	case cmpLE:
		return c <= 0, nil
	case cmpGT:
		return c > 0, nil
	}
	return c >= 0, nil
}

// equal is a == b.
func (r *run) equal(a, b Value) (bool, error) {
	if a.isNumber() && b.isNumber() {
		return compareNumbers(a, b) == 0, nil
	}
	if a.k != b.k {
		return false, nil
	}
	switch a.k {
	case kString:
		if a.n != b.n {
			return false, nil
		}
		return a.str() == b.str(), r.step(int(a.n) >> 4)
	case kNone, kUndefined:
		return true, nil
	case kList, kTuple:
		return r.equalItems(a.items(), b.items())
	case kDict:
		return r.equalDicts(a.dict(), b.dict())
	case kRange:
		return a.rng().same(b.rng()), nil
	case kFunction:
		return a.function() == b.function(), nil
	}
	return a.p == b.p, nil
}

func (r *run) equalItems(x, y []Value) (bool, error) {
	if len(x) != len(y) {
		return false, nil
	}
	if err := r.enter(); err != nil {
		return false, err
	}
	defer r.leave()
	for i := range x {
		same, err := r.equal(x[i], y[i])
		if err != nil || !same {
			return false, err
		}
	}
	return true, r.step(len(x))
}

func (r *run) equalDicts(x, y *Dict) (bool, error) {
	if x.Len() != y.Len() {
		return false, nil
	}
	if err := r.enter(); err != nil {
		return false, err
	}
	defer r.leave()
	for _, e := range x.entries {
		i, err := r.lookup(y, e.key)
		if i < 0 || err != nil {
			return false, err
		}
		same, err := r.equal(e.value, y.entries[i].value)
		if err != nil || !same {
			return false, err
		}
	}
	return true, r.step(x.Len())
}

// order compares for <, <=, > and >=: -1, 0, 1 or unordered.
func (r *run) order(op comparison, a, b Value) (int, error) {
	if a.isNumber() && b.isNumber() {
		return compareNumbers(a, b), nil
	}
	switch {
	case a.k == kString && b.k == kString:
		return strings.Compare(a.str(), b.str()), r.step(int(min(a.n, b.n)) >> 4)
	case a.k == b.k && (a.k == kList || a.k == kTuple):
		return r.orderItems(op, a.items(), b.items())
	case a.k == kUndefined:
		return 0, r.undefinedError(a)
	case b.k == kUndefined:
		return 0, r.undefinedError(b)
	}
	return 0, fault("'%s' not supported between instances of '%s' and '%s'", op, a.typeName(), b.typeName())
}

func (r *run) orderItems(op comparison, x, y []Value) (int, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.leave()
	for i := range min(len(x), len(y)) {
		if err := r.step(1); err != nil {
			return 0, err
		}
		same, err := r.equal(x[i], y[i])
		if err != nil {
			return 0, err
		}
		if !same {
			return r.order(op, x[i], y[i])
		}
	}
	return order(len(x) < len(y), len(x) > len(y)), nil
}

// in is "a in b".
func (r *run) in(a, b Value) (bool, error) {
	switch b.k {
	case kString:
		if a.k != kString {
			return false, fault("'in <string>' requires string as left operand, not %s", a.typeName())
		}
		return strings.Contains(b.str(), a.str()), r.step(1 + int(b.n)>>4)
	case kDict:
		i, err := r.lookup(b.dict(), a)
		return i >= 0, err
	case kLoop, kNamespace, kMacro, kFunction, kObject, kNone, kBool, kInt, kBig, kFloat:
		return false, fault("argument of type '%s' is not iterable", b.typeName())
	}
	c, err := r.cursor(b)
	if err != nil {
		return false, err
	}
	for {
		v, ok, err := c.next(r)
		if err != nil || !ok {
			return false, err
		}
		if err := r.step(1); err != nil {
			return false, err
		}
		if same, err := r.equal(v, a); err != nil || same {
			return same, err
		}
	}
}

// lookup finds a key that may be of any kind; -1 if it is not there.
func (r *run) lookup(d *Dict, key Value) (int, error) {
	if err := r.hashable(key); err != nil {
		return -1, err
	}
	if key.k != kString {
		// Such keys are searched for one by one.
		if err := r.step(d.Len() >> 2); err != nil {
			return -1, err
		}
	}
	return d.findKey(key), nil
}

// put assigns a key that may be of any kind.
func (r *run) put(d *Dict, key, v Value) error {
	i, err := r.lookup(d, key)
	switch {
	case err != nil:
	case i >= 0:
		d.entries[i].value = v
	default:
		d.add(key, v)
	}
	return err
}

// hashable fails on values that cannot be the key of a dict.
func (r *run) hashable(v Value) error {
	switch v.k {
	case kString:
		return r.step(int(v.n) >> 4)
	case kList, kDict:
		return fault("unhashable type: '%s'", v.typeName())
	case kView:
		if v.view().what != viewValues {
			return fault("unhashable type: '%s'", v.typeName())
		}
	case kTuple:
		if err := r.enter(); err != nil {
			return err
		}
		defer r.leave()
		for _, item := range v.items() {
			if err := r.hashable(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// sorter sorts values by their keys, stably, and keeps the first error.
type sorter struct {
	r *run
	// rows says that a key counts as a list of one, of which equal ones need not
	// have an order.
	rows  bool
	keys  []Value
	items []Value
	err   error
}

func (s *sorter) Len() int { return len(s.items) }

func (s *sorter) Swap(i, j int) {
	s.keys[i], s.keys[j] = s.keys[j], s.keys[i]
	s.items[i], s.items[j] = s.items[j], s.items[i]
}

func (s *sorter) Less(i, j int) bool {
	if s.err != nil {
		return false
	}
	var less bool
	var err error
	if s.rows {
		var c int
		c, err = s.r.orderItems(cmpLT, s.keys[i:i+1], s.keys[j:j+1])
		less = c == -1
	} else {
		less, err = s.r.compare(cmpLT, s.keys[i], s.keys[j])
	}
	if err == nil {
		err = s.r.step(1)
	}
	s.err = err
	return less
}

// sorted returns the items in the order of their keys.
func (r *run) sorted(items, keys []Value, reverse bool) ([]Value, error) {
	return r.sort(&sorter{r: r, keys: keys, items: items}, reverse)
}

func (r *run) sort(s *sorter, reverse bool) ([]Value, error) {
	items, keys := s.items, s.keys
	if !reverse {
		sort.Stable(s)
		return items, s.err
	}
	// Equal elements keep their order in a reversed sort too.
	turn(items)
	turn(keys)
	sort.Stable(s)
	turn(items)
	return items, s.err
}

func turn(list []Value) {
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
}
