package transfer

import (
	"encoding/binary"
	"errors"

	"github.com/dynamo-go/dynamo"
)

// After the handshake a connection carries frames, requests one way and answers
// the other. Integers are big-endian. A frame begins with a header of 24 bytes:
//
//	0  1  kind
//	1  1  flags: of a note, 1 = it has a notification; of a write or read, 1 = sums
//	2  1  status: 0, or 1 + the kind of the error
//	3  1  code: 0, or 1 + the index of the error's code
//	4  4  number of table entries
//	8  8  number of the request, or of the note
//	16 4  bytes of payload
//	20 4  of an ack: the segment at fault; of a note: its stream
//
// then its table, entries of 32 bytes, then its payload:
//
//	write   table: segments; payload: their bytes, in order
//	read    table: segments
//	data    table: segments; payload: their bytes (answers read)
//	ack     payload: text of the error            (answers write, a refused read)
//	note    table: leases that end; payload: the notification
//	heard   status 0, or 1: to be sent again later (answers note)
//
// An entry is
//
//	0  4  memory
//	4  4  length
//	8  8  token
//	16 8  offset
//	24 8  sum: XXH3-64 of the bytes (see sum), if the frame has sums
const (
	frameHead  = 24
	entryBytes = 32

	kindWrite = 1
	kindRead  = 2
	kindData  = 3
	kindAck   = 4
	kindNote  = 5
	kindHeard = 6

	flagSums   = 1
	flagNotify = 1
)

// header is a frame's.
type header struct {
	kind, flags, status, code byte
	count                     uint32
	id                        uint64
	bytes                     uint32
	index                     uint32
}

func (h *header) append(b []byte) []byte {
	b = append(b, h.kind, h.flags, h.status, h.code)
	b = binary.BigEndian.AppendUint32(b, h.count)
	b = binary.BigEndian.AppendUint64(b, h.id)
	b = binary.BigEndian.AppendUint32(b, h.bytes)
	return binary.BigEndian.AppendUint32(b, h.index)
}

// readHeader reads a header and refuses what no peer sends.
func readHeader(b []byte) (h header, err error) {
	h = header{kind: b[0], flags: b[1], status: b[2], code: b[3], count: binary.BigEndian.Uint32(b[4:]), id: binary.BigEndian.Uint64(b[8:]),
		bytes: binary.BigEndian.Uint32(b[16:]), index: binary.BigEndian.Uint32(b[20:])}
	limit := uint32(0)
	switch h.kind {
	case kindWrite, kindData:
		limit = maxFrameBytes
	case kindNote:
		limit = MaxNotifyBytes
	case kindAck:
		limit = maxTextBytes
	}
	if h.kind < kindWrite || h.kind > kindHeard || h.count > maxFrameSegments || h.bytes > limit {
		return h, lost(nil, "the peer sent a frame that cannot be: kind %d, %d entries, %d bytes", h.kind, h.count, h.bytes)
	}
	return h, nil
}

// entry is a row of a frame's table.
type entry struct {
	memory MemoryID
	length uint32
	token  uint64
	offset uint64
	sum    uint64
}

func (e *entry) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(e.memory))
	b = binary.BigEndian.AppendUint32(b, e.length)
	b = binary.BigEndian.AppendUint64(b, e.token)
	b = binary.BigEndian.AppendUint64(b, e.offset)
	return binary.BigEndian.AppendUint64(b, e.sum)
}

func readEntry(b []byte) entry {
	return entry{MemoryID(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])}
}

// readTable reads a frame's table into entries and checks that its segments make
// up what the frame carries, or asks for.
func readTable(h header, b []byte, entries []entry) ([]entry, error) {
	entries = entries[:0]
	total := uint64(0)
	for ; len(b) >= entryBytes; b = b[entryBytes:] {
		e := readEntry(b)
		total += uint64(e.length)
		entries = append(entries, e)
	}
	switch h.kind {
	case kindWrite, kindData:
		if total != uint64(h.bytes) {
			return nil, lost(nil, "the peer sent a frame of %d bytes for segments of %d", h.bytes, total)
		}
	case kindRead:
		if total > maxFrameBytes {
			return nil, lost(nil, "the peer asked for %d bytes at once", total)
		}
	}
	return entries, nil
}

// frame appends the frame that tells a note.
func (n *note) frame(b []byte, stream uint32) []byte {
	h := header{kind: kindNote, count: uint32(len(n.releases)), id: n.seq, bytes: uint32(len(n.payload)), index: stream}
	if n.notify {
		h.flags = flagNotify
	}
	b = h.append(b)
	for _, r := range n.releases {
		e := entry{memory: r.memory, token: r.token}
		b = e.append(b)
	}
	return append(b, n.payload...)
}

// note makes a note of its frame.
func (h *header) note(entries []entry, payload []byte) *note {
	n := &note{seq: h.id, notify: h.flags&flagNotify != 0, payload: payload}
	if len(entries) > 0 {
		n.releases = make([]release, len(entries))
		for i, e := range entries {
			n.releases[i] = release{e.memory, e.token}
		}
	}
	return n
}

var wireCodes = [...]string{CodeFenced, CodeMemory, CodeChecksum}

// refusal makes the ack of a request that failed at a segment.
func refusal(id uint64, index int, err error) ([]byte, []byte) {
	h := header{kind: kindAck, status: 1 + byte(dynamo.KindOf(err)), id: id, index: uint32(index)}
	for i, c := range wireCodes {
		if c == codeOf(err) {
			h.code = 1 + byte(i)
		}
	}
	text := err.Error()
	text = text[:min(len(text), maxTextBytes)]
	h.bytes = uint32(len(text))
	return h.append(nil), []byte(text)
}

// refused is the error that an ack carries.
func refused(h header, text string) error {
	e := &dynamo.Error{Kind: dynamo.Kind(h.status - 1), Message: text}
	if c := int(h.code) - 1; c >= 0 && c < len(wireCodes) {
		e.Code = wireCodes[c]
	}
	if e.Kind > dynamo.KindCorrupt || e.Message == "" {
		e.Kind, e.Err = dynamo.KindInternal, errors.New("the peer failed without a word")
	}
	return e
}
