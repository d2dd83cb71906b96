package openai

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// Event is one server-sent event. Its slices are valid until the next is read.
type Event struct {
	// Name is the event's type; empty is "message".
	Name []byte
	// Data is the payload, its lines joined by newlines.
	Data []byte
}

// Done reports whether the event ends an OpenAI stream.
func (e Event) Done() bool { return string(e.Data) == "[DONE]" }

// Reader reads server-sent events as the HTML standard defines them: lines end
// in CR, LF or both; a leading byte order mark and comments are skipped; an event
// ends at an empty line, and one that the stream's end cuts off is dropped.
// Fields other than data and event are ignored. Invalid UTF-8 becomes U+FFFD.
type Reader struct {
	r          *bufio.Reader
	most       int
	data, name []byte
	line       []byte
	begun      bool
	afterCR    bool
}

// NewReader returns a reader of events of at most mostBytes (0 is
// MaxEventBytes).
func NewReader(r io.Reader, mostBytes int) *Reader {
	if mostBytes == 0 {
		mostBytes = MaxEventBytes
	}
	return &Reader{r: bufio.NewReader(r), most: mostBytes}
}

// Next returns the next event, or io.EOF after the last.
func (r *Reader) Next() (Event, error) {
	r.data, r.name = r.data[:0], r.name[:0]
	lines := 0
	for {
		line, err := r.readLine()
		if err != nil {
			return Event{}, err
		}
		if len(line) == 0 {
			if lines == 0 {
				r.name = r.name[:0]
				continue
			}
			return Event{Name: valid(r.name), Data: valid(r.data)}, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if lines++; lines > 1 {
				r.data = append(r.data, '\n')
			}
			if len(r.data)+len(value) > r.most {
				return Event{}, r.tooLong()
			}
			r.data = append(r.data, value...)
		case "event":
			r.name = append(r.name[:0], value...)
		}
	}
}

func valid(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	return bytes.ToValidUTF8(b, []byte("\ufffd"))
}

// readLine returns the next line without its end.
func (r *Reader) readLine() ([]byte, error) {
	r.line = r.line[:0]
	for {
		c, err := r.r.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("read an event: %w", err)
		}
		skip := r.afterCR && c == '\n'
		r.afterCR = c == '\r'
		switch {
		case skip:
			continue
		case c == '\n', c == '\r':
			if !r.begun {
				r.begun = true
				r.line = bytes.TrimPrefix(r.line, []byte("\ufeff"))
			}
			return r.line, nil
		}
		r.line = append(r.line, c)
		r.line = r.fill(r.line)
		if len(r.line) > r.most+len("\ufeffdata: ") {
			return nil, r.tooLong()
		}
	}
}

// fill appends what is buffered of the line.
func (r *Reader) fill(line []byte) []byte {
	buffered, _ := r.r.Peek(r.r.Buffered()) // cannot fail: the bytes are there
	n := bytes.IndexAny(buffered, "\r\n")
	if n < 0 {
		n = len(buffered)
	}
	line = append(line, buffered[:n]...)
	_, _ = r.r.Discard(n) // cannot fail: the bytes are there
	return line
}

func (r *Reader) tooLong() error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("an event of the stream is longer than %d bytes", r.most)}
}
