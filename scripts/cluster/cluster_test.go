package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// TestStream shows that every way in which a stream can be broken fails it.
func TestStream(t *testing.T) {
	const text = `data: {"id":"a","choices":[{"index":0,"text":"x","finish_reason":null}]}` + "\n\n"
	const end = `data: {"id":"a","choices":[{"index":0,"text":"y","finish_reason":"length"}]}` + "\n\n"
	const usage = `data: {"id":"a","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n"
	const done = "data: [DONE]\n\n"
	for _, c := range []struct{ name, body, want string }{
		{"whole", text + end + usage + done, ""},
		{"no [DONE]", text + end + usage, "without [DONE]"},
		{"more after [DONE]", text + end + usage + done + text, "after [DONE]"},
		{"an error", text + `data: {"error":{"message":"lost"}}` + "\n\n" + done, "lost"},
		{"another id", text + strings.Replace(end, `"a"`, `"b"`, 1) + usage + done, "id changes"},
		{"no finish reason", text + usage + done, "no finish reason"},
		{"text after the end", end + text + usage + done, "after its end"},
		{"no usage", text + end + done, "without usage"},
		{"usage twice", text + end + usage + usage + done, "usage comes twice"},
		{"garbage", text + "oops\n\n" + done, "no event"},
		{"another choice", strings.Replace(text, `"index":0`, `"index":1`, 1) + done, "choice 1 of 1"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.body) }))
		r := completion("test", 0, 3, 2)
		events := 0
		a, err := stream(t.Context(), s.Client(), s.URL, &r, func(time.Time) { events++ })
		s.Close()
		switch {
		case c.want != "":
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
			}
		case err != nil || a.texts[0] != "xy" || a.completion != 2 || events != 3:
			t.Errorf("%s: got %+v, %d events, error %v", c.name, a, events, err)
		}
	}
}

func TestDiffers(t *testing.T) {
	want := answer{texts: []string{"a", "b"}, finishes: []string{"stop", "length"}, logprobs: make([]logprobs, 2), prompt: 1, completion: 2}
	for name, c := range map[string]struct {
		change func(*answer)
		want   string
	}{
		"equal":   {func(*answer) {}, ""},
		"text":    {func(a *answer) { a.texts = []string{"a", "c"} }, "text of choice 1"},
		"finish":  {func(a *answer) { a.finishes = []string{"length", "length"} }, "finish reason of choice 0"},
		"logprob": {func(a *answer) { a.logprobs = []logprobs{nil, {"tokens": "x"}} }, "logprobs of choice 1"},
		"usage":   {func(a *answer) { a.completion++ }, "usage"},
	} {
		got := want
		c.change(&got)
		if d := got.differs(&want); !strings.HasPrefix(d, c.want) || (c.want == "") != (d == "") {
			t.Errorf("%s: got %q, want %q", name, d, c.want)
		}
	}
}

// The tokens of an answer may come in any number of events.
func TestLogprobsOfEvents(t *testing.T) {
	read := func(events ...string) *answer {
		t.Helper()
		a := &answer{texts: make([]string, 1), finishes: make([]string, 1), logprobs: make([]logprobs, 1)}
		for _, text := range events {
			var e event
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				t.Fatal(err)
			}
			if err := a.add(&e); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	const head, tail = `{"choices":[{"index":0,"text":"x","logprobs":`, `}]}`
	apart := read(head+`{"tokens":["a"],"token_logprobs":[-1.5]}`+tail, head+`null`+tail, head+`{"tokens":["b"],"token_logprobs":[-2]}`+tail)
	together := read(head+`{"tokens":["a","b"],"token_logprobs":[-1.5,-2]}`+tail, head+`{"tokens":[],"token_logprobs":null}`+tail, head+`null`+tail)
	if d := apart.differs(together); d != "" {
		t.Errorf("equal tokens in other events: %s", d)
	}
	other := read(head+`{"tokens":["a","b"],"token_logprobs":[-1.5,-3]}`+tail, head+`null`+tail, head+`null`+tail)
	if d := apart.differs(other); !strings.HasPrefix(d, "logprobs of choice 0") {
		t.Errorf("another logprob: got %q", d)
	}
}

func TestTally(t *testing.T) {
	r := completion("test", 0, 3, 2)
	good, lost := outcome{request: &r}, outcome{request: &r, lost: true, err: errors.New("gone")}
	for name, c := range map[string]struct {
		outcomes []outcome
		atLeast  int
		fails    bool
	}{
		"good":      {[]outcome{good, good}, 2, false},
		"lost":      {[]outcome{good, lost}, 1, false},
		"too few":   {[]outcome{good, lost}, 2, true},
		"failed":    {[]outcome{good, {request: &r, err: errors.New("no")}}, 1, true},
		"differing": {[]outcome{good, {request: &r, differs: "text"}}, 1, true},
	} {
		v := tallied(c.outcomes)
		if err := v.err(c.atLeast); (err != nil) != c.fails {
			t.Errorf("%s: got %v, want failure %v", name, err, c.fails)
		}
	}
}

func TestGaps(t *testing.T) {
	began := time.Now()
	at := func(ms ...int) (all []time.Time) {
		for _, n := range ms {
			all = append(all, began.Add(time.Duration(n)*time.Millisecond))
		}
		return all
	}
	r := completion("test", 0, 3, 2)
	o := outcome{request: &r, began: began, arrivals: at(10, 20, 30, 90, 100), ended: began.Add(100 * time.Millisecond)}
	f := fault{at: began.Add(35 * time.Millisecond)}
	gaps, share := gapsAround([]outcome{o}, []fault{f})
	if len(gaps) != 1 || gaps[0] != 60*time.Millisecond || share != 1 {
		t.Errorf("around the fault: got %v, share %v; want 60ms, 1", gaps, share)
	}
	if quiet := undisturbedGaps([]outcome{o}, []fault{f}); len(quiet) != 2 || quiet[1] != 10*time.Millisecond {
		t.Errorf("before the fault: got %v, want 10ms twice", quiet)
	}
}

func TestProxyResets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }() // ends with its connection
		}
	}()
	p, err := newProxy()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.forward(l.Addr().String())
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 1)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || b[0] != 'x' {
		t.Fatalf("through the proxy: got %q, error %v; want x", b, err)
	}
	if n := p.reset(); n != 1 {
		t.Errorf("reset: got %d connections, want 1", n)
	}
	if _, err := c.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: got %v, want %v", err, syscall.ECONNRESET)
	}
}

func TestHealthState(t *testing.T) {
	const id = "0dd0000000000001"
	for name, c := range map[string]struct{ json, want string }{
		"hexadecimal": {`{"id":"0dd0000000000001","state":"ready"}`, "ready"},
		"number":      {`{"instance_id":995295517648879617,"status":"draining"}`, "draining"},
		"missing":     {`{"id":"0dd0000000000002","state":"ready"}`, "missing"},
	} {
		h := health{Instances: []jsontext.Value{jsontext.Value(c.json)}}
		if got := h.state(id); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
