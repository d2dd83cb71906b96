package chat

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendStr appends str(v) to the output.
func (r *run) appendStr(v Value) error {
	switch v.k {
	case kString:
		r.out = append(r.out, v.str()...)
		return nil
	case kUndefined, kMissing:
		return nil
	}
	return r.appendRepr(v)
}

// text is str(v).
func (r *run) text(v Value) (string, error) {
	switch v.k {
	case kString:
		return v.str(), nil
	case kUndefined:
		return "", nil
	case kInt:
		return strconv.FormatInt(v.n, 10), nil
	}
	start := len(r.out)
	if err := r.appendRepr(v); err != nil {
		return "", err
	}
	n := len(r.out) - start
	return r.cut(start), r.step(n >> 4)
}

// repr is repr(v).
func (r *run) repr(v Value) (string, error) {
	start := len(r.out)
	if err := r.appendRepr(v); err != nil {
		return "", err
	}
	n := len(r.out) - start
	return r.cut(start), r.step(n >> 4)
}

// appendRepr appends repr(v) to the output.
func (r *run) appendRepr(v Value) error {
	switch v.k {
	case kString:
		if v.markup {
			r.out = append(r.out, "Markup("...)
			r.out = append(appendQuoted(r.out, v.str()), ')')
			return nil
		}
		r.out = appendQuoted(r.out, v.str())
		return nil
	case kUndefined, kMissing:
		r.out = append(r.out, "Undefined"...)
		return nil
	case kNone:
		r.out = append(r.out, "None"...)
		return nil
	case kBool:
		if v.n != 0 {
			r.out = append(r.out, "True"...)
		} else {
			r.out = append(r.out, "False"...)
		}
		return nil
	case kInt:
		r.out = strconv.AppendInt(r.out, v.n, 10)
		return nil
	case kBig:
		r.out = v.big().Append(r.out, 10)
		return nil
	case kFloat:
		r.out = appendFloat(r.out, v.float())
		return nil
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	if len(r.out) > r.limit {
		return r.emitted(0)
	}
	return r.appendObject(v)
}

func (r *run) appendObject(v Value) error {
	switch v.k {
	case kList:
		return r.appendItems("[", v.items(), "]")
	case kTuple:
		if len(v.items()) == 1 {
			return r.appendItems("(", v.items(), ",)")
		}
		return r.appendItems("(", v.items(), ")")
	case kDict:
		return r.appendDict("{", v.dict(), "}")
	case kNamespace:
		return r.appendDict("<Namespace {", v.dict(), "}>")
	case kView:
		w := v.view()
		items := make([]Value, w.d.Len())
		for i := range items {
			items[i] = w.at(i)
		}
		return r.appendItems(w.typeName()+"([", items, "])")
	case kRange:
		g := v.rng()
		r.out = append(r.out, "range("...)
		r.out = strconv.AppendInt(r.out, g.start, 10)
		r.out = append(r.out, ", "...)
		r.out = strconv.AppendInt(r.out, g.stop, 10)
		if g.step != 1 {
			r.out = append(r.out, ", "...)
			r.out = strconv.AppendInt(r.out, g.step, 10)
		}
		r.out = append(r.out, ')')
	case kMacro:
		r.out = append(append(append(r.out, "<Macro "...), pyRepr(v.macro().def.name)...), '>')
	case kLoop:
		n, err := v.loop().length(r)
		if err != nil {
			return err
		}
		r.out = append(r.out, "<LoopContext "...)
		r.out = strconv.AppendInt(r.out, int64(v.loop().index+1), 10)
		r.out = append(r.out, '/')
		r.out = append(strconv.AppendInt(r.out, int64(n), 10), '>')
	case kFunction:
		r.out = append(append(append(r.out, "<built-in function "...), v.function().name...), '>')
	default:
		// Python prints an address here, which nothing can rely on.
		r.out = append(append(append(r.out, '<'), v.typeName()...), " object>"...)
	}
	return nil
}

func (r *run) appendItems(open string, items []Value, end string) error {
	r.out = append(r.out, open...)
	for i, item := range items {
		if i > 0 {
			r.out = append(r.out, ", "...)
		}
		if err := r.appendRepr(item); err != nil {
			return err
		}
	}
	r.out = append(r.out, end...)
	return r.step(len(items))
}

func (r *run) appendDict(open string, d *Dict, end string) error {
	r.out = append(r.out, open...)
	for i, e := range d.entries {
		if i > 0 {
			r.out = append(r.out, ", "...)
		}
		if err := r.appendRepr(e.key); err != nil {
			return err
		}
		r.out = append(r.out, ": "...)
		if err := r.appendRepr(e.value); err != nil {
			return err
		}
	}
	r.out = append(r.out, end...)
	return r.step(d.Len())
}

// pyRepr is Python's repr of a string.
func pyRepr(s string) string { return string(appendQuoted(nil, s)) }

func appendQuoted(b []byte, s string) []byte {
	quote := byte('\'')
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		quote = '"'
	}
	const hex = "0123456789abcdef"
	b = append(b, quote)
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == rune(quote) || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == utf8.RuneError && size == 1, unicode.IsPrint(c):
			b = append(b, s[i:i+size]...)
		case c < 0x100:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		case c < 0x10000:
			b = append(b, '\\', 'u', hex[c>>12], hex[c>>8&15], hex[c>>4&15], hex[c&15])
		default:
			b = append(b, '\\', 'U', '0', '0', hex[c>>20&15], hex[c>>16&15], hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15])
		}
		i += size
	}
	return append(b, quote)
}

// appendFloat appends repr(f): the shortest digits that read back as f, in
// exponent form outside of 1e-4…1e16.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	for _, c := range b[start:] {
		if c == '.' {
			return b
		}
	}
	return append(b, '.', '0')
}
