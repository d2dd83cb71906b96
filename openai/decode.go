package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// Optional is a value that a request may leave out.
type Optional[T any] struct {
	Value T
	Set   bool
}

// Some returns a value that is there.
func Some[T any](v T) Optional[T] { return Optional[T]{v, true} }

// Or returns the value, or d if there is none.
func (o Optional[T]) Or(d T) T {
	if o.Set {
		return o.Value
	}
	return d
}

// Member is a field of an object that nobody knows.
type Member struct {
	Name  string
	Value jsontext.Value
}

// decoder reads one body. Its methods return errors that name the field they
// stand at.
type decoder struct {
	*jsontext.Decoder
	body    []byte
	scratch []byte
}

// decoders keeps what reading takes besides the body: it halves the time of a
// short request (BenchmarkDecodeChat).
var decoders = sync.Pool{New: func() any { return &decoder{Decoder: jsontext.NewDecoder(bytes.NewReader(nil))} }}

// release gives d back without the body it read.
func (d *decoder) release() {
	d.body = nil
	d.Reset(bytes.NewReader(nil))
	if cap(d.scratch) > maxKept {
		d.scratch = nil
	}
	decoders.Put(d)
}

// decodeObject reads body, a JSON object, giving each member that is not null to
// field, which reads its value.
func decodeObject(body []byte, field func(d *decoder, name string) error) error {
	if err := checkDepth(body); err != nil {
		return err
	}
	d := decoders.Get().(*decoder)
	defer d.release()
	d.body = body
	d.Reset(bytes.NewBuffer(body))
	if err := d.object(field); err != nil {
		return syntax(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		e := fault("", "the body holds more than one JSON object")
		e.Code = "invalid_json"
		return e
	}
	return nil
}

// checkDepth refuses deeply nested bodies in one cheap pass, before anything is
// built from them.
func checkDepth(body []byte) error {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			i += stringEnd(body[i+1:])
		case '{', '[':
			if depth++; depth > MaxDepth {
				return fault("", "the body is nested more than %d levels deep", MaxDepth)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

// stringEnd returns the length of a JSON string without its opening quote, which is
// all of b where the string does not end. Prompts are most of a body, and this is
// much faster than looking at each of their bytes.
func stringEnd(b []byte) int {
	quote := -1
	for i := 0; i < len(b); {
		if quote < i {
			n := bytes.IndexByte(b[i:], '"')
			if n < 0 {
				break
			}
			quote = i + n
		}
		n := bytes.IndexByte(b[i:quote], '\\')
		if n < 0 {
			return quote + 1
		}
		i += n + 2 // what is escaped may be the quote
	}
	return len(b)
}

// param names the field the decoder stands at.
func (d *decoder) param() string { return paramOf(d.StackPointer()) }

// wrong is the error of the value just read, which is not what its field wants.
func (d *decoder) wrong(got jsontext.Kind, want string) error {
	param := d.param()
	if param == "" {
		return fault("", "the body must be %s, not %s", want, kindName(got))
	}
	return fault(param, "%s must be %s, not %s", param, want, kindName(got))
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "what stands there"
}

// expect checks the kind of the next value; a fault of the JSON text itself is
// reported as such, being the more useful thing to hear.
func (d *decoder) expect(k jsontext.Kind, want string) error {
	got := d.PeekKind()
	if got == k {
		return nil
	}
	if err := d.SkipValue(); err != nil {
		return err
	}
	return d.wrong(got, want)
}

// object gives each member that is not null to field.
func (d *decoder) object(field func(d *decoder, name string) error) error {
	if err := d.expect('{', "an object"); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		name, err := d.unquote(raw)
		if err != nil {
			return err
		}
		if d.PeekKind() == 'n' {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if err := field(d, name); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// array calls element for each element, refusing more than most of them.
func (d *decoder) array(most int, want string, element func(d *decoder, i int) error) error {
	if err := d.expect('[', want); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for i := 0; d.PeekKind() != ']'; i++ {
		if i == most {
			param := paramOf(d.StackPointer().Parent()) // it points at the last element read
			return fault(param, "%s has more than %d elements", param, most)
		}
		if err := element(d, i); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// unquote returns the text of a JSON string.
func (d *decoder) unquote(raw jsontext.Value) (string, error) {
	if len(raw) >= 2 && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var err error
	d.scratch, err = jsontext.AppendUnquote(d.scratch[:0], raw)
	return string(d.scratch), err
}

// text reads a string.
func (d *decoder) text() (string, error) {
	if err := d.expect('"', "a string"); err != nil {
		return "", err
	}
	raw, err := d.ReadValue()
	if err != nil {
		return "", err
	}
	return d.unquote(raw)
}

// name reads a short string.
func (d *decoder) name() (string, error) {
	s, err := d.text()
	if err == nil && len(s) > MaxNameBytes {
		return "", fault(d.param(), "%s is longer than %d bytes", d.param(), MaxNameBytes)
	}
	return s, err
}

// boolean reads true or false.
func (d *decoder) boolean() (bool, error) {
	if k := d.PeekKind(); k != 't' && k != 'f' {
		return false, d.expect('t', "true or false")
	}
	t, err := d.ReadToken()
	if err != nil {
		return false, err
	}
	return t.Bool(), nil
}

// number reads a finite number between least and most.
func (d *decoder) number(least, most float64) (float64, error) {
	if err := d.expect('0', "a number"); err != nil {
		return 0, err
	}
	raw, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	x, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(x >= least && x <= most) {
		return 0, fault(d.param(), "%s is %s; it must be between %v and %v", d.param(), shorten(string(raw)), least, most)
	}
	return x, nil
}

// integer reads a whole number between least and most; 3.0 is one.
func (d *decoder) integer(least, most int64) (int64, error) {
	if err := d.expect('0', "an integer"); err != nil {
		return 0, err
	}
	raw, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		x, bad := strconv.ParseFloat(string(raw), 64)
		switch {
		case bad == nil && x != math.Trunc(x):
			return 0, fault(d.param(), "%s is %s; it must be an integer", d.param(), shorten(string(raw)))
		case bad == nil && math.Abs(x) < 1<<53:
			n, err = int64(x), nil
		}
	}
	if err != nil || n < least || n > most {
		return 0, fault(d.param(), "%s is %s; it must be between %d and %d", d.param(), shorten(string(raw)), least, most)
	}
	return n, nil
}

// token reads a token id.
func (d *decoder) token() (dynamo.TokenID, error) {
	n, err := d.integer(0, math.MaxUint32)
	return dynamo.TokenID(n), err
}

// tokens reads a list of token ids after dst.
func (d *decoder) tokens(dst []dynamo.TokenID, most int) ([]dynamo.TokenID, error) {
	err := d.array(most, "an array of token ids", func(d *decoder, _ int) error {
		id, err := d.token()
		dst = append(dst, id)
		return err
	})
	return dst, err
}

// raw keeps a value as it stands.
func (d *decoder) raw() (jsontext.Value, error) {
	v, err := d.ReadValue()
	return v.Clone(), err
}

// since returns the object or array read since the decoder stood at offset start,
// as it stands in the body.
func (d *decoder) since(start int64) jsontext.Value {
	return jsontext.Value(bytes.TrimLeft(d.body[start:d.InputOffset()], ",: \t\r\n"))
}

// shorten keeps an error message readable whatever was sent.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:most], len(s))
}

// into stores what a reader returns.
func into[T any](dst *T) func(T, error) error {
	return func(v T, err error) error {
		if err == nil {
			*dst = v
		}
		return err
	}
}

// some stores what a reader returns as a value that is there.
func some[T any](dst *Optional[T]) func(T, error) error {
	return func(v T, err error) error {
		if err == nil {
			*dst = Some(v)
		}
		return err
	}
}
