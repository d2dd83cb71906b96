package chat

import "unsafe"

func (x *constant) eval(*run) (Value, error) { return x.v, nil }

func (x *name) eval(r *run) (Value, error) {
	var v Value
	switch x.ref.up {
	case 0:
		v = r.f.slots[x.ref.slot]
	case -1:
		v = r.context[x.ref.slot]
	default:
		v = *r.at(x.ref)
	}
	if v.k == kMissing {
		return undef(x.missing), nil
	}
	return v, nil
}

func (x *attrTarget) eval(*run) (Value, error) { panic("BUG: an assignment target is evaluated") }

func (r *run) evalAll(list []expr) ([]Value, error) {
	if err := r.room(24 * len(list)); err != nil {
		return nil, err
	}
	items := make([]Value, len(list))
	for i, x := range list {
		var err error
		if items[i], err = x.eval(r); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (x *tupleExpr) eval(r *run) (Value, error) {
	items, err := r.evalAll(x.items)
	return tuple(items...), err
}

func (x *listExpr) eval(r *run) (Value, error) {
	items, err := r.evalAll(x.items)
	return List(items...), err
}

func (x *dictExpr) eval(r *run) (Value, error) {
	if err := r.room(48 * len(x.pairs)); err != nil {
		return Value{}, err
	}
	d := NewDict(len(x.pairs))
	for _, p := range x.pairs {
		key, err := p.key.eval(r)
		if err != nil {
			return Value{}, err
		}
		v, err := p.value.eval(r)
		if err != nil {
			return Value{}, err
		}
		if err := r.put(d, key, v); err != nil {
			return Value{}, err
		}
	}
	return d.Value(), nil
}

func (x *binary) eval(r *run) (Value, error) {
	if inner, ok := x.l.(*binary); ok && x.op == opAdd && inner.op == opAdd {
		// A chain of additions usually puts a string together.
		start := len(r.out)
		plain, v, err := r.sumInto(x)
		if plain && err == nil {
			v = String(r.cut(start))
		}
		return v, err
	}
	l, err := x.l.eval(r)
	if err != nil {
		return l, err
	}
	v, err := x.r.eval(r)
	if err != nil {
		return v, err
	}
	return r.arithmetic(x.op, l, v)
}

func (x *unary) eval(r *run) (Value, error) {
	v, err := x.x.eval(r)
	if err != nil {
		return v, err
	}
	return r.sign(v, x.minus)
}

func (x *not) eval(r *run) (Value, error) {
	yes, err := r.holds(x.x)
	return Bool(!yes), err
}

func (x *logic) eval(r *run) (Value, error) {
	l, err := x.l.eval(r)
	if err != nil || l.truth() == x.or {
		return l, err
	}
	return x.r.eval(r)
}

// holds evaluates a condition.
func (r *run) holds(x expr) (bool, error) {
	switch x := x.(type) {
	case *not:
		yes, err := r.holds(x.x)
		return !yes, err
	case *logic:
		l, err := r.holds(x.l)
		if err != nil || l == x.or {
			return l, err
		}
		return r.holds(x.r)
	}
	v, err := x.eval(r)
	return v.truth(), err
}

func (x *concat) eval(r *run) (Value, error) {
	start := len(r.out)
	for _, part := range x.parts {
		if err := r.print(part); err != nil {
			return Value{}, err
		}
	}
	return String(r.cut(start)), nil
}

func (x *compare) eval(r *run) (Value, error) {
	l, err := x.first.eval(r)
	if err != nil {
		return l, err
	}
	for _, o := range x.rest {
		v, err := o.x.eval(r)
		if err != nil {
			return v, err
		}
		yes, err := r.compare(o.op, l, v)
		if err != nil || !yes {
			return Bool(false), err
		}
		l = v
	}
	return Bool(true), nil
}

func (x *condition) eval(r *run) (Value, error) {
	yes, err := r.holds(x.test)
	switch {
	case err != nil:
		return Value{}, err
	case yes:
		return x.yes.eval(r)
	case x.no != nil:
		return x.no.eval(r)
	}
	return undef(x.missing), nil
}

func (x *getAttr) eval(r *run) (Value, error) {
	v, err := x.x.eval(r)
	if err != nil {
		return v, err
	}
	return r.attr(v, x.attr)
}

func (x *getItem) eval(r *run) (Value, error) {
	v, err := x.x.eval(r)
	if err != nil {
		return v, err
	}
	if c, ok := x.index.(*constant); ok && v.k == kDict && c.v.k == kString {
		if i := v.dict().find(c.v.str()); i >= 0 {
			return v.dict().entries[i].value, r.step(int(c.v.n) >> 6)
		}
		if x.attr.dict == nil && !x.attr.changesDict && !x.attr.internal {
			return undef(x.attr.absent), r.step(int(c.v.n) >> 6)
		}
	}
	index, err := x.index.eval(r)
	if err != nil {
		return index, err
	}
	return r.item(v, index)
}

func (x *slice) eval(r *run) (Value, error) {
	v, err := x.x.eval(r)
	if err != nil {
		return v, err
	}
	var bounds [3]Value
	for i, part := range [...]expr{x.start, x.stop, x.step} {
		if part == nil {
			bounds[i] = None()
		} else if bounds[i], err = part.eval(r); err != nil {
			return Value{}, err
		}
	}
	return r.slice(v, bounds[0], bounds[1], bounds[2])
}

func (x *filter) eval(r *run) (Value, error) {
	in, err := x.in.eval(r)
	if err != nil {
		return in, err
	}
	return x.run(r, in)
}

// run applies the filter to a value.
func (x *filter) run(r *run, in Value) (Value, error) {
	if x.fn == nil {
		return Value{}, fault("No filter named '%s' found.", x.name)
	}
	if err := r.step(1); err != nil {
		return Value{}, err
	}
	a, mark, err := r.pushArgs(&x.args)
	var v Value
	if err == nil {
		v, err = x.fn(r, in, a)
	}
	r.popArgs(mark)
	return v, err
}

func (x *test) eval(r *run) (Value, error) {
	in, err := x.in.eval(r)
	if err != nil {
		return in, err
	}
	if x.plain != nil {
		return Bool(x.plain(in)), nil
	}
	if x.fn == nil {
		return Value{}, fault("No test named '%s' found.", x.name)
	}
	a, mark, err := r.pushArgs(&x.args)
	var yes bool
	if err == nil {
		yes, err = x.fn(r, in, a)
	}
	r.popArgs(mark)
	return Bool(yes), err
}

func (x *call) eval(r *run) (Value, error) {
	if err := r.step(1); err != nil {
		return Value{}, err
	}
	var callee, self Value
	var m method
	var err error
	if x.method != nil {
		self, err = x.fn.(*getAttr).x.eval(r)
		if err != nil {
			return self, err
		}
		if m = x.method.of(self); m == nil {
			callee, err = r.attr(self, x.method)
		}
	} else {
		callee, err = x.fn.eval(r)
	}
	if err != nil {
		return Value{}, err
	}
	a, mark, err := r.pushArgs(&x.args)
	var v Value
	if err == nil {
		if m != nil {
			v, err = m(r, self, a)
		} else {
			v, err = r.call(callee, a)
		}
	}
	r.popArgs(mark)
	return v, err
}

// call calls a value.
func (r *run) call(callee Value, a *args) (Value, error) {
	switch callee.k {
	case kMacro:
		start := len(r.out)
		if err := callee.macro().run(r, a); err != nil {
			return Value{}, err
		}
		return String(r.cut(start)), nil
	case kFunction:
		f := callee.function()
		return f.call(r, f.self, a)
	case kLoop:
		return callee.loop().again(r, a)
	case kObject:
		return callee.object().call(a)
	case kUndefined:
		return Value{}, r.undefinedError(callee)
	}
	return Value{}, fault("'%s' object is not callable", callee.typeName())
}

// print evaluates x and writes it as str() would, without making a string of
// what is only put together to be written.
func (r *run) print(x expr) error {
	switch x := x.(type) {
	case *constant:
		return r.write(x.v)
	case *concat:
		for _, part := range x.parts {
			if err := r.print(part); err != nil {
				return err
			}
		}
		return nil
	case *condition:
		yes, err := r.holds(x.test)
		switch {
		case err != nil:
			return err
		case yes:
			return r.print(x.yes)
		case x.no != nil:
			return r.print(x.no)
		}
		return nil
	case *binary:
		if x.op == opAdd {
			return r.printSum(x)
		}
	case *filter:
		if x.name == "tojson" && x.in != nil && x.args.star == nil && x.args.starStar == nil {
			return r.printJSON(x)
		}
	case *call:
		if n, ok := x.fn.(*name); ok {
			return r.printCall(x, n)
		}
	}
	v, err := x.eval(r)
	if err != nil {
		return err
	}
	return r.write(v)
}

// printSum writes the sum of strings piece by piece. A piece that is not a
// string fails the render, so nobody sees what was written before it.
func (r *run) printSum(x *binary) error {
	start := len(r.out)
	plain, v, err := r.sumInto(x)
	if err != nil || plain {
		return err
	}
	r.out = r.out[:start]
	return r.write(v)
}

// sumInto appends the sum of plain strings to the output and reports plain, or
// returns another sum as a value.
func (r *run) sumInto(x expr) (plain bool, v Value, err error) {
	b, ok := x.(*binary)
	if !ok || b.op != opAdd {
		if v, err = x.eval(r); err != nil || v.k != kString || v.markup {
			return false, v, err
		}
		return true, v, r.emit(v.str())
	}
	start := len(r.out)
	plain, l, err := r.sumInto(b.l)
	if err != nil {
		return false, v, err
	}
	if plain {
		if v, err = b.r.eval(r); err != nil {
			return false, v, err
		}
		if v.k == kString && !v.markup {
			return true, v, r.emit(v.str())
		}
		l = String(r.cut(start))
	} else if v, err = b.r.eval(r); err != nil {
		return false, v, err
	}
	v, err = r.arithmetic(opAdd, l, v)
	return false, v, err
}

func (r *run) printJSON(x *filter) error {
	in, err := x.in.eval(r)
	if err != nil {
		return err
	}
	a, mark, err := r.pushArgs(&x.args)
	if err == nil {
		err = r.appendJSON(in, a)
	}
	r.popArgs(mark)
	return err
}

// printCall calls a function by its name; a macro's text goes straight to the
// output.
func (r *run) printCall(x *call, n *name) error {
	callee, err := n.eval(r)
	if err != nil {
		return err
	}
	if callee.k != kMacro {
		v, err := x.eval(r)
		if err != nil {
			return err
		}
		return r.write(v)
	}
	a, mark, err := r.pushArgs(&x.args)
	if err == nil {
		err = callee.macro().run(r, a)
	}
	r.popArgs(mark)
	return err
}

// write appends v to the output as str() gives it.
func (r *run) write(v Value) error {
	switch v.k {
	case kString:
		return r.emit(v.str())
	case kUndefined:
		return nil
	}
	start := len(r.out)
	if err := r.appendStr(v); err != nil {
		return err
	}
	return r.emitted(len(r.out) - start)
}

// macro is a macro, or the body of a call block.
type macro struct {
	def *macroDef
	up  *activation
}

func newMacro(def *macroDef, up *activation) Value {
	return Value{k: kMacro, p: unsafe.Pointer(&macro{def, up})}
}

// run runs the macro, which writes to the output.
func (m *macro) run(r *run, a *args) error {
	if err := r.enter(); err != nil {
		return err
	}
	def := m.def
	back := r.begin(def.scope.fn, m.up)
	err := r.step(def.scope.weight + len(r.f.slots)>>2 + len(a.named)*len(def.params)>>2)
	if err == nil {
		err = m.bind(r, a)
	}
	if err == nil {
		r.load(def.scope.enter)
		err = m.defaults(r)
	}
	if err == nil {
		_, err = r.body(def.body)
	}
	r.end(back)
	r.leave()
	if err != nil {
		return atLine(err, def.line)
	}
	return nil
}

// bind assigns the arguments of a call to the slots of the parameters.
func (m *macro) bind(r *run, a *args) error {
	def, slots := m.def, r.f.slots
	n := min(len(a.pos), len(def.params))
	for i := range n {
		slots[def.scope.params[i]] = a.pos[i]
	}
	var rest *Dict
	if def.scope.kwargs >= 0 {
		rest = NewDict(0)
		slots[def.scope.kwargs] = rest.Value()
	}
	if def.scope.caller >= 0 {
		slots[def.scope.caller] = undef(noCaller)
	}
next:
	for _, arg := range a.named {
		for i := n; i < len(def.params); i++ {
			if def.params[i].id == arg.name {
				slots[def.scope.params[i]] = arg.v
				continue next
			}
		}
		switch {
		case arg.name == "caller" && def.scope.caller >= 0:
			slots[def.scope.caller] = arg.v
		case rest != nil:
			rest.Set(arg.name, arg.v)
		case arg.name == "caller":
			return fault("macro %s was invoked with two values for the special caller argument. This is most likely a bug.", pyRepr(def.name))
		default:
			return fault("macro %s takes no keyword argument %s", pyRepr(def.name), pyRepr(arg.name))
		}
	}
	if def.scope.varargs >= 0 {
		slots[def.scope.varargs] = tuple(append([]Value{}, a.pos[n:]...)...)
	} else if len(a.pos) > len(def.params) {
		return fault("macro %s takes not more than %d argument(s)", pyRepr(def.name), len(def.params))
	}
	return nil
}

var noCaller = &undefined{hint: "No caller defined", name: "caller"}

// defaults fills in the parameters that were not passed.
func (m *macro) defaults(r *run) error {
	def := m.def
	first := len(def.params) - len(def.defaults)
	for i, slot := range def.scope.params {
		if r.f.slots[slot].k != kMissing {
			continue
		}
		if i < first {
			name := def.params[i].id
			r.f.slots[slot] = undef(&undefined{hint: "parameter " + pyRepr(name) + " was not provided", name: name})
			continue
		}
		v, err := def.defaults[i-first].eval(r)
		if err != nil {
			return err
		}
		r.f.slots[slot] = v
	}
	return nil
}
