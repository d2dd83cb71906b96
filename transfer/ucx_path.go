//go:build dl && linux && (amd64 || arm64)

package transfer

import (
	"context"
	"net"
	"sync"
)

// ucx is the path by libucp: connections like those of the path tcp, with its
// handshake, frames and laws, over workers instead of sockets.
type ucx struct {
	a *Agent

	mu struct {
		sync.Mutex
		// From listen on; nil if there is no library. Connections that this agent makes
		// and those that peers make have a worker each: libucp pairs the endpoints of two
		// workers by the order in which each side makes them, and only so it is the same.
		calling, called *ucxWorker
	}
}

func newUCX(a *Agent) backend { return &ucx{a: a} }

func (*ucx) path() Path { return PathUCX }

func (u *ucx) workers() (calling, called *ucxWorker) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mu.calling, u.mu.called
}

// address is there while the agent runs.
func (u *ucx) address() string {
	if _, w := u.workers(); w != nil {
		return string(w.own)
	}
	return ""
}

// listen makes the worker. What is wrong with the library is no fault of the
// agent: it goes without.
func (u *ucx) listen() (net.Listener, error) {
	if !u.a.cfg.UCX {
		return nil, nil
	}
	calling, err := newUCXWorker(u.a)
	var called *ucxWorker
	if err == nil {
		if called, err = newUCXWorker(u.a); err != nil {
			calling.free()
		}
	}
	if err != nil {
		u.a.log.Warn("there is no path ucx: libucp cannot be used; install it (Debian: libucx0), or do without", "err", err)
		return nil, nil
	}
	u.mu.Lock()
	u.mu.calling, u.mu.called = calling, called
	u.mu.Unlock()
	u.a.wg.Go(calling.run)
	u.a.wg.Go(called.run)
	return &ucxListener{calling: calling, called: called, closed: make(chan struct{})}, nil
}

func (u *ucx) open(p *Peer, address string) rail {
	if address == "" || !u.a.cfg.UCX {
		return nil
	}
	r := &tcpRail{sockets: make([]socket, 1), peer: p}
	r.sockets[0].init(p, ucxSocket, func(ctx context.Context) (net.Conn, error) {
		w, _ := u.workers()
		if w == nil {
			return nil, errUCXAbsent
		}
		return dialUCX(ctx, w, address)
	})
	return r
}

// ucxSocket tells the connection of this path from those of the path tcp.
const ucxSocket = MaxConnections

var errUCXAbsent = lost(nil, "libucp cannot be used here")

// ucxListener gives out the connections that peers make.
type ucxListener struct {
	calling, called *ucxWorker
	once            sync.Once
	closed          chan struct{}
}

// Accept waits for the next one.
func (l *ucxListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.called.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close lets no more connections come, and the workers end with their last ones.
func (l *ucxListener) Close() error {
	l.once.Do(func() {
		l.calling.end()
		l.called.end()
		close(l.closed)
	})
	return nil
}

// Addr names the path.
func (*ucxListener) Addr() net.Addr { return ucxAddr{} }
