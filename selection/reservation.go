package selection

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router"
)

// table holds the reservations that are open, by id, and remembers how the last ones
// ended.
type table struct {
	most    int
	metrics *metrics
	mu      struct {
		sync.Mutex
		open  map[string]*slot
		ended map[string]router.End
		ring  []string // the ids in ended, a ring once it is full
		next  int
	}
}

// slot is the place of one reservation. v is nil while it is being made.
type slot struct{ v *router.Reservation }

func newTable(most int, m *metrics) *table {
	t := &table{most: most, metrics: m}
	t.mu.open, t.mu.ended = map[string]*slot{}, map[string]router.End{}
	return t
}

// take makes room for a reservation of that id.
func (t *table) take(id string) (*slot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.open[id] != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Param: "request_id", Code: "already_reserved", Message: fmt.Sprintf("there is a reservation %q already; release it, or choose another request_id", id)}
	}
	if len(t.mu.open) >= t.most {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Code: "too_many_reservations", RetryAfter: retryAfter, Message: fmt.Sprintf("%d reservations are open, the most there may be (--max-reservations); release those whose requests have ended", t.most)}
	}
	s := &slot{}
	t.mu.open[id] = s
	t.metrics.open.Set(float64(len(t.mu.open)))
	return s, nil
}

// keep puts the reservation into its slot, unless it has ended by then.
func (t *table) keep(id string, s *slot, v *router.Reservation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.open[id] == s {
		s.v = v
	}
}

// drop gives back the room of a reservation that was not made.
func (t *table) drop(id string, s *slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.open[id] == s {
		delete(t.mu.open, id)
		t.metrics.open.Set(float64(len(t.mu.open)))
	}
}

// end notes how the reservation of a slot ended.
func (t *table) end(id string, s *slot, end router.End) {
	t.metrics.ended.WithLabelValues(end.String()).Inc()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.open[id] != s {
		return
	}
	delete(t.mu.open, id)
	t.metrics.open.Set(float64(len(t.mu.open)))
	if _, known := t.mu.ended[id]; !known {
		if len(t.mu.ring) < keptEnds {
			t.mu.ring = append(t.mu.ring, id)
		} else {
			delete(t.mu.ended, t.mu.ring[t.mu.next])
			t.mu.ring[t.mu.next] = id
			t.mu.next = (t.mu.next + 1) % keptEnds
		}
	}
	t.mu.ended[id] = end
}

// find returns an open reservation, or says how it ended.
func (t *table) find(id string) (v *router.Reservation, end router.End, err error) {
	if id == "" {
		return nil, 0, missing("reservation_id")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.mu.open[id]; s != nil && s.v != nil {
		return s.v, 0, nil
	}
	if end, known := t.mu.ended[id]; known && t.mu.open[id] == nil {
		return nil, end, nil
	}
	return nil, 0, &dynamo.Error{Kind: dynamo.KindNotFound, Param: "reservation_id", Code: "unknown_reservation", Message: fmt.Sprintf("there is no reservation %q, and the last ones that ended were others; it may have ended long ago", clip(id))}
}

// endAll ends what is open.
func (t *table) endAll(ctx context.Context) {
	t.mu.Lock()
	var all []*router.Reservation
	for _, s := range t.mu.open {
		if s.v != nil {
			all = append(all, s.v)
		}
	}
	t.mu.Unlock()
	for _, v := range all {
		v.Release(ctx, router.Cancelled, 0)
	}
}

// reserveAny is the method "select_and_reserve".
func (s *Server) reserveAny(ctx context.Context, q *request) (any, error) {
	p, err := s.prepare(q)
	if err != nil {
		return nil, err
	}
	v, err := s.reserve(ctx, q, p)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // nobody is left to be told
		v.Release(context.WithoutCancel(ctx), router.Cancelled, 0)
		return nil, &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the client went away"}
	}
	x := s.choice(q.RequestID, &v.Choice)
	x.Reservation, x.LeaseUntil = q.RequestID, v.Until()
	return x, nil
}

// reserveAt is the method "reserve", for a worker that the client has chosen.
func (s *Server) reserveAt(ctx context.Context, q *request) (any, error) {
	if q.Worker == 0 && q.Pinned == nil {
		return nil, fault("worker_id", "worker_id is not there; say whose the reservation is, or ask for one with select_and_reserve")
	}
	return s.reserveAny(ctx, q)
}

// reserve makes a reservation and puts it into the table.
func (s *Server) reserve(ctx context.Context, q *request, p *prepared) (*router.Reservation, error) {
	id := q.RequestID
	place, err := s.table.take(id)
	if err != nil {
		return nil, err
	}
	lease := s.config.Lease
	if q.LeaseSeconds > 0 {
		lease = max(time.Duration(q.LeaseSeconds*float64(time.Second)), time.Millisecond)
	}
	v, err := p.router.Reserve(ctx, p.ask, lease, func(_ *router.Reservation, end router.End) { s.table.end(id, place, end) })
	if err != nil {
		s.table.drop(id, place)
		return nil, err
	}
	s.table.keep(id, place, v)
	return v, nil
}

// newID makes an id for a request that brings none.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// told is the answer to a call about a reservation. Applied says whether it has changed
// anything; if not, End says how the reservation ended, unless it is open still.
type told struct {
	Reservation string     `json:"reservation_id"`
	Applied     bool       `json:"applied"`
	End         string     `json:"end,omitzero"`
	LeaseUntil  *time.Time `json:"lease_until,omitzero"`
}

// tell answers a call about a reservation.
func (s *Server) tell(id string, v *router.Reservation, applied bool, end router.End) (any, error) {
	t := &told{Reservation: id, Applied: applied}
	if v != nil && !applied {
		if _, e, err := s.table.find(id); err == nil { // it may have ended meanwhile
			end = e
		}
	}
	if open, _, _ := s.table.find(id); open != nil && open == v {
		until := v.Until()
		t.LeaseUntil = &until
	} else {
		t.End = end.String()
	}
	if !applied {
		s.metrics.late.Inc()
	}
	return t, nil
}

// prefillMessage is that of the method "prefill_complete".
type prefillMessage struct {
	ID     string
	Cached *int
}

var prefillFields = fields[prefillMessage]{
	"reservation_id": func(q *prefillMessage) any { return (*name)(&q.ID) },
	"cached_tokens":  func(q *prefillMessage) any { return &q.Cached },
}

// prefillDone is the method "prefill_complete".
func (s *Server) prefillDone(_ context.Context, q *prefillMessage) (any, error) {
	cached := -1
	if q.Cached != nil {
		if cached = *q.Cached; cached < 0 || cached > maxPrompt {
			return nil, fault("cached_tokens", "cached_tokens is %d; it must be 0 to %d", cached, maxPrompt)
		}
	}
	v, end, err := s.table.find(q.ID)
	if err != nil {
		return nil, err
	}
	return s.tell(q.ID, v, v != nil && v.PrefillDone(cached), end)
}

// growthMessage is that of the method "output_block".
type growthMessage struct {
	ID     string
	Tokens int
	// Decay is how much of a block the reference counts; what an answer is expected to
	// become is part of the cost here, so that it is looked at no further.
	Decay *float64
}

var growthFields = fields[growthMessage]{
	"reservation_id": func(q *growthMessage) any { return (*name)(&q.ID) },
	"tokens":         func(q *growthMessage) any { return &q.Tokens },
	"decay_fraction": func(q *growthMessage) any { return &q.Decay },
}

// grow is the method "output_block".
func (s *Server) grow(_ context.Context, q *growthMessage) (any, error) {
	if q.Tokens < 0 || q.Tokens > maxOutput {
		return nil, fault("tokens", "tokens is %d; it must be 0 (a block) to %d", q.Tokens, maxOutput)
	}
	if q.Decay != nil && !(*q.Decay >= 0 && *q.Decay <= 1) {
		return nil, fault("decay_fraction", "decay_fraction is %v; it must be 0 to 1", *q.Decay)
	}
	v, end, err := s.table.find(q.ID)
	if err != nil {
		return nil, err
	}
	n := q.Tokens
	if v != nil && n == 0 {
		n = max(v.Choice.BlockSize, 1)
	}
	return s.tell(q.ID, v, v != nil && v.Grow(n), end)
}

// releaseMessage is that of the method "release".
type releaseMessage struct {
	ID, End string
	Tokens  int
}

var releaseFields = fields[releaseMessage]{
	"reservation_id": func(q *releaseMessage) any { return (*name)(&q.ID) },
	"end":            func(q *releaseMessage) any { return &q.End },
	"output_tokens":  func(q *releaseMessage) any { return &q.Tokens },
}

// release is the method "release".
func (s *Server) release(ctx context.Context, q *releaseMessage) (any, error) {
	end := router.Completed
	if q.End != "" {
		var known bool
		if end, known = router.ParseEnd(q.End); !known || end == router.Expired {
			return nil, fault("end", "end is %q; it is one of completed, failed, cancelled, refused, lost, stalled and draining", clip(q.End))
		}
	}
	if q.Tokens < 0 || q.Tokens > maxOutput {
		return nil, fault("output_tokens", "output_tokens is %d; it must be 0 to %d", q.Tokens, maxOutput)
	}
	v, was, err := s.table.find(q.ID)
	if err != nil {
		return nil, err
	}
	if v == nil || !v.Release(context.WithoutCancel(ctx), end, q.Tokens) {
		return s.tell(q.ID, v, false, was)
	}
	return s.tell(q.ID, v, true, end)
}
