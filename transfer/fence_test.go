package transfer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var fenceTransfers = flag.Int("fence.transfers", 100_000, "how many transfers the model test of the fence simulates; 10000000 is what a release is tested with")

// world is a memory with its fence, its owner, and peers of both sorts: those of
// shm, which map the memory and announce hazards, and those of tcp, whose bytes the
// owner's goroutines write. Everything that can be interleaved is a step: between
// any two of them another's may come.
type world struct {
	r      *rand.Rand
	now    time.Time
	f      fence
	pages  []page
	peers  []*mapper
	frames []*frame // on the way, or half written
	leases []*grant

	done, refused, torn, crashes, reuses int
	fault                                string
}

// page is what the owner knows of one: which use of it is on, and what it holds.
type page struct {
	use   int // counted up when the owner takes it for something else
	lent  bool
	wrote int // the use under which it was last written by a peer
}

// grant is a lease and what the owner waits for.
type grant struct {
	token uint64
	pages span
	uses  []int // of its pages, when they were lent
	ended bool
}

// mapper is a process that maps the memory.
type mapper struct {
	hazards [3]uint64 // which its owner reads
	copies  [3]*copyStep
	dead    bool
	gone    bool // the owner has been told
	stopped bool // SIGSTOP
}

// copyStep is a copy at one of its steps.
type copyStep struct {
	g     *grant
	part  span
	write bool
	at    int // 0 nothing, 1 announced, 2 has looked, 3… pages copied
}

// frame is a request on a connection.
type frame struct {
	conn   uint64
	g      *grant
	part   span
	write  bool
	ticket uint64
	at     int // 0 on the way, 1… pages written
}

// foreign looks at the hazards one after the other, while their owners go on.
func (w *world) foreign(s span) bool {
	for _, p := range w.peers {
		if w.r.IntN(2) == 0 {
			w.stepCopy()
		}
		for _, h := range p.hazards {
			if !p.gone && h != 0 && unpack(h).overlaps(s) {
				return true
			}
		}
	}
	return false
}

// touch is a peer's access to a page that the grant was for.
func (w *world) touch(g *grant, i uint32, write bool) {
	p := &w.pages[i]
	if p.use != g.uses[i-g.pages.first] {
		w.fault = fmt.Sprintf("page %d is touched (write %t) under token %d, of its use %d, in its use %d", i, write, g.token, g.uses[i-g.pages.first], p.use)
	}
	if write {
		p.wrote = p.use
	}
}

func (w *world) lend() {
	n := 1 + w.r.Uint32N(4)
	s := span{w.r.Uint32N(uint32(len(w.pages)) - n + 1), n}
	rs := mayRead
	if w.r.IntN(2) == 0 {
		rs |= mayWrite
	}
	token, ok := w.f.lend(s, rs, w.now.Add(time.Duration(1+w.r.IntN(50))*time.Millisecond))
	for i := s.first; i < s.first+n; i++ {
		if ok && w.pages[i].lent {
			w.fault = fmt.Sprintf("page %d is lent twice", i)
		}
	}
	if !ok {
		return
	}
	g := &grant{token: token, pages: s}
	for i := s.first; i < s.first+n; i++ {
		w.pages[i].lent = true
		g.uses = append(g.uses, w.pages[i].use)
	}
	w.leases = append(w.leases, g)
}

// begin starts a transfer: mostly under a lease that lasts, sometimes with an old
// token.
func (w *world) begin() {
	if len(w.leases) == 0 {
		return
	}
	g := w.leases[w.r.IntN(len(w.leases))]
	off := w.r.Uint32N(g.pages.n)
	part := span{g.pages.first + off, 1 + w.r.Uint32N(g.pages.n-off)}
	write := rights(g.token)&mayWrite != 0
	if w.r.IntN(2) == 0 {
		w.frames = append(w.frames, &frame{conn: 1 + w.r.Uint64N(3), g: g, part: part, write: write})
		return
	}
	p := w.peers[w.r.IntN(len(w.peers))]
	if i := w.r.IntN(3); !p.dead && p.copies[i] == nil {
		p.copies[i] = &copyStep{g: g, part: part, write: write}
	}
}

// stepCopy is one step of a mapping peer: what views.enter, the copy and
// views.leave do.
func (w *world) stepCopy() {
	p := w.peers[w.r.IntN(len(w.peers))]
	i := w.r.IntN(3)
	c := p.copies[i]
	if p.dead || p.stopped || c == nil {
		return
	}
	op := Op(Read)
	if c.write {
		op = Write
	}
	switch {
	case c.at == 0:
		p.hazards[i] = c.part.packed()
	case c.at == 1:
		if !open(w.f.words, c.part, c.g.token, op) {
			p.hazards[i], p.copies[i] = 0, nil
			w.refused++
			return
		}
	case c.at-2 < int(c.part.n):
		w.touch(c.g, c.part.first+uint32(c.at-2), c.write)
	default:
		p.hazards[i], p.copies[i] = 0, nil
		w.end(c.g)
		return
	}
	c.at++
}

// stepFrame is one step of a serving goroutine: server.write and server.read.
// Frames of one connection come in order, except that a peer may send one twice.
func (w *world) stepFrame() {
	if len(w.frames) == 0 {
		return
	}
	i := w.r.IntN(len(w.frames))
	f := w.frames[i]
	op := Op(Read)
	if f.write {
		op = Write
	}
	switch {
	case f.at == 0:
		if w.r.IntN(10) == 0 { // sent again: a retry, or a duplicate
			again := *f
			w.frames = append(w.frames, &again)
		}
		ticket, ok := w.f.enter(f.conn, f.part, f.g.token, op)
		if !ok {
			w.frames = append(w.frames[:i], w.frames[i+1:]...)
			w.refused++
			return
		}
		f.ticket = ticket
	case f.at-1 < int(f.part.n):
		w.touch(f.g, f.part.first+uint32(f.at-1), f.write)
	default:
		w.f.leave(f.ticket)
		w.frames = append(w.frames[:i], w.frames[i+1:]...)
		w.end(f.g)
		return
	}
	f.at++
}

// end counts a transfer, and mostly acknowledges its lease.
func (w *world) end(g *grant) {
	w.done++
	if w.r.IntN(3) > 0 {
		w.f.finish(g.token)
		g.ended = true
	}
}

// cut ends a connection: half written frames of it end, those on the way are lost.
func (w *world) cut(conn uint64) {
	kept := w.frames[:0]
	for _, f := range w.frames {
		if f.conn != conn {
			kept = append(kept, f)
		} else if f.at > 0 {
			w.f.leave(f.ticket)
			w.torn++
		}
	}
	w.frames = kept
}

// crash kills a mapping peer, wherever it is. The owner is told later.
func (w *world) crash() {
	i := w.r.IntN(len(w.peers))
	if p := w.peers[i]; p.dead {
		p.gone = true // the end of its connection
		w.peers[i] = &mapper{}
	} else {
		p.dead = true
		w.crashes++
	}
}

// own is a step of the owner.
func (w *world) own() {
	w.now = w.now.Add(time.Duration(w.r.IntN(3)) * time.Millisecond)
	due, _ := w.f.due(w.now)
	for _, token := range due {
		w.f.finish(token)
	}
	for i := 0; i < len(w.leases); i++ {
		g := w.leases[i]
		l := w.f.lent[g.token]
		switch {
		case l == nil:
			w.fault = "a lease is settled that nobody settled"
		case !l.draining && w.r.IntN(40) == 0:
			w.f.finish(g.token)
		case !l.draining && w.r.IntN(8) == 0:
			w.f.touches(g.token, w.foreign)
			w.f.extend(g.token, w.now.Add(time.Duration(w.r.IntN(50))*time.Millisecond))
			continue
		case !l.draining:
			continue
		}
		if !w.f.settle(g.token, w.foreign) {
			if w.r.IntN(4) == 0 {
				for _, c := range w.f.holders(g.token) {
					w.cut(c)
				}
			}
			continue
		}
		for k := g.pages.first; k < g.pages.first+g.pages.n; k++ { // used for something else from here on
			w.pages[k].use++
			w.pages[k].lent = false
		}
		w.reuses++
		// Late transfers may still begin with it: keep it among the frames' grants.
		w.leases = append(w.leases[:i], w.leases[i+1:]...)
		w.late(g)
		i--
	}
}

// late begins transfers under a lease that is settled.
func (w *world) late(g *grant) {
	if w.r.IntN(2) == 0 {
		w.frames = append(w.frames, &frame{conn: 1 + w.r.Uint64N(3), g: g, part: g.pages, write: rights(g.token)&mayWrite != 0})
	}
	if p := w.peers[w.r.IntN(len(w.peers))]; !p.dead && p.copies[0] == nil {
		p.copies[0] = &copyStep{g: g, part: g.pages, write: rights(g.token)&mayWrite != 0}
	}
}

func (w *world) step() {
	switch k := w.r.IntN(100); {
	case k < 8:
		w.lend()
	case k < 28:
		w.begin()
	case k < 60:
		w.stepCopy()
	case k < 88:
		w.stepFrame()
	case k < 97:
		w.own()
	case k == 97:
		w.cut(1 + w.r.Uint64N(3))
	case k == 98:
		w.crash()
	default:
		p := w.peers[w.r.IntN(len(w.peers))]
		p.stopped = !p.stopped
	}
}

// TestFenceModel: no peer touches a page after its owner has it back, whatever
// crashes, stops, repeats or is late.
func TestFenceModel(t *testing.T) {
	var done, refused, torn, crashes, reuses int
	for seed := uint64(1); done < *fenceTransfers; seed++ {
		w := &world{r: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1, 0), pages: make([]page, 16)}
		w.f = newFence(make([]uint64, len(w.pages)), 0)
		for range 4 {
			w.peers = append(w.peers, &mapper{})
		}
		for range 20_000 {
			w.step()
			if w.fault != "" {
				t.Fatalf("seed %d: %s", seed, w.fault)
			}
		}
		w.quiesce(t, seed)
		done, refused, torn, crashes, reuses = done+w.done, refused+w.refused, torn+w.torn, crashes+w.crashes, reuses+w.reuses
	}
	t.Logf("%d transfers done, %d refused, %d torn; %d crashes; %d leases whose pages were used again", done, refused, torn, crashes, reuses)
	if refused == 0 || torn == 0 || crashes == 0 || reuses == 0 {
		t.Error("the model does not reach what it is there for")
	}
}

// quiesce lets everything end, after which every page is the owner's.
func (w *world) quiesce(t *testing.T, seed uint64) {
	t.Helper()
	for _, p := range w.peers {
		p.dead, p.gone = true, true
	}
	for c := range uint64(3) {
		w.cut(c + 1)
	}
	for token := range w.f.lent {
		w.f.finish(token)
	}
	for token := range w.f.lent {
		if !w.f.settle(token, w.foreign) {
			t.Fatalf("seed %d: a lease is not settled when all is quiet", seed)
		}
	}
	for i, word := range w.f.words {
		if word != 0 || w.f.taken[i] {
			t.Fatalf("seed %d: page %d is open or taken when all is quiet", seed, i)
		}
	}
	if !w.f.quiet(w.foreign) {
		t.Fatalf("seed %d: the fence is not quiet when all is", seed)
	}
}
