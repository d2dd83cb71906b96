package tiertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// Place is a tier in which Damage damages blocks.
type Place struct {
	// Tier is which of a Mover's tiers it is. It is the only one, with room for 40 frames.
	Tier dynamo.Tier
	// Configure says where it is: a folder, a store.
	Configure func(t *testing.T, c *tier.Config)
	// Cut leaves so many bytes of a frame that is kept. Nil: that happens in no such tier.
	Cut func(t *testing.T, c *tier.Config, r tier.Ref, n int)
}

// blocks are in the tier, every second of which is damaged.
const blocks = 9

// Damage keeps blocks in a tier, damages some of them where they are kept, and on their
// way back, in every way there is, and reads all: each that is damaged is a miss, counted
// and not more than once, the others come as they were offered, and what is offered again
// comes again.
//
// All of it is done twice, for engines that need all of a block and for such that take one
// group of layers after the other.
//
// One way is left out where a tier is shared: an older generation of the same block is
// the same block there, whoever put it.
func Damage(t *testing.T, p Place) {
	r := newRig(t, p)
	injected := 0
	for _, d := range damages() {
		for _, way := range []string{"kept", "on its way"} {
			if way != "kept" && (d.cut > 0 || p.Tier == dynamo.TierHost) || d.cut > 0 && p.Cut == nil {
				continue // memory is read where it is
			}
			for _, r.layers = range []bool{false, true} {
				injected += r.round(d, way == "kept")
			}
		}
	}
	s := r.m.Stats().Tiers[p.Tier]
	if got := int(s.Corrupt + s.Missing); got != injected {
		t.Errorf("%d frames were damaged, %d found", injected, got)
	}
	w := httptest.NewRecorder()
	r.registry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if want := fmt.Sprintf(`dynamo_tier_failures_total{cause="corrupt",tier="%v"} %d`, p.Tier, s.Corrupt); !strings.Contains(w.Body.String(), want) {
		t.Errorf("the metrics do not say %s", want)
	}
	t.Logf("injected %d, found %d", injected, s.Corrupt+s.Missing)
}

// rig is a Mover with one tier, and frames to damage it with.
type rig struct {
	t        *testing.T
	place    Place
	config   tier.Config
	registry *obs.Registry
	m        *tier.Mover
	spy      *spy
	s        *tier.Sequence
	layers   bool // blocks are read group of layers by group of layers
	// earlier are frames of the same blocks with the same bytes, from before the present
	// ones; others are those with other bytes; foreign those of the same ids under
	// something else, by what.
	earlier, others map[dynamo.ContentKey][]byte
	foreign         map[string][][]byte
}

func newRig(t *testing.T, p Place) *rig {
	r := &rig{t: t, place: p, registry: obs.NewRegistry(), foreign: map[string][][]byte{}}
	r.config = tierConfig(p.Tier)
	r.config.Metrics = tier.NewMetrics(r.registry)
	p.Configure(t, &r.config)
	r.config.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store {
		r.spy = newSpy(s)
		if p, ok := s.(tier.Parts); ok {
			return partSpy{r.spy, p}
		}
		return r.spy
	}
	r.m = Start(t, r.config)
	r.s = sequence(r.m, tier.Scope{})
	r.offer(0)
	r.earlier = r.spy.kept()
	r.evict()
	r.offer(1)
	r.others = r.spy.kept()
	r.evict()
	r.offer(0)
	for name, change := range map[string]func(*tier.Config, *tier.Scope){
		"revision":    func(c *tier.Config, _ *tier.Scope) { c.Geometry.Content.Revision = "another" },
		"layout":      func(c *tier.Config, _ *tier.Scope) { c.Geometry.Content.Layout = "another" },
		"dtype":       func(c *tier.Config, _ *tier.Scope) { c.Geometry.Content.DType = "f32" },
		"shard":       func(c *tier.Config, _ *tier.Scope) { c.Geometry.Content.Shard = "2/2" },
		"cluster key": func(c *tier.Config, _ *tier.Scope) { c.ClusterKey = []byte("another") },
		"salt":        func(_ *tier.Config, s *tier.Scope) { s.Namespace = "another" },
		"adapter":     func(_ *tier.Config, s *tier.Scope) { s.Adapter = "another" },
		"root":        func(_ *tier.Config, s *tier.Scope) { s.Root = 7 },
	} {
		r.foreign[name] = foreign(t, change)
	}
	return r
}

// foreign are the frames of the same ids in another model, tenant or cluster.
func foreign(t *testing.T, change func(*tier.Config, *tier.Scope)) (frames [][]byte) {
	c, scope := tierConfig(dynamo.TierHost), tier.Scope{}
	change(&c, &scope)
	var to *spy
	c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { to = newSpy(s); return to }
	m := Start(t, c)
	s := sequence(m, scope)
	for i, k := range s.Keys() {
		m.Offer(s, i, body(k, 0, c.Geometry.BlockBytes))
		frames = append(frames, to.kept()[k])
	}
	return frames
}

// tierConfig has one tier.
func tierConfig(at dynamo.Tier) tier.Config {
	c := tier.DefaultConfig()
	c.ClusterKey = []byte("cluster key")
	c.Geometry = tier.Geometry{BlockTokens: 4, BlockBytes: 5000, Groups: tier.Groups{1200, 2600, 4200, 5000}, Content: tokens.Content{Revision: "rev", Layout: "lay", DType: "f16", Shard: "1/2"}}
	c.Tiers.Disk.Policy = kvbm.PolicyAlways
	bytes := int64(40 * c.Geometry.FrameBytes())
	*map[dynamo.Tier]*int64{dynamo.TierHost: &c.Tiers.Host.Bytes, dynamo.TierDisk: &c.Tiers.Disk.Bytes, dynamo.TierRemote: &c.Tiers.Remote.Bytes}[at] = bytes
	return c
}

// Start runs a Mover until the test ends, and returns it when it is ready.
func Start(t testing.TB, c tier.Config) *tier.Mover {
	t.Helper()
	m, err := tier.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	})
	<-m.Ready()
	return m
}

func sequence(m *tier.Mover, scope tier.Scope) *tier.Sequence {
	s := m.Sequence(scope)
	for i := range blocks * m.Geometry().BlockTokens {
		s.Append(dynamo.TokenID(i))
	}
	return s
}

// body is the bytes of a block, or others.
func body(k dynamo.ContentKey, other uint64, n int) []byte {
	r := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(k[:]), other))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// offer offers what is not there, until it is.
func (r *rig) offer(other uint64) {
	r.t.Helper()
	for i, k := range r.s.Keys() {
		r.await(func() bool {
			if r.m.Plan(r.s, i, i+1).Found == 0 {
				r.m.Offer(r.s, i, body(k, other, r.config.Geometry.BlockBytes))
			}
			return r.m.Plan(r.s, i, i+1).Found == 1
		})
	}
	r.await(func() bool { return r.m.Stats().Tiers[r.place.Tier].Writes == 0 })
}

func (r *rig) evict() {
	r.t.Helper()
	if n, err := r.m.Evict(r.t.Context(), r.s.Keys()...); n != blocks || err != nil {
		r.t.Fatalf("%d blocks evicted, %v", n, err)
	}
}

// await returns when ok does.
func (r *rig) await(ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			r.t.Fatalf("it takes too long: %+v", r.m.Stats())
		}
	}
}

// round damages every second block in one way and reads all; it returns how many must
// have been found.
func (r *rig) round(d damage, kept bool) (injected int) {
	r.t.Helper()
	bad := map[int]bool{}
	for i := range blocks {
		if d.cut > 0 && i != r.last() || d.cut == 0 && i%2 == 0 {
			continue // behind what is cut there may be others
		}
		ref, frame := r.spy.get(r.s.Keys()[i])
		v := victim{n: i, own: frame, groups: r.config.Geometry.Groups, body: r.bodyOffset(frame), bytes: r.config.Geometry.BlockBytes, earlier: r.earlier[ref.Key], torn: r.others[ref.Key]}
		_, v.other = r.spy.get(r.s.Keys()[(i+2)%blocks])
		bad[i] = d.harmless == nil || !d.harmless(r.place.Tier)
		switch {
		case d.cut > 0:
			r.place.Cut(r.t, &r.config, ref, d.cut*len(frame)/4-d.cut%2*17)
		case kept:
			r.spy.rewrite(r.t, ref, d.make(r, &v))
		default:
			r.spy.lie(ref.Key, d.make(r, &v))
		}
	}
	for i, k := range r.s.Keys() {
		came, right := r.load(i)
		if came == bad[i] || came && !right {
			r.t.Errorf("%s, kept %v: block %d: came %v, right %v; damaged %v", d.name, kept, i, came, right, bad[i])
		}
		if bad[i] {
			injected++
		}
		if !came {
			r.await(func() bool { return r.place.Tier == dynamo.TierHost || r.spy.gone(k) }) // before it is put again
		}
	}
	r.spy.lie(dynamo.ContentKey{}, nil)
	r.offer(0)
	return injected
}

// last is the block in the last slot.
func (r *rig) last() (last int) {
	slot := int32(-1)
	for i, k := range r.s.Keys() {
		if ref, _ := r.spy.get(k); ref.Slot >= slot {
			last, slot = i, ref.Slot
		}
	}
	return last
}

func (r *rig) bodyOffset(frame []byte) int { return int(binary.LittleEndian.Uint32(frame[12:])) }

// load reads block i.
func (r *rig) load(i int) (came, right bool) {
	into, told := make([]byte, r.config.Geometry.BlockBytes), make(chan bool, 1)
	var arrived func(int)
	if r.layers {
		arrived = func(int) {}
	}
	if r.m.LoadLayers(r.s, i, 1, func(int) []byte { return into }, arrived, func(ok bool) { told <- ok }) == nil {
		return false, false
	}
	return <-told, bytes.Equal(into, body(r.s.Keys()[i], 0, len(into)))
}

// spy sees what goes into a store, and may lie about what comes out.
type spy struct {
	tier.Store
	mu struct {
		sync.Mutex
		refs    map[dynamo.ContentKey]tier.Ref
		frames  map[dynamo.ContentKey][]byte
		lies    map[dynamo.ContentKey][]byte
		deleted map[dynamo.ContentKey]bool
	}
}

func newSpy(s tier.Store) *spy {
	p := &spy{Store: s}
	p.mu.refs, p.mu.frames = map[dynamo.ContentKey]tier.Ref{}, map[dynamo.ContentKey][]byte{}
	p.mu.lies, p.mu.deleted = map[dynamo.ContentKey][]byte{}, map[dynamo.ContentKey]bool{}
	return p
}

// Put implements tier.Store.
func (p *spy) Put(ctx context.Context, r tier.Ref, frame []byte) error {
	p.mu.Lock()
	p.mu.refs[r.Key], p.mu.frames[r.Key], p.mu.deleted[r.Key] = r, bytes.Clone(frame), false
	p.mu.Unlock()
	return p.Store.Put(ctx, r, frame)
}

// Get implements tier.Store.
func (p *spy) Get(ctx context.Context, r tier.Ref, frame []byte) error {
	err := p.Store.Get(ctx, r, frame)
	p.mu.Lock()
	defer p.mu.Unlock()
	if lie := p.mu.lies[r.Key]; lie != nil && err == nil {
		copy(frame, lie)
	}
	return err
}

// partSpy is a spy of a store that can read parts.
type partSpy struct {
	*spy
	parts tier.Parts
}

// GetPart implements tier.Parts.
func (p partSpy) GetPart(ctx context.Context, r tier.Ref, frame []byte, from, to int) error {
	err := p.parts.GetPart(ctx, r, frame, from, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if lie := p.mu.lies[r.Key]; lie != nil && err == nil {
		copy(frame[from:to], lie[from:to])
	}
	return err
}

// Delete implements tier.Store.
func (p *spy) Delete(ctx context.Context, r tier.Ref) error {
	err := p.Store.Delete(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.deleted[r.Key] = true
	return err
}

// kept are the frames by key.
func (p *spy) kept() map[dynamo.ContentKey][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.mu.frames)
}

func (p *spy) get(k dynamo.ContentKey) (tier.Ref, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.refs[k], bytes.Clone(p.mu.frames[k])
}

func (p *spy) gone(k dynamo.ContentKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.deleted[k]
}

// lie has reads of a key get a frame; nil ends all lies.
func (p *spy) lie(k dynamo.ContentKey, frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if frame == nil {
		clear(p.mu.lies)
		return
	}
	p.mu.lies[k] = frame
}

// rewrite replaces what is kept.
func (p *spy) rewrite(t *testing.T, r tier.Ref, frame []byte) {
	t.Helper()
	if m, ok := p.Store.(tier.Memory); ok {
		copy(m.Frame(r.Slot), frame)
		return
	}
	var err error
	if _, shared := p.Store.(tier.Finder); shared {
		err = p.Store.Delete(t.Context(), r)
	}
	b := tier.Buffer(len(frame))
	copy(b, frame)
	if err = errors.Join(err, p.Store.Put(t.Context(), r, b)); err != nil {
		t.Fatal(err)
	}
}
