package vllm_test

import (
	"encoding/binary"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokens"
)

type eventBatch = event.KVBatch

// recorded returns the payloads of the recorded messages.
func recorded(t *testing.T) (payloads [][]byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/vllm-kv-events.bin")
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint32(b))
		b = b[4:]
		for i := range n {
			size := int(binary.BigEndian.Uint32(b))
			if i == 2 {
				payloads = append(payloads, b[4:4+size])
			}
			b = b[4+size:]
		}
	}
	return payloads
}

// ledger is what a sink has been told.
type ledger struct {
	sync.Mutex
	size                     int
	held                     map[uint64]bool
	stored, removed, cleared int
	bad                      []string
}

func (l *ledger) take(b *event.KVBatch) {
	l.Lock()
	defer l.Unlock()
	if b.BlockSize != l.size || b.Rank != 0 {
		l.bad = append(l.bad, "block size or rank")
	}
	for _, e := range b.Events {
		switch e.Kind {
		case kvbm.Stored:
			parent := e.Parent
			for i, k := range e.Blocks {
				if i == 0 && !e.HasParent {
					if k.Hash != tokens.FirstHash(k.Local) {
						l.bad = append(l.bad, "first block's hash")
					}
				} else if k.Hash != tokens.BlockHash(parent, k.Local) {
					l.bad = append(l.bad, "chained hash")
				}
				parent = k.Hash
				l.held[uint64(k.Hash)] = true
				l.stored++
			}
		case kvbm.Removed:
			for _, h := range e.Hashes {
				if !l.held[uint64(h)] {
					l.bad = append(l.bad, "removed what was not there")
				}
				delete(l.held, uint64(h))
				l.removed++
			}
		case kvbm.Cleared:
			clear(l.held)
			l.cleared++
		}
	}
}

func (l *ledger) counts() [3]int {
	l.Lock()
	defer l.Unlock()
	return [3]int{l.stored, l.removed, len(l.held)}
}

func TestEvents(t *testing.T) {
	p := kvwire.NewPublisher(kvwire.PublisherConfig{Topic: "kv-events", Ring: 100})
	var endpoints []string
	for _, serve := range []func(net.Listener) error{p.Serve, p.ServeReplay} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		endpoints = append(endpoints, "tcp://"+l.Addr().String())
		go func() { _ = serve(l) }() // until Close
	}
	defer p.Close()
	payloads := recorded(t)
	for _, b := range payloads[:4] { // before anybody follows
		p.Publish(slices.Clone(b))
	}
	f := newFake()
	f.sources = ""
	page, err := os.ReadFile("testdata/vllm-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	f.metrics = string(page)
	l := &ledger{size: 32, held: map[uint64]bool{}}
	c := config(f.start(t).URL)
	c.EventsEndpoint, c.ReplayEndpoint, c.Topic, c.Events = endpoints[0], endpoints[1], "kv-events", l.take
	e := open(t, c)
	want := vllm.Source{Endpoint: endpoints[0], ReplayEndpoint: endpoints[1], Topic: "kv-events"}
	if got := e.Info().Sources; len(got) != 1 || got[0] != want {
		t.Fatalf("got the sources %v", got)
	}
	stop := running(t, e)
	waitFor(t, "what was published before", func() bool { return l.counts()[0] > 0 })
	waitFor(t, "the subscription", func() bool { return p.Subscribers() > 0 })
	for _, b := range payloads[4:] {
		p.Publish(slices.Clone(b))
		time.Sleep(time.Millisecond)
	}
	// The last message clears and stores what a prompt of 1000 ids fills.
	waitFor(t, "the last message", func() bool { l.Lock(); defer l.Unlock(); return l.cleared > 1 && len(l.held) > 0 })
	if n := l.counts(); n[1] != 29 {
		t.Errorf("%d blocks removed, want 29", n[1])
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(l.bad) > 0 {
		t.Errorf("wrong: %q", l.bad)
	}
}
