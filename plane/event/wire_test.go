package event_test

import (
	"bytes"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
)

// someBatches are what a publisher says to a subscriber that knows nothing.
func someBatches(t testing.TB, size int) [][]byte {
	t.Helper()
	c := event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: 1, Epoch: 9})
	whole := bytes.Repeat([]byte{1}, 82) // fills a batch of MinBatchBytes, which then ends with it
	c.Snapshot = func() (uint64, [][]byte) {
		return 2, [][]byte{whole, whole, whole, bytes.Repeat([]byte("part"), 100), {1}, nil}
	}
	p, err := event.NewPublisher(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		p.Publish(bytes.Repeat([]byte{byte(i)}, i*50))
	}
	r := p.Reader(event.Cursor{})
	var all [][]byte
	for {
		b, some := r.Fill(nil, size)
		if all = append(all, b); !some {
			return all
		}
	}
}

// A batch that is lost, wherever, is missed, and what comes after it is not taken
// for what it held.
func TestLostBatch(t *testing.T) {
	batches := someBatches(t, event.MinBatchBytes)
	for lose := range len(batches) - 1 {
		feed := event.NewFeed(event.Source{Topic: "test", Worker: 1}, event.Position{})
		missed := false
		for i, b := range batches {
			if i == lose {
				continue
			}
			progress, err := feed.Take(b, func(d event.Delivery) bool {
				if missed && d.Kind != event.Gap {
					t.Errorf("without batch %d: %v %d delivered", lose, d.Kind, d.Seq)
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			missed = missed || progress == event.Missing
		}
		if !missed {
			t.Errorf("without batch %d nothing is missed", lose)
		}
	}
}

// Whatever the bytes are, a feed neither panics nor delivers what they do not hold,
// and errors are KindCorrupt.
func FuzzTake(f *testing.F) {
	for _, size := range []int{event.MinBatchBytes, 4096} {
		for _, b := range someBatches(f, size) {
			f.Add(b, uint64(9), uint64(2), len(b)/2)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, epoch, seq uint64, cut int) {
		feed := event.NewFeed(event.Source{Topic: "test", Worker: 1}, event.Position{Epoch: epoch, Seq: seq})
		total := 0
		for _, b := range [][]byte{b, b[:max(0, min(cut, len(b)))], b} {
			_, err := feed.Take(b, func(d event.Delivery) bool {
				total += len(d.Payload)
				if d.Kind > event.Reset || d.Kind >= event.Gap && len(d.Payload) > 0 {
					t.Errorf("delivered %v with %d bytes", d.Kind, len(d.Payload))
				}
				return d.Seq%7 != 5
			})
			if err != nil && dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Errorf("got %v, want %v", err, dynamo.KindCorrupt)
			}
		}
		if total > 3*len(b) {
			t.Errorf("delivered %d bytes out of %d", total, 3*len(b))
		}
	})
}

// A reader answers every cursor, and its answer leads a feed that asks so on.
func FuzzCursor(f *testing.F) {
	f.Add(uint64(9), uint64(2), true, uint32(0), uint32(7))
	f.Add(uint64(9), uint64(1<<63), false, uint32(1<<31), uint32(1<<31))
	f.Add(uint64(8), uint64(6), false, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, epoch, seq uint64, inSnapshot bool, part, offset uint32) {
		c := event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: 1, Epoch: 9})
		c.Snapshot = func() (uint64, [][]byte) { return 2, [][]byte{bytes.Repeat([]byte("part"), 100), {1}} }
		p, err := event.NewPublisher(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			p.Publish(make([]byte, 100))
		}
		asked := event.Cursor{Position: event.Position{Epoch: epoch, Seq: seq}, InSnapshot: inSnapshot, Part: part, Offset: offset}
		request := event.AppendRequest(nil, p.Source(), asked)
		src, at, err := event.ParseRequest(request)
		if err != nil || src != p.Source() || at != asked {
			t.Fatalf("request read as %+v %+v, %v; want %+v", src, at, err, asked)
		}
		r := p.Reader(at)
		last := uint64(0)
		feed := event.NewFeed(event.Source{Topic: "test", Worker: 1}, asked.Position)
		for range 100 {
			b, some := r.Fill(nil, 200)
			if !some {
				break
			}
			progress, err := feed.Take(b, func(d event.Delivery) bool { last = d.Seq; return true })
			if err != nil {
				t.Fatal(err)
			}
			if progress == event.Missing {
				r = p.Reader(feed.Cursor()) // as if it had asked so in the first place
			}
		}
		if got := feed.Cursor().Position; got != p.Position() {
			t.Errorf("asked at %+v, ended at %+v (last %d), want %+v", asked, got, last, p.Position())
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(event.AppendRequest(nil, event.Source{Topic: "load", Worker: 1, Epoch: 2}, event.Cursor{Position: event.Position{Epoch: 3, Seq: 4}}))
	f.Add(event.AppendRequest(nil, event.Source{Topic: "kv", Worker: 1}, event.Cursor{InSnapshot: true, Part: 5, Offset: 6}))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, at, err := event.ParseRequest(b)
		if err != nil {
			if dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("got %v, want %v", err, dynamo.KindInvalid)
			}
			return
		}
		if got := event.AppendRequest(nil, src, at); !bytes.Equal(got, b) {
			t.Errorf("written again: got %x, want %x", got, b)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add(event.AppendLoad(nil, engine.Load{}))
	f.Add(event.AppendLoad(nil, engine.Load{Running: 1, Waiting: 1 << 20, MaxRunning: 64, KVBlocks: 1 << 31, KVUsed: -1, Steps: 1<<64 - 1}))
	f.Add(event.AppendLoad(nil, engine.Load{Waiting: 1, Down: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, rest, err := event.ParseLoad(b)
		if err != nil {
			if dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Errorf("got %v, want %v", err, dynamo.KindCorrupt)
			}
			return
		}
		if len(rest) >= len(b) {
			t.Errorf("%d of %d bytes left", len(rest), len(b))
		}
		again, rest, err := event.ParseLoad(append(event.AppendLoad(nil, l), "rest"...))
		if err != nil || again != l || string(rest) != "rest" {
			t.Errorf("written and read again: got %+v %q %v, want %+v", again, rest, err, l)
		}
	})
}

// A load from a worker of a newer version is understood as far as it goes.
func TestNewerLoad(t *testing.T) {
	want := engine.Load{Running: 3, Steps: 300, Down: true}
	b := append(event.AppendLoad(nil, want), 1, 2, 3)
	b[0] += 3
	got, rest, err := event.ParseLoad(b)
	if err != nil || got != want || len(rest) != 0 {
		t.Errorf("got %+v %v %v, want %+v", got, rest, err, want)
	}
}

func TestConfigFaults(t *testing.T) {
	c := event.PublisherConfig{Source: event.Source{Topic: "No Topic"}}
	_, err := event.NewPublisher(c)
	if faults, ok := err.(interface{ Unwrap() []error }); !ok || len(faults.Unwrap()) != 4 {
		t.Errorf("got %v, want four faults", err)
	}
}
