package transfertest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
)

// cancel ends a transfer wherever it is, and local memory is not touched after.
func cancel(t *testing.T, p *Pair) {
	const size = 16 << 20
	a, b, peer, _ := p.meet(t, size, transfer.AccessLent)
	fill(a.Bytes(), 3)
	p.set(b, a.Bytes())
	lend := func() *transfer.Lease {
		t.Helper()
		lease, err := b.Lend(transfer.Range{Length: size}, true, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	cancelled := 0
	for i := range 40 {
		lease := lend() // which ends what a cancelled write has left on the way
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{lease.At(0, size)})
		if err != nil {
			t.Fatal(err)
		}
		op := transfer.Op(i % 2)
		x, err := p.A.Post(l, op, transfer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < time.Duration(i)*100*time.Microsecond; { // at different moments
			if ended, _ := x.Poll(); ended {
				break
			}
		}
		x.Cancel()
		x.Cancel()
		begun := time.Now()
		err = x.Wait(soon(t))
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the cancelled transfer ended after %v", took)
		}
		if err != nil {
			wantKind(t, err, dynamo.KindCancelled, "a cancelled transfer")
			cancelled++
		}
		if op == transfer.Read && i%10 == 2 {
			clear(a.Bytes())
			if err := p.move(t, peer, transfer.Read, []transfer.Descriptor{a.At(0, 1)}, []transfer.Descriptor{lease.At(1, 1)}, transfer.Options{}); err != nil {
				t.Fatal(err)
			}
			if !zero(a.Bytes()[1:]) {
				t.Fatal("local memory was written after the transfer had ended")
			}
			copy(a.Bytes(), p.view(b))
		}
		lease.Revoke()
		wantDone(t, lease, transfer.Revoked)
	}
	if cancelled == 0 {
		t.Error("no transfer was cancelled on its way")
	}
	if err := p.move(t, peer, transfer.Read, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{lend().At(0, size)}, transfer.Options{Checksum: true}); err != nil || !bytes.Equal(a.Bytes(), p.view(b)) {
		t.Errorf("after cancelled transfers: %v", err)
	}
}

// peerEnds: a transfer on its way to a peer that ends is told within 50 ms, and so
// are later ones.
func peerEnds(t *testing.T, p *Pair) {
	const size = 16 << 20
	a, _, peer, info := p.meet(t, size, transfer.AccessWrite)
	local, remote := []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{info.At(0, size)}
	if err := p.move(t, peer, transfer.Write, local, remote, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	l, err := p.A.Prepare(peer, local, remote)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	begun := time.Now()
	x, err := p.A.Post(l, transfer.Write, transfer.Options{})
	if err == nil {
		err = x.Wait(soon(t))
	}
	wantKind(t, err, dynamo.KindUnavailable, "a peer that has ended")
	wantCode(t, err, transfer.CodeLost, "a peer that has ended")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it was told after %v", took)
	}
}

func deregistered(t *testing.T, p *Pair) {
	a, b, peer, info := p.meet(t, 64<<10, transfer.AccessWrite)
	local, remote := []transfer.Descriptor{a.At(0, 64<<10)}, []transfer.Descriptor{info.At(0, 64<<10)}
	if err := p.move(t, peer, transfer.Write, local, remote, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := p.B.Deregister(soon(t), b); err != nil {
		t.Fatal(err)
	}
	for _, op := range []transfer.Op{transfer.Read, transfer.Write} {
		err := p.move(t, peer, op, local, remote, transfer.Options{})
		wantKind(t, err, dynamo.KindNotFound, "a memory that was deregistered")
		wantCode(t, err, transfer.CodeMemory, "a memory that was deregistered")
	}
	peer = p.importB(t)
	if _, ok := peer.Memory("theirs"); ok {
		t.Error("new metadata still names the memory")
	}
}

// deregisteredOnTheWay: when Deregister has returned nobody writes any more.
func deregisteredOnTheWay(t *testing.T, p *Pair) {
	const size = 8 << 20
	for i := range 5 {
		a := p.Memory(t, p.A, transfer.Section{Name: "own" + string(rune('a'+i))}, size)
		b := p.Memory(t, p.B, transfer.Section{Name: "theirs" + string(rune('a'+i)), Access: transfer.AccessWrite}, size)
		fill(a.Bytes(), 1)
		peer := p.importB(t)
		info, _ := peer.Memory("theirs" + string(rune('a'+i)))
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{info.At(0, size)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, transfer.Write, transfer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < time.Duration(i)*300*time.Microsecond; {
		}
		if err := p.B.Deregister(soon(t), b); err != nil {
			t.Fatal(err)
		}
		p.set(b, make([]byte, size))
		if err := x.Wait(soon(t)); err != nil && dynamo.KindOf(err) != dynamo.KindNotFound && dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("a transfer into memory that is withdrawn: %v", err)
		}
		if !zero(p.view(b)) {
			t.Fatal("the memory was written after Deregister had returned")
		}
		if err := p.A.Deregister(soon(t), a); err != nil {
			t.Fatal(err)
		}
	}
}

func localDeregistered(t *testing.T, p *Pair) {
	const size = 16 << 20
	a, _, peer, info := p.meet(t, size, transfer.AccessWrite)
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{info.At(0, size)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.A.Post(l, transfer.Read, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.A.Deregister(soon(t), a); err != nil {
		t.Fatal(err)
	}
	if ended, err := x.Poll(); !ended {
		t.Error("the memory was given up under a transfer")
	} else if err != nil {
		wantKind(t, err, dynamo.KindCancelled, "a transfer whose memory is withdrawn")
	}
	_, err = p.A.Post(l, transfer.Read, transfer.Options{})
	wantKind(t, err, dynamo.KindNotFound, "a post with memory that is withdrawn")
}

func leases(t *testing.T, p *Pair) {
	a, b, peer, info := p.meet(t, 8*page, transfer.AccessLent)
	own := []transfer.Descriptor{a.At(0, 2*page)}
	err := p.move(t, peer, transfer.Read, own, []transfer.Descriptor{info.At(0, 2*page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "a read of what is not lent")

	l, err := b.Lend(transfer.Range{Offset: 2 * page, Length: 4 * page}, false, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Lend(transfer.Range{Offset: 5 * page, Length: 2 * page}, false, time.Minute); err == nil {
		t.Error("pages were lent twice")
	}
	if err := p.move(t, peer, transfer.Read, own, []transfer.Descriptor{l.At(page, 2*page)}, transfer.Options{}); err != nil {
		t.Errorf("a read of what is lent: %v", err)
	}
	err = p.move(t, peer, transfer.Write, own, []transfer.Descriptor{l.At(page, 2*page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "a write to what is lent for reading")
	err = p.move(t, peer, transfer.Read, own, []transfer.Descriptor{l.At(3*page, 2*page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "a read beyond the lease")

	if err := p.move(t, peer, transfer.Read, own, []transfer.Descriptor{l.At(0, 2*page)}, transfer.Options{Acknowledge: true, Notify: []byte("done")}); err != nil {
		t.Fatal(err)
	}
	if n, err := p.B.Notification(soon(t)); err != nil || string(n.Payload) != "done" {
		t.Errorf("%q, %v; want the notification", n.Payload, err)
	}
	wantDone(t, l, transfer.Acknowledged)
	err = p.move(t, peer, transfer.Read, own, []transfer.Descriptor{l.At(0, 2*page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "a read after the acknowledgement")

	again, err := b.Lend(transfer.Range{Offset: 2 * page, Length: 4 * page}, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	err = p.move(t, peer, transfer.Write, own, []transfer.Descriptor{l.At(0, 2*page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "the token of an earlier lease")
	if err := p.move(t, peer, transfer.Write, own, []transfer.Descriptor{again.At(0, 2*page)}, transfer.Options{}); err != nil {
		t.Errorf("a write to what is lent again: %v", err)
	}
	again.Revoke()
	wantDone(t, again, transfer.Revoked)
}

func wantDone(t *testing.T, l *transfer.Lease, o transfer.Outcome) {
	t.Helper()
	select {
	case <-l.Done():
	case <-soon(t).Done():
		t.Fatal("the lease is not settled")
	}
	if got, ended := l.Outcome(); !ended || got != o {
		t.Errorf("the lease was %s, want %s", got, o)
	}
}

// leaseEndsOnTheWay: after Done nobody writes to the pages, whatever was on the
// way.
func leaseEndsOnTheWay(t *testing.T, p *Pair) {
	const size = 8 << 20
	a, b, peer, _ := p.meet(t, size, transfer.AccessLent)
	fill(a.Bytes(), 1)
	for i := range 8 {
		l, err := b.Lend(transfer.Range{Length: size}, true, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		list, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{l.At(0, size)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(list, transfer.Write, transfer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < time.Duration(i)*300*time.Microsecond; {
		}
		l.Revoke()
		wantDone(t, l, transfer.Revoked)
		p.set(b, make([]byte, size))
		if err := x.Wait(soon(t)); err != nil && dynamo.KindOf(err) != dynamo.KindUnavailable {
			wantCode(t, err, transfer.CodeFenced, "a write to a lease that was revoked on the way")
		}
		if !zero(p.view(b)) {
			t.Fatal("the pages were written after their lease had ended")
		}
	}
}

func expiry(t *testing.T, p *Pair) {
	a, b, peer, _ := p.meet(t, 4*page, transfer.AccessLent)
	long, err := b.Lend(transfer.Range{Length: page}, true, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.Lend(transfer.Range{Offset: page, Length: page}, true, 30*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := b.Lend(transfer.Range{Offset: 2 * page, Length: page}, true, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !renewed.Extend(time.Hour) || !long.Extend(time.Millisecond) {
		t.Error("leases that have not ended cannot be extended")
	}
	wantDone(t, l, transfer.Expired)
	if l.Extend(time.Hour) {
		t.Error("a lease that has ended was extended")
	}
	for _, o := range []*transfer.Lease{long, renewed} {
		if _, ended := o.Outcome(); ended {
			t.Error("a lease of an hour has ended")
		}
	}
	err = p.move(t, peer, transfer.Write, []transfer.Descriptor{a.At(0, page)}, []transfer.Descriptor{l.At(0, page)}, transfer.Options{})
	wantCode(t, err, transfer.CodeFenced, "a write after the expiry")
}

func wrongLists(t *testing.T, p *Pair) {
	a, _, peer, info := p.meet(t, 64<<10, transfer.AccessWrite)
	one := []transfer.Descriptor{a.At(0, 10)}
	for _, c := range []struct {
		what          string
		local, remote []transfer.Descriptor
	}{
		{"no descriptors", nil, nil},
		{"unequal numbers", one, []transfer.Descriptor{info.At(0, 5), info.At(5, 5)}},
		{"unequal lengths", one, []transfer.Descriptor{info.At(0, 11)}},
		{"an empty part", []transfer.Descriptor{a.At(0, 0)}, []transfer.Descriptor{info.At(0, 0)}},
		{"a negative offset", []transfer.Descriptor{a.At(-1, 10)}, []transfer.Descriptor{info.At(0, 10)}},
		{"a part beyond the end here", []transfer.Descriptor{a.At(64<<10-9, 10)}, []transfer.Descriptor{info.At(0, 10)}},
		{"a part beyond the end there", one, []transfer.Descriptor{info.At(64<<10-9, 10)}},
		{"an overflow", []transfer.Descriptor{a.At(1<<62, 1<<62)}, []transfer.Descriptor{info.At(1<<62, 1<<62)}},
		{"an unknown memory here", []transfer.Descriptor{{Memory: 999, Length: 10}}, []transfer.Descriptor{info.At(0, 10)}},
		{"an unknown memory there", one, []transfer.Descriptor{{Memory: 999, Length: 10}}},
	} {
		if _, err := p.A.Prepare(peer, c.local, c.remote); err == nil {
			t.Errorf("%s was accepted", c.what)
		}
	}
	l, err := p.A.Prepare(peer, one, []transfer.Descriptor{info.At(0, 10)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.B.Post(l, transfer.Read, transfer.Options{}); err == nil {
		t.Error("a list of another agent was accepted")
	}
	_, err = p.A.Post(l, transfer.Read, transfer.Options{Notify: make([]byte, transfer.MaxNotifyBytes+1)})
	wantKind(t, err, dynamo.KindInvalid, "a notification that is too long")
	ctx, stop := context.WithCancel(soon(t))
	stop()
	if _, err := p.B.Notification(ctx); err == nil {
		t.Error("a notification came of nothing")
	}
}
