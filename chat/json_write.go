package chat

import (
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// jsonStyle is how json.dumps is asked to write.
type jsonStyle struct {
	ascii    bool
	indent   string
	pretty   bool // an indent is given, if only an empty one
	comma    string
	colon    string
	sortKeys bool
}

// appendJSON appends transformers' tojson of v to the output.
func (r *run) appendJSON(v Value, a *args) error {
	st := jsonStyle{comma: ", ", colon: ": "}
	if len(a.pos) > 0 || len(a.named) > 0 {
		if err := st.read(r, a); err != nil {
			return err
		}
	}
	start := len(r.out)
	if err := r.json(v, &st, 0); err != nil {
		return err
	}
	return r.emitted(len(r.out) - start)
}

// read takes the arguments of tojson.
func (st *jsonStyle) read(r *run, a *args) error {
	got, err := a.take("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return err
	}
	st.ascii = got[0].truth()
	st.sortKeys = got[3].truth()
	switch indent := got[1]; indent.k {
	case kMissing, kNone:
	case kInt, kBool:
		if err := r.room(int(min(indent.n, 1<<40))); indent.n > 0 && err != nil {
			return err
		}
		st.indent = strings.Repeat(" ", int(max(indent.n, 0)))
		st.pretty = true
	case kString:
		st.indent, st.pretty = indent.str(), true
	default:
		return fault("can't multiply sequence by non-int of type '%s'", indent.typeName())
	}
	if st.pretty {
		st.comma = ","
	}
	if got[2].k == kMissing || got[2].k == kNone {
		return nil
	}
	pair, err := r.unpack(got[2], 2)
	if err != nil {
		return err
	}
	if pair[0].k != kString || pair[1].k != kString {
		return fault("separators must be strings")
	}
	st.comma, st.colon = pair[0].str(), pair[1].str()
	return nil
}

func (r *run) json(v Value, st *jsonStyle, level int) error {
	switch v.k {
	case kString:
		r.out = appendJSONString(r.out, v.str(), st.ascii)
		return nil
	case kNone:
		r.out = append(r.out, "null"...)
		return nil
	case kBool:
		r.out = strconv.AppendBool(r.out, v.n != 0)
		return nil
	case kInt, kBig:
		return r.appendRepr(v)
	case kFloat:
		r.out = appendJSONFloat(r.out, v.float())
		return nil
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	if len(r.out) > r.limit {
		return r.emitted(0)
	}
	switch v.k {
	case kList, kTuple:
		return r.jsonList(v.items(), st, level+1)
	case kDict:
		return r.jsonDict(v.dict(), st, level+1)
	}
	return fault("Object of type %s is not JSON serializable", v.typeName())
}

// line begins a new line at a level where the style asks for lines.
func (r *run) line(st *jsonStyle, level int) {
	if !st.pretty {
		return
	}
	r.out = append(r.out, '\n')
	for range level {
		r.out = append(r.out, st.indent...)
	}
}

func (r *run) jsonList(items []Value, st *jsonStyle, level int) error {
	if len(items) == 0 {
		r.out = append(r.out, "[]"...)
		return nil
	}
	r.out = append(r.out, '[')
	for i, item := range items {
		if i > 0 {
			r.out = append(r.out, st.comma...)
		}
		r.line(st, level)
		if err := r.json(item, st, level); err != nil {
			return err
		}
		if len(r.out) > r.limit {
			return r.emitted(0)
		}
	}
	r.line(st, level-1)
	r.out = append(r.out, ']')
	return r.step(len(items))
}

func (r *run) jsonDict(d *Dict, st *jsonStyle, level int) error {
	if d.Len() == 0 {
		r.out = append(r.out, "{}"...)
		return nil
	}
	entries := d.entries
	if st.sortKeys {
		var err error
		if entries, err = r.sortedEntries(entries); err != nil {
			return err
		}
	}
	r.out = append(r.out, '{')
	for i := range entries {
		e := &entries[i]
		if i > 0 {
			r.out = append(r.out, st.comma...)
		}
		r.line(st, level)
		if err := r.jsonKey(e.key, st); err != nil {
			return err
		}
		r.out = append(r.out, st.colon...)
		if err := r.json(e.value, st, level); err != nil {
			return err
		}
		if len(r.out) > r.limit {
			return r.emitted(0)
		}
	}
	r.line(st, level-1)
	r.out = append(r.out, '}')
	return r.step(len(entries))
}

func (r *run) sortedEntries(entries []entry) ([]entry, error) {
	if err := r.room(48 * len(entries)); err != nil {
		return nil, err
	}
	entries = append([]entry{}, entries...)
	var failed error
	sort.SliceStable(entries, func(i, j int) bool {
		less, err := r.compare(cmpLT, entries[i].key, entries[j].key)
		if err != nil && failed == nil {
			failed = err
		}
		return less
	})
	return entries, failed
}

func (r *run) jsonKey(key Value, st *jsonStyle) error {
	switch key.k {
	case kString:
		r.out = appendJSONString(r.out, key.str(), st.ascii)
		return nil
	case kNone, kBool, kInt, kBig, kFloat:
		r.out = append(r.out, '"')
		if err := r.json(key, st, 0); err != nil {
			return err
		}
		r.out = append(r.out, '"')
		return nil
	}
	return fault("keys must be str, int, float, bool or None, not %s", key.typeName())
}

func appendJSONFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return appendFloat(b, f)
}

// jsonPlain says which bytes stand for themselves in a JSON string.
var jsonPlain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return t
}()

// appendJSONString appends a string as json.dumps does.
func appendJSONString(b []byte, s string, ascii bool) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if jsonPlain[c] && !(ascii && c >= 0x7f) {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c < 0x20 || c == 0x7f:
			b = appendUnit(b, rune(c))
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r >= 0x10000 {
				r -= 0x10000
				b = appendUnit(b, 0xd800+r>>10)
				r = 0xdc00 + r&0x3ff
			}
			b = appendUnit(b, r)
			i += size - 1
			start = i + 1
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendUnit appends the \u escape of one UTF-16 unit.
func appendUnit(b []byte, c rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15])
}
