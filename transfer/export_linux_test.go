package transfer

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedLending skips a test where the system lends nothing, or so little that it cannot be
// seen.
func NeedLending(t testing.TB) {
	t.Helper()
	u, err := newURing(2)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		t.Skip("the system lets this process have no io_uring: ", err)
	case err != nil:
		t.Fatal(err)
	}
	defer u.close()
	if err := u.send(-1, &unix.Msghdr{}, 1); err != nil {
		t.Fatal(err)
	}
	switch c, ok := u.next(); {
	case !ok:
		t.Fatal("a request has no answer")
	case unix.Errno(-c.res) == unix.EINVAL:
		t.Skip("Linux lends and says what it copied from 6.2 on")
	case unix.Errno(-c.res) != unix.EBADF:
		t.Fatalf("a send to nowhere: %v", unix.Errno(-c.res))
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || os.Geteuid() != 0 && limit.Cur < 8<<20 {
		t.Skip("the kernel takes too little memory of this process (ulimit -l)")
	}
}

// RefuseRings has an agent meet an error where it would make a ring.
func RefuseRings(a *Agent, err error) {
	a.lending.setup = func(uint32) (*uring, error) { return nil, err }
}

// Lent counts the requests whose bytes the kernel has, and the rings, of an agent's
// connections.
func Lent(a *Agent) (parts, rings int) {
	a.mu.Lock()
	var all []*zeroConn
	for _, c := range a.mu.conns {
		if z, ok := c.(*zeroConn); ok {
			all = append(all, z)
		}
	}
	for _, p := range a.mu.peers {
		for _, r := range p.rails {
			if r, ok := r.rail.(*tcpRail); ok {
				for i := range r.sockets {
					if l := r.sockets[i].link.Load(); l != nil {
						if z, ok := l.nc.(*zeroConn); ok {
							all = append(all, z)
						}
					}
				}
			}
		}
	}
	a.mu.Unlock()
	for _, z := range all {
		z.look()
		z.mu.Lock()
		parts += len(z.mu.parts)
		if z.mu.ring != nil {
			rings++
		}
		z.mu.Unlock()
	}
	return parts, rings
}
