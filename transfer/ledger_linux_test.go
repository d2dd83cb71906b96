package transfer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLedger: a loan ends when its sender is done and every notification has come, in
// whatever order, and not before.
func TestLedger(t *testing.T) {
	copied := uint32(uringCopied)
	const more, notif = uringMore, uringNotif
	for _, c := range []struct {
		name       string
		parts      int
		done       []completion
		back       int // after how many completions the loan ends, if its sender is done before them
		sent       int
		copied     int
		copiedRow  int
		lastResult int32
	}{
		{"one", 1, []completion{{1, 100, more}, {1, 0, notif}}, 2, 100, 0, 0, 100},
		{"copied", 1, []completion{{1, 100, more}, {1, int32(copied), notif}}, 2, 0, 100, 1, 100},
		{"queue full", 1, []completion{{1, -int32(unix.EAGAIN), more}, {1, int32(copied), notif}}, 2, 0, 0, 0, -int32(unix.EAGAIN)},
		{"refused", 1, []completion{{1, -int32(unix.EINVAL), 0}}, 1, 0, 0, 0, -int32(unix.EINVAL)},
		{"short", 2, []completion{{1, 60, more}, {2, 40, more}, {1, 0, notif}, {2, 0, notif}}, 4, 100, 0, 0, 40},
		{"other order", 3, []completion{{1, 60, more}, {2, 30, more}, {2, int32(copied), notif}, {3, 10, more}, {3, int32(copied), notif}, {1, 0, notif}}, 6, 60, 40, 0, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := ledger{parts: map[uint64]lot{}}
			l := &loan{parts: 1}
			for range c.parts {
				g.request(l)
			}
			l.parts-- // as end does
			sent, copied := 0, 0
			for i, e := range c.done {
				got, n, kernel := g.complete(e)
				if kernel {
					copied += n
				} else {
					sent += n
				}
				if (got == l) != (i+1 == c.back) {
					t.Errorf("after %d completions the loan has ended: %t", i+1, got == l)
				}
			}
			if sent != c.sent || copied != c.copied || g.copied != c.copiedRow || g.answer.res != c.lastResult || len(g.parts) != 0 {
				t.Errorf("sent %d, copied %d, %d in a row, result %d, %d parts left; want %d, %d, %d, %d, 0", sent, copied, g.copied, g.answer.res, len(g.parts), c.sent, c.copied, c.copiedRow, c.lastResult)
			}
		})
	}
}

// lending makes a connection over the loopback of which one end lends.
func lendingPair(t *testing.T, z ZeroCopy) (*zeroConn, net.Conn) {
	t.Helper()
	a := testAgent(t, "a", Content{"m", "l"}, testKey)
	a.cfg.ZeroCopy = z
	a.mu.state = stateRunning
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newZeroConn(a, nc.(*net.TCPConn))
	t.Cleanup(func() {
		_, _ = other.Close(), c.Close()
		c.settle()
		a.wg.Wait()
	})
	return c, other
}

// TestLendingEnds: a connection whose bytes the kernel copies after all lends no more,
// gives its ring back, and goes on.
func TestLendingEnds(t *testing.T) {
	NeedLending(t)
	c, other := lendingPair(t, ZeroCopyAuto)
	b := make([]byte, 256<<10)
	for i := range b {
		b[i] = byte(i * 7 >> 8)
	}
	lent, got := 0, make([]byte, 8+len(b))
	for range 2 * lentCopied {
		back := make(chan struct{}, 1)
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(other, got)
			read <- err
		}()
		is, err := c.lend(net.Buffers{[]byte("the head"), b[:100<<10], b[100<<10:]}, func() { back <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil || string(got[:8]) != "the head" || !bytes.Equal(got[8:], b) {
			t.Fatalf("%v, or other bytes", err)
		}
		if is {
			lent++
			c.watch(true)
			<-back
			c.watch(false)
		}
	}
	if lent == 0 || lent > lentCopied {
		t.Errorf("%d frames were lent; want %d at most, and some", lent, lentCopied)
	}
	<-c.over
}

// TestLendingCopiesTheRest: a frame of which the kernel takes only a part goes on by being
// copied, and is given back when all of it was sent, even if that part comes back before.
func TestLendingCopiesTheRest(t *testing.T) {
	NeedLending(t)
	c, other := lendingPair(t, ZeroCopyAlways)
	if err := errors.Join(c.SetWriteBuffer(64<<10), other.(*net.TCPConn).SetReadBuffer(64<<10)); err != nil {
		t.Fatal(err)
	}
	bufs := net.Buffers{[]byte("the head")}
	for i := range 8 {
		bufs = append(bufs, bytes.Repeat([]byte{byte(i + 1)}, 1<<20))
	}
	want := bytes.Join(bufs, nil)
	backs := make(chan struct{}, 2)
	done := make(chan error, 1)
	go func() {
		lent, err := c.lend(bufs, func() { backs <- struct{}{} })
		if !lent {
			t.Error("nothing was lent")
		}
		done <- err
	}()
	parts := func(change int) int {
		c.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range lentParts {
			switch {
			case change > 0:
				c.mu.parts[1<<40+uint64(i)] = lot{}
			case change < 0:
				delete(c.mu.parts, 1<<40+uint64(i))
			}
		}
		return len(c.mu.parts)
	}
	for parts(0) == 0 {
		time.Sleep(time.Millisecond)
	}
	parts(1) // as much is lent as may be
	defer parts(-1)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(other, got[:4<<20]); err != nil {
		t.Fatal(err)
	}
	for parts(0) > lentParts {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-backs:
		t.Fatal("a frame was given back that is still being sent")
	case <-done:
		t.Fatal("the frame was sent, which does not fit into the queue")
	default:
	}
	parts(-1)
	if _, err := io.ReadFull(other, got[4<<20:]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other bytes", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-backs
	if len(backs) > 0 {
		t.Error("a frame was given back twice")
	}
}
