package bench_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/bench"
)

const (
	someContent = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
	streamHead  = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
)

// raw answers every request on a connection with the given bytes, and then does
// what end says.
func raw(t *testing.T, s *server, answer string, end func(c net.Conn)) {
	t.Helper()
	l, err := s.net.Host("raw").Listen(":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1<<16)
				for got := ""; !strings.Contains(got, "}]}"); {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					got += string(b[:n])
				}
				if _, err := c.Write([]byte(answer)); err == nil && end != nil {
					end(c)
				}
			}()
		}
	}()
}

func hang(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }

// chunked is a body in the chunked coding, a chunk each.
func chunked(parts ...string) string {
	var b strings.Builder
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
	}
	return b.String()
}

// TestErrorClasses shows one bad endpoint for each class; the run goes on to its end
// each time.
func TestErrorClasses(t *testing.T) {
	done := "data: [DONE]\n\n"
	tests := []struct {
		name, answer string
		end          func(net.Conn)
		want         string
		unary        bool
	}{
		{name: "whole", answer: streamHead + chunked(someContent, done) + "0\r\n\r\n", want: ""},
		{name: "no DONE but a finish reason", answer: streamHead + chunked(someContent, "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n") + "0\r\n\r\n", want: ""},
		{name: "until the connection ends", answer: streamHead + "\r\n" + someContent + done, want: ""},
		{name: "interim answer first", answer: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + streamHead + chunked(someContent, done) + "0\r\n\r\n", want: ""},
		{name: "chunk extensions, trailers, comments, carriage returns", answer: streamHead + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x;x=y\r\n: ping\r\nevent: m\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata: [DONE]\r\n\r\n\r\n", len(": ping\r\nevent: m\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata: [DONE]\r\n\r\n")) + "0\r\nX: y\r\n\r\n", want: ""},
		{name: "an event over two data lines", answer: streamHead + chunked("data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n", done) + "0\r\n\r\n", want: ""},
		{name: "nothing", end: hang, want: bench.ClassTimeout},
		{name: "head only", answer: streamHead, end: hang, want: bench.ClassTimeout},
		{name: "stalls midway", answer: streamHead + chunked(someContent), end: hang, want: bench.ClassStalled},
		{name: "dies at once", want: bench.ClassReset},
		{name: "dies midway", answer: streamHead + chunked(someContent), want: bench.ClassTruncated},
		{name: "ends without DONE", answer: streamHead + chunked(someContent) + "0\r\n\r\n", want: bench.ClassTruncated},
		{name: "short body", answer: "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", unary: true, want: bench.ClassTruncated},
		{name: "plain JSON for a stream", answer: "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", want: bench.ClassNotSSE},
		{name: "not HTTP", answer: "SSH-2.0-OpenSSH_9.2\r\n", want: bench.ClassResponse},
		{name: "bad chunk", answer: streamHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", want: bench.ClassResponse},
		{name: "endless header", answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 40<<10), end: hang, want: bench.ClassResponse},
		{name: "event that is no JSON", answer: streamHead + chunked(someContent, "data: {\"choices\":[\n\n", done) + "0\r\n\r\n", want: bench.ClassEvent},
		{name: "page instead of JSON", answer: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", unary: true, want: bench.ClassEvent},
		{name: "error event", answer: streamHead + chunked(someContent, "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n", done) + "0\r\n\r\n", want: bench.ClassError},
		{name: "error object of vLLM", answer: streamHead + chunked("data: {\"object\":\"error\",\"message\":\"no\"}\n\n", done) + "0\r\n\r\n", want: bench.ClassError},
		{name: "error null is none", answer: streamHead + chunked("data: {\"error\":null,\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", done) + "0\r\n\r\n", want: ""},
		{name: "500", answer: "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", want: "http_500"},
		{name: "429 chunked", answer: "HTTP/1.1 429 Slow Down\r\n" + chunked("busy") + "0\r\n\r\n", want: "http_429"},
		{name: "no content", answer: streamHead + chunked("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", done) + "0\r\n\r\n", want: bench.ClassEmpty},
		{name: "text that looks like content", answer: streamHead + chunked("data: {\"id\":\"\\\"content\\\":\\\"x\\\"\",\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n", done) + "0\r\n\r\n", want: bench.ClassEmpty},
		{name: "endless event", answer: streamHead + "\r\ndata: " + strings.Repeat("x", 5<<20), end: hang, want: bench.ClassLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, nil)
				raw(t, s, tt.answer, tt.end)
				c := s.config()
				c.URLs, c.Unary = []string{"http://raw"}, tt.unary
				c.Concurrency, c.Requests, c.Timeout = 2, 4, 10*time.Second
				r, err := bench.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]int{}
				if tt.want != "" {
					want[tt.want] = 4
				}
				if !maps.Equal(r.Errors, want) || r.Requests != 4-want[tt.want] {
					t.Errorf("%d whole and errors %v (%v), want %v", r.Requests, r.Errors, r.ErrorDetails, want)
				}
			})
		})
	}
}

func TestRefusedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, nil)
		c := s.config()
		c.URLs, c.Concurrency, c.Requests = []string{"http://nobody"}, 1, 2
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Errors[bench.ClassConnect] != 2 {
			t.Errorf("errors %v, %v; want two of class connect", r.Errors, err)
		}
		c.WarmUp = 1
		if _, err := bench.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "warm-up") {
			t.Errorf("a warm-up without an answer: %v, want an error that says so", err)
		}
	})
}

// TestKeepAlive wants one connection for each slot of a closed loop, and a new one
// when the server closes it while it is idle.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) {
			if q.n == 5 {
				w.Header().Set("Connection", "close")
			}
			stream(w, q, time.Millisecond, even(time.Millisecond))
		})
		dials := 0
		c := s.config()
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return dial(ctx, network, address)
		}
		c.Concurrency, c.Requests, c.WarmUp = 1, 20, 3
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Requests != 20 {
			t.Fatalf("%d requests, %v: %v", r.Requests, r.ErrorDetails, err)
		}
		if dials != 2 {
			t.Errorf("%d connections were made, want 2", dials)
		}
	})
}

// TestIdleClose wants a request on a connection that the server has dropped to be
// sent again, once.
func TestIdleClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, nil)
		raw(t, s, streamHead+chunked(someContent, "data: [DONE]\n\n")+"0\r\n\r\n", nil) // and then it closes
		c := s.config()
		c.URLs, c.Concurrency, c.Requests = []string{"http://raw"}, 1, 10
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Requests != 10 {
			t.Errorf("%d requests, errors %v, %v; want 10", r.Requests, r.ErrorDetails, err)
		}
	})
}

func TestMaxErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) { http.Error(w, "no", http.StatusServiceUnavailable) })
		c := s.config()
		c.Concurrency, c.Requests, c.MaxErrors = 4, 1000, 9
		r, err := bench.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if n := r.Errors["http_503"]; n < 10 || n > 20 || r.Partial == "" {
			t.Errorf("%d errors and partial %q, want a few more than 9 and a reason", n, r.Partial)
		}
	})
}

// TestInterrupted cuts a run: what is open counts as unfinished and the rest stands.
func TestInterrupted(t *testing.T) {
	for _, mode := range []string{"closed", "open"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, func(w http.ResponseWriter, q question) { stream(w, q, 10*time.Millisecond, even(10*time.Millisecond)) })
				c := s.config()
				c.Requests, c.Output.Mean = 100000, 10
				if c.Concurrency = 8; mode == "open" {
					c.Concurrency, c.Arrival.Process, c.Arrival.Rate = 0, "constant", 80
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer time.AfterFunc(2050*time.Millisecond, func() { cancel(errors.New("ctrl-C")) }).Stop()
				start := time.Now()
				r, err := bench.Run(ctx, c)
				if err != nil || r.Partial != "ctrl-C" {
					t.Fatalf("partial %q, %v; want ctrl-C", r.Partial, err)
				}
				if d := time.Since(start); d != 2050*time.Millisecond {
					t.Errorf("it ended after %v, want at once", d)
				}
				if r.Requests < 100 || r.Errors[bench.ClassCut] < 8 || r.Errors[bench.ClassCut] > 9 {
					t.Errorf("%d whole, errors %v; want more than 100 and 8 or 9 unfinished", r.Requests, r.Errors)
				}
			})
		})
	}
}

// TestDuration ends sending at the duration; what is open then has the grace.
func TestDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) {
			d := 100 * time.Millisecond
			if q.n == 15 {
				d = time.Hour
			}
			stream(w, q, d, nil)
		})
		c := s.config()
		c.Concurrency, c.Duration, c.Grace, c.Output.Mean, c.Timeout = 2, 1050*time.Millisecond, 3*time.Second, 1, 2*time.Hour
		r, err := bench.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Errors[bench.ClassCut] != 1 || r.Partial != "" || r.Duration.Round(time.Millisecond) != 4050*time.Millisecond {
			t.Errorf("errors %v, partial %q, duration %v; want one unfinished, cut after the grace", r.Errors, r.Partial, r.Duration)
		}
		if got := len(s.asked()); got < 18 || got > 22 {
			t.Errorf("%d requests were sent, want about 20", got)
		}
	})
}

// TestCancelRate gives up the share asked for, and counts it apart.
func TestCancelRate(t *testing.T) {
	for _, unary := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, q question) {
				if q.Stream {
					stream(w, q, time.Millisecond, even(time.Millisecond))
					return
				}
				time.Sleep(time.Second)
				fmt.Fprint(w, `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
			})
			c := s.config()
			c.Concurrency, c.Requests, c.CancelRate, c.Unary = 4, 400, 0.25, unary
			var cancelled []int
			c.Record = func(r *bench.Record) error {
				if r.Cancelled {
					cancelled = append(cancelled, r.Chunks)
				}
				return nil
			}
			r, err := bench.Run(t.Context(), c)
			if err != nil || len(r.Errors) > 0 || r.Requests+r.Cancelled != 400 || r.Cancelled < 70 || r.Cancelled > 130 {
				t.Fatalf("unary %v: %d whole, %d given up, errors %v, %v; want about 100 of 400 given up", unary, r.Requests, r.Cancelled, r.Errors, err)
			}
			if len(cancelled) != r.Cancelled || !unary && slices.Max(cancelled)-slices.Min(cancelled) < 30 {
				t.Errorf("unary %v: given up after %v events, want all over the answer", unary, cancelled)
			}
		})
	}
}

func TestRecordError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, q question) { stream(w, q, time.Millisecond, even(time.Millisecond)) })
		c := s.config()
		c.Concurrency, c.Requests = 2, 1000
		full := errors.New("disk full")
		c.Record = func(*bench.Record) error { return full }
		if _, err := bench.Run(t.Context(), c); !errors.Is(err, full) {
			t.Errorf("%v, want the error of the records", err)
		}
		if n := len(s.asked()); n > 100 {
			t.Errorf("%d requests were sent after it", n)
		}
	})
}

func TestValidate(t *testing.T) {
	c := bench.DefaultConfig()
	c.Headers, c.Extra, c.Goodput, c.PromptIDs = []string{"no colon"}, []byte("[1]"), map[string]time.Duration{"x": 1}, true
	c.Input, c.Speedup, c.CancelRate = bench.Lengths{Mean: -1}, 0, 2
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, say := range []string{"--url", "--model", "--header", "--extra", "no goodput target", "--prompt-ids", "--input-tokens", "--speedup", "--cancel-rate", "--concurrency, --request-rate or --trace"} {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("%q is not in: %v", say, err)
		}
	}
}
