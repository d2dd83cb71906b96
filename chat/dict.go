package chat

import (
	"math"
	"unsafe"
)

// Dict is a Python dict: it keeps the order of insertion. Only its builder
// changes it; once it is part of a Value that is rendered it stays as it is.
type Dict struct {
	entries []entry
	index   map[string]int // of the string keys, once there are many
}

type entry struct{ key, value Value }

// indexFrom is the number of entries from which a dict keeps an index.
const indexFrom = 12

// NewDict returns an empty dict with room for size entries.
func NewDict(size int) *Dict { return &Dict{entries: make([]entry, 0, size)} }

// Value returns the dict as a Value.
func (d *Dict) Value() Value { return Value{k: kDict, p: unsafe.Pointer(d)} }

// Len returns the number of entries.
func (d *Dict) Len() int { return len(d.entries) }

// At returns entry i in order of insertion.
func (d *Dict) At(i int) (key, value Value) { return d.entries[i].key, d.entries[i].value }

// Set assigns a string key; an existing key keeps its place.
func (d *Dict) Set(key string, v Value) *Dict {
	if i := d.find(key); i >= 0 {
		d.entries[i].value = v
		return d
	}
	d.add(String(key), v)
	return d
}

// Get returns the value of a string key.
func (d *Dict) Get(key string) (v Value, ok bool) {
	if d == nil {
		return Value{}, false
	}
	if i := d.find(key); i >= 0 {
		return d.entries[i].value, true
	}
	return Value{}, false
}

func (d *Dict) add(key, v Value) {
	d.entries = append(d.entries, entry{key, v})
	switch {
	case d.index != nil:
		if key.k == kString {
			d.index[key.str()] = len(d.entries) - 1
		}
	case len(d.entries) == indexFrom:
		d.index = make(map[string]int, 2*indexFrom)
		for i, e := range d.entries {
			if e.key.k == kString {
				d.index[e.key.str()] = i
			}
		}
	}
}

func (d *Dict) find(key string) int {
	if d.index != nil {
		if i, ok := d.index[key]; ok {
			return i
		}
		return -1
	}
	for i := range d.entries {
		k := &d.entries[i].key
		if k.n == int64(len(key)) && k.k == kString && k.str() == key {
			return i
		}
	}
	return -1
}

// findKey finds any hashable key; ints, bools and whole floats are one key.
func (d *Dict) findKey(key Value) int {
	if key.k == kString {
		return d.find(key.str())
	}
	for i := range d.entries {
		if d.entries[i].key.k != kString && sameKey(d.entries[i].key, key) {
			return i
		}
	}
	return -1
}

// sameKey is equality among hashable values.
func sameKey(a, b Value) bool {
	switch {
	case a.isNumber() && b.isNumber():
		return compareNumbers(a, b) == 0
	case a.k != b.k:
		return false
	}
	switch a.k {
	case kString:
		return a.str() == b.str()
	case kTuple:
		x, y := a.items(), b.items()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameKey(x[i], y[i]) {
				return false
			}
		}
		return true
	case kNone, kUndefined:
		return true
	}
	return a.p == b.p
}

func (v Value) isNumber() bool { return v.k >= kBool && v.k <= kFloat }

// unordered is compareNumbers' answer when a NaN is involved.
const unordered = 2

// compareNumbers returns -1, 0, 1 or unordered.
func compareNumbers(a, b Value) int {
	if a.k != kFloat && b.k != kFloat {
		if a.k != kBig && b.k != kBig {
			return order(a.n < b.n, a.n > b.n)
		}
		return a.toBig().Cmp(b.toBig())
	}
	x, y := a.toFloat(), b.toFloat()
	if math.IsNaN(x) || math.IsNaN(y) {
		return unordered
	}
	// A float and an int that convert alike may still differ below the float's
	// precision.
	if x == y && math.Abs(x) >= 1<<53 && a.k != b.k && !math.IsInf(x, 0) {
		return a.toBig().Cmp(b.toBig())
	}
	return order(x < y, x > y)
}

func order(less, greater bool) int {
	switch {
	case less:
		return -1
	case greater:
		return 1
	}
	return 0
}

// dictView is what keys(), values() and items() return.
type dictView struct {
	d    *Dict
	what viewKind
}

type viewKind uint8

const (
	viewKeys viewKind = iota
	viewValues
	viewItems
)

func (w *dictView) typeName() string {
	return [...]string{"dict_keys", "dict_values", "dict_items"}[w.what]
}

func (w *dictView) at(i int) Value {
	e := &w.d.entries[i]
	switch w.what {
	case viewKeys:
		return e.key
	case viewValues:
		return e.value
	}
	return tuple(e.key, e.value)
}
