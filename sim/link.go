package sim

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// link is what KV comes to a worker over. All that is under way at one moment has equal
// shares of its bandwidth, as the mocker has it.
//
// Its clock counts bytes that each transfer has had: a transfer ends when the clock shows
// what it showed at the beginning and the transfer's own bytes.
type link struct {
	at    int64 // when clock was
	clock float64
	open  []transfer // by their ends
	ended []transfer // to be told
	stamp uint32     // of the event at which the first one ends
}

// transfer is KV on its way.
type transfer struct {
	r      *request
	end    float64 // what the clock shows at its end
	begun  int64
	failed bool
}

// begin has so many bytes brought for r.
func (l *link) begin(w *worker, r *request, size float64) {
	l.advance(w.sim)
	t := transfer{r: r, end: l.clock + size, begun: w.sim.now}
	if w.sim.config.TransferBandwidth == 0 {
		t.end = l.clock
	}
	at, _ := slices.BinarySearchFunc(l.open, t.end, func(o transfer, end float64) int { return cmp.Or(cmp.Compare(o.end, end), -1) })
	l.open = slices.Insert(l.open, at, t)
	l.arm(w)
}

// fail says at once that nothing is brought for r.
func (l *link) fail(w *worker, r *request) {
	l.advance(w.sim)
	l.ended = append(l.ended, transfer{r: r, failed: true})
	l.stamp++
	w.sim.at(event{at: w.sim.now, kind: kindArrived, stamp: l.stamp, number: uint64(w.number)})
}

// arm makes the next end due.
func (l *link) arm(w *worker) {
	if l.stamp++; len(l.open) > 0 {
		w.sim.at(event{at: l.firstEnd(w.sim), kind: kindArrived, stamp: l.stamp, number: uint64(w.number)})
	}
}

// firstEnd is when the first of the open ones ends, if none comes before.
func (l *link) firstEnd(s *simulation) int64 {
	if s.config.TransferBandwidth == 0 {
		return l.at
	}
	seconds := max(0, l.open[0].end-l.clock) * float64(len(l.open)) / s.config.TransferBandwidth
	return l.at + int64(math.Ceil(min(seconds, maxTransfer.Seconds())*float64(time.Second)))
}

// advance lets time pass.
func (l *link) advance(s *simulation) {
	for len(l.open) > 0 {
		end := l.firstEnd(s)
		if end > s.now {
			l.clock += float64(s.now-l.at) / float64(time.Second) * s.config.TransferBandwidth / float64(len(l.open))
			l.at = s.now
			return
		}
		l.clock, l.at = l.open[0].end, end
		l.ended = append(l.ended, l.open[0])
		s.handovers.transfer.Record(float64(end-l.open[0].begun) / float64(time.Second))
		l.open = slices.Delete(l.open, 0, 1)
	}
	l.clock, l.at = 0, s.now // nobody counts by it
}

// arrived takes note of what has come over the link. With a step under way the end of
// that takes it in.
func (w *worker) arrived() {
	w.link.advance(w.sim)
	w.link.arm(w)
	if !w.busy {
		w.turn()
	}
}
