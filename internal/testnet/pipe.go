package testnet

import "time"

// pipe is one direction of a connection: the bytes that were written and not yet
// read, and when they arrive. Offsets count bytes since the beginning. It is
// guarded by the network's lock.
type pipe struct {
	link *link // the way of the bytes
	back *link // the way of the acknowledgements

	buf     []byte // buf[head:] are the bytes from read to written
	head    int
	read    int64 // taken by the reader
	acked   int64 // taken, and the writer knows
	arrived int64 // where the reader can read to
	written int64
	marks   []mark // what has not arrived, in order
	fin     bool   // the end of the stream has arrived
}

// mark says when the bytes up to an offset arrive, at the earliest: they do not
// overtake those before them.
type mark struct {
	end  int64
	at   time.Time
	held bool // by a partition: not before it is healed
	fin  bool // the end of the stream comes after these bytes
}

// free returns how many bytes the writer may add.
func (p *pipe) free() int { return BufferBytes - int(p.written-p.acked) }

// addLocked appends bytes that the writer wrote now, or the end of the stream.
func (p *pipe) addLocked(now time.Time, b []byte, fin bool) {
	if p.head > 0 && len(p.buf)+len(b) > cap(p.buf) {
		p.buf = p.buf[:copy(p.buf, p.buf[p.head:])]
		p.head = 0
	}
	p.buf = append(p.buf, b...)
	p.written += int64(len(b))
	p.marks = append(p.marks, mark{end: p.written, at: now.Add(p.link.delay), held: p.link.cut, fin: fin})
	p.advanceLocked(now)
}

// advanceLocked lets arrive what is due.
func (p *pipe) advanceLocked(now time.Time) {
	due := 0
	for due < len(p.marks) && !p.marks[due].held && !p.marks[due].at.After(now) {
		p.arrived = p.marks[due].end
		p.fin = p.fin || p.marks[due].fin
		due++
	}
	p.marks = p.marks[:copy(p.marks, p.marks[due:])]
}

// next returns when something arrives by itself; zero is never.
func (p *pipe) next() time.Time {
	if len(p.marks) == 0 || p.marks[0].held {
		return time.Time{}
	}
	return p.marks[0].at
}

// takeLocked moves arrived bytes to b.
func (p *pipe) takeLocked(b []byte) int {
	n := copy(b, p.buf[p.head:p.head+int(p.arrived-p.read)])
	p.head += n
	p.read += int64(n)
	if p.head == len(p.buf) {
		p.buf, p.head = p.buf[:0], 0
	}
	if !p.back.cut {
		p.acked = p.read
	}
	return n
}

// reviewLocked brings the pipe in line with its links after they changed: a cut
// holds what is under way, a heal sends what was held.
func (p *pipe) reviewLocked(now time.Time) {
	p.advanceLocked(now)
	for i := range p.marks {
		m := &p.marks[i]
		if m.held && !p.link.cut {
			m.at = now.Add(p.link.delay)
		}
		m.held = p.link.cut
	}
	p.advanceLocked(now)
	if !p.back.cut {
		p.acked = p.read
	}
}
