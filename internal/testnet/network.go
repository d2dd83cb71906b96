package testnet

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Network is a set of hosts that can reach one another until a fault says
// otherwise. Its methods may be called at any time from any goroutine.
type Network struct {
	mu struct {
		sync.Mutex
		hosts     map[string]*Host
		links     map[pair]*link
		listeners map[string]*listener // by address, or by host and path
		conns     map[*conn]struct{}   // every end that is not over
		made      uint64               // ends made, the order faults act in
		changed   gate                 // opened by everything a dial may wait for
	}
}

// pair is a direction between two hosts.
type pair struct{ from, to string }

// link is the state of one direction between two hosts.
type link struct {
	delay time.Duration
	cut   bool
}

// New returns a network without hosts or faults.
func New() *Network {
	n := &Network{}
	n.mu.hosts = map[string]*Host{}
	n.mu.links = map[pair]*link{}
	n.mu.listeners = map[string]*listener{}
	n.mu.conns = map[*conn]struct{}{}
	return n
}

// Host returns the host of that name and makes it when there is none, or when
// the last one was killed.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.mu.hosts[name]
	if h == nil || h.dead {
		h = &Host{net: n, name: name}
		n.mu.hosts[name] = h
	}
	return h
}

// Connections returns how many connections are open at either end.
func (n *Network) Connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for c := range n.mu.conns {
		if _, both := n.mu.conns[c.peer]; !both || c.seq < c.peer.seq {
			count++
		}
	}
	return count
}

// Delay sets the time that bytes sent by one host take to the other, from this
// call on. Bytes under way keep their time, and later ones do not overtake them.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).delay = d
	n.mu.changed.open()
}

// Partition cuts the direction from one host to another: nothing sent arrives
// until Heal, what is under way included. The other direction goes on, but its
// bytes are not acknowledged, so its senders block when their buffers are full.
func (n *Network) Partition(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).cut = true
	n.reviewLocked()
}

// PartitionBoth cuts both directions between two hosts.
func (n *Network) PartitionBoth(a, b string) {
	n.Partition(a, b)
	n.Partition(b, a)
}

// Heal ends the partitions between two hosts, in both directions. What was held
// is sent.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(a, b).cut = false
	n.linkLocked(b, a).cut = false
	n.reviewLocked()
}

// HealAll ends every partition and every delay. Paused hosts stay paused.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.mu.links {
		*l = link{}
	}
	n.reviewLocked()
}

// Reset breaks every connection between two hosts at once: both ends fail with
// ECONNRESET and bytes not yet read are lost. It returns how many it broke.
func (n *Network) Reset(a, b string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	broken := 0
	for _, c := range n.connsLocked() {
		if c.host.name == a && c.peer.host.name == b || c.host.name == b && c.peer.host.name == a {
			if !c.reset && !c.peer.reset {
				broken++
			}
			c.resetLocked()
		}
	}
	return broken
}

// Pause stops a host as SIGSTOP stops a process. What it has written still
// arrives, and connections to it are still made and take bytes until their
// buffers are full; but its own reads, writes, accepts and dials do not return
// until Resume, whatever their deadlines, unless their connection is closed or
// reset. What it closes meanwhile is seen closed at Resume.
func (n *Network) Pause(host string) {
	h := n.Host(host)
	n.mu.Lock()
	defer n.mu.Unlock()
	h.paused = !h.dead
	n.wakeLocked(h)
}

// Resume lets a paused host go on.
func (n *Network) Resume(host string) {
	h := n.Host(host)
	n.mu.Lock()
	defer n.mu.Unlock()
	h.paused = false
	for _, c := range n.connsLocked() {
		if c.host == h && c.closed {
			c.finishLocked()
		}
	}
	for _, l := range n.listenersLocked() {
		if l.host == h && l.closed {
			l.removeLocked()
		}
	}
	n.wakeLocked(h)
}

// Kill ends a host: its connections are reset, at the other side as soon as the
// network lets the reset through, its listeners are gone, and dials to it are
// refused. Whatever still holds it or something made through it gets errors.
func (n *Network) Kill(host string) {
	h := n.Host(host)
	n.mu.Lock()
	defer n.mu.Unlock()
	h.dead, h.paused = true, false
	for _, l := range n.listenersLocked() {
		if l.host == h {
			l.removeLocked()
		}
	}
	for _, c := range n.connsLocked() {
		if c.host == h {
			c.abortLocked()
		}
	}
	n.wakeLocked(h)
}

// linkLocked returns the state of a direction.
func (n *Network) linkLocked(from, to string) *link {
	l := n.mu.links[pair{from, to}]
	if l == nil {
		l = &link{}
		n.mu.links[pair{from, to}] = l
	}
	return l
}

// reviewLocked brings every connection in line with the links after they
// changed.
func (n *Network) reviewLocked() {
	now := time.Now()
	for _, c := range n.connsLocked() {
		c.out.reviewLocked(now)
		c.in.reviewLocked(now) // its writer may be over, and no end of the network any more
		if c.aborted && !c.out.link.cut {
			c.peer.resetLocked()
		}
		c.readable.open()
		c.writable.open()
	}
	n.mu.changed.open()
}

// wakeLocked lets everything that waits on behalf of h look again.
func (n *Network) wakeLocked(h *Host) {
	for _, c := range n.connsLocked() {
		if c.host == h {
			c.readable.open()
			c.writable.open()
		}
	}
	for _, l := range n.listenersLocked() {
		if l.host == h {
			l.ready.open()
		}
	}
	n.mu.changed.open()
}

// connsLocked returns the ends in the order they were made.
func (n *Network) connsLocked() []*conn {
	return slices.SortedFunc(maps.Keys(n.mu.conns), func(a, b *conn) int { return cmp.Compare(a.seq, b.seq) })
}

// listenersLocked returns the listeners in the order of their addresses.
func (n *Network) listenersLocked() []*listener {
	return slices.SortedFunc(maps.Values(n.mu.listeners), func(a, b *listener) int { return cmp.Compare(a.key, b.key) })
}

// gate is what goroutines wait at until somebody opens it; it is closed again
// at once. The network's lock guards it.
type gate struct{ c chan struct{} }

// open lets all pass that wait.
func (g *gate) open() {
	if g.c != nil {
		close(g.c)
		g.c = nil
	}
}

// waitLocked leaves the lock until g opens, until the time comes (zero: never)
// or done closes (nil: never), and takes the lock again.
func (n *Network) waitLocked(g *gate, until time.Time, done <-chan struct{}) {
	if g.c == nil {
		g.c = make(chan struct{})
	}
	c := g.c
	n.mu.Unlock()
	defer n.mu.Lock()
	if until.IsZero() {
		select {
		case <-c:
		case <-done:
		}
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	case <-done:
	}
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
