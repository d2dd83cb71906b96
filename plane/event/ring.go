package event

// ring keeps the newest payloads, each in one piece of a circular buffer. It is
// a plain data structure; the publisher guards it. Buffers grow by doubling up
// to their limits and stay.
type ring struct {
	maxBytes, maxEvents int

	buf     []byte
	w       int  // where the next payload goes
	wrapped bool // w is behind the oldest payload

	slots []slot // a circle, too
	head  int    // the oldest
	count int
	first uint64 // the oldest's number; without any, the next one's
}

// slot says where a payload lies.
type slot struct{ off, n uint32 }

func newRing(maxBytes, maxEvents int) ring {
	return ring{maxBytes: maxBytes, maxEvents: maxEvents, first: 1}
}

// last returns the number of the newest payload ever appended.
func (r *ring) last() uint64 { return r.first + uint64(r.count) - 1 }

// append keeps a copy of payload at the cost of the oldest and returns its
// number. One that is too large takes a number, and everything older goes: a
// reader must not find what came before it without it.
func (r *ring) append(payload []byte) uint64 {
	n := len(payload)
	if n > r.maxBytes || n > MaxPayloadBytes {
		r.first = r.last() + 2
		r.clear()
		return r.first - 1
	}
	if r.count == r.maxEvents {
		r.evict()
	}
	r.makeRoom(n)
	if r.count == len(r.slots) {
		r.growSlots()
	}
	i := r.head + r.count
	if i >= len(r.slots) {
		i -= len(r.slots)
	}
	r.slots[i] = slot{uint32(r.w), uint32(n)}
	r.w += copy(r.buf[r.w:], payload)
	r.count++
	return r.last()
}

// get returns the payload with a number that is held.
func (r *ring) get(seq uint64) []byte {
	s := r.slot(int(seq - r.first))
	return r.buf[s.off : s.off+s.n]
}

func (r *ring) slot(i int) slot {
	i += r.head
	if i >= len(r.slots) {
		i -= len(r.slots)
	}
	return r.slots[i]
}

// makeRoom lets n bytes fit at w.
func (r *ring) makeRoom(n int) {
	for {
		switch {
		case r.wrapped && r.w+n <= int(r.slot(0).off):
			return
		case r.wrapped:
			r.evict()
		case r.w+n <= len(r.buf):
			return
		case len(r.buf) < r.maxBytes:
			size := min(max(2*len(r.buf), r.w+n, firstRingBytes), r.maxBytes)
			buf := make([]byte, size)
			copy(buf, r.buf[:r.w])
			r.buf = buf
		case r.count == 0:
			r.w = 0
		default:
			r.wrapped, r.w = true, 0
		}
	}
}

// evict drops the oldest payload.
func (r *ring) evict() {
	old := r.slot(0).off
	if r.head++; r.head == len(r.slots) {
		r.head = 0
	}
	r.count--
	r.first++
	switch {
	case r.count == 0:
		r.clear()
	case r.slot(0).off < old: // the oldest is at the front again
		r.wrapped = false
	}
}

func (r *ring) clear() { r.head, r.count, r.w, r.wrapped = 0, 0, 0, false }

func (r *ring) growSlots() {
	slots := make([]slot, min(max(2*len(r.slots), firstRingEvents), r.maxEvents))
	n := copy(slots, r.slots[r.head:])
	copy(slots[n:], r.slots[:r.head])
	r.slots, r.head = slots, 0
}
