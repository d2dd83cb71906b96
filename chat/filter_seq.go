package chat

import "strings"

// path is an attribute argument: "a.b.0", a number, or nothing.
type path []Value

func parsePath(v Value) path {
	if v.k == kMissing || v.k == kNone {
		return nil
	}
	if v.k != kString {
		return path{v}
	}
	var p path
	for _, part := range strings.Split(v.str(), ".") {
		if n, ok := parseInt(part, 10); ok && part != "" && strings.Trim(part, "0123456789") == "" {
			p = append(p, n)
		} else {
			p = append(p, String(part))
		}
	}
	return p
}

// follow looks the path up in v; absent, if it is something, stands for what is
// not there.
func (p path) follow(r *run, v, absent Value) (Value, error) {
	for _, part := range p {
		var err error
		if v, err = r.item(v, part); err != nil {
			return Value{}, err
		}
		if v.k == kUndefined && absent.k != kMissing && absent.k != kNone {
			v = absent
		}
	}
	return v, nil
}

// ignoreCase lowers strings for comparisons.
func (r *run) ignoreCase(v Value) (Value, error) {
	if v.k != kString {
		return v, nil
	}
	return String(lower(v.str())), r.room(int(v.n))
}

// keys returns what the items are sorted or grouped by.
func (r *run) keys(items []Value, p path, absent Value, sensitive bool) ([]Value, error) {
	if err := r.room(24 * len(items)); err != nil {
		return nil, err
	}
	keys := make([]Value, len(items))
	for i, item := range items {
		key, err := p.follow(r, item, absent)
		if err != nil {
			return nil, err
		}
		if !sensitive {
			if key, err = r.ignoreCase(key); err != nil {
				return nil, err
			}
		}
		keys[i] = key
	}
	return keys, nil
}

func filterList(r *run, in Value, a *args) (Value, error) {
	if err := a.none("list"); err != nil {
		return Value{}, err
	}
	list, err := r.listOf(in)
	return List(list...), err
}

var (
	noFirst     = &undefined{hint: "No first item, sequence was empty."}
	noLast      = &undefined{hint: "No last item, sequence was empty."}
	noAggregate = &undefined{hint: "No aggregated item, sequence was empty."}
)

func filterFirst(r *run, in Value, a *args) (Value, error) {
	if err := a.none("first"); err != nil {
		return Value{}, err
	}
	c, err := r.cursor(in)
	if err != nil {
		return Value{}, err
	}
	v, ok, err := c.next(r)
	if err == nil && !ok {
		v = undef(noFirst)
	}
	return v, err
}

func filterLast(r *run, in Value, a *args) (Value, error) {
	if err := a.none("last"); err != nil {
		return Value{}, err
	}
	if !reversible(in) {
		return Value{}, fault("'%s' object is not reversible", in.typeName())
	}
	list, err := r.listOf(in)
	if err != nil {
		return Value{}, err
	}
	if len(list) == 0 {
		return undef(noLast), nil
	}
	return list[len(list)-1], nil
}

func reversible(v Value) bool {
	switch v.k {
	case kList, kTuple, kDict, kView, kString, kRange, kUndefined:
		return true
	}
	return false
}

func filterReverse(r *run, in Value, a *args) (Value, error) {
	if err := a.none("reverse"); err != nil {
		return Value{}, err
	}
	if in.k == kString {
		return r.slice(in, None(), None(), Int(-1))
	}
	list, err := r.listOf(in)
	if err != nil {
		return Value{}, fault("argument must be iterable")
	}
	if !reversible(in) {
		turn(list) // which listOf has made from an iterator
		return List(list...), nil
	}
	i := len(list)
	return newIterator("list_reverseiterator", func(*run) (Value, bool, error) {
		if i == 0 {
			return Value{}, false, nil
		}
		i--
		return list[i], true, nil
	}), nil
}

func filterJoin(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("join", 0, "d", "attribute")
	if err != nil {
		return Value{}, err
	}
	sep := ""
	if got[0].k != kMissing {
		if sep, err = r.text(got[0]); err != nil {
			return Value{}, err
		}
	}
	attr := parsePath(got[1])
	c, err := r.cursor(in)
	if err != nil {
		return Value{}, err
	}
	start := len(r.out)
	for n := 0; ; n++ {
		v, ok, err := c.next(r)
		if err != nil {
			return Value{}, err
		}
		if !ok {
			break
		}
		if v, err = attr.follow(r, v, Value{}); err != nil {
			return Value{}, err
		}
		if n > 0 {
			r.out = append(r.out, sep...)
		}
		if err := r.write(v); err != nil {
			return Value{}, err
		}
		if err := r.emitted(len(sep) + 16); err != nil {
			return Value{}, err
		}
	}
	return String(r.cut(start)), nil
}

func filterItems(r *run, in Value, a *args) (Value, error) {
	if err := a.none("items"); err != nil {
		return Value{}, err
	}
	if in.k != kDict && in.k != kUndefined {
		return generator(func(*run) (Value, bool, error) {
			return Value{}, false, fault("Can only get item pairs from a mapping.")
		}), nil
	}
	i := 0
	return generator(func(*run) (Value, bool, error) {
		if in.k == kUndefined || i >= in.dict().Len() {
			return Value{}, false, nil
		}
		e := &in.dict().entries[i]
		i++
		return tuple(e.key, e.value), true, nil
	}), nil
}

func filterDictsort(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("dictsort", 0, "case_sensitive", "by", "reverse")
	if err != nil {
		return Value{}, err
	}
	by := 0
	if got[1].k != kMissing {
		switch s, _ := got[1].AsString(); s {
		case "key":
		case "value":
			by = 1
		default:
			return Value{}, fault("You can only sort by either \"key\" or \"value\"")
		}
	}
	if in.k != kDict {
		if in.k == kUndefined {
			return Value{}, r.undefinedError(in)
		}
		return Value{}, fault("'%s' object has no attribute 'items'", in.typeName())
	}
	entries := in.dict().entries
	if err := r.room(96 * len(entries)); err != nil {
		return Value{}, err
	}
	items, keys := make([]Value, len(entries)), make([]Value, len(entries))
	for i, e := range entries {
		items[i] = tuple(e.key, e.value)
		keys[i] = [...]Value{e.key, e.value}[by]
		if !got[0].truth() {
			if keys[i], err = r.ignoreCase(keys[i]); err != nil {
				return Value{}, err
			}
		}
	}
	items, err = r.sorted(items, keys, got[2].truth())
	return List(items...), err
}

func filterSort(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("sort", 0, "reverse", "case_sensitive", "attribute")
	if err != nil {
		return Value{}, err
	}
	items, err := r.copyOf(in)
	if err != nil {
		return Value{}, err
	}
	var paths []path
	if s, ok := got[2].AsString(); ok {
		for _, part := range strings.Split(s, ",") {
			paths = append(paths, parsePath(String(part)))
		}
	} else {
		paths = []path{parsePath(got[2])}
	}
	if len(paths) > maxNesting {
		return Value{}, fault("sort by more than %d attributes", maxNesting)
	}
	columns := make([][]Value, len(paths))
	for i, p := range paths {
		if columns[i], err = r.keys(items, p, Value{}, got[1].truth()); err != nil {
			return Value{}, err
		}
	}
	keys := columns[0]
	if len(columns) > 1 {
		keys = make([]Value, len(items))
		for i := range items {
			row := make([]Value, len(columns))
			for j := range columns {
				row[j] = columns[j][i]
			}
			keys[i] = List(row...)
		}
	}
	items, err = r.sort(&sorter{r: r, rows: true, keys: keys, items: items}, got[0].truth())
	return List(items...), err
}

func filterUnique(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("unique", 0, "case_sensitive", "attribute")
	if err != nil {
		return Value{}, err
	}
	attr, sensitive := parsePath(got[1]), got[0].truth()
	c, failed := r.cursor(in)
	seen := NewDict(0)
	return generator(func(r *run) (Value, bool, error) {
		if failed != nil {
			return Value{}, false, failed
		}
		for {
			v, ok, err := c.next(r)
			if err != nil || !ok {
				return v, false, err
			}
			key, err := attr.follow(r, v, Value{})
			if err == nil && !sensitive {
				key, err = r.ignoreCase(key)
			}
			if err == nil {
				err = r.step(1)
			}
			if err != nil {
				return v, false, err
			}
			i, err := r.lookup(seen, key)
			if err != nil {
				return v, false, err
			}
			if i < 0 {
				seen.add(key, None())
				return v, true, nil
			}
		}
	}), nil
}

func extremeFilter(name string, better comparison) filterFunc {
	return func(r *run, in Value, a *args) (Value, error) {
		got, err := a.take(name, 0, "case_sensitive", "attribute")
		if err != nil {
			return Value{}, err
		}
		items, err := r.listOf(in)
		if err != nil {
			return Value{}, err
		}
		if len(items) == 0 {
			return undef(noAggregate), nil
		}
		keys, err := r.keys(items, parsePath(got[1]), Value{}, got[0].truth())
		if err != nil {
			return Value{}, err
		}
		best := 0
		for i := 1; i < len(keys); i++ {
			yes, err := r.compare(better, keys[i], keys[best])
			if err != nil {
				return Value{}, err
			}
			if yes {
				best = i
			}
		}
		return items[best], nil
	}
}

func filterSum(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("sum", 0, "attribute", "start")
	if err != nil {
		return Value{}, err
	}
	total := got[1]
	if total.k == kMissing {
		total = Int(0)
	}
	if total.k == kString {
		return Value{}, fault("sum() can't sum strings [use ''.join(seq) instead]")
	}
	attr := parsePath(got[0])
	c, err := r.cursor(in)
	if err != nil {
		return Value{}, err
	}
	for {
		v, ok, err := c.next(r)
		if err != nil || !ok {
			return total, err
		}
		if v, err = attr.follow(r, v, Value{}); err != nil {
			return Value{}, err
		}
		if err := r.step(1); err != nil {
			return Value{}, err
		}
		if total, err = r.arithmetic(opAdd, total, v); err != nil {
			return Value{}, err
		}
	}
}

func filterGroupby(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("groupby", 1, "attribute", "default", "case_sensitive")
	if err != nil {
		return Value{}, err
	}
	items, err := r.copyOf(in)
	if err != nil {
		return Value{}, err
	}
	attr := parsePath(got[0])
	keys, err := r.keys(items, attr, got[1], got[2].truth())
	if err != nil {
		return Value{}, err
	}
	if items, err = r.sorted(items, keys, false); err != nil {
		return Value{}, err
	}
	var groups []Value
	for i := 0; i < len(items); {
		end := i + 1
		for end < len(items) {
			same, err := r.equal(keys[i], keys[end])
			if err != nil {
				return Value{}, err
			}
			if !same {
				break
			}
			end++
		}
		key, err := attr.follow(r, items[i], got[1])
		if err != nil {
			return Value{}, err
		}
		groups = append(groups, tuple(key, List(items[i:end:end]...)))
		i = end
	}
	return List(groups...), nil
}

func filterBatch(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("batch", 1, "linecount", "fill_with")
	if err != nil {
		return Value{}, err
	}
	size, fill := got[0], orNone(got[1])
	c, failed := r.cursor(in)
	var pending Value
	done := false
	return generator(func(r *run) (Value, bool, error) {
		if failed != nil || done {
			return Value{}, false, failed
		}
		var row []Value
		if pending.k != kMissing {
			row = append(row, pending)
			pending = Value{}
		}
		for {
			v, ok, err := c.next(r)
			if err != nil {
				return v, false, err
			}
			if !ok {
				break
			}
			if size.isNumber() && compareNumbers(size, Int(int64(len(row)))) == 0 {
				pending = v
				return List(row...), true, nil
			}
			row = append(row, v)
			if err := r.step(1); err != nil {
				return v, false, err
			}
		}
		done = true
		if len(row) == 0 {
			return Value{}, false, nil
		}
		if fill.k != kNone && size.k == kInt {
			if size.n > int64(r.most) {
				return Value{}, false, r.room(-1)
			}
			if err := r.room(24 * int(max(size.n, 0))); err != nil {
				return Value{}, false, err
			}
			for int64(len(row)) < size.n {
				row = append(row, fill)
			}
		}
		return List(row...), true, nil
	}), nil
}

func filterSlice(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("slice", 1, "slices", "fill_with")
	if err != nil {
		return Value{}, err
	}
	fill := orNone(got[1])
	var items []Value
	n, started := 0, false
	k, offset := 0, 0
	return generator(func(r *run) (Value, bool, error) {
		if !started {
			started = true
			var err error
			if items, err = r.listOf(in); err == nil {
				n, err = wantInt(got[0], 0)
			}
			if err == nil && n == 0 {
				err = fault("integer division or modulo by zero")
			}
			if err != nil {
				return Value{}, false, err
			}
		}
		if k >= n {
			return Value{}, false, nil
		}
		each, extra := len(items)/n, len(items)%n
		start := offset + k*each
		if k < extra {
			offset++
		}
		end := offset + (k+1)*each
		row := items[start:end:end]
		if fill.k != kNone && k >= extra {
			row = append(row, fill)
		}
		k++
		return List(row...), true, r.step(1 + len(row))
	}), nil
}

func filterMap(r *run, in Value, a *args) (Value, error) {
	var apply func(r *run, v Value) (Value, error)
	failed := error(nil)
	if d := namedArg(a, "attribute"); len(a.pos) == 0 && d.k != kMissing {
		absent := namedArg(a, "default")
		for _, n := range a.named {
			if n.name != "attribute" && n.name != "default" && failed == nil {
				failed = fault("Unexpected keyword argument %s", pyRepr(n.name))
			}
		}
		attr := parsePath(d)
		apply = func(r *run, v Value) (Value, error) { return attr.follow(r, v, absent) }
	} else if len(a.pos) == 0 {
		failed = fault("map requires a filter argument")
	} else {
		name, _ := a.pos[0].AsString()
		f := filters[name]
		if f == nil {
			failed = fault("No filter named %s.", pyRepr(name))
		}
		rest := args{append([]Value{}, a.pos[1:]...), append([]namedValue{}, a.named...)}
		apply = func(r *run, v Value) (Value, error) { return f(r, v, &rest) }
	}
	if !in.truth() {
		// jinja2 looks at neither its arguments nor the value then.
		return generator(func(*run) (Value, bool, error) { return Value{}, false, nil }), nil
	}
	c, err := r.cursor(in)
	if failed == nil {
		failed = err
	}
	return generator(func(r *run) (Value, bool, error) {
		if failed != nil {
			return Value{}, false, failed
		}
		v, ok, err := c.next(r)
		if err != nil || !ok {
			return v, false, err
		}
		if err := r.step(1); err != nil {
			return v, false, err
		}
		v, err = apply(r, v)
		return v, err == nil, err
	}), nil
}

func namedArg(a *args, name string) Value {
	for _, n := range a.named {
		if n.name == name {
			return n.v
		}
	}
	return Value{}
}

// selectFilter makes select, reject, selectattr and rejectattr.
func selectFilter(keep, byAttr bool) filterFunc {
	return func(r *run, in Value, a *args) (Value, error) {
		if !in.truth() {
			return generator(func(*run) (Value, bool, error) { return Value{}, false, nil }), nil
		}
		pos := a.pos
		var attr path
		var failed error
		if byAttr {
			if len(pos) == 0 {
				failed = fault("Missing parameter for attribute name")
			} else {
				attr, pos = parsePath(pos[0]), pos[1:]
			}
		}
		holds := func(r *run, v Value) (bool, error) { return v.truth(), nil }
		if len(pos) > 0 {
			name, _ := pos[0].AsString()
			f := tests[name]
			if f == nil && failed == nil {
				failed = fault("No test named %s.", pyRepr(name))
			}
			rest := args{append([]Value{}, pos[1:]...), append([]namedValue{}, a.named...)}
			holds = func(r *run, v Value) (bool, error) { return f(r, v, &rest) }
		}
		c, err := r.cursor(in)
		if failed == nil {
			failed = err
		}
		return generator(func(r *run) (Value, bool, error) {
			for failed == nil {
				item, ok, err := c.next(r)
				if err != nil || !ok {
					return item, false, err
				}
				if err := r.step(1); err != nil {
					return item, false, err
				}
				v, err := attr.follow(r, item, Value{})
				if err != nil {
					return v, false, err
				}
				yes, err := holds(r, v)
				if err != nil {
					return v, false, err
				}
				if yes == keep {
					return item, true, nil
				}
			}
			return Value{}, false, failed
		}), nil
	}
}

func filterAttr(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("attr", 1, "name")
	if err != nil {
		return Value{}, err
	}
	name, err := wantString(got[0], "attr")
	if err != nil {
		return Value{}, err
	}
	if in.k == kUndefined {
		return Value{}, r.undefinedError(in)
	}
	v, ok, err := r.ownAttr(in, newAttribute(name))
	if err == nil && !ok {
		v = undef(&undefined{name: name, of: in.objectName()})
	}
	return v, err
}
