package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
)

// The classes of answers that are not whole. An answer with an HTTP status other
// than 200 is of class http_ and the status.
const (
	ClassConnect   = "connect"      // no connection could be made
	ClassTLS       = "tls"          // no secure connection could be made
	ClassTimeout   = "timeout"      // nothing came in time
	ClassStalled   = "stalled"      // the answer began but did not end in time
	ClassReset     = "reset"        // the connection broke
	ClassTruncated = "truncated"    // the answer ended early
	ClassNotSSE    = "not_sse"      // a stream was asked for and something else came
	ClassResponse  = "bad_response" // not HTTP/1.1
	ClassEvent     = "bad_event"    // an event, or the answer, is not JSON of the API
	ClassError     = "error_event"  // the stream carried an error
	ClassEmpty     = "empty"        // the answer has no content
	ClassLarge     = "too_large"    // beyond a limit of this client
	ClassCut       = "unfinished"   // open when the run ended
	ClassPrompt    = "prompt"       // the request could not be made
	ClassOther     = "other"
)

// failure is an error with its class.
type failure struct {
	class string
	err   error
}

// Error returns the class and the cause.
func (f *failure) Error() string { return f.class + ": " + f.err.Error() }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

func fail(class, format string, args ...any) error {
	return &failure{class, fmt.Errorf(format, args...)}
}

func failStatus(status int, body []byte) error {
	return &failure{"http_" + strconv.Itoa(status), errors.New(string(body[:min(len(body), maxErrorBytes)]))}
}

// ioFailure classifies an error of reading or writing; began says that part of the
// answer had come.
func ioFailure(err error, began bool) error {
	var f *failure
	switch {
	case errors.As(err, &f):
		return err
	case isTimeout(err) && began:
		return &failure{ClassStalled, err}
	case isTimeout(err):
		return &failure{ClassTimeout, err}
	case errors.Is(err, io.EOF) && began, errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{ClassTruncated, errors.New("the connection ended before the answer did")}
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return &failure{ClassReset, err}
	}
	return &failure{ClassReset, err}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// classOf returns the class and the text of an error.
func classOf(err error) (class, detail string) {
	var f *failure
	if !errors.As(err, &f) {
		return ClassOther, err.Error()
	}
	detail = f.err.Error()
	return f.class, detail[:min(len(detail), maxErrorBytes)]
}
