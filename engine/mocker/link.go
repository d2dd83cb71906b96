package mocker

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// link is what KV comes over: one for each rank, as each has devices of its own. All
// that is under way at one moment has equal shares of the bandwidth. It belongs to
// the goroutine of its rank's loop.
//
// Its clock counts bytes that each transfer has had: it runs the slower the more
// there are, and a transfer ends when the clock shows what it showed at the beginning
// and the transfer's own bytes.
type link struct {
	config *Config

	at    time.Time // when clock was
	clock float64   // bytes
	open  []transfer
	ended []transfer // to be told
}

// transfer is KV on its way to a task.
type transfer struct {
	t    *loop.Task
	end  float64 // what the clock shows at its end
	fail bool
}

var _ loop.Transfers = (*link)(nil)

// External implements loop.Transfers.
func (l *link) External(t *loop.Task) int { return t.State.(*plan).source.tokens }

// Begin implements loop.Transfers.
func (l *link) Begin(t *loop.Task, a *sched.Action, now time.Time) {
	s := &t.State.(*plan).source
	s.present = false
	if s.taken || now.After(s.until) {
		l.ended = append(l.ended, transfer{t: t, fail: true})
		return
	}
	s.taken = true
	tokens := s.tokens
	if l.config.TransferTiming == TimeMissing {
		tokens -= a.Start
	}
	size := float64(tokens) * float64(s.bytesPerToken)
	if l.config.bandwidth() == 0 {
		size = 0
	}
	l.advance(now)
	tr := transfer{t: t, end: l.clock + size, fail: l.config.losesTransfer(t.Request.ID)}
	at, _ := slices.BinarySearchFunc(l.open, tr.end, func(o transfer, end float64) int { return cmp.Or(cmp.Compare(o.end, end), -1) })
	l.open = slices.Insert(l.open, at, tr)
}

// Cancel implements loop.Transfers.
func (l *link) Cancel(t *loop.Task, now time.Time) {
	l.advance(now)
	is := func(o transfer) bool { return o.t == t }
	l.open, l.ended = slices.DeleteFunc(l.open, is), slices.DeleteFunc(l.ended, is)
}

// Ended implements loop.Transfers.
func (l *link) Ended(now time.Time) (*loop.Task, bool) {
	l.advance(now)
	if len(l.ended) == 0 {
		return nil, false
	}
	tr := l.ended[0]
	l.ended = slices.Delete(l.ended, 0, 1)
	if !tr.fail {
		tr.t.State.(*plan).source.present = true
	}
	return tr.t, !tr.fail
}

// Arriving implements loop.Transfers: there is nobody.
func (*link) Arriving() *loop.Task { return nil }

// Next implements loop.Transfers.
func (l *link) Next() (time.Time, bool) {
	switch {
	case len(l.ended) > 0:
		return l.at, true
	case len(l.open) == 0:
		return time.Time{}, false
	}
	return l.firstEnd(), true
}

// firstEnd is when the first of the open ones ends, if none comes or goes before.
func (l *link) firstEnd() time.Time {
	bandwidth := l.config.bandwidth()
	if bandwidth == 0 {
		return l.at
	}
	seconds := max(0, l.open[0].end-l.clock) * float64(len(l.open)) / bandwidth
	return l.at.Add(time.Duration(math.Ceil(min(seconds, maxTransfer.Seconds()) * float64(time.Second))))
}

// advance lets time pass until now.
func (l *link) advance(now time.Time) {
	for len(l.open) > 0 {
		end := l.firstEnd()
		if end.After(now) {
			l.clock += now.Sub(l.at).Seconds() * l.config.bandwidth() / float64(len(l.open))
			l.at = now
			return
		}
		l.clock, l.at = l.open[0].end, end
		l.ended = append(l.ended, l.open[0])
		l.open = slices.Delete(l.open, 0, 1)
	}
	l.clock, l.at = 0, now // nobody counts by it
}
