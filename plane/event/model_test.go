package event_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo/plane/event"
)

// world runs a publisher beside a plain list of all that it was given.
type world struct {
	t     testing.TB
	c     event.PublisherConfig
	p     *event.Publisher
	epoch uint64
	all   [][]byte // of this life; all[i] is event i+1
	most  int      // largest payload so far
	parts int      // of a snapshot
	subs  []*observer
}

// observer is one subscriber of a world.
type observer struct {
	feed       *event.Feed
	reader     *event.Reader
	at         event.Position
	inSnapshot bool
	had        []byte // parts of the snapshot
	resets     int
}

// snapshotAt is the state after event seq: its bytes in parts.
func (w *world) snapshotAt(seq uint64) []byte {
	var b []byte
	for _, payload := range w.all[max(0, int(seq)-5):seq] {
		b = append(b, payload[:min(len(payload), 300)]...)
	}
	return append(b, byte(seq), byte(seq>>8))
}

func newWorld(t testing.TB, ringBytes, ringEvents, parts, observers int) *world {
	w := &world{t: t, epoch: 1, parts: parts}
	w.c = event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: 5, Epoch: 1})
	w.c.RingBytes, w.c.RingEvents = ringBytes, ringEvents
	if parts > 0 {
		w.c.Snapshot = func() (uint64, [][]byte) {
			state := w.snapshotAt(uint64(len(w.all)))
			var parts [][]byte
			for part := range slices.Chunk(state, len(state)/w.parts+1) {
				parts = append(parts, part)
			}
			return uint64(len(w.all)), parts
		}
	}
	w.restart()
	for range observers {
		w.subs = append(w.subs, &observer{feed: event.NewFeed(event.Source{Topic: "test", Worker: 5}, event.Position{})})
	}
	return w
}

func (w *world) restart() {
	w.epoch++
	w.c.Source.Epoch = w.epoch
	var err error
	if w.p, err = event.NewPublisher(w.c); err != nil {
		w.t.Fatal(err)
	}
	w.all, w.most = nil, 0
	for _, s := range w.subs {
		s.reader = nil
	}
}

func (w *world) publish(n int) {
	payload := bytes.Repeat([]byte{byte(len(w.all)), byte(n)}, n/2+1)[:n]
	w.all = append(w.all, payload)
	w.most = max(w.most, n)
	if got, want := w.p.Publish(payload), uint64(len(w.all)); got != want {
		w.t.Fatalf("published as %d, want %d", got, want)
	}
}

// kept reports whether the ring must hold everything after seq.
func (w *world) kept(seq uint64) bool {
	sum := 2 * w.most // what the circle's end and the newest may waste
	for _, payload := range w.all[seq:] {
		sum += len(payload)
	}
	return sum <= w.c.RingBytes && len(w.all)-int(seq) <= w.c.RingEvents
}

// read lets s have one batch, by its reader or a new one, or loses it.
func (w *world) read(s *observer, size int, again, lose bool) event.Progress {
	if s.reader == nil || again {
		s.reader = w.p.Reader(s.feed.Cursor())
	}
	before, resets := s.at, s.resets
	batch, _ := s.reader.Fill(nil, size)
	if limit := max(size, event.MinBatchBytes); len(batch) > limit {
		w.t.Fatalf("a batch of %d bytes, limit %d", len(batch), limit)
	}
	if lose {
		return event.Behind
	}
	progress, err := s.feed.Take(batch, func(d event.Delivery) bool {
		w.check(s, d)
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if s.resets > resets && before.Epoch == w.epoch && !s.inSnapshot && again && w.kept(before.Seq) {
		w.t.Fatalf("reset at %+v, which the ring leads on from: %d events", before, len(w.all))
	}
	if progress == event.Missing {
		s.reader = nil // asks anew
	}
	return progress
}

// check compares a delivery with the list.
func (w *world) check(s *observer, d event.Delivery) {
	t := w.t
	if d.Source.Epoch != w.epoch || d.Seq > uint64(len(w.all)) {
		t.Fatalf("%v %d of life %d; life %d is at %d", d.Kind, d.Seq, d.Source.Epoch, w.epoch, len(w.all))
	}
	switch d.Kind {
	case event.Reset:
		s.at, s.inSnapshot, s.had = event.Position{Epoch: w.epoch, Seq: d.Seq}, !d.Last, nil
		s.resets++
	case event.Snapshot:
		if !s.inSnapshot || d.Seq != s.at.Seq {
			t.Fatalf("a part of snapshot %d at %+v", d.Seq, s.at)
		}
		s.had = append(s.had, d.Payload...)
		if d.Last {
			s.inSnapshot = false
			if want := w.snapshotAt(d.Seq); !bytes.Equal(s.had, want) {
				t.Fatalf("snapshot %d: got %d bytes, want %d", d.Seq, len(s.had), len(want))
			}
		}
	case event.Event:
		if s.inSnapshot || d.Seq != s.at.Seq+1 || s.at.Epoch != w.epoch {
			t.Fatalf("event %d at %+v, in a snapshot: %v", d.Seq, s.at, s.inSnapshot)
		}
		if !bytes.Equal(d.Payload, w.all[d.Seq-1]) {
			t.Fatalf("event %d: got %d bytes, want %d", d.Seq, len(d.Payload), len(w.all[d.Seq-1]))
		}
		s.at.Seq = d.Seq
	}
}

// run does what the bytes of script say, and then lets everybody catch up.
func (w *world) run(script []byte) {
	for len(script) >= 2 {
		op, arg := script[0], int(script[1])
		script = script[2:]
		switch {
		case op < 100:
			w.publish(arg * arg / 40)
		case op < 110:
			for range arg {
				w.publish(arg % 7)
			}
		case op < 113:
			w.publish(w.c.RingBytes + arg%2) // fills the ring, or is dropped
		case op < 115:
			w.restart()
		default:
			w.read(w.subs[arg%len(w.subs)], 100+arg*arg, op%4 == 0, op > 235)
		}
	}
	for _, s := range w.subs {
		for i := 0; w.read(s, 4096, i == 0, false) != event.Current; i++ {
			if i > 10_000 {
				w.t.Fatalf("an observer at %+v does not come to the end, %d", s.feed.Cursor(), len(w.all))
			}
		}
		if want := (event.Position{Epoch: w.epoch, Seq: uint64(len(w.all))}); s.at != want || s.inSnapshot {
			w.t.Fatalf("an observer ended at %+v (in a snapshot: %v), want %+v", s.at, s.inSnapshot, want)
		}
	}
}

// shapes are the worlds that scripts run in.
var shapes = []struct{ ringBytes, ringEvents, parts int }{
	{1 << 16, 1000, 3},
	{3000, 1000, 1},
	{1 << 16, 7, 40},
	{5000, 50, 0},
	{1700, 1, 2},
}

func TestModel(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 4))
	rounds := 100
	if testing.Short() {
		rounds = 15
	}
	for range rounds {
		script := make([]byte, 1000)
		for i := range script {
			script[i] = byte(draw.Uint32())
		}
		for _, s := range shapes {
			newWorld(t, s.ringBytes, s.ringEvents, s.parts, 4).run(script)
		}
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 200, 150, 3, 112, 1, 150, 3, 113, 0, 105, 90, 151, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, s := range shapes {
			newWorld(t, s.ringBytes, s.ringEvents, s.parts, 2).run(script[:min(len(script), 2000)])
		}
	})
}
