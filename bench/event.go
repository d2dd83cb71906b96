package bench

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// event is what is wanted of one JSON object of an answer: an event of a stream, or
// the whole of a plain one.
type event struct {
	content bool   // a piece of text, reasoning or a tool call is there
	failed  []byte // the error object, or nil
	finish  []byte // the last finish_reason, as it stands between its quotes
	usage   bool   // completion_tokens is there
	prompt  int    // prompt_tokens, and so on
	output  int
	cached  int
	text    []byte // pieces of text as JSON, if wanted
}

// place says where in an event a value stands.
type place uint8

const (
	placeSkip    place = iota
	placeTop           // the object itself
	placeChoices       // "choices": a list
	placeChoice        // an element of it
	placeDelta         // "delta" or "message"
	placeText          // "content", "text", "reasoning_content", …
	placePart          // an element of a content list
	placeCalls         // "tool_calls", "function_call"
	placeFinish
	placeUsage
	placeDetails
	placePrompt // numbers
	placeOutput
	placeCached
	placeError  // "error": anything but null
	placeObject // "object": "error" is how some servers say it
)

// child returns where the value of a key stands.
func (p place) child(key []byte) place {
	switch p {
	case placeTop:
		switch string(key) {
		case "choices":
			return placeChoices
		case "usage":
			return placeUsage
		case "error":
			return placeError
		case "object":
			return placeObject
		}
	case placeChoice:
		switch string(key) {
		case "delta", "message":
			return placeDelta
		case "text":
			return placeText
		case "finish_reason":
			return placeFinish
		}
	case placeDelta:
		switch string(key) {
		case "content", "reasoning_content", "reasoning", "refusal":
			return placeText
		case "tool_calls", "function_call":
			return placeCalls
		}
	case placePart:
		switch string(key) {
		case "text", "refusal":
			return placeText
		}
	case placeUsage:
		switch string(key) {
		case "prompt_tokens":
			return placePrompt
		case "completion_tokens":
			return placeOutput
		case "prompt_tokens_details":
			return placeDetails
		}
	case placeDetails:
		if string(key) == "cached_tokens" {
			return placeCached
		}
	}
	return placeSkip
}

// scanner reads the structure of JSON without making anything of it, so that
// content is found where it is and nowhere else: text that looks like a key, keys in
// other places and white space do not fool it. It checks the structure and not
// what strings and numbers are made of.
type scanner struct {
	b        []byte
	i        int
	keepText bool
	e        event
	depth    int
}

// scan reads one object. It returns false for what is not one.
func (s *scanner) scan(b []byte) bool {
	s.b, s.i, s.depth = b, 0, 0
	s.e = event{text: s.e.text[:0]}
	s.space()
	if s.i >= len(b) || b[s.i] != '{' || !s.value(placeTop) {
		return false
	}
	s.space()
	return s.i == len(b)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// value reads the value at s.i, which stands at p.
func (s *scanner) value(p place) bool {
	s.space()
	if s.i >= len(s.b) {
		return false
	}
	start := s.i
	ok := false
	switch c := s.b[s.i]; c {
	case '{':
		ok = s.object(p)
	case '[':
		ok = s.list(p)
	case '"':
		var text []byte
		if text, ok = s.str(); ok {
			s.found(p, text)
		}
	default:
		ok = s.literal(p)
	}
	if ok && p == placeError && string(s.b[start:s.i]) != "null" {
		s.e.failed = s.b[start:s.i]
	}
	return ok
}

// found takes a string that stands at p.
func (s *scanner) found(p place, text []byte) {
	switch p {
	case placeText:
		if len(text) > 0 {
			s.e.content = true
			if s.keepText {
				s.e.text = append(s.e.text, text...)
			}
		}
	case placeCalls:
		s.e.content = s.e.content || len(text) > 0
	case placeFinish:
		s.e.finish = text
	case placeObject:
		if string(text) == "error" {
			s.e.failed = s.b
		}
	}
}

func (s *scanner) object(p place) bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.i++ // the brace
	for n := 0; ; n++ {
		s.space()
		if s.i >= len(s.b) {
			return false
		}
		if s.b[s.i] == '}' && n == 0 {
			break
		}
		key, ok := s.str()
		if !ok {
			return false
		}
		if s.space(); s.i >= len(s.b) || s.b[s.i] != ':' {
			return false
		}
		s.i++
		at := p.child(key)
		if at == placeSkip && p != placeSkip && bytes.IndexByte(key, '\\') >= 0 {
			at = p.child(unquoted(key))
		}
		if !s.value(at) {
			return false
		}
		more, ok := s.next('}')
		if !ok {
			return false
		}
		if !more {
			if p == placeCalls {
				s.e.content = true
			}
			s.depth--
			return true
		}
	}
	s.i++
	s.depth--
	return true
}

// list reads a list; the elements of some stand where objects count.
func (s *scanner) list(p place) bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.i++ // the bracket
	element := placeSkip
	switch p {
	case placeChoices:
		element = placeChoice
	case placeText: // content as a list of parts
		element = placePart
	case placeCalls:
		element = placeCalls
	}
	if s.space(); s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		s.depth--
		return true
	}
	for {
		if !s.value(element) {
			return false
		}
		more, ok := s.next(']')
		if !ok || !more {
			s.depth--
			return ok
		}
	}
}

// next reads what follows an element: a comma, or the end of its object or list.
func (s *scanner) next(end byte) (more, ok bool) {
	s.space()
	if s.i >= len(s.b) {
		return false, false
	}
	c := s.b[s.i]
	s.i++
	return c == ',', c == ',' || c == end
}

// str reads a string and returns what stands between its quotes.
func (s *scanner) str() ([]byte, bool) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, false
	}
	s.i++
	start := s.i
	for {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			return nil, false
		}
		end := s.i + n
		s.i = end + 1
		slashes := 0
		for j := end - 1; j >= start && s.b[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return s.b[start:end], true
		}
	}
}

// literal reads a number, true, false or null.
func (s *scanner) literal(p place) bool {
	start := s.i
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		s.i++
	}
	word := s.b[start:s.i]
	if len(word) == 0 {
		return false
	}
	if c := word[0]; c != '-' && (c < '0' || c > '9') {
		return string(word) == "null" || string(word) == "true" || string(word) == "false"
	}
	switch p {
	case placePrompt:
		s.e.prompt = whole(word)
	case placeOutput:
		s.e.output, s.e.usage = whole(word), true
	case placeCached:
		s.e.cached = whole(word)
	}
	return true
}

// whole is a number of tokens; what is none, or beyond reason, is 0.
func whole(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<40 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// unquoted is what stands between the quotes of a JSON string, with its escapes
// undone; nil if it is not valid.
func unquoted(b []byte) []byte {
	q := append(append([]byte{'"'}, b...), '"')
	text, err := jsontext.AppendUnquote(nil, q)
	if err != nil {
		return nil
	}
	return text
}
