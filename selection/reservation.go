package selection

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
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
		return nil, &statusError{http.StatusConflict, &dynamo.Error{Kind: dynamo.KindInvalid, Param: "request_id", Code: "already_reserved", Message: fmt.Sprintf("there is a reservation %q already; release it, or choose another request_id", id)}}
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
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.mu.open[id]; s != nil && s.v != nil {
		return s.v, 0, nil
	}
	if end, known := t.mu.ended[id]; known && t.mu.open[id] == nil {
		return nil, end, nil
	}
	return nil, 0, &dynamo.Error{Kind: dynamo.KindNotFound, Param: "id", Code: "unknown_reservation", Message: fmt.Sprintf("there is no reservation %q, and the last ones that ended were others; it may have ended long ago", clip(id))}
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

// serveReserve is POST /select_and_reserve, and POST /reservations for a worker that
// the client has chosen.
func (s *Server) serveReserve(chosen bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q request
		if err := decode(w, r, &q); err != nil {
			return err
		}
		p, err := s.prepare(&q)
		if err != nil {
			return err
		}
		if chosen && q.Worker == 0 {
			return fault("worker_id", "worker_id is not there; say whose the reservation is, or ask for one with POST /select_and_reserve")
		}
		v, err := s.reserve(r.Context(), &q, p)
		if err != nil {
			return err
		}
		if r.Context().Err() != nil { // nobody is left to be told
			v.Release(context.WithoutCancel(r.Context()), router.Cancelled, 0)
			return &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the client went away"}
		}
		body := s.choice(q.RequestID, &v.Choice)
		body.Reservation, body.LeaseUntil = q.RequestID, v.Until()
		return s.answer(w, http.StatusCreated, body)
	}
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
func (s *Server) tell(w http.ResponseWriter, id string, v *router.Reservation, applied bool, end router.End) error {
	t := told{Reservation: id, Applied: applied}
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
	return s.answer(w, http.StatusOK, t)
}

// servePrefill is POST /reservations/{id}/prefill_complete.
func (s *Server) servePrefill(w http.ResponseWriter, r *http.Request) error {
	q := struct {
		Cached *int `json:"cached_tokens"`
	}{}
	if err := decodeMaybe(w, r, &q); err != nil {
		return err
	}
	cached := -1
	if q.Cached != nil {
		if cached = *q.Cached; cached < 0 || cached > maxPrompt {
			return fault("cached_tokens", "cached_tokens is %d; it must be 0 to %d", cached, maxPrompt)
		}
	}
	id := r.PathValue("id")
	v, end, err := s.table.find(id)
	if err != nil {
		return err
	}
	return s.tell(w, id, v, v != nil && v.PrefillDone(cached), end)
}

// serveOutput is POST /reservations/{id}/output_block.
func (s *Server) serveOutput(w http.ResponseWriter, r *http.Request) error {
	q := struct {
		Tokens int `json:"tokens"`
		// Decay is how much of a block the reference counts; what an answer is expected
		// to become is part of the cost here, so that it is looked at no further.
		Decay *float64 `json:"decay_fraction"`
	}{}
	if err := decodeMaybe(w, r, &q); err != nil {
		return err
	}
	if q.Tokens < 0 || q.Tokens > maxOutput {
		return fault("tokens", "tokens is %d; it must be 0 (a block) to %d", q.Tokens, maxOutput)
	}
	if q.Decay != nil && !(*q.Decay >= 0 && *q.Decay <= 1) {
		return fault("decay_fraction", "decay_fraction is %v; it must be 0 to 1", *q.Decay)
	}
	id := r.PathValue("id")
	v, end, err := s.table.find(id)
	if err != nil {
		return err
	}
	n := q.Tokens
	if v != nil && n == 0 {
		n = max(v.Choice.BlockSize, 1)
	}
	return s.tell(w, id, v, v != nil && v.Grow(n), end)
}

// serveRelease is DELETE /reservations/{id}.
func (s *Server) serveRelease(w http.ResponseWriter, r *http.Request) error {
	end, query := router.Completed, r.URL.Query()
	if name := query.Get("end"); name != "" {
		var known bool
		if end, known = router.ParseEnd(name); !known || end == router.Expired {
			return fault("end", "end is %q; it is one of completed, failed, cancelled, refused, lost, stalled and draining", clip(name))
		}
	}
	length := 0
	if text := query.Get("output_tokens"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxOutput {
			return fault("output_tokens", "output_tokens is %q; it must be 0 to %d", clip(text), maxOutput)
		}
		length = n
	}
	id := r.PathValue("id")
	v, was, err := s.table.find(id)
	if err != nil {
		return err
	}
	if v == nil || !v.Release(context.WithoutCancel(r.Context()), end, length) {
		return s.tell(w, id, v, false, was)
	}
	return s.tell(w, id, v, true, end)
}

// decodeMaybe reads a body into v where there is one.
func decodeMaybe(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength == 0 || r.ContentLength < 0 && !strings.Contains(r.Header.Get("Content-Type"), "json") {
		return nil
	}
	return decode(w, r, v)
}
