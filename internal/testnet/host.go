package testnet

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Host is one process on one machine of its own, with the name it is reached
// by.
type Host struct {
	net  *Network
	name string

	// Guarded by the network's lock.
	paused, dead        bool
	listenPort, dialled int // ports used
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// Listen returns a listener at "host:port" or, where the address is an absolute
// path or "unix://" and one, at a Unix socket that only this host reaches. The
// host is this one's name, empty, "localhost" or an address that means every
// interface or this machine; port 0 takes the next free one. Addr is always
// "name:port", which every other host can dial.
func (h *Host) Listen(addr string) (net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{host: h}
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: address{"tcp", addr}, Err: err}
	}
	if h.dead {
		return fail(errDead)
	}
	if path := strings.TrimPrefix(addr, "unix://"); strings.HasPrefix(path, "/") {
		l.addr, l.key = address{"unix", path}, unixKey(h.name, path)
	} else {
		port, err := h.portLocked(addr)
		if err != nil {
			return fail(err)
		}
		l.key = net.JoinHostPort(h.name, strconv.Itoa(port))
		l.addr = address{"tcp", l.key}
	}
	if n.mu.listeners[l.key] != nil {
		return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	n.mu.listeners[l.key] = l
	n.mu.changed.open()
	return l, nil
}

var errDead = errors.New("this host was killed")

// unixKey names a Unix socket among the listeners.
func unixKey(host, path string) string { return host + " " + path }

// here lists what names the host itself.
var here = []string{"", "localhost", "127.0.0.1", "::1"}

// portLocked returns the port an address of this host names.
func (h *Host) portLocked(addr string) (int, error) {
	name, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	if name != h.name && name != "0.0.0.0" && name != "::" && !slices.Contains(here, name) {
		return 0, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	if port != 0 {
		return int(port), nil
	}
	for p := firstListenPort + h.listenPort; p <= lastPort; p++ {
		if h.net.mu.listeners[net.JoinHostPort(h.name, strconv.Itoa(p))] == nil {
			h.listenPort = p - firstListenPort + 1
			return p, nil
		}
	}
	return 0, os.NewSyscallError("bind", syscall.EADDRINUSE)
}

// Dial connects to an address of Listen. network is "tcp" (also "tcp4" and
// "tcp6") or "unix". It is refused when nobody listens, and waits for a
// partition to heal until ctx ends or two minutes have passed. It fits wherever
// net.Dialer.DialContext does.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: address{network, addr}, Err: err}
	}
	to, key, err := h.resolve(network, addr)
	if err != nil {
		return fail(err)
	}
	there, back := n.linkLocked(h.name, to), n.linkLocked(to, h.name)
	giveUp := time.Now().Add(dialTimeout)
	var answer time.Time // when the answer to the attempt under way comes; zero: none is
	for {
		l, now := n.mu.listeners[key], time.Now()
		switch {
		case ctx.Err() != nil:
			return fail(ctx.Err())
		case h.dead:
			return fail(errDead)
		case h.paused:
			n.waitLocked(&n.mu.changed, time.Time{}, ctx.Done())
			continue
		case past(giveUp, now):
			return fail(os.NewSyscallError("connect", syscall.ETIMEDOUT))
		case there.cut || back.cut:
			answer = time.Time{}
			n.waitLocked(&n.mu.changed, giveUp, ctx.Done())
			continue
		case answer.IsZero():
			answer = now.Add(there.delay + back.delay)
		}
		switch {
		case answer.After(now):
			n.waitLocked(&n.mu.changed, earlier(answer, giveUp), ctx.Done())
		case l == nil:
			return fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		case len(l.queue) == backlog:
			n.waitLocked(&n.mu.changed, giveUp, ctx.Done())
		default:
			return h.connectLocked(l, there, back), nil
		}
	}
}

// resolve returns the host that an address means and the key of its listener.
func (h *Host) resolve(network, addr string) (host, key string, err error) {
	if network == "unix" {
		return h.name, unixKey(h.name, addr), nil
	}
	if !strings.HasPrefix(network, "tcp") {
		return "", "", net.UnknownNetworkError(network)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", err
	}
	if slices.Contains(here, host) {
		host = h.name
	}
	return host, net.JoinHostPort(host, port), nil
}

// connectLocked makes both ends and queues the far one.
func (h *Host) connectLocked(l *listener, there, back *link) *conn {
	from := address{l.addr.network, "@"}
	if l.addr.network == "tcp" {
		from.text = net.JoinHostPort(h.name, strconv.Itoa(firstDialPort+h.dialled%(lastPort-firstDialPort+1)))
		h.dialled++
	}
	n := h.net
	up, down := &pipe{link: there, back: back}, &pipe{link: back, back: there}
	near := &conn{net: n, host: h, local: from, remote: l.addr, in: down, out: up, seq: n.mu.made}
	far := &conn{net: n, host: l.host, local: l.addr, remote: from, in: up, out: down, seq: n.mu.made + 1}
	near.peer, far.peer = far, near
	n.mu.made += 2
	n.mu.conns[near], n.mu.conns[far] = struct{}{}, struct{}{}
	l.queue = append(l.queue, far)
	l.ready.open()
	return near
}

// listener is a place where connections are taken. The network's lock guards
// all that changes.
type listener struct {
	host   *Host
	addr   address
	key    string
	queue  []*conn
	ready  gate
	closed bool
}

var _ net.Listener = (*listener)(nil)

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	n := l.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case l.closed:
			return nil, &net.OpError{Op: "accept", Net: l.addr.network, Addr: l.addr, Err: net.ErrClosed}
		case len(l.queue) > 0 && !l.host.paused:
			c := l.queue[0]
			l.queue = slices.Delete(l.queue, 0, 1)
			n.mu.changed.open()
			return c, nil
		}
		n.waitLocked(&l.ready, time.Time{}, nil)
	}
}

// Close implements net.Listener. Connections that wait for Accept are reset.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: l.addr.network, Addr: l.addr, Err: net.ErrClosed}
	}
	l.closed = true
	l.ready.open()
	if !l.host.paused {
		l.removeLocked()
	}
	return nil
}

// removeLocked takes the listener off the network.
func (l *listener) removeLocked() {
	l.closed = true
	n := l.host.net
	if n.mu.listeners[l.key] == l {
		delete(n.mu.listeners, l.key)
	}
	for _, c := range l.queue {
		c.abortLocked()
	}
	l.queue = nil
	l.ready.open()
	n.mu.changed.open()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }
