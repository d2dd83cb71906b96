package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
)

func frameBytes(typ frameType, flags byte, stream uint32, payload string) []byte {
	return append(appendHeader(nil, typ, flags, stream, len(payload)), payload...)
}

func opens(method, request string) string {
	return string(append(appendOpening(nil, time.Second, method, "trace"), request...))
}

// seeds are byte streams that mean something.
func seeds() [][]byte {
	failure := string(appendWireError(nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "m", Code: "c", Err: errors.New("x")}))
	return [][]byte{
		nil, {1}, frameBytes(frameAlive, 0, 0, ""),
		bytes.Join([][]byte{
			frameBytes(frameOpen, 0, 0, opens("mirror", "hello")), frameBytes(frameData, 0, 0, "message"),
			frameBytes(frameData, flagMore, 0, "two "), frameBytes(frameData, 0, 0, "parts"), frameBytes(frameWindow, 0, 0, "\x00\x00\x10\x00"), frameBytes(frameClose, 0, 0, ""),
		}, nil),
		append(frameBytes(frameOpen, flagMore, 5, opens("mirror", "a")), frameBytes(frameData, 0, 5, "b")...),
		append(frameBytes(frameOpen, 0, 1, opens("mirror", "")), frameBytes(frameCancel, 0, 1, failure)...),
		append(frameBytes(frameOpen, 0, 1, opens("mirror", "")), frameBytes(frameOpen, 0, 1, opens("mirror", ""))...),
		frameBytes(frameOpen, 0, 1<<20-1, opens("other", "")), frameBytes(frameEnd, 0, 1, failure), frameBytes(frameGoaway, 0, 0, failure),
		frameBytes(200, 0, 0, ""), appendHeader(nil, frameData, 0, 0, 0xffff),
	}
}

// fed is a connection whose peer has said all it says.
type fed struct {
	net.Conn
	in      *bytes.Reader
	written int
	mu      sync.Mutex
}

func (f *fed) Read(b []byte) (int, error) { return f.in.Read(b) }

func (f *fed) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written += len(b)
	return len(b), nil
}

func (f *fed) Close() error                     { return nil }
func (f *fed) SetDeadline(time.Time) error      { return nil }
func (f *fed) SetWriteDeadline(time.Time) error { return nil }
func (f *fed) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (f *fed) LocalAddr() net.Addr              { return &net.TCPAddr{} }

func testServer(tb testing.TB) *Server {
	tb.Helper()
	c := DefaultConfig()
	c.Key, c.MaxStreams, c.WindowBytes = bytes.Repeat([]byte{7}, 32), 64, 8<<10
	s, err := NewServer(ServerConfig{Config: c, Worker: 1, Epoch: 1})
	if err != nil {
		tb.Fatal(err)
	}
	s.Handle("mirror", Endpoint{Serve: func(_ context.Context, st *Stream) error {
		for {
			m, err := st.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := st.Send(m); err != nil {
				return err
			}
		}
	}})
	return s
}

// FuzzFrames feeds a connection of a peer that has proved itself: nothing that
// it sends panics, hangs, or makes the server hold more than its windows.
func FuzzFrames(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	s := testServer(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newConn(&fed{in: bytes.NewReader(in)}, &s.cfg.Config, terms{8 << 10, 1 << 20, 64}, s.counts)
		c.srv, c.who = s, "fuzz"
		if err := c.run(nil); err == nil {
			t.Fatal("the connection ended without an error")
		}
		c.streams.Wait()
		c.table.each(func(*Stream) { t.Fatal("a stream is left") })
	})
}

// FuzzFrame decodes single frames and writes again what they hold.
func FuzzFrame(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		fr, n, err := parseFrame(in)
		if err != nil || n == 0 {
			return
		}
		if got := frameBytes(fr.typ, fr.flags, fr.stream, string(fr.payload)); !bytes.Equal(got, in[:n]) {
			t.Fatalf("got %x, want %x", got, in[:n])
		}
		if e, err := parseWireError(fr.payload); err == nil {
			again, err := parseWireError(appendWireError(nil, e))
			if err != nil || again.Kind != e.Kind || again.RetryAfter != e.RetryAfter || !strings.HasPrefix(e.Message, again.Message) {
				t.Fatalf("error %+v became %+v, %v", e, again, err)
			}
		}
		if o, err := parseOpening(fr); err == nil {
			b := append(appendOpening(nil, o.timeout, string(o.method), string(o.trace)), o.request...)
			if !bytes.Equal(b[8:], fr.payload[8:]) {
				t.Fatalf("opening %+v became %x, want %x", o, b, fr.payload)
			}
		}
	})
}

// FuzzHello feeds the handshake, both sides: a stranger gets nowhere and costs
// little.
func FuzzHello(f *testing.F) {
	hello := append([]byte("dynamo\r\n\x00\x01\x00\x40"), make([]byte, 64+32)...)
	f.Add(hello)
	f.Add(hello[:30])
	f.Add([]byte("dynamo\r\n\x00\x02\xff\xff"))
	f.Add(append(answer(statusOK, make([]byte, hashBytes)), answer(statusOK, make([]byte, welcomeBytes-answerHead))...))
	f.Add(answer(statusKey, []byte("no")))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	s := testServer(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		nc := &fed{in: bytes.NewReader(in)}
		if _, _, err := s.greet(nc); err == nil {
			t.Fatal("a stranger was let in")
		}
		c := &Client{cfg: s.cfg.Config, keys: s.keys}
		if _, err := c.introduce(&fed{in: bytes.NewReader(in)}, identity{1, 1}); err == nil {
			t.Fatal("a stranger was taken for a worker")
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
			t.Fatalf("a stranger cost %d bytes", n)
		}
		if nc.written > 2*(answerHead+maxRefusalText) {
			t.Fatalf("a stranger was told %d bytes", nc.written)
		}
	})
}

// TestMisbehaviour: a peer with the key that breaks the protocol is told and
// loses its connection.
func TestMisbehaviour(t *testing.T) {
	opened := frameBytes(frameOpen, 0, 3, opens("mirror", ""))
	over := opened
	for range 20 { // nobody has read it: the handler is stuck for want of credit
		over = append(over, frameBytes(frameData, 0, 3, strings.Repeat("x", 1000))...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"type", frameBytes(77, 0, 0, ""), "unknown type 77"},
		{"oversized", appendHeader(nil, frameData, 0, 0, maxFrameBytes+1), "a frame of 16385 bytes"},
		{"slot in use", append(bytes.Clone(opened), opened...), "slot is in use"},
		{"credit", over, "credit"},
		{"window", append(bytes.Clone(opened), frameBytes(frameWindow, 0, 3, "\xff\xff\xff\xff")...), "more credit"},
		{"short window", append(bytes.Clone(opened), frameBytes(frameWindow, 0, 3, "\xff")...), "WINDOW"},
		{"short open", frameBytes(frameOpen, 0, 0, "abc"), "OPEN"},
		{"long method", frameBytes(frameOpen, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00\xffabc"), "OPEN"},
		{"end", append(bytes.Clone(opened), frameBytes(frameEnd, 0, 3, "")...), "wrong side"},
		{"bad cancel", append(bytes.Clone(opened), frameBytes(frameCancel, 0, 3, "x")...), "an error of 1 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				s := testServer(t)
				conn := newConn(near, &s.cfg.Config, terms{MinWindowBytes, 1 << 20, 64}, s.counts)
				conn.srv = s
				ended := make(chan error, 1)
				go func() { ended <- conn.run(nil) }()
				go func() { _, _ = far.Write(c.in) }() // fails when the server has had enough
				told, _ := io.ReadAll(far)
				err := <-ended
				if code(errors.Unwrap(err)) != codeProtocol || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the server ends with %v, want %q in it", err, c.want)
				}
				if !bytes.Contains(told, []byte(c.want)) {
					t.Errorf("the peer is told %q, want %q in it", told, c.want)
				}
				conn.streams.Wait()
			})
		})
	}
}

// TestQueue: a peer that opens without end and reads nothing costs a bounded
// queue.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := testServer(t)
		for i := range 30 { // a refusal names them all
			s.Handle(strings.Repeat("n", 90+i), s.endpoints["mirror"])
		}
		conn := newConn(near, &s.cfg.Config, terms{MinWindowBytes, 1 << 20, 64}, s.counts)
		conn.srv = s
		ended := make(chan error, 1)
		go func() { ended <- conn.run(nil) }()
		// Each refusal waits to be written, and the peer never reads.
		refusal := frameBytes(frameOpen, 0, 1, opens(strings.Repeat("n", MaxMethodBytes), ""))
		began := time.Now()
		for err := error(nil); err == nil; {
			_, err = far.Write(refusal)
			time.Sleep(time.Microsecond)
		}
		if err := <-ended; code(errors.Unwrap(err)) != codeProtocol || time.Since(began) > time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if n := cap(conn.w.buf); n > 2*hardQueueBytes {
			t.Errorf("%d bytes were kept for a peer that does not read", n)
		}
	})
}

// TestHeader pins the layout that wire.go describes.
func TestHeader(t *testing.T) {
	got := appendHeader(nil, frameWindow, flagMore, 0x01020304, 0x0506)
	if want := []byte{4, 1, 5, 6, 1, 2, 3, 4}; !bytes.Equal(got, want) {
		t.Errorf("header %x, want %x", got, want)
	}
	e := appendWireError(nil, &dynamo.Error{Kind: dynamo.KindDeadline, Message: "m", Param: "pp", Code: "c", RetryAfter: 258})
	if want := "\x06\x00\x00\x00\x00\x00\x00\x01\x02\x00\x01m\x00\x02pp\x00\x01c\x00\x00"; string(e) != want {
		t.Errorf("error %q, want %q", e, want)
	}
	o := appendOpening(nil, 3*time.Millisecond, "go", "t")
	if want := "\x00\x00\x00\x00\x00\x00\x0b\xb8\x02go\x01t"; string(o) != want {
		t.Errorf("opening %q, want %q", o, want)
	}
	if binary.BigEndian.Uint16(answer(statusKey, []byte("ab"))[12:]) != 2 {
		t.Error("the length of an answer is not at 12")
	}
}

// TestLateFrames: frames that cross with the end of a stream do not reach the
// next one in its slot.
func TestLateFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := testServer(t)
		conn := newConn(near, &s.cfg.Config, terms{MinWindowBytes, 1 << 20, 64}, s.counts)
		conn.srv = s
		ended := make(chan error, 1)
		go func() { ended <- conn.run(nil) }()
		write := func(typ frameType, id uint32, payload string) {
			if _, err := far.Write(frameBytes(typ, 0, id, payload)); err != nil {
				t.Fatal(err)
			}
		}
		read := func() frame {
			head := make([]byte, headerBytes)
			_, _ = io.ReadFull(far, head) // what is missing shows below
			payload := make([]byte, binary.BigEndian.Uint16(head[2:]))
			_, _ = io.ReadFull(far, payload)
			f, _, err := parseFrame(append(head, payload...))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		const first, second = 3, 1<<slotBits | 3
		write(frameOpen, first, opens("mirror", ""))
		write(frameClose, first, "")
		if f := read(); f.typ != frameEnd || f.stream != first || len(f.payload) > 0 {
			t.Fatalf("the first stream ends with %+v", f)
		}
		write(frameOpen, second, opens("mirror", ""))
		for _, typ := range []frameType{frameData, frameClose, frameCancel} {
			write(typ, first, "late")
		}
		write(frameData, second, "due")
		if f := read(); f.typ != frameData || f.stream != second || string(f.payload) != "due" {
			t.Fatalf("the second stream answers %+v", f)
		}
		_ = far.Close()
		<-ended
		conn.streams.Wait()
	})
}
