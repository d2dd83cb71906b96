package chat

// testFunc is a test: what stands before "is", and the arguments.
type testFunc func(r *run, in Value, a *args) (bool, error)

// tests are jinja2's.
var tests map[string]testFunc

// kinds are the tests that only look at the kind of value.
var kinds = map[string]func(Value) bool{
	"defined":   func(v Value) bool { return v.k != kUndefined },
	"undefined": func(v Value) bool { return v.k == kUndefined },
	"none":      func(v Value) bool { return v.k == kNone },
	"boolean":   func(v Value) bool { return v.k == kBool },
	"true":      func(v Value) bool { return v.k == kBool && v.n == 1 },
	"false":     func(v Value) bool { return v.k == kBool && v.n == 0 },
	"integer":   func(v Value) bool { return v.k == kInt || v.k == kBig },
	"float":     func(v Value) bool { return v.k == kFloat },
	"number":    Value.isNumber,
	"string":    func(v Value) bool { return v.k == kString },
	"mapping":   func(v Value) bool { return v.k == kDict },
	"sequence":  isSequence,
	"iterable":  isIterable,
	"callable":  isCallable,
	"escaped":   func(v Value) bool { return v.markup },
}

func init() {
	tests = map[string]testFunc{
		"odd":   parityTest("odd", 1),
		"even":  parityTest("even", 0),
		"lower": letterTest("lower", isLower),
		"upper": letterTest("upper", isUpper),

		"divisibleby": testDivisible,
		"sameas":      testSame,
		"in": func(r *run, in Value, a *args) (bool, error) {
			got, err := a.take("in", 1, "seq")
			if err != nil {
				return false, err
			}
			return r.in(in, got[0])
		},
		"filter": func(_ *run, in Value, a *args) (bool, error) {
			name, ok := in.AsString()
			return ok && filters[name] != nil, a.none("filter")
		},
		"test": func(_ *run, in Value, a *args) (bool, error) {
			name, ok := in.AsString()
			return ok && tests[name] != nil, a.none("test")
		},
	}
	for name, holds := range kinds {
		tests[name] = kindTest(name, holds)
	}
	for op, names := range map[comparison][]string{
		cmpEQ: {"==", "eq", "equalto"}, cmpNE: {"!=", "ne"}, cmpGT: {">", "gt", "greaterthan"}, cmpGE: {">=", "ge"},
		cmpLT: {"<", "lt", "lessthan"}, cmpLE: {"<=", "le"},
	} {
		for _, name := range names {
			tests[name] = compareTest(name, op)
		}
	}
}

func kindTest(name string, holds func(Value) bool) testFunc {
	return func(_ *run, in Value, a *args) (bool, error) {
		if len(a.pos) > 0 || len(a.named) > 0 {
			return false, a.none("test_" + name)
		}
		return holds(in), nil
	}
}

// isSequence is true of what has a length and subscripts.
func isSequence(v Value) bool {
	switch v.k {
	case kUndefined, kString, kList, kTuple, kDict, kRange:
		return true
	}
	return false
}

func isIterable(v Value) bool {
	return isSequence(v) || v.k == kView || v.k == kIterator || v.k == kLoop
}

func isCallable(v Value) bool {
	switch v.k {
	case kUndefined, kMacro, kFunction, kLoop:
		return true
	case kObject:
		return v.object().items == nil
	}
	return false
}

func parityTest(name string, want int64) testFunc {
	return func(r *run, in Value, a *args) (bool, error) {
		if err := a.none("test_" + name); err != nil {
			return false, err
		}
		m, err := r.arithmetic(opMod, in, Int(2))
		if err != nil {
			return false, err
		}
		return r.equal(m, Int(want))
	}
}

func letterTest(name string, holds func(string) bool) testFunc {
	return func(r *run, in Value, a *args) (bool, error) {
		if err := a.none("test_" + name); err != nil {
			return false, err
		}
		s, err := r.text(in)
		if err == nil {
			err = r.step(len(s) >> 4)
		}
		return holds(s), err
	}
}

func testDivisible(r *run, in Value, a *args) (bool, error) {
	got, err := a.take("divisibleby", 1, "num")
	if err != nil {
		return false, err
	}
	m, err := r.arithmetic(opMod, in, got[0])
	if err != nil {
		return false, err
	}
	return r.equal(m, Int(0))
}

// testSame is Python's "is". Small integers, None and the bools are one object
// each; of strings, equal ones count as the same.
func testSame(_ *run, in Value, a *args) (bool, error) {
	got, err := a.take("sameas", 1, "other")
	if err != nil || in.k != got[0].k {
		return false, err
	}
	switch in.k {
	case kNone:
		return true, nil
	case kBool, kInt, kFloat:
		return in.n == got[0].n, nil
	case kString:
		return in.str() == got[0].str(), nil
	}
	return in.p == got[0].p, nil
}

func compareTest(name string, op comparison) testFunc {
	return func(r *run, in Value, a *args) (bool, error) {
		got, err := a.take(name, 1, "/b")
		if err != nil {
			return false, err
		}
		return r.compare(op, in, got[0])
	}
}
