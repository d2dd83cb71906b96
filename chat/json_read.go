package chat

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// ParseJSON reads one JSON value as Python's json.loads does: objects keep
// their order, of equal names the last value counts, integers have any width
// and numbers with a fraction or an exponent are floats. It fails with
// KindInvalid on anything that is not one JSON value in UTF-8, lone surrogates
// included, and on more than 200 levels of nesting. It allocates in proportion
// to the text.
func ParseJSON(data []byte) (Value, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
	v, err := readJSON(dec, 0)
	if err == nil {
		if _, err2 := dec.ReadToken(); err2 != io.EOF {
			err = errors.New("more than one value")
			if err2 != nil {
				err = err2
			}
		}
	}
	if err != nil {
		return Value{}, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "not valid JSON", Err: err}
	}
	return v, nil
}

func readJSON(dec *jsontext.Decoder, depth int) (Value, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return Value{}, err
	}
	switch tok.Kind() {
	case 'n':
		return None(), nil
	case 't':
		return Bool(true), nil
	case 'f':
		return Bool(false), nil
	case '"':
		return String(tok.String()), nil
	case '0':
		return readNumber(tok.String())
	}
	if depth == maxJSONDepth {
		return Value{}, errors.New("more than " + strconv.Itoa(maxJSONDepth) + " arrays and objects within one another")
	}
	if tok.Kind() == '[' {
		return readArray(dec, depth+1)
	}
	return readObject(dec, depth+1)
}

func readArray(dec *jsontext.Decoder, depth int) (Value, error) {
	var items []Value
	for dec.PeekKind() != ']' {
		v, err := readJSON(dec, depth)
		if err != nil {
			return Value{}, err
		}
		items = append(items, v)
	}
	if _, err := dec.ReadToken(); err != nil {
		return Value{}, err
	}
	return List(items...), nil
}

func readObject(dec *jsontext.Decoder, depth int) (Value, error) {
	d := NewDict(4)
	for dec.PeekKind() != '}' {
		tok, err := dec.ReadToken()
		if err != nil {
			return Value{}, err
		}
		name := tok.String()
		v, err := readJSON(dec, depth)
		if err != nil {
			return Value{}, err
		}
		d.Set(name, v)
	}
	if _, err := dec.ReadToken(); err != nil {
		return Value{}, err
	}
	return d.Value(), nil
}

func readNumber(s string) (Value, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) {
			return Value{}, err
		}
		return Float(f), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return Int(n), nil
	}
	if len(s) > maxJSONDigits {
		return Value{}, errors.New("an integer of more than " + strconv.Itoa(maxJSONDigits) + " digits")
	}
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return Value{}, errors.New("a malformed number")
	}
	return bigInt(n), nil
}
