package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// valueType is the type of a GGUF metadata value, as numbered in the file.
type valueType uint32

const (
	typeUint8 valueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

var valueTypes = [...]struct {
	name string
	size int // of a value in the file; 0 if it varies
}{
	typeUint8: {"uint8", 1}, typeInt8: {"int8", 1}, typeUint16: {"uint16", 2}, typeInt16: {"int16", 2},
	typeUint32: {"uint32", 4}, typeInt32: {"int32", 4}, typeFloat32: {"float32", 4}, typeBool: {"bool", 1},
	typeString: {"string", 0}, typeArray: {"array", 0}, typeUint64: {"uint64", 8}, typeInt64: {"int64", 8}, typeFloat64: {"float64", 8},
}

func (t valueType) String() string {
	if int(t) >= len(valueTypes) {
		return fmt.Sprintf("type %d", uint32(t))
	}
	return valueTypes[t].name
}

// value is one metadata value, as bytes of the file.
type value struct {
	kind  valueType
	elem  valueType // of an array
	count int       // of an array
	raw   []byte    // the value, or the elements of the array
}

func (v value) String() string {
	if v.kind == typeArray {
		return fmt.Sprintf("array of %d %ss", v.count, v.elem)
	}
	return v.kind.String()
}

// Meta is the metadata of a GGUF file, until the file is closed. Values are
// copied out. Errors name the key and have
// KindNotFound when the key is missing, else KindInvalid.
type Meta struct {
	path   string
	values map[string]value
}

// Has reports whether the key is there.
func (m *Meta) Has(key string) bool {
	_, ok := m.values[key]
	return ok
}

// Keys lists the keys in alphabetical order.
func (m *Meta) Keys() []string {
	keys := make([]string, 0, len(m.values))
	for k := range m.values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (m *Meta) get(key string) (value, error) {
	v, ok := m.values[key]
	if !ok {
		return v, &dynamo.Error{Kind: dynamo.KindNotFound,
			Message: fmt.Sprintf("%s has no metadata key %s: use a file made by a current converter", m.path, key)}
	}
	return v, nil
}

func (m *Meta) mismatch(key string, v value, want string) error {
	return invalid("metadata key %s of %s is of type %s, want %s: use a file made by a current converter", key, m.path, v, want)
}

// String returns a string. Bytes that are not UTF-8 are kept.
func (m *Meta) String(key string) (string, error) {
	v, err := m.get(key)
	if err != nil {
		return "", err
	}
	if v.kind != typeString {
		return "", m.mismatch(key, v, "a string")
	}
	return string(v.raw), nil
}

// Uint returns an integer of any width that is not negative.
func (m *Meta) Uint(key string) (uint64, error) {
	v, err := m.get(key)
	if err != nil {
		return 0, err
	}
	n, ok := v.integer(v.kind, v.raw)
	if v.kind == typeUint64 {
		return binary.LittleEndian.Uint64(v.raw), nil
	}
	if !ok || n < 0 {
		return 0, m.mismatch(key, v, "a number that is not negative")
	}
	return uint64(n), nil
}

// Float returns a float of either width, or an integer as a float.
func (m *Meta) Float(key string) (float64, error) {
	v, err := m.get(key)
	if err != nil {
		return 0, err
	}
	if f, ok := v.float(v.kind, v.raw); ok {
		return f, nil
	}
	n, ok := v.integer(v.kind, v.raw)
	if !ok {
		return 0, m.mismatch(key, v, "a number")
	}
	return float64(n), nil
}

// Bool returns a truth value.
func (m *Meta) Bool(key string) (bool, error) {
	v, err := m.get(key)
	if err != nil {
		return false, err
	}
	if v.kind != typeBool || v.raw[0] > 1 {
		return false, m.mismatch(key, v, "a bool")
	}
	return v.raw[0] == 1, nil
}

// Strings returns an array of strings. They share one copy of the array.
func (m *Meta) Strings(key string) ([]string, error) {
	v, err := m.array(key, "an array of strings", typeString)
	if err != nil {
		return nil, err
	}
	all := string(v.raw)
	out := make([]string, v.count)
	for i, at := 0, 0; i < v.count; i++ {
		n := int(binary.LittleEndian.Uint64(v.raw[at:])) // checked when the file was opened
		out[i] = all[at+8 : at+8+n]
		at += 8 + n
	}
	return out, nil
}

// Ints returns an array of integers of any width.
func (m *Meta) Ints(key string) ([]int64, error) {
	v, err := m.array(key, "an array of integers",
		typeUint8, typeInt8, typeUint16, typeInt16, typeUint32, typeInt32, typeUint64, typeInt64)
	if err != nil {
		return nil, err
	}
	out := make([]int64, v.count)
	size := valueTypes[v.elem].size
	for i := range out {
		n, ok := v.integer(v.elem, v.raw[i*size:])
		if !ok {
			return nil, invalid("metadata key %s of %s holds a number beyond 63 bits: use a file made by a current converter", key, m.path)
		}
		out[i] = n
	}
	return out, nil
}

// Floats returns an array of floats, those of 64 bits rounded to 32.
func (m *Meta) Floats(key string) ([]float32, error) {
	v, err := m.array(key, "an array of floats", typeFloat32, typeFloat64)
	if err != nil {
		return nil, err
	}
	out := make([]float32, v.count)
	size := valueTypes[v.elem].size
	for i := range out {
		f, _ := v.float(v.elem, v.raw[i*size:])
		out[i] = float32(f)
	}
	return out, nil
}

func (m *Meta) array(key, want string, elems ...valueType) (value, error) {
	v, err := m.get(key)
	if err != nil {
		return v, err
	}
	if v.kind != typeArray || v.count > 0 && !slices.Contains(elems, v.elem) {
		return v, m.mismatch(key, v, want)
	}
	return v, nil
}

// integer reads an integer of type t; ok is false for other types and for
// numbers beyond int64.
func (value) integer(t valueType, b []byte) (n int64, ok bool) {
	le := binary.LittleEndian
	switch t {
	case typeUint8:
		return int64(b[0]), true
	case typeInt8:
		return int64(int8(b[0])), true
	case typeUint16:
		return int64(le.Uint16(b)), true
	case typeInt16:
		return int64(int16(le.Uint16(b))), true
	case typeUint32:
		return int64(le.Uint32(b)), true
	case typeInt32:
		return int64(int32(le.Uint32(b))), true
	case typeInt64:
		return int64(le.Uint64(b)), true
	case typeUint64:
		u := le.Uint64(b)
		return int64(u), u <= math.MaxInt64
	}
	return 0, false
}

// float reads a float of type t; ok is false for other types.
func (value) float(t valueType, b []byte) (f float64, ok bool) {
	switch t {
	case typeFloat32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), true
	case typeFloat64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b)), true
	}
	return 0, false
}

// printable shortens a name from a file for a message.
func printable(b []byte) string {
	const most = 80
	if len(b) > most {
		b = b[:most]
	}
	if !utf8.Valid(b) {
		return fmt.Sprintf("%q", b)
	}
	return string(b)
}
