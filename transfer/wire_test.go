package transfer

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
)

var testKey = []byte("a key for the tests of transfer")

func testAgent(t testing.TB, name string, content Content, key []byte) *Agent {
	c := DefaultConfig()
	c.Name, c.Content, c.Key = name, content, key
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// stream is a connection from which given bytes come; what is written is kept.
type stream struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (s *stream) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *stream) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// frames answers what a peer sends after the handshake.
func frames(a *Agent, in []byte) ([]byte, error) {
	s := &stream{in: bytes.NewReader(in)}
	err := newServer(a, 1, s, greeting{name: "fuzz"}).run()
	return s.out.Bytes(), err
}

func wire(h header, entries []entry, payload []byte) []byte {
	h.count, h.bytes = uint32(len(entries)), uint32(len(payload))
	b := h.append(nil)
	for _, e := range entries {
		b = e.append(b)
	}
	return append(b, payload...)
}

func acks(t *testing.T, b []byte) (hs []header) {
	t.Helper()
	for len(b) > 0 {
		h, err := readHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
		b = b[frameHead+int(h.count)*entryBytes+int(h.bytes):]
	}
	return hs
}

// TestFramesRepeated: what a network or a retry repeats, swaps, or brings too
// late does no harm.
func TestFramesRepeated(t *testing.T) {
	a := testAgent(t, "b", Content{"m", "l"}, testKey)
	buf := make([]byte, 4*DefaultPageBytes)
	m, err := a.Register(Section{Name: "kv", Bytes: buf})
	if err != nil {
		t.Fatal(err)
	}
	l, err := m.Lend(Range{Length: DefaultPageBytes}, true, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	e := entry{memory: m.id, length: 4, token: l.Token(), offset: 8}
	one := wire(header{kind: kindWrite, id: 1}, []entry{e}, []byte("abcd"))
	note := func(seq uint64, text string, ends ...entry) []byte {
		return wire(header{kind: kindNote, id: seq, flags: flagNotify}, ends, []byte(text))
	}
	in := slices.Concat(one, one, note(2, "early"), note(1, "first"), note(1, "first"), note(2, "second", e), note(2, "second", e), one)
	out, err := frames(a, in)
	if err != io.EOF {
		t.Fatal(err)
	}
	var got []byte
	for _, h := range acks(t, out) {
		got = append(got, h.status)
	}
	late := byte(1 + dynamo.KindNotFound)
	if want := []byte{0, 0, noteLater, noteHeard, noteHeard, noteHeard, noteHeard, late}; !bytes.Equal(got, want) {
		t.Errorf("answers %v, want %v", got, want)
	}
	for _, want := range []string{"first", "second"} {
		n, err := a.Notification(t.Context())
		if err != nil || string(n.Payload) != want {
			t.Errorf("notification %q, %v; want %q", n.Payload, err, want)
		}
	}
	if n := len(a.inbox.mu.queue); n != 0 {
		t.Errorf("%d notifications too many", n)
	}
	if o, ended := l.Outcome(); !ended || o != Acknowledged {
		t.Errorf("the lease: %v, %t; want acknowledged", o, ended)
	}
	if string(buf[8:12]) != "abcd" {
		t.Errorf("memory holds %q", buf[8:12])
	}
}

// TestFramesCut: a frame that ends anywhere leaves no access behind.
func TestFramesCut(t *testing.T) {
	a := testAgent(t, "b", Content{"m", "l"}, testKey)
	m, err := a.Register(Section{Name: "kv", Bytes: make([]byte, 64), Access: AccessWrite, PageBytes: 8})
	if err != nil {
		t.Fatal(err)
	}
	e := []entry{{memory: m.id, length: 20, token: m.base, offset: 3}, {memory: m.id, length: 7, token: m.base, offset: 40}}
	whole := wire(header{kind: kindWrite, id: 1}, e, make([]byte, 27))
	for n := range whole {
		if out, err := frames(a, whole[:n]); err == nil || len(out) != 0 {
			t.Fatalf("%d bytes of a frame were answered: %v", n, err)
		}
		if len(m.mu.fence.busy) != 0 {
			t.Fatalf("an access is left after %d bytes", n)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(wire(header{kind: kindWrite, id: 1, flags: flagSums}, []entry{{1, 4, 7, 8, 9}}, []byte("abcd")))
	f.Add(wire(header{kind: kindRead, id: 1}, []entry{{1, 64, 7, 0, 0}, {1, 1, 7, 63, 0}}, nil))
	f.Add(wire(header{kind: kindNote, id: 1, flags: flagNotify}, []entry{{1, 0, 7, 0, 0}}, []byte("x")))
	f.Fuzz(func(t *testing.T, in []byte) {
		a := testAgent(t, "b", Content{"m", "l"}, testKey)
		guarded := bytes.Repeat([]byte{0xAA}, 256)
		m, err := a.Register(Section{Name: "kv", Bytes: guarded[96:160:160], Access: AccessWrite, PageBytes: 16})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := frames(a, in); err == nil {
			t.Error("the connection ended without a cause")
		}
		if len(m.mu.fence.busy) != 0 {
			t.Error("an access is left")
		}
		if n := bytes.Count(slices.Concat(guarded[:96], guarded[160:]), []byte{0xAA}); n != 192 {
			t.Error("bytes outside of the memory were written")
		}
	})
}

// FuzzAnswers feeds a client what no server sends.
func FuzzAnswers(f *testing.F) {
	f.Add(wire(header{kind: kindData, id: 1}, []entry{{1, 64, 0, 0, 0}}, make([]byte, 64)))
	f.Add(wire(header{kind: kindAck, id: 1, status: 3, index: 9}, nil, []byte("no")))
	f.Add(wire(header{kind: kindHeard, id: 1, status: 1}, nil, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		a := testAgent(t, "a", Content{"m", "l"}, testKey)
		m, err := a.Register(Section{Name: "kv", Bytes: make([]byte, 64)})
		if err != nil {
			t.Fatal(err)
		}
		p := &Peer{a: a, gone: make(chan struct{})}
		p.notes.peer = p
		p.mu.name = "b"
		l := &link{p: p, patience: patience{nc: &stream{in: bytes.NewReader(in)}}, dead: make(chan struct{})}
		x := &exchange{op: Read, segments: []segment{{local: m, length: 64}}, checksum: true, id: 1, done: make(chan error, 1)}
		l.mu.waiting = map[uint64]*exchange{1: x}
		if err := l.receive(); err == nil {
			t.Error("the connection ended without a cause")
		}
		if got := l.claim(1); (got == nil) != (len(x.done) == 1) {
			t.Error("an exchange ended not exactly once")
		}
	})
}

func FuzzMetadata(f *testing.F) {
	a := testAgent(f, "a", Content{"m", "l"}, testKey)
	if _, err := a.Register(Section{Name: "kv", Bytes: make([]byte, 64), Access: AccessRead}); err != nil {
		f.Fatal(err)
	}
	whole := a.Export()
	f.Add(whole[metaHead : len(whole)-macBytes])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append(binary.BigEndian.AppendUint16([]byte(metaMagic), metaVersion), body...)
		b = append(b, prove(a.keys.metadata, b)...)
		m, err := decodeMetadata(b, a.keys.metadata)
		if err == nil && !bytes.Equal(m.encode(a.keys.metadata), b) {
			t.Error("metadata was read as something else")
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(shakeMagic + "\x00\x01\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		hello, _, err := readHello(bytes.NewReader(in))
		if err == nil && !bytes.HasPrefix(in, hello[:10]) {
			t.Error("a hello was read that was not sent")
		}
		_, _ = readAnswer(bytes.NewReader(in)) // must not panic
	})
}

func TestMetadataRefused(t *testing.T) {
	own := Content{"llama@3", "block"}
	a := testAgent(t, "decode-1", own, testKey)
	good := testAgent(t, "prefill-1", own, testKey).Export()
	future := bytes.Clone(good)
	future[len(metaMagic)+1] = 9
	for _, c := range []struct {
		what  string
		b     []byte
		code  string
		names []string
	}{
		{"another model", testAgent(t, "prefill-2", Content{"qwen@1", "block"}, testKey).Export(), CodeContent, []string{"decode-1", "prefill-2", "llama@3", "qwen@1"}},
		{"another layout", testAgent(t, "prefill-3", Content{"llama@3", "layer"}, testKey).Export(), CodeContent, []string{"decode-1", "prefill-3", "block", "layer"}},
		{"another cluster", testAgent(t, "prefill-4", own, []byte("another key, of a stranger")).Export(), CodeKey, []string{"cluster-key"}},
		{"another version", future, CodeVersion, []string{"9", "1"}},
		{"nothing", nil, "", nil},
		{"garbage", []byte("GET / HTTP/1.1"), "", nil},
	} {
		_, err := a.Import(c.b)
		if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || codeOf(err) != c.code {
			t.Errorf("%s: %v (code %q), want an invalid one with code %q", c.what, err, codeOf(err), c.code)
			continue
		}
		for _, n := range c.names {
			if !strings.Contains(err.Error(), n) {
				t.Errorf("%s: the error lacks %q: %v", c.what, n, err)
			}
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if _, err := a.Import(bad); err == nil {
			t.Fatalf("metadata with a flipped bit in byte %d was accepted", i)
		}
		if _, err := a.Import(good[:i]); err == nil {
			t.Fatalf("metadata cut at %d was accepted", i)
		}
	}
	a.cfg.Compatible = func(own, peer Content) error { return nil }
	if _, err := a.Import(testAgent(t, "prefill-3", Content{"llama@3", "layer"}, testKey).Export()); err != nil {
		t.Errorf("a layout that Compatible accepts: %v", err)
	}
}
