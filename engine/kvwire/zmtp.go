package kvwire

import (
	"bytes"
	"encoding/binary"
	"net"
	"strconv"
	"time"
)

// ZMTP 3.0 (rfc.zeromq.org/spec/23) with the NULL mechanism. Both sides begin with
// 64 bytes:
//
//	offset  bytes  what
//	0       10     ff, 8 bytes that do not matter, 7f
//	10      2      version, 3 0 from us; a newer peer falls back to it
//	12      20     mechanism, "NULL" and zeros
//	32      32     0
//
// and a READY command; messages of one or more frames follow. A frame is
//
//	1      flags: 0x01 more frames follow, 0x02 the length is long, 0x04 a command
//	1 or 8 length, big-endian
//	       content
//
// and a command's content begins with its name, preceded by the name's length in
// one byte. READY holds properties: a name likewise and a value preceded by its
// length in four bytes. A subscription is a message 01 and the topic.
const (
	flagMore    = 0x01
	flagLong    = 0x02
	flagCommand = 0x04

	greetingBytes = 64
)

// The socket types in use.
const (
	socketPub    = "PUB"
	socketSub    = "SUB"
	socketDealer = "DEALER"
	socketRouter = "ROUTER"
)

// peersOf lists the socket types that may be at the other end.
var peersOf = map[string][]string{
	socketSub:    {socketPub, "XPUB"},
	socketPub:    {socketSub, "XSUB"},
	socketDealer: {socketRouter},
	socketRouter: {socketDealer, "REQ"},
}

// conn is a ZMTP connection. One goroutine reads and one writes; a reader writes
// nothing but answers to commands, which conns of a Publisher do not get.
type conn struct {
	c net.Conn
	// buf[r:w] was received and not consumed: the message under way.
	buf  []byte
	r, w int
	// off is how far, from r, the message under way was parsed; ends are those of
	// its frames.
	off    int
	frames []span
	used   int // of the message returned last, to consume at the next call
	out    [][]byte
	wbuf   []byte
	heard  time.Time // when bytes came last
	ponged bool      // the peer answers pings
}

// span is a part of a buffer.
type span struct{ from, to int }

// handshake makes a ZMTP connection of c, as a socket of type own.
func handshake(c net.Conn, own string, timeout time.Duration) (*conn, error) {
	z := &conn{c: c, heard: time.Now()}
	deadline := z.heard.Add(timeout)
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var hello [greetingBytes]byte
	hello[0], hello[9], hello[10] = 0xff, 0x7f, 3
	copy(hello[12:], "NULL")
	ready := append([]byte{5}, "READY"...)
	ready = appendProperty(ready, "Socket-Type", own)
	if own == socketDealer || own == socketRouter {
		ready = appendProperty(ready, "Identity", "")
	}
	if _, err := c.Write(append(hello[:], appendFrame(nil, flagCommand, ready)...)); err != nil {
		return nil, err
	}
	for z.w < greetingBytes {
		if err := z.fill(); err != nil {
			return nil, err
		}
	}
	g := z.buf[:greetingBytes]
	if g[0] != 0xff || g[9]&1 == 0 || g[10] < 3 {
		return nil, corrupt("the peer does not speak ZMTP 3; is the endpoint an engine's event socket?")
	}
	if !bytes.Equal(g[12:32], hello[12:32]) {
		return nil, corrupt("the peer wants another ZMTP mechanism than NULL; events of engines are read without encryption")
	}
	z.r = greetingBytes
	flags, body, err := z.frame()
	if err != nil {
		return nil, err
	}
	if flags&flagCommand == 0 {
		return nil, corrupt("the peer of an event socket begins with a message before it is ready")
	}
	if err := checkReady(body, own); err != nil {
		return nil, err
	}
	z.consume()
	return z, c.SetDeadline(time.Time{})
}

func appendProperty(b []byte, name, value string) []byte {
	b = append(append(b, byte(len(name))), name...)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
}

// checkReady reads the first command of the peer.
func checkReady(body []byte, own string) error {
	name, rest, ok := cutName(body)
	if ok && string(name) == "ERROR" {
		return corrupt("the peer of an event socket refuses: " + strconv.Quote(string(rest[min(1, len(rest)):])))
	}
	if !ok || string(name) != "READY" {
		return corrupt("the peer of an event socket does not say that it is ready")
	}
	for len(rest) > 0 {
		name, rest, ok = cutName(rest)
		if !ok || len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return corrupt("the peer of an event socket says it is ready in a malformed way")
		}
		n := int(binary.BigEndian.Uint32(rest))
		value := string(rest[4 : 4+n])
		rest = rest[4+n:]
		if !bytes.EqualFold(name, []byte("Socket-Type")) {
			continue
		}
		for _, want := range peersOf[own] {
			if value == want {
				return nil
			}
		}
		return corrupt("the endpoint is a " + strconv.Quote(value) + " socket, which a " + own + " socket cannot use; are the endpoints of events and of their replay exchanged?")
	}
	return corrupt("the peer of an event socket does not say what type of socket it is")
}

// cutName cuts a name preceded by its length in one byte off b.
func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) < 1 || int(b[0]) > len(b)-1 {
		return nil, nil, false
	}
	return b[1 : 1+b[0]], b[1+b[0]:], true
}

func appendFrame(b []byte, flags byte, content []byte) []byte {
	if len(content) < 1<<8 {
		b = append(b, flags, byte(len(content)))
	} else {
		b = binary.BigEndian.AppendUint64(append(b, flags|flagLong), uint64(len(content)))
	}
	return append(b, content...)
}

// send writes one message.
func (z *conn) send(timeout time.Duration, frames ...[]byte) error {
	b := z.wbuf[:0]
	for i, f := range frames {
		flags := byte(0)
		if i < len(frames)-1 {
			flags = flagMore
		}
		b = appendFrame(b, flags, f)
	}
	z.wbuf = b
	return z.write(timeout, b)
}

func (z *conn) write(timeout time.Duration, b []byte) error {
	if err := z.c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := z.c.Write(b)
	return err
}

// ping asks the peer for a sign of life, without saying how long we would wait.
func (z *conn) ping(timeout time.Duration) error {
	return z.write(timeout, appendFrame(nil, flagCommand, []byte("\x04PING\x00\x00")))
}

// message returns the next message, valid until the next call. After an error that
// is a timeout it can be called again, and goes on.
func (z *conn) message(answerTime time.Duration) ([][]byte, error) {
	if z.used > 0 {
		z.off = z.used
		z.consume()
	}
	for {
		before := z.off
		flags, body, err := z.frame()
		switch {
		case err != nil:
			return nil, err
		case flags&flagCommand != 0:
			if before > 0 || flags&flagMore != 0 {
				return nil, corrupt("the peer of an event socket sends a command within a message")
			}
			if err := z.command(body, answerTime); err != nil {
				return nil, err
			}
			z.consume()
			continue
		case len(z.frames) == maxFrames:
			return nil, corrupt("a message of an event socket has more frames than any is known to have")
		}
		z.frames = append(z.frames, span{z.off - len(body), z.off})
		if flags&flagMore == 0 {
			break
		}
	}
	z.out = z.out[:0]
	for _, s := range z.frames {
		z.out = append(z.out, z.buf[z.r+s.from:z.r+s.to])
	}
	z.used = z.off
	return z.out, nil
}

// consume ends the use of what was parsed.
func (z *conn) consume() {
	z.r += z.off
	z.off, z.used, z.frames = 0, 0, z.frames[:0]
	if z.r == z.w {
		z.r, z.w = 0, 0
	}
}

// frame parses the next frame; what it returns is valid until the next read.
func (z *conn) frame() (flags byte, body []byte, err error) {
	if err := z.need(2); err != nil {
		return 0, nil, err
	}
	p := z.buf[z.r+z.off:]
	flags, head := p[0], 2
	size := uint64(p[1])
	if flags&flagLong != 0 {
		head = 9
		if err := z.need(head); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(z.buf[z.r+z.off+1:])
	}
	limit := uint64(MaxPayloadBytes)
	if flags&flagCommand != 0 {
		limit = maxCommandBytes
	}
	if flags > 7 || size > limit || uint64(z.off)+size > MaxPayloadBytes+maxFrames*maxTopicBytes {
		return 0, nil, corrupt("the peer of an event socket sends a frame that is malformed or longer than 8 MiB")
	}
	if err := z.need(head + int(size)); err != nil {
		return 0, nil, err
	}
	from := z.r + z.off + head
	z.off += head + int(size)
	return flags, z.buf[from : from+int(size)], nil
}

// need waits until n bytes behind what was parsed are there.
func (z *conn) need(n int) error {
	for z.w-z.r-z.off < n {
		if err := z.fill(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads once. The buffer grows with what came, not with what was announced.
func (z *conn) fill() error {
	if z.w == len(z.buf) {
		held := z.w - z.r
		if held > len(z.buf)/2 || len(z.buf) == 0 {
			grown := make([]byte, len(z.buf)+max(readStep, held))
			copy(grown, z.buf[z.r:z.w])
			z.buf = grown
		} else {
			copy(z.buf, z.buf[z.r:z.w])
		}
		z.r, z.w = 0, held
	}
	n, err := z.c.Read(z.buf[z.w:])
	z.w += n
	if n > 0 {
		z.heard = time.Now()
		return nil
	}
	return err
}

// command obeys a command of the peer.
func (z *conn) command(body []byte, answerTime time.Duration) error {
	name, rest, ok := cutName(body)
	switch {
	case !ok:
		return corrupt("the peer of an event socket sends a malformed command")
	case string(name) == "PING" && len(rest) >= 2:
		return z.write(answerTime, appendFrame(nil, flagCommand, append([]byte("\x04PONG"), rest[2:]...)))
	case string(name) == "PONG":
		z.ponged = true
	case string(name) == "ERROR":
		return corrupt("the peer of an event socket reports an error: " + strconv.Quote(string(rest)))
	}
	return nil
}
