package chat

import (
	"math"
	"math/big"
	"unsafe"
)

// kind says what a Value holds.
type kind uint8

const (
	kMissing   kind = iota // a slot nobody has assigned; never seen by templates
	kUndefined             // p: *undefined
	kNone
	kBool      // n: 0 or 1
	kInt       // n
	kBig       // p: *big.Int beyond 64 bits
	kFloat     // n: the bits
	kString    // p: first byte, n: bytes
	kList      // p: *sequence
	kTuple     // p: *sequence
	kDict      // p: *Dict
	kRange     // p: *rangeValue
	kView      // p: *dictView
	kIterator  // p: *iterator, a generator or another one-shot iterator
	kNamespace // p: *Dict
	kMacro     // p: *macro
	kFunction  // p: *function, a global or a bound method
	kLoop      // p: *loop
	kObject    // p: *object, a cycler or a joiner
)

// Value is what templates compute with: Python's None, bool, int, float, str,
// list and dict, and a few kinds that exist only within a render. It is small
// and copied freely; what it points to is never changed. The zero Value is
// nothing at all: a variable that is not there.
type Value struct {
	p unsafe.Pointer
	n int64
	k kind
	// markup marks a string as safe HTML (markupsafe.Markup): adding other
	// strings to it escapes them.
	markup bool
}

// sequence is the body of a list or tuple.
type sequence struct{ items []Value }

// undefined remembers how an undefined value came about, for the error that
// using it raises.
type undefined struct {
	hint     string // the whole message, or empty
	name     string // the name asked for
	of       string // type of the object it was asked of; empty for a variable
	element  bool   // name is the repr of a subscript that is not a string
	security bool   // the sandbox hides it
}

// None is Python's None, JSON's null.
func None() Value { return Value{k: kNone} }

// Bool is a Python bool.
func Bool(b bool) Value {
	if b {
		return Value{k: kBool, n: 1}
	}
	return Value{k: kBool}
}

// Int is a Python int.
func Int(n int64) Value { return Value{k: kInt, n: n} }

// Float is a Python float.
func Float(f float64) Value { return Value{k: kFloat, n: int64(math.Float64bits(f))} }

// String is a Python str. Text that is not UTF-8 is carried as it is.
func String(s string) Value {
	return Value{k: kString, p: unsafe.Pointer(unsafe.StringData(s)), n: int64(len(s))}
}

// List is a Python list of the items, which must not change any more.
func List(items ...Value) Value {
	return Value{k: kList, p: unsafe.Pointer(&sequence{items})}
}

func tuple(items ...Value) Value {
	return Value{k: kTuple, p: unsafe.Pointer(&sequence{items})}
}

func bigInt(n *big.Int) Value { return Value{k: kBig, p: unsafe.Pointer(n)} }

func markup(s string) Value {
	v := String(s)
	v.markup = true
	return v
}

func undef(u *undefined) Value { return Value{k: kUndefined, p: unsafe.Pointer(u)} }

// str returns a string's text; the value must be a string.
func (v Value) str() string { return unsafe.String((*byte)(v.p), int(v.n)) }

func (v Value) float() float64      { return math.Float64frombits(uint64(v.n)) }
func (v Value) big() *big.Int       { return (*big.Int)(v.p) }
func (v Value) items() []Value      { return (*sequence)(v.p).items }
func (v Value) dict() *Dict         { return (*Dict)(v.p) }
func (v Value) undef() *undefined   { return (*undefined)(v.p) }
func (v Value) view() *dictView     { return (*dictView)(v.p) }
func (v Value) rng() *rangeValue    { return (*rangeValue)(v.p) }
func (v Value) iter() *iterator     { return (*iterator)(v.p) }
func (v Value) macro() *macro       { return (*macro)(v.p) }
func (v Value) function() *function { return (*function)(v.p) }
func (v Value) loop() *loop         { return (*loop)(v.p) }
func (v Value) object() *object     { return (*object)(v.p) }

// IsNone reports whether v is None.
func (v Value) IsNone() bool { return v.k == kNone }

// IsZero reports whether v is the zero Value.
func (v Value) IsZero() bool { return v.k == kMissing }

// AsString returns the text of a string.
func (v Value) AsString() (s string, ok bool) {
	if v.k != kString {
		return "", false
	}
	return v.str(), true
}

// AsList returns the items of a list, which the caller must not change.
func (v Value) AsList() (items []Value, ok bool) {
	if v.k != kList {
		return nil, false
	}
	return v.items(), true
}

// AsDict returns the dict v holds, which the caller must not change once it has
// been rendered.
func (v Value) AsDict() (d *Dict, ok bool) {
	if v.k != kDict {
		return nil, false
	}
	return v.dict(), true
}

// typeName is Python's name of v's type.
func (v Value) typeName() string {
	switch v.k {
	case kUndefined, kMissing:
		return "Undefined"
	case kNone:
		return "NoneType"
	case kBool:
		return "bool"
	case kInt, kBig:
		return "int"
	case kFloat:
		return "float"
	case kString:
		if v.markup {
			return "Markup"
		}
		return "str"
	case kList:
		return "list"
	case kTuple:
		return "tuple"
	case kDict:
		return "dict"
	case kRange:
		return "range"
	case kView:
		return v.view().typeName()
	case kIterator:
		return v.iter().name
	case kNamespace:
		return "TemplateNamespace"
	case kMacro:
		return "Macro"
	case kFunction:
		return "builtin_function_or_method"
	case kLoop:
		return "LoopContext"
	}
	return v.object().typeName()
}

// objectName is the type as jinja2 names it in errors of undefined values.
func (v Value) objectName() string {
	switch v.k {
	case kNone:
		return "None"
	case kNamespace:
		return "transformers.utils.chat_template_utils.TemplateNamespace object"
	case kMacro:
		return "jinja2.runtime.Macro object"
	case kLoop:
		return "jinja2.runtime.LoopContext object"
	case kObject:
		return "jinja2.utils." + v.typeName() + " object"
	case kString:
		if v.markup {
			return "markupsafe.Markup object"
		}
	}
	return v.typeName() + " object"
}
