package transfer

import (
	"context"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Notification is what a peer's transfer told when it was done.
type Notification struct {
	Peer    AgentID
	Name    string // of the peer
	Payload []byte
}

// note is what is told to a peer: a notification, the leases its transfer ends, or
// both.
type note struct {
	seq      uint64 // 0 until it is its turn
	payload  []byte
	notify   bool
	releases []release
	state    noteState
	since    time.Time
}

type release struct {
	memory MemoryID
	token  uint64
}

type noteState uint8

const (
	noteWaits   noteState = iota // for its transfer
	noteReady                    // to be sent
	noteDropped                  // its transfer failed
)

// notes brings what is to be told to one peer, in the order of the posts, each
// once: like a sender of TCP it numbers, keeps until acknowledged, and sends
// again over the next rail when one fails; the peer drops what it has heard.
type notes struct {
	peer   *Peer
	stream uint32

	mu struct {
		sync.Mutex
		pending []*note // not sent, in order of their posts
		sent    []*note // not acknowledged, in order
		last    uint64
		again   bool // sent has to be sent again
		pause   bool // but not at once
		sending bool // somebody does
		closed  bool
	}
}

// reserve gives a transfer its place in the order.
func (n *notes) reserve(o Options, l *List) (*note, error) {
	e := &note{payload: o.Notify, notify: o.Notify != nil}
	if o.Acknowledge {
		seen := map[release]struct{}{}
		for i := range l.segments {
			r := release{l.segments[i].remote, l.segments[i].token}
			if _, ok := seen[r]; !ok {
				seen[r] = struct{}{}
				e.releases = append(e.releases, r)
			}
		}
		if len(e.releases) > maxFrameSegments {
			return nil, invalid("the transfer would acknowledge %d leases; %d are possible", len(e.releases), maxFrameSegments)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mu.pending) >= maxUnsent {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "as many notifications wait for this peer, or for transfers to it, as may; wait for some transfers to end"}
	}
	n.mu.pending = append(n.mu.pending, e)
	return e, nil
}

// ready says that a note's transfer is done.
func (n *notes) ready(e *note) { n.settle(e, noteReady) }

// drop says that it will not be.
func (n *notes) drop(e *note) { n.settle(e, noteDropped) }

func (n *notes) settle(e *note, s noteState) {
	if e == nil {
		return
	}
	n.mu.Lock()
	e.state, e.since = s, time.Now()
	n.mu.Unlock()
	n.kick()
}

// kick sends what can be sent: at once if a rail can without waiting, else by a
// goroutine that ends when nothing is left to do.
func (n *notes) kick() {
	n.mu.Lock()
	if n.mu.sending || n.mu.closed {
		n.mu.Unlock()
		return
	}
	n.mu.sending = true
	batch := n.takeLocked()
	full := len(batch) == 0 && n.stuckLocked()
	if len(batch) == 0 && !full {
		n.mu.sending = false
	}
	n.mu.Unlock()
	if len(batch) == 0 && !full || len(batch) > 0 && n.atOnce(batch) {
		return
	}
	n.mu.Lock()
	n.mu.again = n.mu.again || len(batch) > 0 // the batch is among sent
	n.mu.Unlock()
	if !n.peer.a.spawn(n.run) {
		n.stop()
	}
}

// stuckLocked reports whether something could be sent if more were acknowledged.
func (n *notes) stuckLocked() bool {
	return len(n.mu.sent) >= maxUnacknowledged && len(n.mu.pending) > 0 && n.mu.pending[0].state != noteWaits
}

// receipts asks the rails for what the peer has acknowledged without a word.
func (n *notes) receipts() {
	for _, r := range n.peer.rails {
		if r, ok := r.rail.(receipter); ok {
			r.receipts()
		}
	}
}

// takeLocked moves what is next from pending to sent.
func (n *notes) takeLocked() (batch []*note) {
	if n.mu.again {
		n.mu.again = false
		batch = append(batch, n.mu.sent...)
	}
	for len(n.mu.pending) > 0 && len(n.mu.sent) < maxUnacknowledged {
		e := n.mu.pending[0]
		if e.state == noteWaits {
			break
		}
		n.mu.pending[0] = nil
		n.mu.pending = n.mu.pending[1:]
		if e.state == noteDropped {
			continue
		}
		n.mu.last++
		e.seq = n.mu.last
		n.mu.sent = append(n.mu.sent, e)
		batch = append(batch, e)
	}
	return batch
}

// atOnce sends a batch, and what has become ready meanwhile, without waiting. It
// reports whether sending is over.
func (n *notes) atOnce(batch []*note) bool {
	for range maxUnacknowledged {
		if sent, err := n.carry(atOnce, batch); !sent || err != nil {
			return false
		}
		n.mu.Lock()
		if batch = n.takeLocked(); len(batch) == 0 {
			n.mu.sending = n.stuckLocked()
			done := !n.mu.sending
			n.mu.Unlock()
			return done
		}
		n.mu.Unlock()
	}
	return false
}

// carry sends a batch over the first rail that takes it.
func (n *notes) carry(ctx context.Context, batch []*note) (sent bool, err error) {
	now := time.Now()
	for _, second := range []bool{false, true} {
		for _, r := range n.peer.rails {
			c, ok := r.rail.(carrier)
			if !ok || r.resting(now) != second {
				continue
			}
			if sent, err = c.carry(ctx, batch); sent && err == nil {
				n.peer.a.count.sent.Add(float64(len(batch)))
				return true, nil
			}
			if ctx == atOnce && err == nil {
				return false, nil // it would have to wait
			}
		}
	}
	if err == nil || err == errElsewhere {
		err = lost(err, "no path to %q carries notifications", n.peer.Name())
	}
	return false, err
}

// run sends until nothing is left to send, and tries again while the peer cannot
// be reached or its inbox is full.
func (n *notes) run() {
	wait := notifyPause
	for {
		n.mu.Lock()
		pause := n.mu.pause
		n.mu.pause = false
		n.mu.Unlock()
		if pause {
			if !n.rest(wait) {
				n.stop()
				return
			}
			wait = min(2*wait, notifyPauseMax)
		}
		n.mu.Lock()
		batch := n.takeLocked()
		if len(batch) == 0 && !n.stuckLocked() {
			n.mu.sending = false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		if len(batch) == 0 {
			if !n.rest(drainPoll) {
				n.stop()
				return
			}
			n.receipts()
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		_, err := n.carry(ctx, batch)
		cancel()
		switch {
		case err == nil:
			wait = notifyPause
		case time.Since(batch[0].since) > notifyTimeout:
			n.abandon(err)
		default:
			n.mu.Lock()
			n.mu.again, n.mu.pause = true, true
			n.mu.Unlock()
		}
	}
}

// rest waits, and reports whether sending goes on.
func (n *notes) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.peer.gone:
	case <-n.peer.a.stopping:
	}
	return false
}

// abandon drops what the peer has not acknowledged.
func (n *notes) abandon(err error) {
	n.mu.Lock()
	dropped := len(n.mu.sent)
	n.mu.sent, n.mu.again = nil, false
	n.mu.Unlock()
	n.peer.a.count.dropped.Add(float64(dropped))
	n.peer.a.log.Warn("notifications of a peer that stays away are dropped", "peer", n.peer.Name(), "count", dropped, "err", err)
}

func (n *notes) stop() {
	n.mu.Lock()
	dropped := len(n.mu.sent)
	n.mu.closed, n.mu.sending, n.mu.sent, n.mu.pending = true, false, nil, nil
	n.mu.Unlock()
	n.peer.a.count.dropped.Add(float64(dropped))
}

// acknowledged forgets what the peer has heard.
func (p *Peer) acknowledged(seq uint64) {
	n := &p.notes
	n.mu.Lock()
	for len(n.mu.sent) > 0 && n.mu.sent[0].seq <= seq {
		n.mu.sent[0] = nil
		n.mu.sent = n.mu.sent[1:]
	}
	more := len(n.mu.pending) > 0 && n.mu.pending[0].state != noteWaits
	n.mu.Unlock()
	if more {
		n.kick()
	}
}

// interrupted says that a rail which carried notes has failed, or that the peer
// wants them again.
func (p *Peer) interrupted() {
	n := &p.notes
	n.mu.Lock()
	lost := len(n.mu.sent) > 0
	n.mu.again, n.mu.pause = n.mu.again || lost, n.mu.pause || lost
	start := lost && !n.mu.sending && !n.mu.closed
	n.mu.sending = n.mu.sending || start
	n.mu.Unlock()
	if start && !p.a.spawn(n.run) {
		n.stop()
	}
}

// How a note was taken.
const (
	noteHeard = iota
	noteLater // the inbox is full, or an earlier one is missing: send it again
)

// inbox holds what peers have told, until it is fetched.
type inbox struct {
	bell chan struct{}

	mu struct {
		sync.Mutex
		heard map[AgentID]heard
		queue []Notification
	}
}

// heard is how far a peer has been heard. A stream is what it tells as one Peer of
// its agent: another one begins anew.
type heard struct {
	stream uint32
	last   uint64
	at     time.Time
}

func (i *inbox) init() {
	i.bell = make(chan struct{}, 1)
	i.mu.heard = map[AgentID]heard{}
}

// ring wakes one who waits.
func (i *inbox) ring() {
	select {
	case i.bell <- struct{}{}:
	default: // it is rung
	}
}

func (i *inbox) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.mu.queue) == 0
}

// origin is where a note comes from.
type origin struct {
	id     AgentID
	name   string
	stream uint32
}

// nextLocked reports whether a note is the next, and otherwise how it is taken.
func (i *inbox) nextLocked(from origin, n *note) (status int, next bool) {
	h := i.mu.heard[from.id]
	if from.stream > h.stream {
		h = heard{stream: from.stream}
	}
	if from.stream < h.stream || n.seq <= h.last {
		return noteHeard, false
	}
	return noteLater, n.seq == h.last+1 && !(n.notify && len(i.mu.queue) >= maxInbox)
}

// takeLocked takes the next note. Of more peers than can be, the one that has been
// silent longest is forgotten.
func (i *inbox) takeLocked(from origin, n *note) {
	if _, known := i.mu.heard[from.id]; !known && len(i.mu.heard) >= 2*maxPeers {
		var oldest AgentID
		at := time.Now()
		for id, h := range i.mu.heard {
			if h.at.Before(at) {
				oldest, at = id, h.at
			}
		}
		delete(i.mu.heard, oldest)
	}
	i.mu.heard[from.id] = heard{from.stream, n.seq, time.Now()}
	if n.notify {
		i.mu.queue = append(i.mu.queue, Notification{from.id, from.name, n.payload})
	}
}

// hear takes a note of a peer, once and in order.
func (a *Agent) hear(from origin, n *note) int {
	i := &a.inbox
	i.mu.Lock()
	status, next := i.nextLocked(from, n)
	last := next && len(n.releases) == 0
	if last {
		i.takeLocked(from, n)
	}
	i.mu.Unlock()
	if !next {
		if status == noteHeard {
			a.count.repeated.Inc()
		}
		return status
	}
	for _, r := range n.releases { // again, if two rails bring it: that does nothing
		if m := a.memory(r.memory); m != nil {
			m.acknowledge(r.token)
		}
	}
	if !last {
		i.mu.Lock()
		if _, next = i.nextLocked(from, n); next {
			i.takeLocked(from, n)
		}
		i.mu.Unlock()
	}
	if !next || !n.notify {
		return noteHeard
	}
	a.count.received.Inc()
	if !a.ear.rouse() {
		i.ring()
	}
	return noteHeard
}

// Notification returns the next notification, of any peer; those of one peer come
// in the order of its posts. It waits until ctx ends.
func (a *Agent) Notification(ctx context.Context) (Notification, error) {
	i := &a.inbox
	for {
		i.mu.Lock()
		if len(i.mu.queue) > 0 {
			n := i.mu.queue[0]
			i.mu.queue[0] = Notification{}
			i.mu.queue = i.mu.queue[1:]
			more := len(i.mu.queue) > 0
			i.mu.Unlock()
			if more { // for another who waits
				i.ring()
			}
			return n, nil
		}
		i.mu.Unlock()
		if ctx.Err() == nil && a.ear.wait(ctx, i) {
			continue
		}
		select {
		case <-i.bell:
		case <-ctx.Done():
			return Notification{}, context.Cause(ctx)
		}
	}
}
