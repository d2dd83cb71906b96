package chat

import (
	"math/big"
	"unicode/utf8"
	"unsafe"
)

// method is a method of a built-in type, or another function of the language.
type method func(r *run, self Value, a *args) (Value, error)

// function is a function as a value: a global, or a method bound to its object.
type function struct {
	name string
	self Value
	call method
}

func bound(name string, self Value, m method) Value {
	return Value{k: kFunction, p: unsafe.Pointer(&function{name, self, m})}
}

// attribute is a name after a dot, with what it means on the built-in types
// looked up beforehand.
type attribute struct {
	name string
	str  method
	list method
	dict method
	// changes says which types have a method of that name that would change
	// them, which the sandbox hides.
	changesList, changesDict bool
	tuple                    bool // count and index work on tuples and ranges too
	internal                 bool // every object has it, and the sandbox hides it
	loop                     loopAttribute
	// absent is what a dict without such a key yields.
	absent *undefined
}

var (
	strMethods  map[string]method
	listMethods map[string]method
	dictMethods map[string]method
	hiddenList  = map[string]bool{"append": true, "clear": true, "pop": true, "reverse": true, "insert": true, "sort": true, "extend": true, "remove": true}
	hiddenDict  = map[string]bool{"clear": true, "pop": true, "popitem": true, "setdefault": true, "update": true}
)

// internalNames are attributes that all of Python's objects have.
var internalNames = map[string]bool{
	"__class__": true, "__delattr__": true, "__dir__": true, "__doc__": true, "__eq__": true, "__format__": true,
	"__ge__": true, "__getattribute__": true, "__getstate__": true, "__gt__": true, "__hash__": true, "__init__": true,
	"__init_subclass__": true, "__le__": true, "__lt__": true, "__ne__": true, "__new__": true, "__reduce__": true,
	"__reduce_ex__": true, "__repr__": true, "__setattr__": true, "__sizeof__": true, "__str__": true, "__subclasshook__": true,
}

func newAttribute(name string) *attribute {
	return &attribute{
		name: name, str: strMethods[name], list: listMethods[name], dict: dictMethods[name],
		changesList: hiddenList[name], changesDict: hiddenDict[name],
		internal: internalNames[name], tuple: name == "count" || name == "index", loop: loopAttributes[name],
		absent: &undefined{name: name, of: "dict object"},
	}
}

// of returns the method a has on v, nil if it is no method or hidden.
func (a *attribute) of(v Value) method {
	switch v.k {
	case kString:
		return a.str
	case kDict:
		return a.dict
	case kList:
		return a.list
	case kTuple:
		if a.tuple {
			return a.list
		}
	}
	return nil
}

// attr is v.name: the attribute before the item of that name.
func (r *run) attr(v Value, a *attribute) (Value, error) {
	if v.k == kUndefined {
		return Value{}, r.undefinedError(v)
	}
	if got, ok, err := r.ownAttr(v, a); ok || err != nil {
		return got, err
	}
	switch v.k {
	case kDict:
		if i := v.dict().find(a.name); i >= 0 {
			return v.dict().entries[i].value, nil
		}
		return undef(a.absent), nil
	}
	return undef(&undefined{name: a.name, of: v.objectName()}), nil
}

// ownAttr is getattr(v, name) in the sandbox; ok is false where Python has no
// such attribute.
func (r *run) ownAttr(v Value, a *attribute) (got Value, ok bool, err error) {
	if m := a.of(v); m != nil {
		return bound(a.name, v, m), true, nil
	}
	hidden := v.k == kDict && a.changesDict || v.k == kList && a.changesList || a.internal && v.k != kNamespace
	if hidden {
		return undef(&undefined{security: true, hint: "access to attribute " + pyRepr(a.name) + " of " +
			pyRepr(v.typeName()) + " object is unsafe."}), true, nil
	}
	switch v.k {
	case kLoop:
		return v.loop().attribute(r, a)
	case kNamespace:
		got, ok = v.dict().Get(a.name)
		if ok && a.name[0] == '_' {
			return undef(&undefined{security: true, hint: "access to attribute " + pyRepr(a.name) + " of 'TemplateNamespace' object is unsafe."}), true, nil
		}
		return got, ok, nil
	case kObject:
		got, ok = v.object().attribute(a.name)
		return got, ok, nil
	case kMacro:
		got, ok = v.macro().attribute(a.name)
		return got, ok, nil
	case kFunction:
		if a.name == "fromkeys" && v.p == globals["dict"].p {
			return bound(a.name, v, dictFromkeys), true, nil
		}
	case kBool, kInt, kBig, kFloat:
		got, ok = numberAttribute(v, a.name)
		return got, ok, nil
	}
	return Value{}, false, nil
}

func numberAttribute(v Value, name string) (Value, bool) {
	switch name {
	case "real":
		if v.k == kBool {
			v.k = kInt
		}
		return v, true
	case "imag":
		if v.k == kFloat {
			return Float(0), true
		}
		return Int(0), true
	case "is_integer":
		if v.k == kFloat {
			return bound(name, v, func(_ *run, self Value, a *args) (Value, error) {
				f := self.float()
				return Bool(f == float64(int64(f))), a.none("is_integer")
			}), true
		}
	case "bit_length":
		if v.k != kFloat {
			return bound(name, v, func(_ *run, self Value, a *args) (Value, error) {
				return Int(int64(self.toBig().BitLen())), a.none("bit_length")
			}), true
		}
	case "as_integer_ratio", "bit_count", "conjugate", "denominator", "from_bytes", "fromhex", "hex", "numerator", "to_bytes":
		return bound(name, v, unsupportedMethod(name)), true
	}
	return Value{}, false
}

// unsupportedMethod stands for a method that Python has and this engine has
// not: better an error than an undefined value.
func unsupportedMethod(name string) method {
	return func(*run, Value, *args) (Value, error) {
		return Value{}, fault("the method %s is not supported", name)
	}
}

func (m *macro) attribute(name string) (Value, bool) {
	switch name {
	case "name":
		return String(m.def.name), true
	case "arguments":
		items := make([]Value, len(m.def.params))
		for i, p := range m.def.params {
			items[i] = String(p.id)
		}
		return tuple(items...), true
	case "catch_kwargs":
		return Bool(m.def.scope.kwargs >= 0), true
	case "catch_varargs":
		return Bool(m.def.scope.varargs >= 0), true
	case "caller":
		return Bool(m.def.scope.caller >= 0 || m.def.scope.explicit), true
	}
	return Value{}, false
}

// item is v[index]: the item before the attribute of that name.
func (r *run) item(v, index Value) (Value, error) {
	switch v.k {
	case kUndefined:
		return Value{}, r.undefinedError(v)
	case kDict:
		i, err := r.lookup(v.dict(), index)
		if i >= 0 {
			return v.dict().entries[i].value, nil
		}
		if _, ok := err.(*limitError); ok {
			return Value{}, err
		}
	case kList, kTuple, kString, kRange:
		if v.k == kString {
			if err := r.step(int(v.n) >> 4); err != nil {
				return Value{}, err
			}
		}
		if got, ok := element(v, index); ok {
			return got, nil
		}
	}
	if index.k == kString && index.n <= maxName {
		got, ok, err := r.ownAttr(v, newAttribute(index.str()))
		if ok || err != nil {
			return got, err
		}
		return undef(&undefined{name: index.str(), of: v.objectName()}), nil
	}
	repr, err := r.repr(index)
	if index.k == kString {
		return undef(&undefined{name: index.str(), of: v.objectName()}), err
	}
	return undef(&undefined{name: repr, of: v.objectName(), element: true}), err
}

// element is v[index] of a sequence; ok is false if there is no such element.
func element(v, index Value) (Value, bool) {
	if index.k != kInt && index.k != kBool {
		return Value{}, false
	}
	i := index.n
	switch v.k {
	case kList, kTuple:
		n := int64(len(v.items()))
		if i < 0 {
			i += n
		}
		if i < 0 || i >= n {
			return Value{}, false
		}
		return v.items()[i], true
	case kRange:
		n := int64(v.rng().length())
		if i < 0 {
			i += n
		}
		if i < 0 || i >= n {
			return Value{}, false
		}
		return Int(v.rng().at(int(i))), true
	}
	s := v.str()
	if isASCII(s) {
		if i < 0 {
			i += int64(len(s))
		}
		if i < 0 || i >= int64(len(s)) {
			return Value{}, false
		}
		return sub(v, s[i:i+1]), true
	}
	if i < 0 {
		i += int64(utf8.RuneCountInString(s))
	}
	if at := runeOffset(s, int(max(i, 0))); i >= 0 && at < len(s) {
		_, size := utf8.DecodeRuneInString(s[at:])
		return sub(v, s[at:at+size]), true
	}
	return Value{}, false
}

// sub is s as part of the string v, markup if v is.
func sub(v Value, s string) Value {
	got := String(s)
	got.markup = v.markup
	return got
}

// undefinedError is what using an undefined value raises.
func (r *run) undefinedError(v Value) error {
	u := v.undef()
	switch {
	case u.hint != "":
		return fault("%s", u.hint)
	case u.of == "":
		return fault("%s is undefined", pyRepr(u.name))
	case u.element:
		return fault("%s has no element %s", u.of, u.name)
	}
	return fault("%s has no attribute %s", pyRepr(u.of), pyRepr(u.name))
}

// slice is v[start:stop:step].
func (r *run) slice(v, start, stop, step Value) (Value, error) {
	var n int
	ascii := true
	switch v.k {
	case kUndefined:
		return Value{}, r.undefinedError(v)
	case kList, kTuple:
		n = len(v.items())
	case kString:
		ascii = isASCII(v.str())
		n = len(v.str())
		if !ascii {
			n = utf8.RuneCountInString(v.str())
		}
	case kRange:
		n = v.rng().length()
	case kDict:
		return Value{}, fault("unhashable type: 'slice'")
	default:
		return Value{}, fault("'%s' object is not subscriptable", v.typeName())
	}
	from, to, by, err := sliceBounds(n, start, stop, step)
	if err != nil {
		return Value{}, err
	}
	count := 0
	if by > 0 && from < to {
		count = (to-from-1)/by + 1
	} else if by < 0 && from > to {
		count = (from-to-1)/-by + 1
	}
	if v.k == kString {
		if err := r.step(1 + n>>2); err != nil {
			return Value{}, err
		}
		return sub(v, sliceString(v.str(), ascii, from, by, count)), nil
	}
	if err := r.room(24 * count); err != nil {
		return Value{}, err
	}
	if v.k == kRange {
		g := v.rng()
		return Value{k: kRange, p: unsafe.Pointer(&rangeValue{g.at(from), g.at(to), g.step * int64(by)})}, nil
	}
	items := v.items()
	if by == 1 {
		items = items[from : from+count : from+count]
	} else {
		picked := make([]Value, count)
		for i := range picked {
			picked[i] = items[from+i*by]
		}
		items = picked
	}
	return Value{k: v.k, p: unsafe.Pointer(&sequence{items})}, nil
}

func sliceString(s string, ascii bool, from, by, count int) string {
	if count == 0 {
		return ""
	}
	if ascii {
		if by == 1 {
			return s[from : from+count]
		}
		b := make([]byte, count)
		for i := range b {
			b[i] = s[from+i*by]
		}
		return string(b)
	}
	if by == 1 {
		start := runeOffset(s, from)
		return s[start : start+runeOffset(s[start:], count)]
	}
	runes := []rune(s)
	picked := make([]rune, count)
	for i := range picked {
		picked[i] = runes[from+i*by]
	}
	return string(picked)
}

// runeOffset is the byte at which character n of s begins.
func runeOffset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// sliceBounds resolves the parts of a slice of n elements as Python does.
func sliceBounds(n int, start, stop, step Value) (from, to, by int, err error) {
	by = 1
	if step.k != kNone {
		if by, err = sliceIndex(step); err != nil {
			return 0, 0, 0, err
		}
		if by == 0 {
			return 0, 0, 0, fault("slice step cannot be zero")
		}
		// A step beyond the length does what the length does.
		by = min(max(by, -n-1), n+1)
	}
	low, high := 0, n
	if by < 0 {
		low, high = -1, n-1
	}
	clamp := func(v Value, absent int) (int, error) {
		if v.k == kNone {
			return absent, nil
		}
		i, err := sliceIndex(v)
		if i < 0 {
			i = max(i+n, low)
		}
		return min(max(i, low), high), err
	}
	first, last := 0, n
	if by < 0 {
		first, last = n-1, -1
	}
	if from, err = clamp(start, first); err == nil {
		to, err = clamp(stop, last)
	}
	return from, to, by, err
}

// sliceIndex is an index of a slice, which may lie anywhere.
func sliceIndex(v Value) (int, error) {
	switch v.k {
	case kInt, kBool:
		// Half the range of int leaves room to add a length.
		return int(min(max(v.n, -1<<61), 1<<61)), nil
	case kBig:
		return v.big().Sign() << 61, nil
	}
	return 0, fault("slice indices must be integers or None or have an __index__ method")
}

// toBig is an integer's value, or the whole part of a finite float.
func (v Value) toBig() *big.Int {
	switch v.k {
	case kBig:
		return v.big()
	case kFloat:
		n, _ := new(big.Float).SetFloat64(v.float()).Int(nil)
		return n
	}
	return big.NewInt(v.n)
}

// toFloat is a number's value as a float.
func (v Value) toFloat() float64 {
	switch v.k {
	case kFloat:
		return v.float()
	case kBig:
		f, _ := new(big.Float).SetInt(v.big()).Float64()
		return f
	}
	return float64(v.n)
}

// intValue is n in the narrowest kind.
func intValue(n *big.Int) Value {
	if n.IsInt64() {
		return Int(n.Int64())
	}
	return bigInt(n)
}
