package bench

import (
	"bytes"
	"strings"
)

// stream reads the body of one answer: a stream of events, or a plain one.
type stream struct {
	sse   bool
	limit int // give up after so many events with content; 0 is never

	acc   []byte // a line that is cut by the end of a piece, or a plain body
	multi []byte // an event whose JSON goes over several data lines
	scanner
	answer
}

// answer is what has come of one answer. Times are ns since the run's start.
type answer struct {
	first, second, last int64 // events with content
	end                 int64
	chunks              int
	gaps                []int64 // between events with content
	usage               bool
	prompt, output      int
	cached              int
	finish              string
	text                []byte // as JSON
	textFull            bool
	done                bool          // [DONE]
	onGaps              func([]int64) // called when gaps are full
}

// gaveUp is how a stream ends that the client leaves by intent.
var errGaveUp = &failure{"cancelled", errGaveUpText{}}

type errGaveUpText struct{}

// Error says what happened.
func (errGaveUpText) Error() string { return "given up by intent" }

// reset makes the stream ready for the next answer.
func (s *stream) reset(sse, keepText bool, limit int) {
	gaps, text, on := s.gaps[:0], s.answer.text[:0], s.onGaps
	s.sse, s.limit, s.keepText = sse, limit, keepText
	s.acc, s.multi = s.acc[:0], s.multi[:0]
	s.answer = answer{gaps: gaps, text: text, onGaps: on}
}

// take reads a piece of the body that came at now.
func (s *stream) take(b []byte, now int64) error {
	if !s.sse {
		if len(s.acc)+len(b) > maxAnswerBytes {
			return fail(ClassLarge, "the answer is longer than %d bytes", maxAnswerBytes)
		}
		s.acc = append(s.acc, b...)
		s.end = now
		return nil
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(s.acc)+len(b) > maxEventBytes {
				return fail(ClassLarge, "an event is longer than %d bytes", maxEventBytes)
			}
			s.acc = append(s.acc, b...)
			return nil
		}
		line := b[:i]
		if len(s.acc) > 0 {
			s.acc = append(s.acc, line...)
			line = s.acc
		}
		if err := s.sseLine(line, now); err != nil {
			return err
		}
		s.acc = s.acc[:0]
		b = b[i+1:]
	}
	return nil
}

var (
	dataField = []byte("data:")
)

// sseLine reads one line of an event stream.
func (s *stream) sseLine(l []byte, now int64) error {
	if n := len(l); n > 0 && l[n-1] == '\r' {
		l = l[:n-1]
	}
	switch {
	case len(l) == 0: // the end of an event
		if len(s.multi) > 0 {
			return fail(ClassEvent, "an event is not JSON: %q", s.multi[:min(len(s.multi), 80)])
		}
		return nil
	case !bytes.HasPrefix(l, dataField): // comments, names, ids
		return nil
	}
	l = l[len(dataField):]
	if len(l) > 0 && l[0] == ' ' {
		l = l[1:]
	}
	if s.end = now; len(s.multi) == 0 && string(l) == "[DONE]" {
		s.done = true
		return nil
	}
	if len(s.multi) > 0 {
		if len(s.multi)+len(l) > maxEventBytes {
			return fail(ClassLarge, "an event is longer than %d bytes", maxEventBytes)
		}
		s.multi = append(append(s.multi, '\n'), l...)
		l = s.multi
	}
	if !s.scan(l) {
		if len(s.multi) == 0 { // it may go on in further lines
			s.multi = append(s.multi, l...)
		}
		return nil
	}
	s.multi = s.multi[:0]
	return s.event(now)
}

// event takes the event that was scanned.
func (s *stream) event(now int64) error {
	if s.e.failed != nil {
		return fail(ClassError, "%s", s.e.failed[:min(len(s.e.failed), maxErrorBytes)])
	}
	s.note()
	if !s.e.content {
		return nil
	}
	s.chunks++
	switch {
	case s.chunks == 1:
		s.first = now
	case s.chunks == 2:
		s.second = now
		fallthrough
	default:
		if len(s.gaps) == maxGaps && s.onGaps != nil {
			s.onGaps(s.gaps)
			s.gaps = s.gaps[:0]
		}
		s.gaps = append(s.gaps, now-s.last)
	}
	s.last = now
	if s.limit > 0 && s.chunks >= s.limit {
		return errGaveUp
	}
	return nil
}

// note keeps usage, finish and text of the event that was scanned.
func (s *stream) note() {
	if s.e.usage {
		s.usage, s.prompt, s.output, s.cached = true, s.e.prompt, s.e.output, s.e.cached
	}
	if len(s.e.finish) > 0 {
		s.finish = finishName(s.e.finish)
	}
	if len(s.e.text) > 0 {
		if len(s.answer.text)+len(s.e.text) > maxTextBytes {
			s.textFull = true
			return
		}
		s.answer.text = append(s.answer.text, s.e.text...)
	}
}

// finishName is a finish_reason without a new string for the common ones.
func finishName(b []byte) string {
	for _, s := range [...]string{"stop", "length", "tool_calls", "content_filter"} {
		if string(b) == s {
			return s
		}
	}
	return strings.ToValidUTF8(string(b[:min(len(b), 32)]), "?")
}

// finishStream says whether an answer whose body has ended is whole.
func (s *stream) finishStream(now int64) error {
	if !s.sse {
		if !s.scan(s.acc) {
			return fail(ClassEvent, "the answer is not JSON: %q", s.acc[:min(len(s.acc), 80)])
		}
		if s.e.failed != nil {
			return fail(ClassError, "%s", s.e.failed[:min(len(s.e.failed), maxErrorBytes)])
		}
		s.note()
		s.end = now
		if s.e.content {
			s.chunks = 1
		}
	} else if len(s.acc) > 0 { // a last line without its end
		if err := s.sseLine(s.acc, now); err != nil {
			return err
		}
	}
	switch {
	case len(s.multi) > 0:
		return fail(ClassEvent, "an event is not JSON: %q", s.multi[:min(len(s.multi), 80)])
	case s.sse && !s.done && s.finish == "":
		return fail(ClassTruncated, "the stream ended without [DONE] or a finish_reason")
	case s.chunks == 0 && s.output == 0:
		return fail(ClassEmpty, "the answer has no content")
	}
	return nil
}
