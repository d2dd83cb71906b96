package bench

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// slow is what the scanner looks for, found with a JSON library.
func slow(b []byte) (e event, ok bool) {
	var top map[string]any
	if err := json.Unmarshal(b, &top, jsontext.AllowInvalidUTF8(true)); err != nil {
		return e, false
	}
	if v := top["error"]; v != nil || top["object"] == "error" {
		e.failed = []byte("x")
	}
	if u, ok := top["usage"].(map[string]any); ok {
		_, e.usage = u["completion_tokens"].(float64)
	}
	choices, _ := top["choices"].([]any)
	for _, c := range choices {
		c, _ := c.(map[string]any)
		e.content = e.content || text(c["text"])
		for _, name := range []string{"delta", "message"} {
			d, _ := c[name].(map[string]any)
			for _, member := range []string{"content", "reasoning_content", "reasoning", "refusal"} {
				e.content = e.content || text(d[member])
			}
			for _, member := range []string{"tool_calls", "function_call"} {
				e.content = e.content || call(d[member])
			}
		}
	}
	return e, true
}

func text(v any) bool {
	switch v := v.(type) {
	case string:
		return v != ""
	case []any:
		for _, p := range v {
			if p, _ := p.(map[string]any); p["text"] != "" && p["text"] != nil {
				if _, ok := p["text"].(string); ok {
					return true
				}
			}
		}
	}
	return false
}

func call(v any) bool {
	switch v := v.(type) {
	case string:
		return v != ""
	case map[string]any:
		return len(v) > 0
	case []any:
		for _, c := range v {
			if call(c) {
				return true
			}
		}
	}
	return false
}

var events = []string{
	`{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}`,
	`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
	`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}`,
	`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}`,
	`{"choices":[{"index":0,"delta":{"tool_calls":[]}}]}`,
	`{"choices":[{"text":" a","logprobs":{"content":[{"token":"x"}]}}]}`,
	`{"choices":[{"text":"","logprobs":{"text":"no"}}]}`,
	`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}}`,
	` { "choices" : [ { "delta" : { "content" : "\"}]}" } } ] , "usage" : null } `,
	`{"choices":[{"delta":{"\u0063ontent":"a"}}]}`,
	`{"choices":[{"delta":{"content":"a\\"}}]}`,
	`{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}`,
	`{"delta":{"content":"elsewhere"},"message":{"content":"x"}}`,
	`{"error":{"message":"x"}}`, `{"error":null}`, `{"object":"error"}`,
	`{"a":[1,2.5e-3,true,false,null,{"b":[]}]}`, `{}`, `[]`, `{`, `{"a"}`, `{"a":1,}`, `{"a":[1,]}`, `{"a":tru}`, `x`, ``,
}

func TestScan(t *testing.T) {
	for _, e := range events {
		compare(t, []byte(e))
	}
	var s scanner
	if !s.scan([]byte(events[7])) || s.e.prompt != 7 || s.e.output != 9 || s.e.cached != 4 {
		t.Errorf("usage is %+v", s.e)
	}
	if s.scan([]byte(strings.Repeat(`{"a":`, 1000))) {
		t.Error("endless nesting is accepted")
	}
}

func compare(t *testing.T, b []byte) {
	t.Helper()
	var s scanner
	ok := s.scan(b)
	want, valid := slow(b)
	if valid && !ok && s.depth <= maxDepth {
		t.Fatalf("%q is refused", b)
	}
	if !valid || !ok {
		return // it checks the structure only
	}
	if s.e.content != want.content || (s.e.failed != nil) != (want.failed != nil) || s.e.usage != want.usage {
		t.Fatalf("%q: content %v, error %q, usage %v; want %+v", b, s.e.content, s.e.failed, s.e.usage, want)
	}
}

// FuzzScan compares the scanner with a JSON library on everything that is JSON.
func FuzzScan(f *testing.F) {
	for _, e := range events {
		f.Add([]byte(e))
	}
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, b) })
}

// scripted is a connection that reads a fixed text in pieces of a size.
type scripted struct {
	net.Conn
	text  string
	piece int
}

func (s *scripted) Read(b []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.text)
	s.text = s.text[n:]
	return n, nil
}

// read reads one answer from a text that comes in pieces of a size.
func read(text string, piece int, sse bool) (*conn, error) {
	c := newConn(nil, nil, time.Now())
	c.c = &scripted{text: text, piece: max(piece, 1)}
	c.stream.reset(sse, true, 0)
	h, err := c.readHead()
	if err != nil {
		return c, err
	}
	if _, err := c.body(h); err != nil {
		return c, err
	}
	return c, c.finishStream(c.now)
}

var answers = []string{
	"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3a\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"abc\\u00e9\"}}]}\n\nda\r\n37\r\nta: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\r\n10;x\r\ndata: [DONE]\r\n\r\n\r\n0\r\nA: b\r\n\r\n",
	"HTTP/1.1 200 OK\r\ncontent-length: 53\r\n\r\ndata: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"x\"}]}\n",
	"HTTP/1.0 200 OK\r\n\r\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\ndata: \"choices\":[]}\n\ndata: [DONE]",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}

// FuzzAnswer reads answers whose bytes come in pieces of any size: what is read must
// not depend on the pieces.
func FuzzAnswer(f *testing.F) {
	for _, a := range answers {
		f.Add(a, 7)
	}
	f.Fuzz(func(t *testing.T, text string, piece int) {
		for _, sse := range []bool{true, false} {
			whole, err1 := read(text, len(text), sse)
			parts, err2 := read(text, piece%64, sse)
			a, b := whole.answer, parts.answer
			if (err1 == nil) != (err2 == nil) || a.chunks != b.chunks || string(a.text) != string(b.text) || a.finish != b.finish || a.output != b.output {
				t.Fatalf("%q in pieces of %d: %v and %+v, whole %v and %+v", text, piece, err2, b, err1, a)
			}
		}
	})
}

// TestAnswerPieces cuts each answer at every length.
func TestAnswerPieces(t *testing.T) {
	for i, a := range answers[:3] {
		for piece := 1; piece < len(a); piece++ {
			c, err := read(a, piece, true)
			want := []string{"abc\\u00e9", "a", "a"}[i]
			if err != nil || string(c.answer.text) != want {
				t.Fatalf("answer %d in pieces of %d: text %q, %v; want %q", i, piece, c.answer.text, err, want)
			}
		}
	}
}

// TestChunkAllocations wants a chunk to cost no allocation.
func TestChunkAllocations(t *testing.T) {
	c := newConn(nil, nil, time.Now())
	piece := []byte("data: " + events[0] + "\n\n")
	c.stream.reset(true, false, 0)
	c.onGaps = func([]int64) {}
	for range maxGaps + 1 {
		if err := c.take(piece, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { _ = c.take(piece, 1) }); n != 0 {
		t.Errorf("%v allocations a chunk, want 0", n)
	}
}

// endless is a connection whose server always has the next chunks ready.
type endless struct {
	net.Conn
	block []byte
}

func (e *endless) Read(b []byte) (int, error) { return copy(b, e.block), nil }

// BenchmarkChunk is the cost of a chunk to the client, without the system's part:
// HTTP's chunk, the event's lines, its JSON and the clock.
func BenchmarkChunk(b *testing.B) {
	for _, per := range []int{1, 16} { // chunks a read
		b.Run(map[int]string{1: "one", 16: "sixteen"}[per]+"_a_read", func(b *testing.B) {
			event := "data: " + events[0] + "\n\n"
			chunk := fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
			c := newConn(nil, nil, time.Now())
			c.c = &endless{block: []byte(strings.Repeat(chunk, per))}
			c.stream.reset(true, false, b.N)
			c.onGaps = func([]int64) {}
			b.ReportAllocs()
			b.ResetTimer()
			if err := c.readChunks(); err != errGaveUp {
				b.Fatal(err)
			}
		})
	}
}
