package event

import (
	"encoding/binary"
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// A batch is one message from a publisher to a subscriber:
//
//	offset  bytes  what
//	0       1      format, 1
//	1       8      epoch of the publisher, little-endian
//	9       8      tip: number of its newest event, little-endian
//	17             records to the end, maybe none
//
// and a record:
//
//	1      flags: bits 0-1 the Kind; 0x20 an offset follows: this is not the
//	       payload's beginning; 0x40 this is not the payload's end; 0x80 Last;
//	       0x04, 0x08 and 0x10 are 0
//	1-10   sequence number, varint
//	1-5    number of the snapshot's part, from 0, varint, if the kind is Snapshot
//	1-5    how much of the payload came before, varint, if 0x20
//	1-5    n, varint
//	n      a piece of the payload
//
// Gap and Reset have no payload. The pieces of a payload follow each other, in
// one batch or in several.
//
// A request asks for what follows a cursor:
//
//	offset  bytes  what
//	0       1      format, 1
//	1       1      flags: 0x01 in a snapshot; the others are 0
//	2       8      worker, little-endian
//	10      8      epoch asked for, 0: any, little-endian
//	18      8      epoch of the position, little-endian
//	26      8      its sequence number; in a snapshot, that of the snapshot
//	34      4      parts had of the snapshot, little-endian
//	38      4      bytes had of the part or event that comes next, little-endian
//	42             topic, to the end
const (
	wireFormat = 1

	batchHeader   = 17
	requestHeader = 42

	recordKind     = 0x03
	recordReserved = 0x1c
	recordOffset   = 0x20
	recordMore     = 0x40
	recordLast     = 0x80
	// recordMost is the most that a record adds to its payload.
	recordMost = 1 + binary.MaxVarintLen64 + 3*binary.MaxVarintLen32

	requestInSnapshot = 0x01
)

// Cursor is a subscriber's place to the byte: what a request of it says.
type Cursor struct {
	// Position is how far it is; in a snapshot, how far that will lead.
	Position
	InSnapshot bool
	Part       uint32 // parts had of the snapshot
	Offset     uint32 // bytes had of the part or event that comes next
}

// AppendRequest appends the request for what follows c at src.
func AppendRequest(b []byte, src Source, c Cursor) []byte {
	var flags byte
	if c.InSnapshot {
		flags = requestInSnapshot
	}
	b = append(b, wireFormat, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(src.Worker))
	b = binary.LittleEndian.AppendUint64(b, src.Epoch)
	b = binary.LittleEndian.AppendUint64(b, c.Epoch)
	b = binary.LittleEndian.AppendUint64(b, c.Seq)
	b = binary.LittleEndian.AppendUint32(b, c.Part)
	b = binary.LittleEndian.AppendUint32(b, c.Offset)
	return append(b, src.Topic...)
}

// ParseRequest reads what AppendRequest wrote. A malformed one is KindInvalid.
func ParseRequest(b []byte) (src Source, c Cursor, err error) {
	if len(b) < requestHeader {
		return src, c, invalid("a request for events is cut short")
	}
	if b[0] != wireFormat {
		return src, c, invalid("requests for events of format " + strconv.Itoa(int(b[0])) + " are not understood; this worker speaks format 1")
	}
	if b[1]&^requestInSnapshot != 0 {
		return src, c, invalid("a request for events has unknown flags")
	}
	src = Source{
		Topic:  string(b[requestHeader:]),
		Worker: dynamo.WorkerID(binary.LittleEndian.Uint64(b[2:])),
		Epoch:  binary.LittleEndian.Uint64(b[10:]),
	}
	c = Cursor{
		Position:   Position{binary.LittleEndian.Uint64(b[18:]), binary.LittleEndian.Uint64(b[26:])},
		InSnapshot: b[1]&requestInSnapshot != 0,
		Part:       binary.LittleEndian.Uint32(b[34:]),
		Offset:     binary.LittleEndian.Uint32(b[38:]),
	}
	if !validTopic(src.Topic) {
		return src, c, invalid("a request for events names no valid topic")
	}
	return src, c, nil
}

// record is a record of a batch, taken apart.
type record struct {
	kind       Kind
	last, more bool
	seq        uint64
	part       uint32 // of a Snapshot
	offset     uint32
	piece      []byte
}

// appendRecord appends r.
func appendRecord(b []byte, r record) []byte {
	flags := byte(r.kind)
	if r.last {
		flags |= recordLast
	}
	if r.more {
		flags |= recordMore
	}
	if r.offset > 0 {
		flags |= recordOffset
	}
	b = binary.AppendUvarint(append(b, flags), r.seq)
	if r.kind == Snapshot {
		b = binary.AppendUvarint(b, uint64(r.part))
	}
	if r.offset > 0 {
		b = binary.AppendUvarint(b, uint64(r.offset))
	}
	b = binary.AppendUvarint(b, uint64(len(r.piece)))
	return append(b, r.piece...)
}

// appendPiece appends as much of payload from offset on as there is room for
// until b is end bytes long, at least one byte of it, and returns the new offset.
func appendPiece(b []byte, end int, r record, payload []byte, offset uint32) ([]byte, uint32) {
	n := min(len(payload)-int(offset), end-len(b)-recordMost)
	r.offset, r.piece = offset, payload[offset:int(offset)+n]
	offset += uint32(n)
	r.more = int(offset) < len(payload)
	r.last = r.last && !r.more
	return appendRecord(b, r), offset
}

// parseHeader reads a batch's header.
func parseHeader(b []byte) (epoch, tip uint64, records []byte, err error) {
	if len(b) < batchHeader {
		return 0, 0, nil, corrupt("a batch of events is cut short")
	}
	if b[0] != wireFormat {
		return 0, 0, nil, corrupt("batches of events of format " + strconv.Itoa(int(b[0])) + " are not understood")
	}
	epoch = binary.LittleEndian.Uint64(b[1:])
	if epoch == 0 {
		return 0, 0, nil, corrupt("a batch of events has no epoch")
	}
	return epoch, binary.LittleEndian.Uint64(b[9:]), b[batchHeader:], nil
}

// parseRecord reads the record that b begins with.
func parseRecord(b []byte) (r record, rest []byte, err error) {
	flags := b[0]
	r.kind, r.last, r.more = Kind(flags&recordKind), flags&recordLast != 0, flags&recordMore != 0
	b = b[1:]
	ok := flags&recordReserved == 0
	number := func(most uint64) uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > most {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	r.seq = number(1<<64 - 1)
	if r.kind == Snapshot {
		r.part = uint32(number(MaxSnapshotParts - 1))
	}
	if flags&recordOffset != 0 {
		r.offset = uint32(number(MaxPayloadBytes))
	}
	n := int(number(MaxPayloadBytes))
	switch {
	case !ok || n > len(b) || int(r.offset)+n > MaxPayloadBytes,
		r.more && (r.last || n == 0),
		r.kind >= Gap && (n > 0 || r.more || r.offset > 0),
		r.kind == Event && (r.seq == 0 || r.last):
		return record{}, nil, corrupt("a batch of events holds a malformed record")
	}
	r.piece = b[:n]
	return r, b[n:], nil
}
