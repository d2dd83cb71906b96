package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/node"
)

// session is a node in this process that only this process can reach.
type session struct {
	client *http.Client
	model  string
	cancel context.CancelFunc
	done   chan error // receives what the node's Run returned
}

// start loads the model and returns when it answers.
func (c *runCmd) start(ctx context.Context, h *hub.Hub, cfg node.Config) (*session, error) {
	m, err := h.Resolve(ctx, c.Model)
	if err != nil {
		return nil, err
	}
	cfg.ModelPath = m.Path
	cfg.Sampling = m.Sampling
	if cfg.ModelName == "" {
		cfg.ModelName = m.Name
	}
	l := newPipeListener()
	ready := make(chan node.Ready, 1)
	cfg.Listener, cfg.DrainTimeout = l, 0
	cfg.Ready = func(r node.Ready) { ready <- r }
	n, err := node.New(cfg)
	if err != nil {
		return nil, err
	}
	// The node outlives ctx's interruption by one answer's end: it is stopped
	// by stop alone. One goroutine runs it; stop waits for it.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &session{model: cfg.ModelName, cancel: cancel, done: make(chan error, 1)}
	s.client = &http.Client{Transport: &http.Transport{DialContext: l.dial}}
	go func() { s.done <- n.Run(running) }()
	select {
	case <-ready:
		return s, nil
	case err := <-s.done:
		cancel()
		return nil, err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), s.stop())
	}
}

func (s *session) stop() error {
	s.client.CloseIdleConnections()
	s.cancel()
	return <-s.done
}

// pipeListener is a listener that only this process can dial.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept returns the next dialled connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and dial.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is a name for messages.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

type pipeAddr struct{}

// Network and String implement net.Addr.
func (pipeAddr) Network() string { return "pipe" }

// String implements net.Addr.
func (pipeAddr) String() string { return "pipe" }
