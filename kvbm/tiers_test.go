package kvbm_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

var tierEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// keyOf makes a content key of a word, whose bits are as random as those of real ones.
func keyOf(word string) (k dynamo.ContentKey) {
	h := uint64(14695981039346656037)
	for _, c := range []byte(word) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	r := rand.New(rand.NewPCG(h, 7))
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

// tierScript is the state of one script file. A sequence is written as letters, one a
// block; block "abc" is c behind b behind a.
type tierScript struct {
	tiers *kvbm.Tiers
	now   time.Time
	names map[dynamo.ContentKey]string
	open  []kvbm.Move
}

// TestTiersScript runs the files of testdata/tiers. See one for the commands.
func TestTiersScript(t *testing.T) {
	datadriven.Walk(t, "testdata/tiers", func(t *testing.T, path string) {
		s := &tierScript{now: tierEpoch, names: map[dynamo.ContentKey]string{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.run(t, d)
			if err := s.tiers.Check(); err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return out
		})
	})
}

func (s *tierScript) keys(word string) (keys []dynamo.ContentKey) {
	for i := range word {
		k := keyOf(word[:i+1])
		s.names[k] = word[:i+1]
		keys = append(keys, k)
	}
	return keys
}

func (s *tierScript) run(t *testing.T, d *datadriven.TestData) string {
	arg := ""
	if len(d.CmdArgs) > 0 {
		arg = d.CmdArgs[0].Key
	}
	keys := s.keys(arg)
	var moves []kvbm.Move
	switch d.Cmd {
	case "tiers":
		return s.make(t, d)
	case "offer": // the last block of a sequence; all: each of its blocks
		for i := range keys {
			if i < len(keys)-1 && !d.HasArg("all") {
				continue
			}
			b := kvbm.TierBlock{Key: keys[i], Depth: i}
			if i > 0 {
				b.Parent = keys[i-1]
			}
			moves = s.tiers.Offer(moves, b, s.now)
		}
	case "touch":
		s.tiers.Touch(keys)
	case "plan":
		p := s.tiers.Plan(keys, 0, s.now)
		return fmt.Sprintf("found %d, bring %d: load %v, recompute %v\n", p.Found, p.Blocks, p.Load, p.Recompute)
	case "fetch":
		moves = s.tiers.Fetch(nil, keys, s.now)
	case "evict":
		moves = s.tiers.Evict(nil, keys[len(keys)-1])
	case "end": // the oldest move under way; all: until there is none
		for n := 0; len(s.open) > 0 && (n == 0 || d.HasArg("all")); n++ {
			more := s.end(arg, d)
			s.note(more)
			moves = append(moves, more...)
		}
		return s.show(moves)
	case "wait":
		w, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(w)
	case "recompute":
		w, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		s.tiers.SetRecompute(kvbm.Recompute{Token: w})
	case "stats":
		return s.stats()
	default:
		t.Fatalf("%s: no command %q", d.Pos, d.Cmd)
	}
	s.note(moves)
	return s.show(moves)
}

func (s *tierScript) make(t *testing.T, d *datadriven.TestData) string {
	c := kvbm.DefaultTiersConfig()
	c.BlockTokens, c.BlockBytes = 16, 1000
	for _, a := range []struct {
		name string
		tc   *kvbm.TierConfig
	}{{"host", &c.Host}, {"disk", &c.Disk}, {"remote", &c.Remote}} {
		var n int
		var policy string
		d.MaybeScanArgs(t, a.name, &n)
		d.MaybeScanArgs(t, a.name+"-policy", &policy)
		d.MaybeScanArgs(t, "queue", &a.tc.Queue)
		a.tc.Bytes = int64(n) * 1000
		if policy != "" {
			p, err := kvbm.ParsePolicy(policy)
			if err != nil {
				t.Fatal(err)
			}
			a.tc.Policy = p
		}
	}
	var eviction string
	if d.MaybeScanArgs(t, "eviction", &eviction); eviction != "" {
		e, err := kvbm.ParseEviction(eviction)
		if err != nil {
			t.Fatal(err)
		}
		c.Eviction = e
	}
	d.MaybeScanArgs(t, "write-budget", &c.DiskWriteBudget)
	tiers, err := kvbm.NewTiers(c)
	if err != nil {
		t.Fatal(err)
	}
	s.tiers, s.open = tiers, nil
	return ""
}

// end ends the oldest move.
func (s *tierScript) end(how string, d *datadriven.TestData) []kvbm.Move {
	m := s.open[0]
	s.open = s.open[1:]
	outcomes := map[string]kvbm.MoveOutcome{
		"done": kvbm.MoveDone, "unwritten": kvbm.MoveUnwritten, "unread": kvbm.MoveUnread,
		"corrupt": kvbm.MoveCorrupt, "missing": kvbm.MoveMissing, "cancelled": kvbm.MoveCancelled,
	}
	took := time.Millisecond
	return s.tiers.Finish(nil, m.ID, outcomes[how], took, s.now)
}

func (s *tierScript) note(moves []kvbm.Move) {
	for _, m := range moves {
		if m.Kind != kvbm.Delete {
			s.open = append(s.open, m)
		}
	}
}

func (s *tierScript) show(moves []kvbm.Move) string {
	if len(moves) == 0 {
		return "-\n"
	}
	var b strings.Builder
	for _, m := range moves {
		fmt.Fprintf(&b, "%v %s", m.Kind, s.names[m.Key])
		if m.Kind != kvbm.Offload {
			fmt.Fprintf(&b, " from %v:%d", m.From, m.FromSlot)
		}
		switch {
		case m.Via:
			fmt.Fprintf(&b, " by host:%d", m.ToSlot)
		case m.Kind == kvbm.Offload || m.Kind == kvbm.Demote:
			fmt.Fprintf(&b, " to %v:%d", m.To, m.ToSlot)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (s *tierScript) stats() string {
	var b strings.Builder
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		st := s.tiers.Stats(t, s.now)
		if st.Capacity == 0 {
			continue
		}
		var names []string
		for blk := range s.tiers.Stored(t) {
			names = append(names, s.names[blk.Key])
		}
		slices.Reverse(names)
		fmt.Fprintf(&b, "%v: [%s] storing=%d leaving=%d quarantined=%d free=%d", t, strings.Join(names, " "), st.Storing, st.Leaving, st.Quarantined, st.Free)
		for i, n := range st.Skipped {
			if n > 0 {
				fmt.Fprintf(&b, " skipped:%v=%d", kvbm.Skip(i), n)
			}
		}
		for _, c := range []struct {
			name string
			n    uint64
		}{{"evicted", st.Evicted}, {"corrupt", st.Corrupt}, {"failed", st.Failed}} {
			if c.n > 0 {
				fmt.Fprintf(&b, " %s=%d", c.name, c.n)
			}
		}
		if st.Down {
			b.WriteString(" down")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// tierModel is what a shell sees: which block lies in which slot, and what is under way.
type tierModel struct {
	t     *testing.T
	tiers *kvbm.Tiers
	now   time.Time
	slots map[[2]int]dynamo.ContentKey // tier and slot
	open  []kvbm.Move
	read  map[[2]int]int
	write map[[2]int]bool
	moves int
	told  [4]map[dynamo.ContentKey]bool // what the changes say
}

// follow takes in the changes, and compares what they say with what is stored.
func (m *tierModel) follow() {
	for _, c := range m.tiers.Changes(nil) {
		if m.told[c.Tier] == nil {
			m.told[c.Tier] = map[dynamo.ContentKey]bool{}
		}
		if m.told[c.Tier][c.Block.Key] == c.Stored {
			m.t.Fatalf("%+v is told twice", c)
		}
		m.told[c.Tier][c.Block.Key] = c.Stored
		if !c.Stored {
			delete(m.told[c.Tier], c.Block.Key)
		}
	}
	for i := dynamo.TierHost; i <= dynamo.TierRemote; i++ {
		n := 0
		for b := range m.tiers.Stored(i) {
			if b.Block == (tokens.Block{}) {
				continue
			}
			if n++; !m.told[i][b.Key] {
				m.t.Fatalf("%v holds %+v, which was not told", i, b)
			}
		}
		if n != len(m.told[i]) {
			m.t.Fatalf("%v holds %d blocks, was told %d", i, n, len(m.told[i]))
		}
	}
}

func (m *tierModel) begin(moves []kvbm.Move) {
	for _, mv := range moves {
		from, to := [2]int{int(mv.From), int(mv.FromSlot)}, [2]int{int(mv.To), int(mv.ToSlot)}
		if mv.Via {
			to[0] = int(dynamo.TierHost)
		}
		if mv.Kind == kvbm.Delete {
			continue
		}
		m.moves++
		m.open = append(m.open, mv)
		if mv.Kind != kvbm.Offload {
			if m.slots[from] != mv.Key || m.write[from] {
				m.t.Fatalf("%v reads %v, which has %v", mv, from, m.slots[from])
			}
			m.read[from]++
		}
		if mv.Kind != kvbm.Fetch || mv.Via {
			if m.read[to] > 0 || m.write[to] {
				m.t.Fatalf("%v writes %v, which has %d readers, a writer: %v", mv, to, m.read[to], m.write[to])
			}
			m.write[to] = true
			delete(m.slots, to)
		}
	}
}

func (m *tierModel) end(i int, o kvbm.MoveOutcome) {
	mv := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	from, to := [2]int{int(mv.From), int(mv.FromSlot)}, [2]int{int(mv.To), int(mv.ToSlot)}
	if mv.Via {
		to[0] = int(dynamo.TierHost)
	}
	if mv.Kind != kvbm.Offload {
		if m.slots[from] != mv.Key {
			m.t.Fatalf("%v has read %v, which has %v by then", mv, from, m.slots[from])
		}
		m.read[from]--
	}
	if mv.Kind != kvbm.Fetch || mv.Via {
		delete(m.write, to)
		if o == kvbm.MoveDone {
			m.slots[to] = mv.Key
		}
	}
	m.begin(m.tiers.Finish(nil, mv.ID, o, time.Duration(i+1)*time.Millisecond, m.now))
}

// TestTiersModel does random things and has every read find what was written, every
// slot with one user, and all laws hold.
func TestTiersModel(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		c := kvbm.DefaultTiersConfig()
		c.BlockTokens, c.BlockBytes = 16, 100
		for _, tc := range []*kvbm.TierConfig{&c.Host, &c.Disk, &c.Remote} {
			tc.Bytes = int64(r.IntN(12)) * 100
			tc.Queue, tc.Policy = 1+r.IntN(6), kvbm.Policy(r.IntN(3))
		}
		c.Eviction, c.Changes = kvbm.Eviction(r.IntN(2)), true
		tiers, err := kvbm.NewTiers(c)
		if err != nil {
			t.Fatal(err)
		}
		m := &tierModel{t: t, tiers: tiers, now: tierEpoch, slots: map[[2]int]dynamo.ContentKey{}, read: map[[2]int]int{}, write: map[[2]int]bool{}}
		for range 3000 {
			m.step(r)
			m.follow()
			if err := tiers.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for len(m.open) > 0 {
			m.end(0, kvbm.MoveDone)
		}
		if err := tiers.Check(); err != nil || c.Host.Bytes+c.Disk.Bytes+c.Remote.Bytes > 0 && m.moves == 0 {
			t.Fatalf("seed %d: %d moves, %v", seed, m.moves, err)
		}
	}
}

func (m *tierModel) step(r *rand.Rand) {
	m.now = m.now.Add(time.Duration(r.IntN(50)) * time.Millisecond)
	word := fmt.Sprintf("%d", r.IntN(3))
	var keys []dynamo.ContentKey
	for range 1 + r.IntN(4) {
		word += fmt.Sprint(r.IntN(3))
		keys = append(keys, keyOf(word))
	}
	last := len(keys) - 1
	switch r.IntN(8) {
	case 0, 1:
		b := kvbm.TierBlock{Key: keys[last], Depth: last, Block: tokens.Block{Hash: 1}}
		if last > 0 {
			b.Parent = keys[last-1]
		}
		m.begin(m.tiers.Offer(nil, b, m.now))
	case 2:
		p := m.tiers.Plan(keys, 0, m.now)
		moves := m.tiers.Fetch(nil, keys, m.now)
		m.begin(moves)
		fetched := 0
		for _, mv := range moves {
			if mv.Kind == kvbm.Fetch {
				if mv.Key != keys[fetched] {
					m.t.Fatalf("block %d is fetched as %v", fetched, mv)
				}
				fetched++
			}
		}
		if fetched > p.Found || p.Blocks > p.Found {
			m.t.Fatalf("%d fetched of %+v", fetched, p)
		}
	case 3:
		m.tiers.Touch(keys)
		b := kvbm.TierBlock{Key: keys[last], Depth: last, Block: tokens.Block{Hash: 1}}
		if last > 0 {
			b.Parent = keys[last-1]
		}
		m.tiers.Learn(b)
	case 4:
		if n := r.IntN(8); n == 0 {
			m.tiers.Evict(nil, keys[last])
		} else if n == 1 { // found by others; its hash is not known
			m.restore(keys[last])
		} else if mv, ok := m.tiers.Inspect(dynamo.Tier(1+r.IntN(3)), keys[last]); ok {
			m.begin([]kvbm.Move{mv})
		}
	default:
		if len(m.open) > 0 {
			o := kvbm.MoveDone
			if r.IntN(5) == 0 {
				o = kvbm.MoveOutcome(r.IntN(6))
			}
			i := r.IntN(len(m.open))
			if o == kvbm.MoveUnwritten && m.open[i].Kind == kvbm.Fetch && !m.open[i].Via {
				o = kvbm.MoveCancelled
			}
			if m.open[i].Kind == kvbm.Offload && o != kvbm.MoveDone {
				o = kvbm.MoveUnwritten
			}
			m.end(i, o)
		}
	}
}

// restore has a block be found in the remote tier.
func (m *tierModel) restore(key dynamo.ContentKey) {
	if m.tiers.Stats(dynamo.TierRemote, m.now).Reads >= m.tiers.Config().Remote.Queue {
		return // where it lies could not be asked
	}
	if !m.tiers.Restore(dynamo.TierRemote, kvbm.TierBlock{Key: key}, -1, 0) {
		return
	}
	mv, ok := m.tiers.Inspect(dynamo.TierRemote, key)
	if !ok {
		m.t.Fatal("what was found is not there")
	}
	at := [2]int{int(dynamo.TierRemote), int(mv.FromSlot)}
	if m.read[at] > 0 || m.write[at] {
		m.t.Fatalf("a block is found in %v, which is in use", at)
	}
	m.slots[at] = key
	m.begin([]kvbm.Move{mv})
}

// BenchmarkTiers is what the tiers cost an engine for a prompt of 64 blocks: to plan,
// to begin and to end the loads of all, and to offer them again.
func BenchmarkTiers(b *testing.B) {
	c := kvbm.DefaultTiersConfig()
	c.BlockTokens, c.BlockBytes, c.Host.Bytes = 16, 1000, 1e6
	tiers, err := kvbm.NewTiers(c)
	if err != nil {
		b.Fatal(err)
	}
	var blocks []kvbm.TierBlock
	var keys []dynamo.ContentKey
	for i := range 64 {
		k := keyOf(fmt.Sprint(i))
		blk := kvbm.TierBlock{Key: k, Depth: i}
		if i > 0 {
			blk.Parent = keys[i-1]
		}
		keys, blocks = append(keys, k), append(blocks, blk)
		for _, mv := range tiers.Offer(nil, blk, tierEpoch) {
			tiers.Finish(nil, mv.ID, kvbm.MoveDone, 0, tierEpoch)
		}
	}
	b.Run("plan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p := tiers.Plan(keys, 0, tierEpoch); p.Blocks != 64 {
				b.Fatal(p)
			}
		}
	})
	b.Run("fetch", func(b *testing.B) {
		b.ReportAllocs()
		var moves, more []kvbm.Move
		for b.Loop() {
			moves = tiers.Fetch(moves[:0], keys, tierEpoch)
			for i := range moves {
				more = tiers.Finish(more[:0], moves[i].ID, kvbm.MoveDone, time.Microsecond, tierEpoch)
			}
		}
	})
	b.Run("offer", func(b *testing.B) {
		b.ReportAllocs()
		var moves []kvbm.Move
		for b.Loop() {
			for i := range blocks {
				moves = tiers.Offer(moves[:0], blocks[i], tierEpoch)
			}
		}
	})
}

// filled is a user of so many registered blocks.
func filled(p *kvbm.Pool, blocks int) *user {
	size := p.Config().BlockSize
	u := &user{chain: tokens.NewChain(0, size)}
	for i := range blocks * size {
		u.chain.Append(dynamo.TokenID(i * 7))
	}
	for range blocks {
		b, _ := p.Allocate()
		u.open = append(u.open, b)
	}
	u.held = p.Seal(nil, u.open, kvbm.Query{Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()})
	u.open = nil
	return u
}

// BenchmarkPool is the device tier's part: to find 64 blocks, to allocate as many, and
// to release all.
func BenchmarkPool(b *testing.B) {
	c := kvbm.DefaultConfig()
	c.Blocks = 1000
	p, err := kvbm.New(c)
	if err != nil {
		b.Fatal(err)
	}
	u := filled(p, 64)
	u.release(p)
	q := kvbm.Query{Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()}
	var held []kvbm.Held
	var open []kvbm.Partial
	b.ReportAllocs()
	for b.Loop() {
		held, open = p.Match(held[:0], q), open[:0]
		for range 64 {
			n, _ := p.Allocate()
			open = append(open, n)
		}
		for _, o := range slices.Backward(open) {
			p.Abort(o)
		}
		for _, h := range slices.Backward(held) {
			p.Release(h)
		}
	}
	if len(held) != 64 {
		b.Fatalf("found %d", len(held))
	}
}

func TestTiersAllocations(t *testing.T) {
	c := kvbm.DefaultTiersConfig()
	c.BlockTokens, c.BlockBytes, c.Host.Bytes, c.Disk.Bytes = 16, 1000, 20e3, 40e3
	tiers, err := kvbm.NewTiers(c)
	if err != nil {
		t.Fatal(err)
	}
	var keys []dynamo.ContentKey
	for i := range 100 {
		keys = append(keys, keyOf(fmt.Sprint(i)))
	}
	n, moves, more := 0, make([]kvbm.Move, 0, 200), make([]kvbm.Move, 0, 200)
	turn := func() {
		n++
		moves = tiers.Offer(moves[:0], kvbm.TierBlock{Key: keys[n%100]}, tierEpoch)
		moves = tiers.Fetch(moves, keys[n*7%100:][:1], tierEpoch)
		for i := 0; i < len(moves); i++ {
			if moves[i].Kind != kvbm.Delete {
				more = tiers.Finish(more[:0], moves[i].ID, kvbm.MoveDone, 0, tierEpoch)
				moves = append(moves, more...)
			}
		}
	}
	for range 1000 {
		turn()
	}
	if got := testing.AllocsPerRun(1000, turn); got != 0 {
		t.Errorf("%.2f allocations, want none", got)
	}
	if s := tiers.Stats(dynamo.TierDisk, tierEpoch); s.Evicted == 0 || s.Loaded == 0 {
		t.Errorf("the test is too weak: %+v", s)
	}
}

func TestTiersConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*kvbm.TiersConfig)
		want   string
	}{
		{func(c *kvbm.TiersConfig) { c.Host.Bytes = 999 }, "the host tier has a budget of 999 bytes, and a single block takes 1000"},
		{func(c *kvbm.TiersConfig) { c.Disk.Bytes, c.Disk.Queue = 5000, 0 }, "queue of the disk tier"},
		{func(c *kvbm.TiersConfig) { c.Remote.Bytes = -1 }, "remote tier"},
		{func(c *kvbm.TiersConfig) { c.DiskWriteBudget = 1 }, "--kvbm-disk-write-budget is 1"},
		{func(c *kvbm.TiersConfig) { c.BlockTokens = 0 }, "0 tokens"},
		{func(c *kvbm.TiersConfig) { c.Host.Bytes, c.Host.Workers = 5000, 0 }, "0 workers"},
	} {
		conf := kvbm.DefaultTiersConfig()
		conf.BlockTokens, conf.BlockBytes = 16, 1000
		c.change(&conf)
		if err := conf.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
