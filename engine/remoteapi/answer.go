package remoteapi

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/go-json-experiment/json/jsontext"
)

// answer reads the stream that answers one request.
type answer struct {
	e      *Engine
	r      *dynamo.Request
	body   watched
	events *openai.Reader
	json   *jsontext.Decoder
	source bytes.Buffer // of json: the event being read

	texts    int // chunks with text so far
	finish   dynamo.FinishReason
	usage    dynamo.Usage
	hasUsage bool
	done     bool // the stream has said that it is over
	scratch  []byte
	form     form
	said     strings.Builder // chunks' texts, one after another: they share its memory
}

// form is an event with nothing but text in it. Most events of a stream differ in
// that text alone: where all around it is the same the rest need not be read again,
// which saves most of the time that an event costs (BenchmarkGenerate).
type form struct {
	event      []byte // empty: none is known
	start, end int    // of the text in it, with its quotes
	texts      int    // texts seen in the event that is being read
}

// match returns the text of an event of this form, appended to dst. What lies
// between the quotes must be a string as a whole, or the event has another form.
func (f *form) match(dst, event []byte) (text []byte, ok bool) {
	tail := len(f.event) - f.end
	if len(f.event) == 0 || len(event) < f.start+2+tail || !bytes.Equal(event[:f.start+1], f.event[:f.start+1]) || !bytes.Equal(event[len(event)-tail-1:], f.event[f.end-1:]) {
		return nil, false
	}
	dst, err := jsontext.AppendUnquote(dst, event[f.start:len(event)-tail])
	return dst, err == nil
}

// answers keeps what reading an answer needs for the next one: buffers and the
// decoder, which cost more than the reading of a short answer (BenchmarkGenerate).
var answers = sync.Pool{New: func() any {
	a := &answer{events: openai.NewReader(nil, maxEventBytes)}
	a.json = jsontext.NewDecoder(&a.source)
	return a
}}

func newAnswer(e *Engine, r *dynamo.Request, body io.ReadCloser, w *watch) *answer {
	a := answers.Get().(*answer)
	a.e, a.r, a.body = e, r, watched{body, w}
	a.events.Reset(&a.body)
	return a
}

// free gives a's memory to another answer; a must not be used any more. What one
// huge event made large goes.
func (a *answer) free() {
	if cap(a.scratch)+cap(a.form.event)+a.source.Cap() > maxKeptBytes {
		return
	}
	a.e, a.r, a.body = nil, nil, watched{}
	a.events.Reset(nil)
	a.source.Reset()
	a.texts, a.finish, a.usage, a.hasUsage, a.done = 0, dynamo.FinishNone, dynamo.Usage{}, false, false
	a.form = form{event: a.form.event[:0]}
	a.said.Reset()
	answers.Put(a)
}

// next returns the next chunk that holds anything. The end waits for the usage,
// which servers send last.
func (a *answer) next() (dynamo.Chunk, error) {
	for {
		event, err := a.events.Next()
		switch {
		case err != nil && a.finish != dynamo.FinishNone:
			return a.final(), nil
		case err != nil:
			return dynamo.Chunk{}, a.broken(err)
		case event.Done():
			a.done = true
			if a.finish == dynamo.FinishNone {
				return dynamo.Chunk{}, a.e.corrupt("its stream ends without a finish_reason")
			}
			return a.final(), nil
		}
		before := a.finish
		text, err := a.read(event.Data)
		if err != nil {
			return dynamo.Chunk{}, err
		}
		if before == dynamo.FinishNone && a.finish != dynamo.FinishNone {
			a.body.watch.limit(usageWait)
			a.body.watch.disarm()
		}
		if len(text) > 0 && before == dynamo.FinishNone {
			a.texts++
			return dynamo.Chunk{Choice: a.r.Choice, Text: a.text(text)}, nil
		}
	}
}

// text returns b as a string. Texts are short and many, so that they share memory.
func (a *answer) text(b []byte) string {
	if a.said.Cap()-a.said.Len() < len(b) {
		a.said.Reset()
		a.said.Grow(max(textBytes, len(b)))
	}
	from := a.said.Len()
	a.said.Write(b)
	return a.said.String()[from:]
}

func (a *answer) broken(err error) error {
	var e *dynamo.Error
	switch {
	case errors.As(err, &e):
		return a.e.corrupt(e.Message)
	case errors.Is(err, io.EOF):
		err = nil
	}
	return a.e.lost("the model's server at "+a.e.base+" broke off the answer", err)
}

// final is the last chunk. The server's counts are taken where they can be true.
func (a *answer) final() dynamo.Chunk {
	u := a.usage
	if !a.hasUsage || u.Prompt <= 0 || u.Completion < 0 || u.Completion > max(a.r.MaxTokens, 0) {
		u = dynamo.Usage{Prompt: len(a.r.Tokens), Completion: min(a.texts, a.r.MaxTokens)}
	}
	u.Cached = max(0, min(u.Cached, u.Prompt))
	return dynamo.Chunk{Choice: a.r.Choice, Finish: a.finish, Usage: u}
}

// close ends the stream and the use of a: one that is over gives its connection back, any other
// one ends with it, which is how servers hear of a cancelled request.
func (a *answer) close() {
	if a.done {
		_, _ = io.CopyN(io.Discard, &a.body, maxDrainBytes) // an error closes the connection
	}
	_ = a.body.Close() // the answer is over
	a.free()
}

// read takes what an event says and returns its text, valid until the next call.
func (a *answer) read(data []byte) (text []byte, err error) {
	if text, ok := a.form.match(a.scratch[:0], data); ok {
		a.scratch = text
		return text, nil
	}
	a.form.texts, a.form.event = 0, a.form.event[:0]
	ended, counted := a.finish, a.hasUsage
	a.source.Reset()
	a.source.Write(data)
	a.json.Reset(&a.source, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	failed := jsontext.Value(nil)
	err = a.object(func(name string) (err error) {
		switch name {
		case `"choices"`:
			text, err = a.choices()
			return err
		case `"usage"`:
			return a.counts()
		case `"error"`:
			v, err := a.json.ReadValue()
			if v.Kind() != 'n' {
				failed = bytes.Clone(v)
			}
			return err
		}
		return a.json.SkipValue()
	})
	switch {
	case errors.Is(err, errAborted):
		return nil, a.e.lost("the model's server at "+a.e.base+" gave the answer up", nil)
	case err != nil:
		return nil, a.e.corrupt("an event of its stream cannot be read: " + said(string(data)))
	case failed != nil:
		return nil, a.e.failed(failed)
	}
	if a.form.texts == 1 && a.finish == ended && a.hasUsage == counted {
		a.form.event = append(a.form.event, data...)
	}
	return text, nil
}

// object reads an object, or null; field reads the value of each member, whose
// name it is given as JSON.
func (a *answer) object(field func(name string) error) error {
	switch a.json.PeekKind() {
	case 'n':
		return a.json.SkipValue()
	case '{':
	default:
		return errShape
	}
	if _, err := a.json.ReadToken(); err != nil {
		return err
	}
	for a.json.PeekKind() == '"' {
		name, err := a.json.ReadValue()
		if err != nil {
			return err
		}
		if err := field(known(name)); err != nil {
			return err
		}
	}
	_, err := a.json.ReadToken() // the end, or what is wrong
	return err
}

var errShape = errors.New("unexpected kind of value")

// known returns a name that is read here, without an allocation, and nothing for
// any other.
func known(name jsontext.Value) string {
	for _, k := range [...]string{`"choices"`, `"text"`, `"finish_reason"`, `"usage"`, `"error"`, `"prompt_tokens"`, `"completion_tokens"`, `"prompt_tokens_details"`, `"cached_tokens"`} {
		if string(name) == k {
			return k
		}
	}
	return ""
}

// choices reads the choices, of which there is one.
func (a *answer) choices() (text []byte, err error) {
	if a.json.PeekKind() != '[' {
		return nil, errShape
	}
	if _, err := a.json.ReadToken(); err != nil {
		return nil, err
	}
	a.scratch = a.scratch[:0]
	for a.json.PeekKind() == '{' {
		err := a.object(func(name string) error {
			switch name {
			case `"text"`:
				return a.piece(&a.scratch)
			case `"finish_reason"`:
				return a.reason()
			}
			return a.json.SkipValue()
		})
		if err != nil {
			return nil, err
		}
	}
	_, err = a.json.ReadToken() // the end, or what is wrong
	return a.scratch, err
}

// piece appends a string, if it is one and not null.
func (a *answer) piece(dst *[]byte) error {
	v, err := a.json.ReadValue()
	if err != nil || v.Kind() == 'n' {
		return err
	}
	a.form.texts++
	a.form.end = int(a.json.InputOffset())
	a.form.start = a.form.end - len(v)
	*dst, err = jsontext.AppendUnquote(*dst, v)
	return err
}

// reason reads why the answer ended.
func (a *answer) reason() error {
	v, err := a.json.ReadValue()
	if err != nil || v.Kind() == 'n' {
		return err
	}
	switch string(v) {
	case `"length"`, `"max_tokens"`:
		a.finish = dynamo.FinishLength
	case `""`:
	case `"abort"`, `"error"`, `"cancelled"`:
		return errAborted
	default: // stop, and what else servers call an answer that is complete
		a.finish = dynamo.FinishStop
	}
	return nil
}

// counts reads the usage.
func (a *answer) counts() error {
	if a.json.PeekKind() == 'n' {
		return a.json.SkipValue()
	}
	a.usage, a.hasUsage = dynamo.Usage{}, true
	return a.object(func(name string) error {
		switch name {
		case `"prompt_tokens"`:
			return a.count(&a.usage.Prompt)
		case `"completion_tokens"`:
			return a.count(&a.usage.Completion)
		case `"prompt_tokens_details"`:
			return a.object(func(name string) error {
				if name == `"cached_tokens"` {
					return a.count(&a.usage.Cached)
				}
				return a.json.SkipValue()
			})
		}
		return a.json.SkipValue()
	})
}

func (a *answer) count(n *int) error {
	v, err := a.json.ReadValue()
	if err != nil || v.Kind() == 'n' {
		return err
	}
	x, err := strconv.ParseInt(string(v), 10, 32)
	*n = int(x)
	return err
}
