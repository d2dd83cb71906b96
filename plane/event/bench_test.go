package event_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokens"
)

func newPublisher(t testing.TB, ringBytes int) *event.Publisher {
	c := event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: testWorker, Epoch: 1})
	c.Metrics = event.NewMetrics(obs.NewRegistry())
	c.RingBytes = ringBytes
	p, err := event.NewPublisher(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublishAllocates(t *testing.T) {
	p := newPublisher(t, 64<<10)
	payload := make([]byte, 100)
	for range 2000 { // until the ring has grown
		p.Publish(payload)
	}
	if got := testing.AllocsPerRun(1000, func() { p.Publish(payload) }); got != 0 {
		t.Errorf("Publish allocates %v times", got)
	}
	r := p.Reader(event.Cursor{Position: p.Position()})
	var b []byte
	if got := testing.AllocsPerRun(1000, func() {
		p.Publish(payload)
		b, _ = r.Fill(b[:0], event.BatchBytes)
	}); got != 0 {
		t.Errorf("Publish and Fill allocate %v times", got)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{20, 1000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			p := newPublisher(b, 4<<20)
			payload := make([]byte, size)
			b.ReportAllocs()
			for b.Loop() {
				p.Publish(payload)
			}
		})
	}
}

func BenchmarkWake(b *testing.B) {
	c := event.DefaultLoadConfig()
	c.Worker, c.Epoch, c.Load = 3, 4, func() engine.Load { return engine.Load{} }
	r, err := event.NewLoadReporter(c)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r.Wake()
	}
}

// A step that stores 64 blocks and removes as many, in a cache of 20,000.
func BenchmarkKVSink(b *testing.B) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize = 3, 4, 16
	source, err := event.NewKVSource(c)
	if err != nil {
		b.Fatal(err)
	}
	sink := source.Sink(dynamo.TierDevice, 0)
	stored := kvbm.Event{Kind: kvbm.Stored, Blocks: make([]kvbm.StoredBlock, 64)}
	removed := kvbm.Event{Kind: kvbm.Removed, Hashes: make([]dynamo.BlockHash, 64)}
	next := uint64(0)
	step := func() {
		for i := range stored.Blocks {
			next++
			stored.Blocks[i].Block = tokens.Block{Local: dynamo.LocalHash(next), Hash: dynamo.BlockHash(next * 0x9e3779b97f4a7c15)}
			removed.Hashes[i] = dynamo.BlockHash((next - 20_000) * 0x9e3779b97f4a7c15)
		}
		sink([]kvbm.Event{stored, removed})
	}
	for range 1000 {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

// Events of 100 bytes through one connection of loopback to one subscriber that
// keeps up: the publisher waits where it would overtake.
func BenchmarkRPC(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	k := connect(b, l, nil)
	p := newPublisher(b, 4<<20)
	detach, err := k.bus.Attach(p)
	if err != nil {
		b.Fatal(err)
	}
	defer detach()
	payload := make([]byte, 100)
	const ahead = 20_000
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	for range min(b.N, ahead) {
		p.Publish(payload)
	}
	for d, err := range k.bus.Subscribe(b.Context(), p.Source(), event.Position{Epoch: 1}) {
		if err != nil || d.Kind != event.Event {
			b.Fatal(d.Kind, err)
		}
		if n++; n == b.N {
			break
		}
		if n+ahead <= b.N {
			p.Publish(payload)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "events/s")
}
