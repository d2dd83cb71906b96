package transfer

import (
	"slices"
	"sync"

	"github.com/dynamo-go/dynamo"
)

// Peer is another agent, or this one, as its metadata describes it. It is known
// until it is closed, whether it lives or not.
type Peer struct {
	a     *Agent
	id    AgentID
	rails []*track
	notes notes
	gone  chan struct{}

	mu struct {
		sync.Mutex
		name     string
		memories []MemoryInfo // by id
		closed   bool
	}
}

// meet makes a peer of its metadata, or renews it.
func (a *Agent) meet(m *metadata) (*Peer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.mu.peers[m.id]
	if p == nil {
		switch {
		case a.mu.state == stateStopped:
			return nil, errStopped
		case len(a.mu.peers) >= maxPeers:
			return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the agent has as many peers as it may; close those that are gone"}
		}
		p = &Peer{a: a, id: m.id, gone: make(chan struct{})}
		a.mu.lastStream++
		p.notes.peer, p.notes.stream = p, a.mu.lastStream
		for _, b := range a.backends {
			if r := b.open(p, m.addresses[b.path()]); r != nil {
				p.rails = append(p.rails, &track{rail: r, path: b.path()})
			}
		}
		a.mu.peers[m.id] = p
	}
	p.mu.Lock()
	p.mu.name, p.mu.memories = m.name, m.memories
	p.mu.Unlock()
	return p, nil
}

// ID names the peer's life.
func (p *Peer) ID() AgentID { return p.id }

// Name is what the peer calls itself.
func (p *Peer) Name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.name
}

// Memory finds a memory of the peer by its name.
func (p *Peer) Memory(name string) (MemoryInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.mu.memories, func(m MemoryInfo) bool { return m.Name == name }); i >= 0 {
		return p.mu.memories[i], true
	}
	return MemoryInfo{}, false
}

func (p *Peer) memory(id MemoryID) (MemoryInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := slices.BinarySearchFunc(p.mu.memories, id, func(m MemoryInfo, id MemoryID) int { return int(m.ID) - int(id) })
	if !ok {
		return MemoryInfo{}, false
	}
	return p.mu.memories[i], true
}

// Close forgets the peer and ends its connections; transfers in progress fail.
func (p *Peer) Close() {
	p.a.mu.Lock()
	if p.a.mu.peers[p.id] == p {
		delete(p.a.mu.peers, p.id)
	}
	p.a.mu.Unlock()
	p.close(lost(nil, "the peer %q was closed", p.Name()))
}

func (p *Peer) close(cause error) {
	p.mu.Lock()
	first := !p.mu.closed
	p.mu.closed = true
	p.mu.Unlock()
	if !first {
		return
	}
	close(p.gone)
	for _, r := range p.rails {
		r.close(cause)
	}
}
