package vllm

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// frame is one event of an answer's stream. Its slices are reused by the next.
//
// Both routes send JSON objects, one an event:
//
//	{"choices":[{"index":0,"token_ids":[5],"finish_reason":null,"stop_reason":null,"logprobs":…}],"usage":null}
//	{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}
//	{"error":{"message":"…","type":"…","param":null,"code":400}}
//
// An answer that is no stream is the first two in one, with kv_transfer_params beside them.
//
// /inference/v1/generate has logprobs as {"content":[{"token_id":5,"logprob":-1,"top_logprobs":[{…}]}]}, in older
// versions with "token":"token_id:5" for the id, and /v1/completions as {"tokens":["token_id:5"],
// "token_logprobs":[-1],"top_logprobs":[{"token_id:5":-1}]}.
type frame struct {
	ids      []dynamo.TokenID
	finish   []byte
	stopID   int64
	stopped  bool // stopID is there
	logprobs []dynamo.TokenLogprob

	usage                      bool
	prompt, completion, cached int
	fault                      *fault
	transfer                   []byte // what the server says of KV that it keeps; empty: nothing

	tops []dynamo.TopLogprob
	ends []int // of each logprob's part of tops
}

// fault is what a server says of a request that it does not serve.
type fault struct {
	status               int
	message, kind, param string
}

// parse reads an event; false says that it is no such object. top bounds the
// alternatives that are kept of each logprob.
func (f *frame) parse(b []byte, top int) bool {
	f.ids, f.logprobs, f.tops, f.ends = f.ids[:0], f.logprobs[:0], f.tops[:0], f.ends[:0]
	f.finish, f.stopped, f.usage, f.fault, f.transfer = nil, false, false, nil, nil
	s := scan{b: b}
	if s.peek() != '{' {
		return false
	}
	told := false
	for s.open('{'); s.more('}'); {
		switch string(s.key()) {
		case "choices":
			told = true
			f.choices(&s)
		case "usage":
			f.readUsage(&s)
		case "error":
			start := s.i
			s.skip()
			if !s.bad {
				told = true
				f.fault = parseFault(s.b[start:s.i])
			}
		case "kv_transfer_params":
			start := s.i
			if s.skip(); !s.bad {
				f.transfer = bytes.TrimSpace(s.b[start:s.i])
			}
			if string(f.transfer) == "null" {
				f.transfer = nil
			}
		default:
			s.skip()
		}
	}
	if s.bad || !told || s.peek() != 0 {
		return false
	}
	return f.settle(top)
}

func (f *frame) choices(s *scan) {
	if !s.open('[') {
		return
	}
	for s.more(']') {
		if !s.open('{') {
			s.bad = true
			return
		}
		for s.more('}') {
			switch string(s.key()) {
			case "token_ids":
				f.readIDs(s)
			case "finish_reason":
				f.finish = s.text()
			case "stop_reason":
				if c := s.peek(); c == '-' || c >= '0' && c <= '9' {
					f.stopID, f.stopped = s.integer()
				} else {
					s.skip()
				}
			case "logprobs":
				f.readLogprobs(s)
			default:
				s.skip()
			}
		}
	}
}

func (f *frame) readIDs(s *scan) {
	if !s.open('[') {
		return
	}
	for s.more(']') {
		n, ok := s.integer()
		if !ok || n < 0 || n > math.MaxUint32 {
			s.bad = true
			return
		}
		f.ids = append(f.ids, dynamo.TokenID(n))
	}
}

func (f *frame) readUsage(s *scan) {
	if !s.open('{') {
		return
	}
	f.usage, f.cached = true, 0
	for s.more('}') {
		switch string(s.key()) {
		case "prompt_tokens":
			f.prompt = s.count()
		case "completion_tokens":
			f.completion = s.count()
		case "prompt_tokens_details":
			if !s.open('{') {
				continue
			}
			for s.more('}') {
				if string(s.key()) == "cached_tokens" {
					f.cached = s.count()
				} else {
					s.skip()
				}
			}
		default:
			s.skip()
		}
	}
}

// count returns a number of things; one that cannot be one is a fault, null is 0.
func (s *scan) count() int {
	null := s.peek() == 'n'
	n, ok := s.integer()
	if !null && (!ok || n < 0 || n > math.MaxInt32) {
		s.bad = true
	}
	return int(n)
}

func (f *frame) readLogprobs(s *scan) {
	if !s.open('{') {
		return
	}
	for s.more('}') {
		switch string(s.key()) {
		case "content":
			if !s.open('[') {
				continue
			}
			for s.more(']') {
				p := f.entry(s, true)
				f.logprobs = append(f.logprobs, dynamo.TokenLogprob{ID: p.ID, Logprob: p.Logprob})
				f.ends = append(f.ends, len(f.tops))
			}
		case "tokens":
			f.column(s, func(p *dynamo.TokenLogprob) { p.ID = s.named() })
		case "token_logprobs":
			f.column(s, func(p *dynamo.TokenLogprob) { p.Logprob = s.logprob() })
		case "top_logprobs":
			f.readTops(s)
		default:
			s.skip()
		}
	}
}

// column reads an array that runs beside the others of a completion's logprobs.
func (f *frame) column(s *scan, read func(*dynamo.TokenLogprob)) {
	if !s.open('[') {
		return
	}
	for i := 0; s.more(']'); i++ {
		if i == len(f.logprobs) {
			f.logprobs = append(f.logprobs, dynamo.TokenLogprob{})
		}
		read(&f.logprobs[i])
	}
}

// readTops reads a completion's alternatives: an object for each id.
func (f *frame) readTops(s *scan) {
	if !s.open('[') {
		return
	}
	for s.more(']') {
		if s.open('{') {
			for s.more('}') {
				id := s.named()
				if s.peek() != ':' {
					s.bad = true
					return
				}
				s.i++
				f.tops = append(f.tops, dynamo.TopLogprob{ID: id, Logprob: s.logprob()})
			}
		}
		f.ends = append(f.ends, len(f.tops))
	}
}

// entry reads an id with its logprob and, of an outer one, its alternatives.
func (f *frame) entry(s *scan, outer bool) (p dynamo.TopLogprob) {
	known := false
	if !s.open('{') {
		s.bad = true
		return p
	}
	for s.more('}') {
		switch string(s.key()) {
		case "token_id":
			n, ok := s.integer()
			if known = ok && n >= 0 && n <= math.MaxUint32; known {
				p.ID = dynamo.TokenID(n)
			}
		case "token":
			p.ID, known = s.named(), true
		case "logprob":
			p.Logprob = s.logprob()
		case "top_logprobs":
			if !outer || !s.open('[') {
				s.bad = s.bad || !outer
				continue
			}
			for s.more(']') {
				f.tops = append(f.tops, f.entry(s, false))
			}
		default:
			s.skip()
		}
	}
	s.bad = s.bad || !known
	return p
}

// named reads an id in the form "token_id:5".
func (s *scan) named() dynamo.TokenID {
	digits, ok := bytes.CutPrefix(s.text(), []byte("token_id:"))
	n, whole := integer(digits)
	if !ok || !whole || n < 0 || n > math.MaxUint32 {
		s.bad = true
	}
	return dynamo.TokenID(n)
}

// logprob reads a logarithm of a probability; null is that of an id that the
// server has none for, and what rounding has put above 0 is 0.
func (s *scan) logprob() float32 {
	v := s.real()
	if math.IsNaN(v) {
		return noLogprob
	}
	return float32(min(v, 0))
}

// settle lays the alternatives over their logprobs, best first. A server puts the
// drawn id before the others, whatever its rank.
func (f *frame) settle(top int) bool {
	if len(f.ends) != 0 && len(f.ends) != len(f.logprobs) {
		return false
	}
	start := 0
	for i, end := range f.ends {
		part := f.tops[start:end]
		for j := 1; j < len(part); j++ {
			for k := j; k > 0 && part[k].Logprob > part[k-1].Logprob; k-- {
				part[k], part[k-1] = part[k-1], part[k]
			}
		}
		if n := min(top, len(part)); n > 0 {
			f.logprobs[i].Top = part[:n:n]
		}
		start = end
	}
	return true
}

// parseFault reads an error object: {"message":…,"type":…,"param":…,"code":…}.
func parseFault(b []byte) *fault {
	var e struct {
		Message string
		Type    string
		Param   any
		Code    any
	}
	f := &fault{}
	if err := json.Unmarshal(b, &e); err != nil {
		f.message = excerpt(b)
		return f
	}
	f.message, f.kind = e.Message, e.Type
	if n, ok := e.Code.(float64); ok {
		f.status = int(n)
	}
	if p, ok := e.Param.(string); ok {
		f.param = strings.TrimPrefix(p, "body.")
	}
	return f
}

// excerpt returns the beginning of bytes that make no sense, for an error.
func excerpt(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > maxExcerpt {
		return strings.ToValidUTF8(string(b[:maxExcerpt]), "?") + "…"
	}
	return strings.ToValidUTF8(string(b), "?")
}
