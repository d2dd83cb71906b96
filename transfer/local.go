package transfer

import (
	"context"
	"sync"

	"github.com/dynamo-go/dynamo"
)

// Process is what the agents of one process know of each other: with it they copy
// directly.
type Process struct {
	mu struct {
		sync.Mutex
		agents map[AgentID]*Agent
	}
}

// NewProcess returns a process without agents.
func NewProcess() *Process {
	p := &Process{}
	p.mu.agents = map[AgentID]*Agent{}
	return p
}

func (p *Process) enter(a *Agent) {
	p.mu.Lock()
	p.mu.agents[a.id] = a
	p.mu.Unlock()
}

func (p *Process) leave(a *Agent) {
	p.mu.Lock()
	delete(p.mu.agents, a.id)
	p.mu.Unlock()
}

func (p *Process) agent(id AgentID) *Agent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.agents[id]
}

// local is the path within a process. Every agent reaches itself by it.
type local struct{ process *Process }

func (*local) path() Path      { return PathLocal }
func (*local) address() string { return "" }

func (l *local) open(p *Peer, _ string) rail { return &localRail{l.process, p} }

type localRail struct {
	process *Process
	peer    *Peer
}

var (
	_ inliner = (*localRail)(nil)
	_ carrier = (*localRail)(nil)
)

func (r *localRail) serves(local, remote uint32) bool {
	return subset(local, plain) && subset(remote, plain) && r.process.agent(r.peer.id) != nil
}

func (r *localRail) close(error) {}

func (r *localRail) target() (*Agent, error) {
	if t := r.process.agent(r.peer.id); t != nil {
		return t, nil
	}
	return nil, lost(nil, "agent %q of this process has ended", r.peer.Name())
}

func (r *localRail) move(ctx context.Context, j *job) error {
	t, err := r.target()
	if err != nil {
		return err
	}
	return r.peer.a.copyAll(ctx, j, inProcess{t})
}

func (r *localRail) inline(j *job) (bool, error) {
	t, err := r.target()
	if err != nil {
		return false, nil // the next rail is to try
	}
	return true, copyInline(inProcess{t}, j)
}

func copyInline(r reach, j *job) error {
	for i := range j.list.segments {
		if err := copySegment(r, &j.list.segments[i], j.op, j.checksum); err != nil {
			return err
		}
	}
	return nil
}

// errElsewhere says that a peer is of another process, as most are; its notes go by the
// next rail. It is made once because that is what each of them meets first.
var errElsewhere = lost(nil, "no agent of this process")

func (r *localRail) carry(_ context.Context, notes []*note) (bool, error) {
	t := r.process.agent(r.peer.id)
	if t == nil {
		return false, errElsewhere
	}
	for _, n := range notes {
		if status := t.hear(origin{r.peer.a.id, r.peer.a.cfg.Name, r.peer.notes.stream}, n); status != noteHeard {
			return false, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the peer's inbox is full"}
		}
		r.peer.acknowledged(n.seq)
	}
	return true, nil
}

// inProcess reaches the memories of an agent of this process.
type inProcess struct{ a *Agent }

func (p inProcess) enter(s *segment, op Op) ([]byte, grip, error) {
	m := p.a.memory(s.remote)
	if m == nil {
		return nil, grip{}, unregistered(s.remote)
	}
	ticket, err := m.enter(0, s.offset, s.length, s.token, op)
	if err != nil {
		return nil, grip{}, err
	}
	return m.bytes[s.offset : s.offset+s.length], grip{m: m, ticket: ticket}, nil
}

func (inProcess) leave(g grip) { g.m.leave(g.ticket) }
