package sim

// kind says what an event is. Events of one moment are taken in this order.
type kind uint8

const (
	kindIndex   kind = iota // a worker's KV events reach the index
	kindStarted             // a first token reaches router and client
	kindHanded              // the word that a prompt is computed, and where, does
	kindEnded               // an answer's end does
	kindExpire              // a request has waited long enough for a worker
	kindDecide              // a request reaches the router
	kindDeliver             // a request reaches its worker
	kindLetGo               // a worker hears that the KV it keeps is needed no more
	kindArrived             // KV that a worker has had brought is there
	kindStep                // a worker's step, or stretch, is over
)

// event is something due. Number tells events of a kind and moment apart: the
// worker's or the request's.
type event struct {
	at     int64 // ns since the start
	kind   kind
	stamp  uint32 // of a step: of several for one worker only the last is meant
	number uint64
	r      *request
}

func (e *event) before(f *event) bool {
	if e.at != f.at {
		return e.at < f.at
	}
	if e.kind != f.kind {
		return e.kind < f.kind
	}
	if e.number != f.number {
		return e.number < f.number
	}
	return e.stamp < f.stamp
}

// queue is a heap of events, the next at its root. Four children a node: fewer
// levels, and the children lie together.
type queue []event

func (q *queue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
	*q = h
}

func (q *queue) pop() event {
	h := *q
	top := h[0]
	n := len(h) - 1
	e := h[n]
	h[n].r = nil
	h = h[:n]
	*q = h
	if n == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&e) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
	return top
}
