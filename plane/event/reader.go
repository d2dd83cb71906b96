package event

import (
	"context"
	"encoding/binary"
)

// Reader is a subscriber's place at the publisher's side. It holds no event
// back: one that is overtaken by the ring begins anew. Not safe for concurrent
// use.
type Reader struct {
	p    *Publisher
	at   Cursor
	snap *snapshot // while at.InSnapshot
	tail bool
}

// Reader returns a reader of what follows c.
func (p *Publisher) Reader(c Cursor) *Reader {
	r := &Reader{p: p, at: c}
	if c.InSnapshot {
		p.mu.Lock()
		defer p.mu.Unlock()
		r.snap = p.mu.shared.Value()
	}
	return r
}

// Tail returns a reader of the events to come. Where the ring overtakes it, it
// goes on with the oldest event there is: its subscribers see the hole and ask.
func (p *Publisher) Tail() *Reader {
	return &Reader{p: p, at: Cursor{Position: p.Position()}, tail: true}
}

// Wait blocks until Fill has something to say, or ctx ends; its cause is the
// error.
func (r *Reader) Wait(ctx context.Context) error {
	if r.at.Epoch != r.p.config.Source.Epoch || r.at.InSnapshot {
		return context.Cause(ctx)
	}
	return r.p.wait(ctx, r.at.Seq)
}

// Fill appends one batch of at most size bytes (MinBatchBytes if that is more):
// what comes next, without waiting. Some says that there is a record in it; a
// batch without tells the tip alone.
func (r *Reader) Fill(b []byte, size int) (_ []byte, some bool) {
	start := len(b)
	end := start + max(size, MinBatchBytes)
	b = append(b, wireFormat)
	b = binary.LittleEndian.AppendUint64(b, r.p.config.Source.Epoch)
	b = binary.LittleEndian.AppendUint64(b, 0) // the tip, which the last look tells
	for {
		if !r.valid() {
			b = r.restart(b)
		}
		if r.at.InSnapshot {
			b = r.fillSnapshot(b, end)
		}
		var tip uint64
		var lost bool
		if b, tip, lost = r.fillEvents(b, end); lost && len(b)+3*recordMost < end {
			b = appendRecord(b, record{kind: Gap, seq: tip})
			b = r.restart(b)
			continue
		}
		binary.LittleEndian.PutUint64(b[start+9:], tip)
		return b, len(b) > start+batchHeader
	}
}

// valid reports whether the cursor means anything to this life of the publisher.
func (r *Reader) valid() bool {
	switch {
	case r.at.Epoch != r.p.config.Source.Epoch:
		return false
	case !r.at.InSnapshot:
		return true
	case r.snap == nil || r.snap.seq != r.at.Seq || int(r.at.Part) >= len(r.snap.parts):
		return false
	}
	return int(r.at.Offset) <= len(r.snap.parts[r.at.Part])
}

// restart begins anew: with a snapshot if there is one, else with the oldest
// event.
func (r *Reader) restart(b []byte) []byte {
	r.at = Cursor{Position: Position{Epoch: r.p.config.Source.Epoch}}
	r.snap = r.p.snapshot()
	if r.snap == nil {
		r.at.Seq = r.p.oldest() - 1
		return appendRecord(b, record{kind: Reset, seq: r.at.Seq, last: true})
	}
	r.at.Seq, r.at.InSnapshot = r.snap.seq, true
	return appendRecord(b, record{kind: Reset, seq: r.at.Seq})
}

// fillSnapshot appends parts of the snapshot.
func (r *Reader) fillSnapshot(b []byte, end int) []byte {
	for end-len(b) > recordMost {
		part := r.snap.parts[r.at.Part]
		last := int(r.at.Part) == len(r.snap.parts)-1
		b, r.at.Offset = appendPiece(b, end, record{kind: Snapshot, seq: r.at.Seq, part: r.at.Part, last: last}, part, r.at.Offset)
		if int(r.at.Offset) < len(part) {
			return b
		}
		r.at.Part, r.at.Offset = r.at.Part+1, 0
		if last {
			r.at = Cursor{Position: r.at.Position}
			r.snap = nil
			return b
		}
	}
	return b
}

// fillEvents appends events and returns the newest one's number. Lost says that
// the next one is gone.
func (r *Reader) fillEvents(b []byte, end int) (_ []byte, tip uint64, lost bool) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	ring := &r.p.mu.ring
	tip = ring.last()
	if r.at.InSnapshot {
		return b, tip, false
	}
	if r.at.Seq+1 < ring.first || r.at.Seq > tip {
		if !r.tail {
			return b, tip, true
		}
		r.at.Seq, r.at.Offset = ring.first-1, 0
	}
	for r.at.Seq < tip && end-len(b) > recordMost {
		payload := ring.get(r.at.Seq + 1)
		if int(r.at.Offset) > len(payload) {
			r.at.Offset = 0
		}
		b, r.at.Offset = appendPiece(b, end, record{kind: Event, seq: r.at.Seq + 1}, payload, r.at.Offset)
		if int(r.at.Offset) < len(payload) {
			break
		}
		r.at.Seq, r.at.Offset = r.at.Seq+1, 0
	}
	return b, tip, false
}

// InSnapshot reports whether the reader is in the midst of a snapshot, which lives
// as long as such a reader does.
func (r *Reader) InSnapshot() bool { return r.snap != nil }
