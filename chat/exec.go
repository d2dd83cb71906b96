package chat

func (s *text) exec(r *run) (flow, error) { return flowNext, r.emit(s.s) }

func (s *output) exec(r *run) (flow, error) {
	for _, x := range s.items {
		if err := r.print(x); err != nil {
			return flowNext, atLine(err, s.line)
		}
	}
	return flowNext, nil
}

func (s *ifStmt) exec(r *run) (flow, error) {
	for i, cond := range s.tests {
		yes, err := r.holds(cond)
		if err != nil {
			return flowNext, atLine(err, s.lines[i])
		}
		if yes {
			return r.body(s.bodies[i])
		}
	}
	return r.body(s.other)
}

func (s *setStmt) exec(r *run) (flow, error) {
	v, err := s.x.eval(r)
	if err == nil {
		err = r.assign(s.target, v)
	}
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	return flowNext, nil
}

// assign stores v in a target.
func (r *run) assign(target expr, v Value) error {
	switch t := target.(type) {
	case *name:
		*r.at(t.ref) = v
		return nil
	case *attrTarget:
		ns := *r.at(t.ns.ref)
		if ns.k != kNamespace {
			return fault("cannot assign attribute on non-namespace object")
		}
		if t.attr[0] == '_' {
			return underscored(t.attr)
		}
		ns.dict().Set(t.attr, v)
		return nil
	}
	targets := target.(*tupleExpr).items
	list, err := r.unpack(v, len(targets))
	if err != nil {
		return err
	}
	for i, t := range targets {
		if err := r.assign(t, list[i]); err != nil {
			return err
		}
	}
	return nil
}

func underscored(attr string) error {
	return fault("Chat templates cannot store underscore-prefixed attributes on a namespace, but got %s. Please rename the attribute.", pyRepr(attr))
}

// unpack returns the n elements of v.
func (r *run) unpack(v Value, n int) ([]Value, error) {
	if v.k == kList || v.k == kTuple {
		if got := len(v.items()); got > n {
			return nil, fault("too many values to unpack (expected %d)", n)
		} else if got < n {
			return nil, fault("not enough values to unpack (expected %d, got %d)", n, got)
		}
		return v.items(), nil
	}
	c, err := r.cursor(v)
	if err != nil {
		return nil, fault("cannot unpack non-iterable %s object", v.typeName())
	}
	list := make([]Value, 0, n)
	for {
		item, ok, err := c.next(r)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if len(list) == n {
			return nil, fault("too many values to unpack (expected %d)", n)
		}
		list = append(list, item)
	}
	if len(list) < n {
		return nil, fault("not enough values to unpack (expected %d, got %d)", n, len(list))
	}
	return list, nil
}

func (s *setBlock) exec(r *run) (flow, error) {
	r.load(s.enter)
	start := len(r.out)
	how, err := r.body(s.body)
	if err != nil {
		return how, err
	}
	text := r.cut(start)
	if how != flowNext {
		return how, nil
	}
	v := String(text)
	if s.filter != nil {
		if v, err = s.filter.apply(r, v); err != nil {
			return flowNext, atLine(err, s.line)
		}
	}
	if err := r.assign(s.target, v); err != nil {
		return flowNext, atLine(err, s.line)
	}
	return flowNext, nil
}

func (s *filterBlock) exec(r *run) (flow, error) {
	r.load(s.enter)
	start := len(r.out)
	how, err := r.body(s.body)
	if err != nil {
		return how, err
	}
	text := r.cut(start)
	if how != flowNext {
		return how, nil
	}
	v, err := s.filter.apply(r, String(text))
	if err == nil {
		err = r.writeString(v)
	}
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	return flowNext, nil
}

// writeString writes what a filter or call block yields, which jinja2 does not
// turn into a string.
func (r *run) writeString(v Value) error {
	if v.k != kString {
		return fault("sequence item 0: expected str instance, %s found", v.typeName())
	}
	return r.write(v)
}

// apply runs a chain of filters over the text of a block.
func (x *filter) apply(r *run, text Value) (Value, error) {
	in := text
	if inner, ok := x.in.(*filter); ok {
		var err error
		if in, err = inner.apply(r, text); err != nil {
			return Value{}, err
		}
	}
	return x.run(r, in)
}

func (s *withStmt) exec(r *run) (flow, error) {
	r.load(s.enter)
	for i, target := range s.targets {
		v, err := s.values[i].eval(r)
		if err == nil {
			err = r.assign(target, v)
		}
		if err != nil {
			return flowNext, atLine(err, s.line)
		}
	}
	return r.body(s.body)
}

func (s *macroStmt) exec(r *run) (flow, error) {
	*r.at(s.target.ref) = newMacro(s.def, r.f)
	return flowNext, nil
}

func (s *callBlock) exec(r *run) (flow, error) {
	caller := newMacro(s.def, r.f)
	callee, err := s.call.fn.eval(r)
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	a, mark, err := r.pushArgs(&s.call.args)
	if err == nil {
		named := append(append([]namedValue{}, a.named...), namedValue{"caller", caller})
		var v Value
		if v, err = r.call(callee, &args{a.pos, named}); err == nil {
			err = r.writeString(v)
		}
	}
	r.popArgs(mark)
	if err != nil {
		return flowNext, atLine(err, s.line)
	}
	return flowNext, nil
}

func (s *generation) exec(r *run) (flow, error) {
	err := r.enter()
	if err == nil {
		back := r.begin(s.def.scope.fn, r.f)
		r.load(s.def.scope.enter)
		_, err = r.body(s.def.body)
		r.end(back)
		r.leave()
	}
	return flowNext, err
}

func (s *block) exec(r *run) (flow, error) {
	err := r.enter()
	if err == nil {
		top := r.f
		for top.up != nil {
			top = top.up
		}
		back := r.begin(s.fn, top)
		r.load(s.enter)
		_, err = r.body(s.body)
		r.end(back)
		r.leave()
	}
	return flowNext, err
}

func (s *refused) exec(*run) (flow, error) {
	return flowNext, atLine(fault("no loader for this environment specified"), s.line)
}

func (s *breakStmt) exec(*run) (flow, error)    { return flowBreak, nil }
func (s *continueStmt) exec(*run) (flow, error) { return flowContinue, nil }
