package transfer

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// The states of an agent.
const (
	stateNew = iota
	stateRunning
	stateStopped
)

// Agent moves bytes between its memories and those of its peers. New starts
// nothing; Run owns every goroutine and connection.
type Agent struct {
	cfg      Config
	id       AgentID
	keys     keys
	log      *slog.Logger
	count    *counters
	backends []backend
	copiers  tokens
	lending  lending
	reaper   reaper
	inbox    inbox
	ear      ear
	ready    chan struct{}
	stopping chan struct{}
	wg       sync.WaitGroup

	mu struct {
		sync.Mutex
		state      int
		memories   map[MemoryID]*Memory
		lastMemory MemoryID
		peers      map[AgentID]*Peer
		lastStream uint32
		live       map[*Transfer]struct{} // active and queued
		active     int
		queue      []queued
		conns      map[uint64]io.Closer // served, by number
		lastConn   uint64
		strangers  int
		latest     map[ordinal]latest
	}
}

// New returns an agent that is not running.
func New(c Config) (*Agent, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Process == nil {
		c.Process = NewProcess()
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	a := &Agent{cfg: c, id: newAgentID(), log: obs.For(c.Logger, "transfer"), count: c.Metrics.children(),
		copiers: make(tokens, min(c.CopyWorkers, runtime.GOMAXPROCS(0)-1)), ready: make(chan struct{}), stopping: make(chan struct{})}
	a.reaper = reaper{a: a, bell: make(chan struct{}, 1)}
	a.lending.init()
	a.inbox.init()
	a.ear.init()
	a.mu.memories, a.mu.peers = map[MemoryID]*Memory{}, map[AgentID]*Peer{}
	a.mu.live, a.mu.conns = map[*Transfer]struct{}{}, map[uint64]io.Closer{}
	a.mu.latest = map[ordinal]latest{}
	var err error
	if a.keys, err = deriveKeys(c.Key); err != nil {
		return nil, err
	}
	a.backends = []backend{&local{c.Process}, newShm(a), newUCX(a), &tcp{a},
		newStored(c.Process, PathFile, MediumFile), newStored(c.Process, PathObject, MediumObject)}
	return a, nil
}

// ID names this life of the agent.
func (a *Agent) ID() AgentID { return a.id }

// Ready is closed when peers can reach the agent and transfers can be posted.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run serves peers and moves bytes until ctx ends. Then transfers are cancelled,
// connections closed, and nothing is touched any more when it returns. It may be
// called once.
func (a *Agent) Run(ctx context.Context) error {
	listeners, err := a.listen()
	if err != nil {
		return err
	}
	a.mu.Lock()
	if a.mu.state != stateNew {
		a.mu.Unlock()
		for _, l := range listeners {
			_ = l.Close() // it was never used
		}
		return &dynamo.Error{Kind: dynamo.KindInternal, Message: "transfer.Agent.Run was called twice"}
	}
	a.mu.state = stateRunning
	a.mu.Unlock()
	a.cfg.Process.enter(a)
	for _, l := range listeners {
		a.wg.Go(func() { a.accept(l) })
	}
	a.wg.Go(func() { a.reaper.run(a.stopping) })
	close(a.ready)
	<-ctx.Done()
	a.stop(listeners)
	return nil
}

// listen opens what peers reach the agent by.
func (a *Agent) listen() (ls []net.Listener, err error) {
	if a.cfg.Listener != nil {
		ls = append(ls, a.cfg.Listener)
	}
	for _, b := range a.backends {
		b, ok := b.(interface {
			listen() (net.Listener, error)
		})
		if !ok {
			continue
		}
		l, err := b.listen()
		if err != nil {
			for _, l := range ls {
				_ = l.Close() // the first fault is reported
			}
			return nil, err
		}
		if l != nil {
			ls = append(ls, l)
		}
	}
	return ls, nil
}

// stop ends everything that Run owns.
func (a *Agent) stop(listeners []net.Listener) {
	a.cfg.Process.leave(a)
	a.mu.Lock()
	a.mu.state = stateStopped
	live := make([]*Transfer, 0, len(a.mu.live))
	for t := range a.mu.live {
		live = append(live, t)
	}
	peers := make([]*Peer, 0, len(a.mu.peers))
	for _, p := range a.mu.peers {
		peers = append(peers, p)
	}
	conns := make([]io.Closer, 0, len(a.mu.conns))
	for _, c := range a.mu.conns {
		conns = append(conns, c)
	}
	queue := a.mu.queue
	a.mu.queue = nil
	a.mu.Unlock()
	close(a.stopping)
	a.ear.close()
	for _, q := range queue {
		q.t.over(errStopped)
	}
	for _, l := range listeners {
		_ = l.Close() // nothing is owed to it
	}
	for _, t := range live {
		t.cancel(errStopped)
	}
	for _, p := range peers {
		p.close(errStopped)
	}
	for _, c := range conns {
		_ = c.Close() // its goroutine reports what matters
	}
	a.wg.Wait()
	a.reaper.settle()
}

// spawn starts a goroutine that Run waits for, unless the agent is not running.
func (a *Agent) spawn(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state != stateRunning {
		return false
	}
	a.wg.Go(f)
	return true
}

func (a *Agent) memory(id MemoryID) *Memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.memories[id]
}

func (a *Agent) everyMemory() []*Memory {
	a.mu.Lock()
	defer a.mu.Unlock()
	ms := make([]*Memory, 0, len(a.mu.memories))
	for _, m := range a.mu.memories {
		ms = append(ms, m)
	}
	return ms
}

// cancelUsers cancels the transfers of this agent that use a memory.
func (a *Agent) cancelUsers(m *Memory) {
	a.mu.Lock()
	var users []*Transfer
	for t := range a.mu.live {
		if slices.Contains(t.list.locals, m) {
			users = append(users, t)
		}
	}
	a.mu.Unlock()
	for _, t := range users {
		t.cancel(coded(dynamo.KindCancelled, CodeMemory, "memory %q was deregistered under the transfer", m.name))
	}
}

// served finds a served connection.
func (a *Agent) served(conn uint64) io.Closer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.conns[conn]
}

// sever closes a served connection.
func (a *Agent) sever(conn uint64) {
	if c := a.served(conn); c != nil {
		_ = c.Close() // its goroutine reports what matters
	}
}
