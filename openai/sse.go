package openai

import (
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
	r    io.Reader
	most int
	// buf[from:to] was read and not yet looked at; err is what followed it.
	buf      []byte
	from, to int
	err      error

	data, name, line []byte
	begun            bool
	afterCR          bool
}

// NewReader returns a reader of events of at most mostBytes (0 is
// MaxEventBytes).
func NewReader(r io.Reader, mostBytes int) *Reader {
	if mostBytes == 0 {
		mostBytes = MaxEventBytes
	}
	return &Reader{r: r, most: mostBytes}
}

// Reset makes r read another stream, with the memory it has.
func (r *Reader) Reset(stream io.Reader) {
	*r = Reader{r: stream, most: r.most, buf: r.buf, data: kept(r.data), name: kept(r.name), line: kept(r.line)}
}

// kept returns b's memory for another use, unless it is large.
func kept(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// Next returns the next event, or io.EOF after the last.
func (r *Reader) Next() (Event, error) {
	if r.from == r.to {
		if err := r.fill(); err != nil {
			return Event{}, err
		}
	}
	if data, ok := r.plain(); ok {
		return Event{Data: valid(data)}, nil
	}
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

// plain takes an event of one line of data that lies in the buffer as a whole, as
// nearly all do, without copying it.
func (r *Reader) plain() (data []byte, ok bool) {
	const field = "data: "
	b := r.buf[r.from:r.to]
	if r.afterCR || len(b) < len(field) || string(b[:len(field)]) != field {
		return nil, false
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return nil, false
	}
	data, rest := b[len(field):end], b[end+1:]
	if cr := bytes.IndexByte(data, '\r'); cr >= 0 {
		if cr != len(data)-1 || len(rest) < 2 || rest[0] != '\r' {
			return nil, false
		}
		data, rest = data[:cr], rest[1:]
	}
	if len(rest) == 0 || rest[0] != '\n' || len(data) > r.most {
		return nil, false
	}
	r.begun = true
	r.from = r.to - len(rest) + 1
	return data, true
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
		if r.from == r.to {
			if err := r.fill(); err != nil {
				return nil, err
			}
		}
		b := r.buf[r.from:r.to]
		if r.afterCR {
			r.afterCR = false
			if b[0] == '\n' {
				r.from++
				continue
			}
		}
		n := lineEnd(b)
		r.line = append(r.line, b[:n]...)
		r.from += n
		if len(r.line) > r.most+len("\ufeffdata: ") {
			return nil, r.tooLong()
		}
		if n == len(b) {
			continue
		}
		r.from++
		r.afterCR = b[n] == '\r'
		if !r.begun {
			r.begun = true
			r.line = bytes.TrimPrefix(r.line, []byte("\ufeff"))
		}
		return r.line, nil
	}
}

// lineEnd returns where the first line of b ends, or b's length.
func lineEnd(b []byte) int {
	n := bytes.IndexByte(b, '\n')
	if n < 0 {
		n = len(b)
	}
	if cr := bytes.IndexByte(b[:n], '\r'); cr >= 0 {
		return cr
	}
	return n
}

// fill reads more once all was looked at.
func (r *Reader) fill() error {
	if r.buf == nil {
		r.buf = make([]byte, readBytes)
	}
	r.from, r.to = 0, 0
	for range maxEmptyReads {
		if r.err != nil {
			break
		}
		n, err := r.r.Read(r.buf)
		if r.to, r.err = n, err; n > 0 {
			return nil
		}
	}
	switch {
	case r.err == nil:
		return fmt.Errorf("read an event: %w", io.ErrNoProgress)
	case errors.Is(r.err, io.EOF):
		return io.EOF
	}
	return fmt.Errorf("read an event: %w", r.err)
}

func (r *Reader) tooLong() error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("an event of the stream is longer than %d bytes", r.most)}
}
