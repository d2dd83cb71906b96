package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// target is an endpoint: where to connect to and what every request begins with.
type target struct {
	address string // host:port
	host    string // of the Host header
	name    string // of the certificate; empty for plain HTTP
	head    []byte // request line and headers, up to Content-Length's value
}

// newTarget reads a base URL.
func newTarget(base, path string, headers []string) (*target, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("--url: " + strconv.Quote(base) + " is not a URL such as http://127.0.0.1:8000")
	}
	t := &target{address: u.Host, host: u.Host}
	port := "80"
	if u.Scheme == "https" {
		t.name, port = u.Hostname(), "443"
	}
	if u.Port() == "" {
		t.address = net.JoinHostPort(u.Hostname(), port)
	}
	root := bytes.TrimRight([]byte(u.EscapedPath()), "/")
	if bytes.HasSuffix(root, []byte("/v1")) {
		root = root[:len(root)-len("/v1")]
	}
	t.head = append(t.head, "POST "...)
	t.head = append(append(t.head, root...), path...)
	t.head = append(t.head, " HTTP/1.1\r\nHost: "+u.Host+"\r\nUser-Agent: dynamo-bench\r\nAccept: text/event-stream, application/json\r\nContent-Type: application/json\r\n"...)
	for _, h := range headers {
		t.head = append(t.head, h+"\r\n"...)
	}
	t.head = append(t.head, "Content-Length: "...)
	return t, nil
}

// dialer makes connections.
type dialer struct {
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	tls      *tls.Config
	quickAck bool
}

// connect makes a connection to t by the deadline.
func (d *dialer) connect(ctx context.Context, t *target, deadline time.Time) (net.Conn, error) {
	if by := time.Now().Add(dialTimeout); by.Before(deadline) {
		deadline = by
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	c, err := d.dial(ctx, "tcp", t.address)
	if err != nil {
		return nil, &failure{ClassConnect, err}
	}
	if d.quickAck {
		c = acknowledging(c)
	}
	if t.name == "" {
		return c, nil
	}
	config := d.tls.Clone()
	config.ServerName, config.NextProtos = t.name, []string{"http/1.1"}
	s := tls.Client(c, config)
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(&failure{ClassTLS, err}, c.Close())
	}
	return s, nil
}

// conn is a client connection that carries one request at a time and is kept alive
// between them. It belongs to one goroutine, but for interrupt.
type conn struct {
	dialer *dialer
	target *target
	start  time.Time // of the run
	c      net.Conn
	buf    []byte
	r, w   int   // what of buf is unread
	now    int64 // when the last read returned, ns since start
	came   bool  // a byte of this answer has come
	out    net.Buffers
	length [24]byte
	stream
	tokens *atomic.Int64 // counts events with content as they come; nil for none
	told   int           // how many of this answer it has counted
}

func newConn(d *dialer, t *target, start time.Time) *conn {
	return &conn{dialer: d, target: t, start: start, buf: make([]byte, readBuffer)}
}

func (c *conn) close() {
	if c.c != nil {
		_ = c.c.Close() // nothing is lost with it
		c.c = nil
	}
}

// send writes a request and waits for the first byte of its answer. A connection
// that the server closed while it was idle is made anew, once. From then on the end
// of ctx interrupts the connection, until *stop is called.
func (c *conn) send(ctx context.Context, body [][]byte, deadline time.Time, stop *func() bool) error {
	size := 0
	for _, b := range body {
		size += len(b)
	}
	length := append(strconv.AppendInt(c.length[:0], int64(size), 10), "\r\n\r\n"...)
	for try := 0; ; try++ {
		fresh := c.c == nil
		if fresh {
			var err error
			if c.c, err = c.dialer.connect(ctx, c.target, deadline); err != nil {
				return err
			}
		}
		c.r, c.w, c.came = 0, 0, false
		live := c.c
		if err := live.SetDeadline(deadline); err != nil {
			return ioFailure(err, false)
		}
		*stop = context.AfterFunc(ctx, func() { _ = live.SetDeadline(time.Unix(1, 0)) }) // a closed one needs none
		c.out = append(append(c.out[:0], c.target.head, length), body...)
		bufs := c.out
		_, err := bufs.WriteTo(c.c)
		if err == nil {
			err = c.fill()
		}
		if err == nil {
			return nil
		}
		(*stop)()
		c.close()
		if fresh || try > 0 || isTimeout(err) {
			return ioFailure(err, false)
		}
	}
}

// fill reads more into buf; what is unread stays.
func (c *conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	c.tell()
	if c.w == len(c.buf) {
		return fail(ClassResponse, "a header line is longer than %d bytes", len(c.buf))
	}
	n, err := c.c.Read(c.buf[c.w:])
	c.now = max(int64(time.Since(c.start)), 1) // 0 is never
	if n > 0 {
		c.w, c.came = c.w+n, true
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// tell counts the events with content that have come since it was called last.
func (c *conn) tell() {
	if n := c.chunks - c.told; n > 0 && c.tokens != nil {
		c.tokens.Add(int64(n))
		c.told = c.chunks
	}
}

// line reads a line without its end. It holds until the next read.
func (c *conn) line() ([]byte, error) {
	for from := c.r; ; {
		if i := bytes.IndexByte(c.buf[from:c.w], '\n'); i >= 0 {
			line := c.buf[c.r : from+i]
			c.r = from + i + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			return line, nil
		}
		seen := c.w - c.r
		if err := c.fill(); err != nil {
			return nil, err
		}
		from = c.r + seen
	}
}

// head is what counts of an answer's status line and headers.
type head struct {
	status  int
	length  int64 // -1: not told
	chunked bool
	sse     bool
	keep    bool
}

// readHead reads the status line and the headers, past interim answers.
func (c *conn) readHead() (head, error) {
	for {
		h, err := c.readOneHead()
		if err != nil || h.status >= 200 {
			return h, err
		}
	}
}

func (c *conn) readOneHead() (head, error) {
	h := head{length: -1, keep: true}
	line, err := c.line()
	if err != nil {
		return h, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return h, fail(ClassResponse, "the answer begins with %q", line[:min(len(line), 80)])
	}
	h.keep = line[7] == '1'
	if h.status = whole(line[9:12]); h.status < 100 {
		return h, fail(ClassResponse, "the answer begins with %q", line[:min(len(line), 80)])
	}
	for range maxHeaderLines {
		if line, err = c.line(); err != nil {
			return h, err
		}
		if len(line) == 0 {
			return h, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return h, fail(ClassResponse, "%q is no header", line[:min(len(line), 80)])
		}
		if err := h.header(name, bytes.TrimSpace(value)); err != nil {
			return h, err
		}
	}
	return h, fail(ClassResponse, "the answer has more than %d headers", maxHeaderLines)
}

// header takes one header.
func (h *head) header(name, value []byte) error {
	is := func(s string) bool { return len(name) == len(s) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("content-length"):
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 {
			return fail(ClassResponse, "Content-Length is %q", value)
		}
		h.length = n
	case is("transfer-encoding"):
		h.chunked = containsFold(value, "chunked")
	case is("content-type"):
		h.sse = containsFold(value, "text/event-stream")
	case is("connection"):
		if containsFold(value, "close") {
			h.keep = false
		} else if containsFold(value, "keep-alive") {
			h.keep = true
		}
	}
	return nil
}

func containsFold(b []byte, s string) bool { return bytes.Contains(bytes.ToLower(b), []byte(s)) }

// body reads the answer's body into the stream. It returns whether the connection
// may be used again.
func (c *conn) body(h head) (keep bool, err error) {
	switch {
	case h.chunked:
		return h.keep, c.readChunks()
	case h.length >= 0:
		return h.keep, c.pieces(h.length)
	}
	for { // up to the end of the connection
		if c.r == c.w {
			err := c.fill()
			if errors.Is(err, io.EOF) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
		}
		if err := c.take(c.buf[c.r:c.w], c.now); err != nil {
			return false, err
		}
		c.r = c.w
	}
}

// pieces passes n bytes on as they come.
func (c *conn) pieces(n int64) error {
	for n > 0 {
		if c.r == c.w {
			if err := c.fill(); err != nil {
				return err
			}
		}
		end := c.r + int(min(n, int64(c.w-c.r)))
		n -= int64(end - c.r)
		err := c.take(c.buf[c.r:end], c.now)
		c.r = end
		if err != nil {
			return err
		}
	}
	return nil
}

// readChunks reads a chunked body and its trailers.
func (c *conn) readChunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, ok := chunkSize(line)
		if !ok {
			return fail(ClassResponse, "%q is no chunk size", line[:min(len(line), 40)])
		}
		if size == 0 {
			break
		}
		if err := c.pieces(size); err != nil {
			return err
		}
		if line, err = c.line(); err != nil {
			return err
		}
		if len(line) != 0 {
			return fail(ClassResponse, "a chunk is longer than its size")
		}
	}
	for range maxHeaderLines {
		line, err := c.line()
		if err != nil || len(line) == 0 {
			return err
		}
	}
	return fail(ClassResponse, "the answer has more than %d trailers", maxHeaderLines)
}

// chunkSize reads a chunk's size line; what follows a semicolon is of no interest.
func chunkSize(line []byte) (n int64, ok bool) {
	for i, b := range line {
		switch {
		case b >= '0' && b <= '9':
			n = n<<4 | int64(b-'0')
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			n = n<<4 | int64(b|0x20-'a'+10)
		case i > 0 && (b == ';' || b == ' ' || b == '\t'):
			return n, true
		default:
			return 0, false
		}
		if n > 1<<40 {
			return 0, false
		}
	}
	return n, len(line) > 0
}
