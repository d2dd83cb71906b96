package eventtest

import (
	"context"
	"encoding/binary"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
)

// patience bounds what a case waits for.
const patience = 30 * time.Second

// register is a publisher of a state: numbered cells, each event sets one.
type register struct {
	p  *event.Publisher
	mu struct {
		sync.Mutex
		cells map[uint64]string
		seq   uint64
		n     uint64
	}
}

// options of a register; the zero value is a ring of 1000 events and snapshots.
type options struct {
	epoch      uint64
	ring       int
	ringBytes  int
	noSnapshot bool
}

const topic = "test"

func newRegister(t *testing.T, id dynamo.WorkerID, o options) *register {
	t.Helper()
	r := &register{}
	r.mu.cells = map[uint64]string{}
	c := event.DefaultPublisherConfig(event.Source{Topic: topic, Worker: id, Epoch: max(o.epoch, 1)})
	c.RingEvents = 1000
	if o.ring > 0 {
		c.RingEvents = o.ring
	}
	if o.ringBytes > 0 {
		c.RingBytes = o.ringBytes
	}
	if !o.noSnapshot {
		c.Snapshot = r.snapshot
	}
	var err error
	if r.p, err = event.NewPublisher(c); err != nil {
		t.Fatal(err)
	}
	return r
}

// set publishes that a cell holds a value.
func (r *register) set(cell uint64, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.cells[cell] = value
	r.mu.seq = r.p.Publish(append(binary.LittleEndian.AppendUint64(nil, cell), value...))
}

// some publishes n events.
func (r *register) some(n int) {
	for range n {
		r.mu.Lock()
		i := r.mu.n
		r.mu.n++
		r.mu.Unlock()
		r.set(i*7%23, dynamo.BlockHash(i).String())
	}
}

// snapshot has one part for each cell.
func (r *register) snapshot() (uint64, [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts [][]byte
	for cell, value := range r.mu.cells {
		parts = append(parts, append(binary.LittleEndian.AppendUint64(nil, cell), value...))
	}
	return r.mu.seq, parts
}

func (r *register) state() (map[uint64]string, event.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.mu.cells), r.p.Position()
}

// mirror is what a subscriber makes of a register. It checks the laws of what is
// delivered.
type mirror struct {
	t  *testing.T
	mu struct {
		sync.Mutex
		cells      map[uint64]string
		at         event.Position // where the last delivery led, parts included
		inSnapshot bool
		count      map[event.Kind]int
		changed    chan struct{} // closed at the next delivery
	}
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{t: t}
	m.mu.cells, m.mu.count, m.mu.changed = map[uint64]string{}, map[event.Kind]int{}, make(chan struct{})
	return m
}

// apply takes in a delivery.
func (m *mirror) apply(d event.Delivery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.count[d.Kind]++
	switch d.Kind {
	case event.Reset:
		clear(m.mu.cells)
		m.mu.at, m.mu.inSnapshot = event.Position{Epoch: d.Source.Epoch, Seq: d.Seq}, !d.Last
	case event.Snapshot:
		if !m.mu.inSnapshot || d.Seq != m.mu.at.Seq || d.Source.Epoch != m.mu.at.Epoch {
			m.t.Errorf("a part of snapshot %d of life %d at %+v (in a snapshot: %v)", d.Seq, d.Source.Epoch, m.mu.at, m.mu.inSnapshot)
		}
		m.set(d.Payload)
		m.mu.inSnapshot = !d.Last
	case event.Event:
		if m.mu.inSnapshot || d.Seq != m.mu.at.Seq+1 || d.Source.Epoch != m.mu.at.Epoch {
			m.t.Errorf("event %d of life %d at %+v (in a snapshot: %v)", d.Seq, d.Source.Epoch, m.mu.at, m.mu.inSnapshot)
		}
		m.set(d.Payload)
		m.mu.at.Seq = d.Seq
	}
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
	return nil
}

func (m *mirror) set(payload []byte) {
	if len(payload) >= 8 {
		m.mu.cells[binary.LittleEndian.Uint64(payload)] = string(payload[8:])
	}
}

// resume says that the mirror goes on from a position that it knows the state of.
func (m *mirror) resume(r *register) {
	cells, at := r.state()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.cells, m.mu.at = cells, at
}

func (m *mirror) count(k event.Kind) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.count[k]
}

// wait returns when ok holds, which is asked after each delivery.
func (m *mirror) wait(what string, ok func() bool) {
	m.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		m.mu.Lock()
		changed := m.mu.changed
		m.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("%s: still at %+v after %v, delivered %v", what, m.mu.at, patience, m.mu.count)
		}
	}
}

// equals waits until the mirror is where the register is, and compares.
func (m *mirror) equals(r *register) {
	m.t.Helper()
	want, at := r.state()
	m.wait("catching up", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mu.at == at && !m.mu.inSnapshot
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if !maps.Equal(m.mu.cells, want) {
		m.t.Errorf("state at %+v: got %d cells %.200v, want %d cells %.200v", at, len(m.mu.cells), m.mu.cells, len(want), want)
	}
}

// follow follows a source with a mirror until the test or stop ends it.
func follow(t *testing.T, f Fixture, src event.Source, m *mirror) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The end of ctx is the only end.
		_ = event.Follow(ctx, event.DefaultFollowConfig(src, f.Subscribe.Subscribe), m.apply)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// attach attaches a register until the test or detach ends it.
func attach(t *testing.T, f Fixture, r *register) (detach func()) {
	t.Helper()
	end, err := f.Publish.Attach(r.p)
	if err != nil {
		t.Fatal(err)
	}
	detach = sync.OnceFunc(end)
	t.Cleanup(detach)
	return detach
}
