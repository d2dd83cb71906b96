package chat

import "strings"

// args are the evaluated arguments of a call. They lie on the run's stack:
// whoever keeps them copies them.
type args struct {
	pos   []Value
	named []namedValue
}

type namedValue struct {
	name string
	v    Value
}

// maxParams is the most parameters a built-in function has.
const maxParams = 6

// take assigns the arguments to the parameters of fn, of which so many are
// required. A parameter written with a leading slash cannot be passed by name.
// What is not passed is the zero Value.
func (a *args) take(fn string, required int, params ...string) (got [maxParams]Value, err error) {
	if len(a.pos) > len(params) {
		return got, fault("%s() takes at most %d arguments (%d given)", fn, len(params), len(a.pos))
	}
	copy(got[:], a.pos)
next:
	for _, n := range a.named {
		for i, p := range params {
			if p != n.name {
				continue
			}
			if i < len(a.pos) {
				return got, fault("%s() got multiple values for argument '%s'", fn, n.name)
			}
			got[i] = n.v
			continue next
		}
		return got, fault("%s() got an unexpected keyword argument '%s'", fn, n.name)
	}
	for i := range required {
		if got[i].k == kMissing {
			return got, fault("%s() missing required argument '%s' (pos %d)", fn, strings.TrimPrefix(params[i], "/"), i+1)
		}
	}
	return got, nil
}

// none refuses any argument.
func (a *args) none(fn string) error {
	if len(a.pos) > 0 || len(a.named) > 0 {
		return fault("%s() takes no arguments (%d given)", fn, len(a.pos)+len(a.named))
	}
	return nil
}

// noArgs are the arguments of a call without any.
var noArgs args

// pushArgs evaluates arguments onto the stack. The caller hands mark to popArgs
// when the call is over, and does not look at the arguments after that.
func (r *run) pushArgs(a *arguments) (got *args, mark argMark, err error) {
	mark = argMark{len(r.stack), len(r.names), nil}
	got = &noArgs
	if len(a.pos) == 0 && a.named == nil && a.star == nil && a.starStar == nil {
		return got, mark, nil
	}
	for _, x := range a.pos {
		v, err := x.eval(r)
		if err != nil {
			return got, mark, err
		}
		r.stack = append(r.stack, v)
	}
	for i := range a.named {
		v, err := a.named[i].x.eval(r)
		if err != nil {
			return got, mark, err
		}
		r.names = append(r.names, namedValue{a.named[i].name, v})
	}
	if err := r.pushStars(a, mark); err != nil {
		return got, mark, err
	}
	if n := len(r.spare); n > 0 {
		got, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		got = new(args)
	}
	mark.used = got
	got.pos = r.stack[mark.stack:len(r.stack):len(r.stack)]
	got.named = r.names[mark.names:len(r.names):len(r.names)]
	return got, mark, nil
}

type argMark struct {
	stack, names int
	used         *args
}

func (r *run) popArgs(m argMark) {
	r.stack, r.names = r.stack[:m.stack], r.names[:m.names]
	if m.used != nil {
		r.spare = append(r.spare, m.used)
	}
}

// pushStars evaluates *args and **kwargs.
func (r *run) pushStars(a *arguments, mark argMark) error {
	if a.star != nil {
		v, err := a.star.eval(r)
		if err != nil {
			return err
		}
		list, err := r.listOf(v)
		if err != nil {
			return err
		}
		r.stack = append(r.stack, list...)
	}
	if a.starStar == nil {
		return nil
	}
	v, err := a.starStar.eval(r)
	if err != nil {
		return err
	}
	if v.k != kDict {
		return fault("argument after ** must be a mapping, not %s", v.typeName())
	}
	for _, e := range v.dict().entries {
		if e.key.k != kString {
			return fault("keywords must be strings")
		}
		if err := r.step((len(r.names) - mark.names) >> 2); err != nil {
			return err
		}
		for _, n := range r.names[mark.names:] {
			if n.name == e.key.str() {
				return fault("got multiple values for keyword argument '%s'", n.name)
			}
		}
		r.names = append(r.names, namedValue{e.key.str(), e.value})
	}
	return r.step(len(v.dict().entries))
}
