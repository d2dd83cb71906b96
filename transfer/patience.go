package transfer

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// patience keeps the deadlines of a connection, and reads it. Setting one anew for every
// frame would cost more than a small frame does, because that can wake the thread which
// waits for timers. So one that comes too early is left as it is, and moved when it
// comes.
type patience struct {
	nc    net.Conn
	until time.Time // of writes, as nc was told; of who writes

	mu struct {
		sync.Mutex
		due   time.Time // when silence has lasted too long; zero: it may last
		armed time.Time // what nc was told
	}
}

// expect bounds the peer's silence by stallTimeout from now on.
func (p *patience) expect() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.due = time.Now().Add(stallTimeout)
	if !p.mu.armed.IsZero() {
		return nil
	}
	p.mu.armed = p.mu.due
	return p.nc.SetReadDeadline(p.mu.due)
}

// relax lets the peer be silent.
func (p *patience) relax() {
	p.mu.Lock()
	p.mu.due = time.Time{}
	p.mu.Unlock()
}

// Read reads from the connection until the peer has been silent for too long.
func (p *patience) Read(b []byte) (int, error) {
	for {
		n, err := p.nc.Read(b)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !p.more() {
			return n, err
		}
	}
}

// more moves a deadline that has come too early.
func (p *patience) more() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.due.IsZero() && !time.Now().Before(p.mu.due) {
		return false
	}
	p.mu.armed = p.mu.due
	return p.nc.SetReadDeadline(p.mu.due) == nil
}

// writing bounds the next write: it waits for stallTimeout, or up to twice that.
func (p *patience) writing() error {
	now := time.Now()
	if p.until.Sub(now) >= stallTimeout {
		return nil
	}
	p.until = now.Add(2 * stallTimeout)
	return p.nc.SetWriteDeadline(p.until)
}
