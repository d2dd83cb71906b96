package selection

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// message is what a call says: the JSON object of its body, and what stands in its
// address over HTTP.
type message struct {
	body []byte
	args []arg
}

// arg is a field in an address.
type arg struct{ name, text string }

// fields are those that a message may have: to what each leads in a T. Several names
// may lead to one; a message gives one of them.
type fields[T any] map[string]func(*T) any

// decode reads a message into q.
func decode[T any](m *message, f fields[T], q *T) error {
	var given given
	for _, a := range m.args {
		raw, err := jsontext.AppendQuote(nil, a.text)
		if err != nil {
			return fault(clip(a.name), "%s in the address is not text; write it in UTF-8", clip(a.name))
		}
		if err := set(f, q, &given, a.name, value{param: a.name, raw: raw, address: true}); err != nil {
			return err
		}
	}
	if len(bytes.TrimSpace(m.body)) == 0 {
		return nil
	}
	return object("", m.body, f, q, &given)
}

// object reads an object into q. param is its name, empty for the message itself.
func object[T any](param string, raw []byte, f fields[T], q *T, g *given) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(raw))
	switch k := d.PeekKind(); k {
	case '{':
	case 0:
		_, err := d.ReadToken()
		return syntax(err)
	default:
		return wrong(value{param: param, raw: raw}, "an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return syntax(err)
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return syntax(err)
		}
		name := token.String()
		v, err := d.ReadValue()
		if err != nil {
			return syntax(err)
		}
		if err := set(f, q, g, name, value{param: join(param, name), raw: v}); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return syntax(err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return syntax(errors.Join(err, errMore))
	}
	return nil
}

var errMore = fault("", "something follows the object of the body; send one object")

// join names a field of an object.
func join(param, name string) string {
	if param == "" {
		return clip(name)
	}
	return param + "." + clip(name)
}

// given are the places of the fields that a message has had.
type given struct {
	places [64]any
	n      int
}

// set gives one field of q its value. Null leaves it as it is.
func set[T any](f fields[T], q *T, g *given, name string, v value) error {
	place := f[name]
	if place == nil {
		return fault(v.param, "there is no field %q here; leave it out, or correct its name", v.param)
	}
	if v.raw.Kind() == 'n' {
		return nil
	}
	to := place(q)
	for _, had := range g.places[:g.n] {
		if had == to {
			return fault(v.param, "%s is there already, under this name or another one; give it once", v.param)
		}
	}
	if g.n == len(g.places) {
		panic("BUG: a message with more fields than one can have")
	}
	g.places[g.n] = to
	g.n++
	return v.into(to)
}

// value is the value of a field.
type value struct {
	param   string
	raw     jsontext.Value // valid JSON
	address bool           // it comes from an address: a text that stands for a number too
}

// wrong says what a value should be.
func wrong(v value, want string) error {
	if v.param == "" {
		return fault("", "the body is %s; it must be %s", shorten(v.raw), want)
	}
	return fault(v.param, "%s is %s; it must be %s", v.param, shorten(v.raw), want)
}

// shorten quotes a value, or says what it is.
func shorten(raw jsontext.Value) string {
	if raw = bytes.TrimSpace(raw); len(raw) < shown {
		return strings.ToValidUTF8(string(raw), "\ufffd")
	}
	switch raw.Kind() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return clip(string(raw))
}

// into reads the value into the place of a field.
func (v value) into(to any) error {
	switch to := to.(type) {
	case *string:
		return v.text(to)
	case *name:
		return v.name(to)
	case *int:
		return v.integer(to)
	case **int:
		*to = new(int)
		return v.integer(*to)
	case *uint64:
		return v.unsigned(to)
	case *float64:
		return v.number(to)
	case **float64:
		*to = new(float64)
		return v.number(*to)
	case *bool:
		return v.truth(to)
	case *dynamo.WorkerID:
		return v.worker(to)
	case *[]dynamo.WorkerID:
		return list(v, to, maxWorkers, value.worker)
	case *[]string:
		return list(v, to, maxLabels, value.text)
	case *[]dynamo.BlockHash:
		return list(v, to, maxPrompt, value.hash)
	case *[]dynamo.TokenID:
		return v.tokens(to)
	case *jsontext.Value:
		*to = v.raw.Clone()
		return nil
	case *map[string]float64:
		return members(v, to, value.number)
	case *map[string]string:
		return members(v, to, value.text)
	case **pin:
		*to = &pin{}
		return object(v.param, v.raw, pinFields, *to, &given{})
	case *constraints:
		return object(v.param, v.raw, constraintFields, to, &given{})
	case *override:
		return object(v.param, v.raw, overrideFields, to, &given{})
	}
	panic("BUG: a field of a type that no value has")
}

// digits is the number that v writes, if it writes one.
func (v value) digits() (string, bool) {
	switch {
	case v.raw.Kind() == '0':
		return string(v.raw), true
	case v.address:
		b, err := jsontext.AppendUnquote(nil, v.raw)
		return string(b), err == nil
	}
	return "", false
}

func (v value) text(to *string) error {
	if v.raw.Kind() != '"' {
		return wrong(v, "a text")
	}
	b, err := jsontext.AppendUnquote(nil, v.raw)
	if err != nil {
		return wrong(v, "a text in UTF-8")
	}
	*to = string(b)
	return nil
}

// name is an id that a client gives: a text, or a whole number, which stands for its
// digits.
type name string

func (v value) name(to *name) error {
	if v.raw.Kind() == '0' && !bytes.ContainsAny(v.raw, "-.eE") {
		*to = name(v.raw)
		return nil
	}
	if v.raw.Kind() != '"' {
		return wrong(v, "a text, or a whole number that is not negative")
	}
	return v.text((*string)(to))
}

func (v value) integer(to *int) error {
	if text, ok := v.digits(); ok {
		n, err := strconv.Atoi(text)
		if err == nil {
			*to = n
			return nil
		}
		if errors.Is(err, strconv.ErrRange) {
			return wrong(v, "a number that is not so large")
		}
	}
	return wrong(v, "a whole number, without point and exponent")
}

func (v value) unsigned(to *uint64) error {
	if text, ok := v.digits(); ok {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			*to = n
			return nil
		}
	}
	return wrong(v, "a whole number, 0 to 18446744073709551615, without point and exponent")
}

func (v value) number(to *float64) error {
	if text, ok := v.digits(); ok {
		switch x, err := strconv.ParseFloat(text, 64); {
		case errors.Is(err, strconv.ErrRange):
			return wrong(v, "a number that is not so large")
		case err == nil && !math.IsNaN(x) && !math.IsInf(x, 0):
			*to = x
			return nil
		}
	}
	return wrong(v, "a number")
}

func (v value) truth(to *bool) error {
	switch text := string(v.raw); {
	case text == "true", v.address && text == `"true"`:
		*to = true
	case text == "false", v.address && text == `"false"`:
		*to = false
	default:
		return wrong(v, "true or false")
	}
	return nil
}

// bits reads 64 bits: a number, or a string of hexadecimal digits, where it has 16 of
// them, begins with 0x or holds a letter, and otherwise of decimal ones. Signed allows
// negative numbers.
func (v value) bits(signed bool) (uint64, bool) {
	text := string(v.raw)
	base := 10
	if v.raw.Kind() == '"' {
		b, err := jsontext.AppendUnquote(nil, v.raw)
		if err != nil {
			return 0, false
		}
		text = string(b)
		if hex, ok := strings.CutPrefix(text, "0x"); ok {
			text, base = hex, 16
		} else if len(text) == 16 || strings.ContainsAny(text, "abcdefABCDEF") {
			base = 16
		}
	}
	if n, err := strconv.ParseUint(text, base, 64); err == nil {
		return n, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return uint64(n), signed && err == nil
}

// worker reads a worker's id.
func (v value) worker(to *dynamo.WorkerID) error {
	n, ok := v.bits(false)
	if !ok || n == 0 {
		return wrong(v, "a worker's id: a number from 1 to 18446744073709551615, written without point and exponent, or a string of 16 hexadecimal digits or with such a number")
	}
	*to = dynamo.WorkerID(n)
	return nil
}

// hash reads a block's hash, which the reference writes as a signed number.
func (v value) hash(to *dynamo.BlockHash) error {
	n, ok := v.bits(true)
	if !ok {
		return wrong(v, "a block's hash: a number of 64 bits, or a string of 16 hexadecimal digits")
	}
	*to = dynamo.BlockHash(n)
	return nil
}

// tokens reads the ids of tokens, of which there are many.
func (v value) tokens(to *[]dynamo.TokenID) error {
	if v.raw.Kind() != '[' {
		return wrong(v, "an array of token ids")
	}
	ids := make([]dynamo.TokenID, 0, min(bytes.Count(v.raw, comma)+1, maxPrompt))
	for i := 1; i < len(v.raw); i++ {
		n, start := uint64(0), i
		for ; i < len(v.raw) && '0' <= v.raw[i] && v.raw[i] <= '9' && n <= math.MaxUint32; i++ {
			n = n*10 + uint64(v.raw[i]-'0')
		}
		switch c := v.raw[i]; {
		case i == start && (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ',' || c == ']'):
		case i == start, n > math.MaxUint32, c == '.', c == 'e', c == 'E':
			return v.oddToken()
		case len(ids) == maxPrompt:
			return fault(v.param, "%s has more than %d elements, the most there may be", v.param, maxPrompt)
		default:
			ids = append(ids, dynamo.TokenID(n))
		}
	}
	*to = ids
	return nil
}

var comma = []byte(",")

// oddToken says which element is no token id.
func (v value) oddToken() error {
	for i, e := range v.elements() {
		if n, err := strconv.ParseUint(string(e.raw), 10, 32); err != nil || n > math.MaxUint32 {
			e.param = v.param + "[" + strconv.Itoa(i) + "]"
			return wrong(e, "a token's id: a whole number, 0 to 4294967295, without point and exponent")
		}
	}
	return wrong(v, "an array of token ids")
}

// list reads an array of at most most elements.
func list[T any](v value, to *[]T, most int, read func(value, *T) error) error {
	if v.raw.Kind() != '[' {
		return wrong(v, "an array")
	}
	*to = nil
	for i, e := range v.elements() {
		if i == most {
			return fault(v.param, "%s has more than %d elements, the most there may be", v.param, most)
		}
		var x T
		if err := read(e, &x); err != nil {
			e.param = v.param + "[" + strconv.Itoa(i) + "]"
			return read(e, &x)
		}
		*to = append(*to, x)
	}
	return nil
}

// elements are those of an array; they have no names of their own.
func (v value) elements() iter.Seq2[int, value] {
	return func(yield func(int, value) bool) {
		d := jsontext.NewDecoder(bytes.NewBuffer(v.raw))
		_, _ = d.ReadToken() // that it is an array is known
		for i := 0; d.PeekKind() != ']'; i++ {
			raw, err := d.ReadValue()
			if err != nil || !yield(i, value{param: v.param, raw: raw}) {
				return
			}
		}
	}
}

// members reads an object of at most maxLabels members of one type.
func members[T any](v value, to *map[string]T, read func(value, *T) error) error {
	if v.raw.Kind() != '{' {
		return wrong(v, "an object")
	}
	*to = map[string]T{}
	d := jsontext.NewDecoder(bytes.NewBuffer(v.raw))
	_, _ = d.ReadToken() // that it is an object is known
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return syntax(err)
		}
		name := token.String()
		raw, err := d.ReadValue()
		if err != nil {
			return syntax(err)
		}
		if len(*to) == maxLabels {
			return fault(v.param, "%s has more than %d members, the most there may be", v.param, maxLabels)
		}
		var x T
		if err := read(value{param: join(v.param, name), raw: raw}, &x); err != nil {
			return err
		}
		(*to)[name] = x
	}
	return nil
}
