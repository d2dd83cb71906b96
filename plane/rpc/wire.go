package rpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/dynamo-go/dynamo"
)

// The wire format, protocol version 1. Integers are big endian.
//
// A connection is TCP or a Unix socket, TLS on the former if configured. It
// begins with a handshake (sizes in bytes):
//
//	client  hello      8 magic "dynamo\r\n" · 2 version · 2 length of the rest (64)
//	                   32 nonce · 8 worker · 8 epoch expected (worker 0: anybody)
//	                   4 window · 4 largest message · 8 zero
//	server  challenge  8 magic · 2 version · 1 status 0 · 1 zero · 2 length (32)
//	                   32 nonce
//	client  proof      32 HMAC-SHA256(client key, binding · hello · challenge)
//	server  welcome    8 magic · 2 version · 1 status 0 · 1 zero · 2 length (60)
//	                   8 worker · 8 epoch · 4 window · 4 largest message
//	                   4 streams at a time
//	                   32 HMAC-SHA256(server key, binding · hello · challenge ·
//	                      proof · welcome up to here)
//
// The keys are HKDF-SHA256 of the cluster key, without salt, with the infos
// "dynamo rpc client" and "dynamo rpc server". The binding is 32 bytes of the
// TLS session's keying material (label "EXPORTER-dynamo-rpc", no context), or 32
// zero bytes without TLS. The first 12 bytes of a hello and the first 14 of an
// answer have this form in all versions.
//
// Instead of a challenge or a welcome the server may answer with a refusal: the
// same 14 bytes with a status of 1 (version), 2 (key), 3 (identity) or 4
// (crowded or closing) and a text of at most 512 bytes, and close. A stranger
// whose first 8 bytes are not the magic gets no answer.
//
// Then both sides send frames:
//
//	1 type · 1 flags · 2 length of the payload (at most 16384) · 4 stream · payload
//
//	 type       from    flags      payload
//	 1 OPEN     client  more       8 time left in µs (0: no deadline) ·
//	                               1 length · method · 1 length · traceparent ·
//	                               request
//	 2 DATA     both    more       a message; with "more" the next DATA of the
//	                               stream goes on with it
//	 3 CLOSE    both    –          –    no more messages come from this side
//	 4 WINDOW   both    –          4    credit
//	 5 CANCEL   client  –          an error: why the client gave the stream up
//	 6 END      server  –          empty when all is well, else an error
//	 7 ALIVE    both    –          –    sent into silence; stream 0
//	 8 GOAWAY   both    –          an error: no more streams; stream 0
//
// The stream's number is chosen by the client: the low 20 bits are a slot that
// has no other stream between its OPEN and its END, below the number of streams
// the server allows; the high 12 bits count the slot's uses, so that a frame
// that crosses with an END finds nobody. Frames for streams that do not exist
// are passed over; OPEN for a slot in use ends the connection.
//
// Credit: each side may send DATA frames of a stream for as many bytes, headers
// included, as the other's window says; WINDOW adds to it. Exceeding it ends the
// connection. An OPEN costs none; a request that does not fit goes on in DATA.
//
// A client that gets a GOAWAY closes the connection once all its streams have
// ended. The server waits for that, for a second after the last END: so what it
// has sent is read before its own close. Where the transport can, it closes its
// sending half meanwhile. A GOAWAY that tells of a broken protocol ends the
// connection at once.
//
// The server answers each OPEN with exactly one END, its last frame of the
// stream, once its handler has returned or at once if it refuses. A CANCEL only
// hastens that.
//
// An error:
//
//	1 kind · 8 retry after in ns · 4 × (2 length · text): message, param, code,
//	cause
const (
	headerBytes = 8
	slotBits    = 20
	slotMask    = 1<<slotBits - 1

	flagMore = 1
)

type frameType uint8

const (
	frameOpen frameType = iota + 1
	frameData
	frameClose
	frameWindow
	frameCancel
	frameEnd
	frameAlive
	frameGoaway
)

// frame is one frame; its payload lies in the buffer it was parsed from.
type frame struct {
	typ     frameType
	flags   byte
	stream  uint32
	payload []byte
}

// appendHeader begins a frame of n bytes of payload.
func appendHeader(b []byte, typ frameType, flags byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(typ)<<56|uint64(flags)<<48|uint64(n)<<32|uint64(stream))
}

// parseFrame takes the first frame off b. Without an error, n is its size, or 0
// when b does not hold it whole.
func parseFrame(b []byte) (f frame, n int, err error) {
	if len(b) < headerBytes {
		return frame{}, 0, nil
	}
	h := binary.BigEndian.Uint64(b)
	size := int(h >> 32 & 0xffff)
	f.typ, f.flags, f.stream = frameType(h>>56), byte(h>>48), uint32(h)
	if f.typ == 0 || f.typ > frameGoaway {
		return frame{}, 0, protocolError("a frame of unknown type %d", f.typ)
	}
	if size > maxFrameBytes {
		return frame{}, 0, protocolError("a frame of %d bytes; the limit is %d", size, maxFrameBytes)
	}
	if len(b) < headerBytes+size {
		return frame{}, 0, nil
	}
	f.payload = b[headerBytes : headerBytes+size : headerBytes+size]
	return f, headerBytes + size, nil
}

// opening is the header of a stream.
type opening struct {
	timeout       time.Duration // 0: no deadline
	method, trace []byte
	request       []byte
	requestGoesOn bool
}

// openOverhead is what an OPEN holds beside method, trace and request.
const openOverhead = 8 + 1 + 1

// appendOpening writes the payload of an OPEN up to the request.
func appendOpening(b []byte, timeout time.Duration, method, trace string) []byte {
	us := uint64(0)
	if timeout > 0 {
		us = uint64(max(1, timeout.Microseconds()))
	}
	b = binary.BigEndian.AppendUint64(b, us)
	b = append(append(b, byte(len(method))), method...)
	return append(append(b, byte(len(trace))), trace...)
}

func parseOpening(f frame) (o opening, err error) {
	b := f.payload
	if len(b) < openOverhead {
		return opening{}, protocolError("an OPEN of %d bytes", len(b))
	}
	us := binary.BigEndian.Uint64(b)
	o.timeout = time.Duration(min(us, math.MaxInt64/1000)) * time.Microsecond
	b = b[8:]
	for _, text := range []*[]byte{&o.method, &o.trace} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return opening{}, protocolError("an OPEN whose texts exceed it")
		}
		n := 1 + int(b[0])
		*text, b = b[1:n], b[n:]
	}
	o.request, o.requestGoesOn = b, f.flags&flagMore != 0
	return o, nil
}

// appendWireError writes an error; texts are cut to maxErrorText, and to fit the
// frame.
func appendWireError(b []byte, err error) []byte {
	e := travelling(err)
	b = append(b, byte(e.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(max(0, e.RetryAfter)))
	cause := ""
	if e.Err != nil {
		cause = e.Err.Error()
	}
	for _, s := range [...]string{e.Message, e.Param, e.Code, cause} {
		s = s[:min(len(s), maxErrorText-16)]
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

// parseWireError reads what appendWireError writes.
func parseWireError(b []byte) (*dynamo.Error, error) {
	if len(b) < 1+8 {
		return nil, protocolError("an error of %d bytes", len(b))
	}
	e := &dynamo.Error{Kind: dynamo.Kind(b[0]), RetryAfter: time.Duration(min(binary.BigEndian.Uint64(b[1:]), math.MaxInt64))}
	b = b[9:]
	var cause string
	for _, text := range []*string{&e.Message, &e.Param, &e.Code, &cause} {
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return nil, protocolError("an error whose texts exceed it")
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		*text, b = string(b[2:n]), b[n:]
	}
	if cause != "" {
		e.Err = remoteCause(cause)
	}
	return e, nil
}

// protocolError says that the peer breaks the protocol.
func protocolError(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Code: codeProtocol, Message: "the peer breaks the protocol: " + fmt.Sprintf(format, args...)}
}
