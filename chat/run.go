package chat

// run is one render.
type run struct {
	t     *Template
	input *Input
	out   []byte
	// limit is the length out may grow to.
	limit int
	// most bounds a single string or list, in bytes.
	most  int
	steps int
	depth int
	deep  int // the depth allowed

	f       *activation
	context []Value
	stack   []Value
	names   []namedValue
	// spare are argument lists to be used again.
	spare []*args
	// first is what stack begins in.
	first [12]Value
	// slots is where activations that nothing refers to after their end take
	// their slots from.
	slots []Value
}

// activation is the variables of a function that runs.
type activation struct {
	slots []Value
	up    *activation
}

// step counts n steps.
func (r *run) step(n int) error {
	if r.steps -= n; r.steps < 0 {
		return &limitError{"it takes more steps than a render may"}
	}
	return nil
}

// room counts the making of a string or list of n bytes, before it is made.
func (r *run) room(n int) error {
	if n < 0 || n > r.most {
		return &limitError{"it builds a larger value than a render may"}
	}
	return r.step(1 + n>>4)
}

// emit appends to the output.
func (r *run) emit(s string) error {
	r.out = append(r.out, s...)
	return r.emitted(len(s))
}

// emitted accounts for n bytes that have been appended to the output.
func (r *run) emitted(n int) error {
	if len(r.out) > r.limit {
		return &limitError{"it writes more text than a render may"}
	}
	return r.step(n >> 4)
}

// cut takes what has been written since start off the output.
func (r *run) cut(start int) string {
	s := string(r.out[start:])
	r.out = r.out[:start]
	return s
}

// enter counts one level of calls or of nested values; leave ends it.
func (r *run) enter() error {
	if r.depth++; r.depth > r.deep {
		return &limitError{"it nests deeper than a render may"}
	}
	return r.step(1)
}

func (r *run) leave() { r.depth-- }

func (r *run) load(list []load) {
	for i := range list {
		l := &list[i]
		switch l.how {
		case loadNothing:
			r.f.slots[l.slot] = Value{}
		default:
			r.f.slots[l.slot] = *r.at(l.from)
		}
	}
}

// at is the place a reference means.
func (r *run) at(to ref) *Value {
	if to.up < 0 {
		return &r.context[to.slot]
	}
	f := r.f
	for range to.up {
		f = f.up
	}
	return &f.slots[to.slot]
}

// begin makes fn's activation within up the current one and returns what end
// needs to go back.
func (r *run) begin(fn *scopeFunc, up *activation) (back resume) {
	back = resume{r.f, len(r.slots)}
	if fn.closes {
		r.f = &activation{slots: make([]Value, fn.slots), up: up}
		return back
	}
	n := len(r.slots) + fn.slots
	if n > cap(r.slots) {
		// Activations that run keep the old array.
		r.slots = make([]Value, len(r.slots), 2*n+16)
	}
	r.slots = r.slots[:n]
	mine := r.slots[back.slots:n:n]
	clear(mine)
	r.f = &activation{slots: mine, up: up}
	return back
}

// resume is where a function goes back to.
type resume struct {
	f     *activation
	slots int
}

func (r *run) end(back resume) {
	r.f = back.f
	r.slots = r.slots[:back.slots]
}

// body runs statements.
func (r *run) body(list []stmt) (flow, error) {
	for _, s := range list {
		if how, err := s.exec(r); err != nil || how != flowNext {
			return how, err
		}
	}
	return flowNext, nil
}
