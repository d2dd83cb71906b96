package transfer_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/transfer"
)

// TestBubble: under virtual time agents transfer by the paths local and tcp, leases
// end to the millisecond, a partition is found by silence, and nothing is left.
func TestBubble(t *testing.T) {
	for _, path := range []transfer.Path{transfer.PathLocal, transfer.PathTCP} {
		t.Run(path.String(), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { bubble(t, path) }) })
	}
}

func bubble(t *testing.T, path transfer.Path) {
	net, process := testnet.New(), transfer.NewProcess()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	run := func(name string) *transfer.Agent {
		c := transfer.DefaultConfig()
		c.Name, c.Key = name, []byte("a key for the tests of transfer")
		if path == transfer.PathLocal {
			c.Process = process
		} else {
			l, err := net.Host(name).Listen(":7000")
			if err != nil {
				t.Fatal(err)
			}
			c.Listener, c.Dial = l, net.Host(name).Dial
		}
		a, err := transfer.New(c)
		if err != nil {
			t.Fatal(err)
		}
		go a.Run(ctx)
		<-a.Ready()
		return a
	}
	a, b := run("a"), run("b")
	own, err := a.Register(transfer.Section{Name: "own", Bytes: make([]byte, 1<<20), PageBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.Register(transfer.Section{Name: "kv", Bytes: make([]byte, 1<<20), PageBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	pattern(own.Bytes(), 7)
	lease, err := theirs.Lend(transfer.Range{Length: 1 << 20}, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := a.Import(b.Export())
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Prepare(peer, []transfer.Descriptor{own.At(0, 1<<20)}, []transfer.Descriptor{lease.At(0, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	move := func() error {
		x, err := a.Post(l, transfer.Write, transfer.Options{Checksum: true, Notify: []byte{1}})
		if err != nil {
			return err
		}
		return x.Wait(ctx)
	}
	if err := move(); err != nil || !bytes.Equal(own.Bytes(), theirs.Bytes()) {
		t.Fatalf("%v, or other bytes", err)
	}
	if _, err := b.Notification(ctx); err != nil {
		t.Fatal(err)
	}
	if path == transfer.PathTCP {
		net.Partition("a", "b")
		begun := time.Now()
		err := move()
		if took := time.Since(begun); dynamo.KindOf(err) != dynamo.KindUnavailable || took > 10*time.Second {
			t.Errorf("behind a partition: %v after %v", err, took)
		}
		net.HealAll()
	}
	begun := time.Now()
	short, err := own.Lend(transfer.Range{Length: 4096}, false, 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	<-short.Done()
	if took := time.Since(begun); took != 1500*time.Millisecond {
		t.Errorf("a lease of 1.5 s lasted %v", took)
	}
	slow(t, a, b)
	stop()
	synctest.Wait()
}

// slow reads from b piece by piece, for longer than the lease lasts: its owner sees that
// it goes on, and extends it, until it does not.
func slow(t *testing.T, a, b *transfer.Agent) {
	const pages, page, ttl = 20, 4096, time.Second
	own, err := a.Register(transfer.Section{Name: "slow own", Bytes: make([]byte, pages*page), PageBytes: page})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := b.Register(transfer.Section{Name: "slow kv", Bytes: make([]byte, pages*page), PageBytes: page})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := kv.Lend(transfer.Range{Length: pages * page}, false, ttl)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	go func() { // ends with the lease
		seen := uint64(0)
		for time.Sleep(ttl / 2); ; time.Sleep(ttl / 2) {
			n := lease.Touches()
			if n == seen || !lease.Extend(ttl) {
				return
			}
			seen = n
		}
	}()
	peer, err := a.Import(b.Export())
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(pages) {
		l, err := a.Prepare(peer, []transfer.Descriptor{own.At(i*page, page)}, []transfer.Descriptor{lease.At(i*page, page)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.Post(l, transfer.Read, transfer.Options{})
		if err == nil {
			err = x.Wait(t.Context())
		}
		if err != nil {
			t.Fatalf("page %d, after %v: %v", i, time.Since(begun), err)
		}
		time.Sleep(ttl / 4)
	}
	<-lease.Done()
	if took := time.Since(begun); took < pages*ttl/4 || took > pages*ttl/4+2*ttl {
		t.Errorf("a lease of %v that is renewed while it is used, for %v, lasted %v", ttl, pages*ttl/4, took)
	}
}
