package daemon

import (
	"encoding/binary"
	"fmt"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

// Version is the newest of the protocol that is spoken here, oldest the first. Version 2
// is version 1 with a layout and flags at the end of hello, and what follows from them.
const (
	Version = 2
	oldest  = 1
)

// The flags of a hello. Others are refused.
const (
	flagFingerprints = 1 << iota // the reply to get has one of each block
	allFlags         = 1<<iota - 1
)

const (
	magic       = "dynKVMd1"
	headerBytes = 16
	keyBytes    = len(dynamo.ContentKey{})
	putBytes    = 2*keyBytes + 16
	getBytes    = keyBytes + 16
	helloFixed  = len(magic) + 12
	// printBytes is the size of a fingerprint.
	printBytes = 16
)

// The operations.
const (
	opHello byte = 1 + iota
	opMemory
	opFind
	opPut
	opGet
	opDrop
	opAdmin
)

var opNames = [...]string{opHello: "hello", opMemory: "memory", opFind: "find", opPut: "put", opGet: "get", opDrop: "drop", opAdmin: "admin"}

// opName is the name of an operation, for metrics.
func opName(op byte) string {
	if op == 0 || int(op) >= len(opNames) {
		return "unknown"
	}
	return opNames[op]
}

// statuses are the statuses of replies by their kinds of error; append only.
var statuses = []dynamo.Kind{
	1: dynamo.KindInternal, 2: dynamo.KindInvalid, 3: dynamo.KindNotFound, 4: dynamo.KindExhausted,
	5: dynamo.KindUnavailable, 6: dynamo.KindCancelled, 7: dynamo.KindDeadline, 8: dynamo.KindCorrupt,
}

// statusOf is the status of a reply that says err.
func statusOf(err error) byte {
	kind := dynamo.KindOf(err)
	for i := 1; i < len(statuses); i++ {
		if statuses[i] == kind {
			return byte(i)
		}
	}
	return 1
}

// header is what a message begins with.
type header struct {
	length     int
	op, status byte
	id         uint64
}

// message writes a message.
func message(op, status byte, id uint64, body []byte) []byte {
	b := make([]byte, headerBytes, headerBytes+len(body))
	binary.LittleEndian.PutUint32(b, uint32(len(body)))
	b[4], b[5] = op, status
	binary.LittleEndian.PutUint64(b[8:], id)
	return append(b, body...)
}

// parseHeader reads the beginning of a message with a body of at most max bytes.
func parseHeader(b []byte, max int) (h header, err error) {
	n := binary.LittleEndian.Uint32(b)
	if int64(n) > int64(max) || b[6] != 0 || b[7] != 0 {
		return h, invalid("a message begins in a way that none does; is this the socket of 'dynamo kvbm'?")
	}
	return header{int(n), b[4], b[5], binary.LittleEndian.Uint64(b[8:])}, nil
}

// hello is what a client says of itself.
type hello struct {
	lowest, highest         uint16
	blockBytes, blockTokens int
	// name is the client's, whose quota its blocks count against. content says what the
	// bytes of its blocks depend on besides their keys: clients with equal contents share
	// their blocks.
	name, content string
	// layout is how the client's blocks lie in memory, or empty: its blocks are for those
	// who say nothing either. It and the flags are of version 2.
	layout string
	flags  uint16
}

func (h *hello) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint16(le.AppendUint16(b, h.lowest), h.highest)
	b = le.AppendUint32(le.AppendUint32(b, uint32(h.blockBytes)), uint32(h.blockTokens))
	for _, s := range []string{h.name, h.content} {
		b = append(le.AppendUint16(b, uint16(len(s))), s...)
	}
	if h.highest >= 2 {
		b = append(le.AppendUint16(b, uint16(len(h.layout))), h.layout...)
		b = le.AppendUint16(b, h.flags)
	}
	return b
}

func parseHello(b []byte) (h hello, err error) {
	le := binary.LittleEndian
	if len(b) < helloFixed || string(b[:len(magic)]) != magic {
		return h, invalid("the first message is not that of a client of this daemon")
	}
	b = b[len(magic):]
	h = hello{lowest: le.Uint16(b), highest: le.Uint16(b[2:]), blockBytes: int(int32(le.Uint32(b[4:]))), blockTokens: int(int32(le.Uint32(b[8:])))}
	if h.lowest > Version || h.highest < oldest {
		return h, invalid("the client speaks versions %d to %d of the protocol and the daemon versions %d to %d; update the older one", h.lowest, h.highest, oldest, Version)
	}
	b = b[12:]
	texts := []*string{&h.name, &h.content, &h.layout}
	if h.highest < 2 {
		texts = texts[:2]
	}
	for _, s := range texts {
		if len(b) < 2 || len(b)-2 < int(le.Uint16(b)) {
			return h, invalid("the hello is cut off")
		}
		n := int(le.Uint16(b))
		*s, b = string(b[2:2+n]), b[2+n:]
	}
	if h.highest >= 2 {
		if len(b) < 2 {
			return h, invalid("the hello is cut off")
		}
		h.flags, b = le.Uint16(b), b[2:]
	}
	switch {
	case len(b) > 0:
		return h, invalid("the hello has %d bytes too many", len(b))
	case len(h.name) > MaxNameBytes || len(h.content) > MaxContentBytes:
		return h, invalid("the hello's name may have %d bytes and its content %d", MaxNameBytes, MaxContentBytes)
	case h.flags&^allFlags != 0:
		return h, invalid("the hello has flags %#x; this daemon knows %#x", h.flags, allFlags)
	}
	return h, nil
}

// welcome answers a hello.
type welcome struct {
	version, requests uint16
	items             uint32
	quota, memory     uint64
	life              uint64 // names the daemon's life
}

const welcomeBytes = 32

func (w *welcome) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(le.AppendUint16(b, w.version), w.requests)
	b = le.AppendUint32(b, w.items)
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, w.quota), w.memory), w.life)
}

func parseWelcome(b []byte) (w welcome, err error) {
	le := binary.LittleEndian
	if len(b) < welcomeBytes {
		return w, invalid("the daemon's answer to hello is cut off")
	}
	return welcome{le.Uint16(b), le.Uint16(b[2:]), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}, nil
}

// item is a block of a put or a get.
type item struct {
	block  kvbm.TierBlock
	memory uint32
	offset uint64
}

// name fills in the hash by which the books know a block.
func (i *item) name() { i.block.Block = hashOf(i.block.Key) }

// hashOf is the hash of a key.
func hashOf(k dynamo.ContentKey) tokens.Block {
	h := binary.LittleEndian.Uint64(k[:]) | 1 // 0 is no hash
	return tokens.Block{Hash: dynamo.BlockHash(h), Local: dynamo.LocalHash(h)}
}

// count reads the number of items of a request, of size bytes each, which must be all
// there is.
func count(b []byte, size int) (int, []byte, error) {
	if len(b) < 4 {
		return 0, nil, invalid("a request without the number of its blocks")
	}
	n, b := binary.LittleEndian.Uint32(b), b[4:]
	if n > MaxItems || int(n)*size != len(b) {
		return 0, nil, invalid("a request for %d blocks has %d bytes; each takes %d, and %d are the most", n, len(b), size, MaxItems)
	}
	return int(n), b, nil
}

// parseKeys reads the body of find and drop.
func parseKeys(b []byte) ([]item, error) {
	n, b, err := count(b, keyBytes)
	items := make([]item, n)
	for i := range items {
		copy(items[i].block.Key[:], b[i*keyBytes:])
		items[i].name()
	}
	return items, err
}

func appendKeys(b []byte, keys []dynamo.ContentKey) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(keys)))
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	return b
}

// parsePuts reads the body of put.
func parsePuts(b []byte) ([]item, error) {
	le := binary.LittleEndian
	n, b, err := count(b, putBytes)
	items := make([]item, n)
	for i := range items {
		it, b := &items[i], b[i*putBytes:]
		copy(it.block.Key[:], b)
		copy(it.block.Parent[:], b[keyBytes:])
		depth := le.Uint32(b[2*keyBytes:])
		if depth > 1<<30 {
			return nil, invalid("a block at depth %d", depth)
		}
		it.block.Depth, it.memory, it.offset = int(depth), le.Uint32(b[2*keyBytes+4:]), le.Uint64(b[2*keyBytes+8:])
		it.name()
	}
	return items, err
}

func (i *item) appendPut(b []byte) []byte {
	le := binary.LittleEndian
	b = append(append(b, i.block.Key[:]...), i.block.Parent[:]...)
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, uint32(i.block.Depth)), i.memory), i.offset)
}

// parseGets reads the body of get.
func parseGets(b []byte) ([]item, error) {
	le := binary.LittleEndian
	n, b, err := count(b, getBytes)
	items := make([]item, n)
	for i := range items {
		it, b := &items[i], b[i*getBytes:]
		copy(it.block.Key[:], b)
		it.memory, it.offset = le.Uint32(b[keyBytes:]), le.Uint64(b[keyBytes+8:])
		it.name()
	}
	return items, err
}

func (i *item) appendGet(b []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(append(b, i.block.Key[:]...), i.memory), 0), i.offset)
}

// invalid is an error of the other side.
func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}
