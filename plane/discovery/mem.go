package discovery

import (
	"context"
	"iter"
	"sync"

	"github.com/dynamo-go/dynamo"
)

// processMem is what "mem" opens: the store of this process.
var processMem = NewMem()

// Mem is a store in memory, for the parts of one process and for simulations. A
// Mem is one handle to it; Handle makes another. It owns no goroutine and no
// timer, and its channels are made by the watches that wait on them, so that it
// may be used in a testing/synctest bubble.
type Mem struct {
	backing *memBacking
	metrics *Metrics
	mu      struct { // taken before the backing's
		sync.Mutex
		closed  bool
		watches map[*memWatch]struct{}
		leases  map[*memLease]struct{}
	}
}

// memBacking is the store behind the handles.
type memBacking struct {
	mu struct {
		sync.Mutex
		down    bool
		rev     uint64 // grows with each change
		entries map[Key]*memEntry
		watches map[*memWatch]struct{}
	}
}

// memEntry is a live registration.
type memEntry struct {
	Entry
	lease *memLease
}

// memWatch is a watch that waits. Both channels belong to its goroutine's bubble.
type memWatch struct {
	wake   chan struct{} // holds one token when something may have changed
	closed chan struct{} // closed by the handle's Close
}

var _ Store = (*Mem)(nil)

// NewMem makes an empty store.
func NewMem() *Mem {
	b := &memBacking{}
	b.mu.entries, b.mu.watches = map[Key]*memEntry{}, map[*memWatch]struct{}{}
	return newMemHandle(b)
}

func newMemHandle(b *memBacking) *Mem {
	m := &Mem{backing: b}
	m.mu.watches, m.mu.leases = map[*memWatch]struct{}{}, map[*memLease]struct{}{}
	return m
}

// Handle returns another handle to the same store, as another process would have.
func (m *Mem) Handle() *Mem { return newMemHandle(m.backing) }

// SetDown makes the store unreachable, or reachable again, for everybody: watches
// are stale and registrations fail meanwhile.
func (m *Mem) SetDown(down bool) {
	b := m.backing
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.down = down
	b.wakeLocked()
}

// Expire removes what the worker has registered, as its death would. Its
// registrations stay dead.
func (m *Mem) Expire(id dynamo.WorkerID) {
	b := m.backing
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.mu.entries {
		if k.ID == id {
			delete(b.mu.entries, k)
		}
	}
	b.wakeLocked()
}

func (b *memBacking) wakeLocked() {
	b.mu.rev++
	for w := range b.mu.watches {
		select {
		case w.wake <- struct{}{}:
		default: // it has a token; changes sum up
		}
	}
}

func memDown() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the store in memory is down"}
}

// recode gives the store's own copy of i, equal to what other stores return.
func recode(i Instance) (Instance, error) {
	b, err := EncodeInstance(i)
	if err != nil {
		return Instance{}, err
	}
	return DecodeInstance(b)
}

// Register registers i.
func (m *Mem) Register(ctx context.Context, i Instance) (Registration, error) {
	own, err := recode(i)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil, closedError("store")
	}
	l := &memLease{handle: m, key: own.Key(), epoch: own.Epoch}
	b := m.backing
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.down {
		return nil, memDown()
	}
	if e := b.mu.entries[l.key]; e != nil {
		return nil, Taken(own, &e.Instance)
	}
	b.wakeLocked()
	b.mu.entries[l.key] = &memEntry{Entry{own, b.mu.rev}, l}
	m.mu.leases[l] = struct{}{}
	return l, nil
}

// memLease is a registration.
type memLease struct {
	handle *Mem
	key    Key
	epoch  uint64
}

// Update replaces what others see.
func (l *memLease) Update(ctx context.Context, i Instance) error {
	own, err := recode(i)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && (own.Key() != l.key || own.Epoch != l.epoch) {
		err = movedError()
	}
	if err != nil {
		return err
	}
	b := l.handle.backing
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.mu.entries[l.key]
	if e == nil || e.lease != l {
		return closedError("registration")
	}
	b.wakeLocked()
	e.Entry = Entry{own, b.mu.rev}
	if b.mu.down {
		return memDown()
	}
	return nil
}

// Close deregisters.
func (l *memLease) Close() error {
	m := l.handle
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.leases, l)
	l.removeHandleLocked()
	return nil
}

func (l *memLease) removeHandleLocked() {
	b := l.handle.backing
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.mu.entries[l.key]; e != nil && e.lease == l {
		delete(b.mu.entries, l.key)
		b.wakeLocked()
	}
}

// Close ends the watches and registrations made through this handle.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil
	}
	m.mu.closed = true
	for w := range m.mu.watches {
		close(w.closed)
	}
	for l := range m.mu.leases {
		l.removeHandleLocked()
	}
	clear(m.mu.leases)
	return nil
}

// begin makes a watch known; nil if the handle is closed.
func (m *Mem) begin() *memWatch {
	w := &memWatch{wake: make(chan struct{}, 1), closed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return nil
	}
	m.mu.watches[w] = struct{}{}
	m.backing.mu.Lock()
	defer m.backing.mu.Unlock()
	m.backing.mu.watches[w] = struct{}{}
	return w
}

func (m *Mem) end(w *memWatch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.watches, w)
	m.backing.mu.Lock()
	defer m.backing.mu.Unlock()
	delete(m.backing.mu.watches, w)
}

// state copies what lives below p.
func (b *memBacking) state(p Path) (state map[Key]Entry, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.down {
		return nil, true
	}
	state = map[Key]Entry{}
	for k, e := range b.mu.entries {
		if p.Covers(k.Path) {
			state[k] = e.Entry
		}
	}
	return state, false
}

// Watch follows what is below p. A store that is down from the beginning is Stale
// first.
func (m *Mem) Watch(ctx context.Context, p Path) iter.Seq[Update] {
	return func(yield func(Update) bool) {
		w := m.begin()
		if w == nil {
			return
		}
		defer m.end(w)
		f := NewFollower(m.metrics)
		defer f.End()
		for {
			state, down := m.backing.state(p)
			for _, u := range f.Next(state, down, nil) {
				if ctx.Err() != nil || !yield(u) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-w.closed:
				return
			case <-w.wake:
			}
		}
	}
}
