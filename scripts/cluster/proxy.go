package main

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// proxy passes TCP connections on to one address, and resets them when it is
// told to. Each connection has two goroutines, which end with it.
type proxy struct {
	listener net.Listener
	copies   sync.WaitGroup
	mu       struct {
		sync.Mutex
		target string
		conns  map[net.Conn]bool
	}
}

func newProxy() (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &proxy{listener: l}
	p.mu.conns = map[net.Conn]bool{}
	p.copies.Go(p.serve)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// forward says where connections go.
func (p *proxy) forward(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.target = target
}

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		target := p.mu.target
		p.mu.Unlock()
		up, err := net.Dial("tcp", target)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.mu.conns[c], p.mu.conns[up] = true, true
		p.mu.Unlock()
		p.copies.Go(func() { p.pass(c, up) })
		p.copies.Go(func() { p.pass(up, c) })
	}
}

// pass copies one direction until either side ends.
func (p *proxy) pass(from, to net.Conn) {
	_, _ = io.Copy(to, from) // the end is all that matters
	from.Close()
	to.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.conns, from)
}

// reset cuts every connection as a crashed host does: with RST, whatever is under
// way is lost. It returns how many connections that were.
func (p *proxy) reset() int {
	p.mu.Lock()
	var all []net.Conn
	for c := range p.mu.conns {
		all = append(all, c)
	}
	clear(p.mu.conns)
	p.mu.Unlock()
	// First all of them: the end of one makes its copier close the other.
	for _, c := range all {
		_ = c.(*net.TCPConn).SetLinger(0) // it may have ended
	}
	for _, c := range all {
		c.Close()
	}
	return len(all) / 2
}

func (p *proxy) close() {
	p.listener.Close()
	p.reset()
	p.copies.Wait()
}
