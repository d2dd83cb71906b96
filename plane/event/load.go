package event

import (
	"encoding/binary"
	"math"

	"github.com/dynamo-go/dynamo/engine"
)

// A load on the wire:
//
//	offset  bytes  what
//	0       1      n, how many bytes follow: 6 … 127
//	1       n      six to eight unsigned varints (7 bits a byte, low bits first, the
//	               high bit set on all but the last byte): Running, Waiting,
//	               MaxRunning, KVBlocks, KVUsed, Steps, flags, and PrefillTokens if
//	               the flags say so: 1 is Down, 2 Detailed, others are skipped.
//	               Without any flag the seventh is left out.
//
// Bytes left within n after that belong to a newer form and are skipped, so a
// worker may say more than an older router understands. The first five are at most
// MaxLoadCount.

// AppendLoad appends the wire form of l to b; it allocates only what append
// does. Counts below 0 travel as 0, above MaxLoadCount as that.
func AppendLoad(b []byte, l engine.Load) []byte {
	start := len(b)
	b = append(b, 0)
	for _, n := range [...]int{l.Running, l.Waiting, l.MaxRunning, l.KVBlocks, l.KVUsed} {
		b = binary.AppendUvarint(b, uint64(min(max(n, 0), MaxLoadCount)))
	}
	b = binary.AppendUvarint(b, l.Steps)
	var flags uint64
	if l.Down {
		flags |= loadDown
	}
	if l.Detailed {
		flags |= loadDetailed
	}
	if flags != 0 {
		b = binary.AppendUvarint(b, flags)
	}
	if l.Detailed {
		b = binary.AppendUvarint(b, uint64(min(max(l.PrefillTokens, 0), MaxLoadCount)))
	}
	b[start] = byte(len(b) - start - 1)
	return b
}

// ParseLoad reads the load that b begins with and returns what follows it. A
// short or malformed one is KindCorrupt.
func ParseLoad(b []byte) (l engine.Load, rest []byte, err error) {
	if len(b) == 0 || b[0] > maxLoadBytes || int(b[0]) > len(b)-1 {
		return engine.Load{}, nil, corrupt("a load is cut short or longer than any")
	}
	body, rest := b[1:1+int(b[0])], b[1+int(b[0]):]
	for _, field := range [...]*int{&l.Running, &l.Waiting, &l.MaxRunning, &l.KVBlocks, &l.KVUsed} {
		v, n := binary.Uvarint(body)
		if n <= 0 || v > MaxLoadCount {
			return engine.Load{}, nil, corrupt("a load holds no valid count")
		}
		*field, body = int(v), body[n:]
	}
	v, n := binary.Uvarint(body)
	if n <= 0 {
		return engine.Load{}, nil, corrupt("a load holds no valid step count")
	}
	l.Steps, body = v, body[n:]
	if len(body) > 0 {
		flags, n := binary.Uvarint(body)
		if n <= 0 {
			return engine.Load{}, nil, corrupt("a load holds no valid flags")
		}
		l.Down, body = flags&loadDown != 0, body[n:]
		if flags&loadDetailed != 0 {
			v, n := binary.Uvarint(body)
			if n <= 0 || v > MaxLoadCount {
				return engine.Load{}, nil, corrupt("a load holds no valid count of prefill tokens")
			}
			l.Detailed, l.PrefillTokens = true, int(v)
		}
	}
	return l, rest, nil
}

// MaxLoadCount bounds each count of a load but Steps.
const MaxLoadCount = math.MaxInt32

// The flags of a load.
const (
	loadDown     = 1 << iota // the engine is down
	loadDetailed             // PrefillTokens follows
)

// maxLoadBytes bounds what follows the length byte, newer forms included.
const maxLoadBytes = 127
