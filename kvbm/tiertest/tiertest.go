// Package tiertest is what every tier.Store must do, as a test that each passes: to keep
// frames, to give them back, to forget them, to find them again. Stores of the project
// are tested with it, wherever they are.
package tiertest

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// Subject is a store to be tested.
type Subject struct {
	// Open opens the store; the second time, after it was closed, what it kept is there.
	Open func(t *testing.T) tier.Store
	// FrameBytes is the length of its frames, Slots the number that it holds at least;
	// 12 or more are needed.
	FrameBytes, Slots int
	// Forgets says that it keeps nothing when it is closed.
	Forgets bool
}

// Run tests a store. One that is a tier.Finder goes by key and is shared; others have
// slots.
func Run(t *testing.T, s Subject) {
	store := s.Open(t)
	t.Run("keeps", func(t *testing.T) { s.keeps(t, store) })
	if finder, ok := store.(tier.Finder); ok {
		t.Run("shared", func(t *testing.T) { s.shared(t, store, finder) })
	} else {
		t.Run("slots", func(t *testing.T) { s.slots(t, store) })
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Forgets {
		return
	}
	store = s.Open(t)
	t.Run("finds", func(t *testing.T) { s.finds(t, store) })
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// ref names frame i.
func ref(i int) tier.Ref {
	r := tier.Ref{Slot: int32(i), Generation: uint64(100 + i)}
	r.Depth, r.ParentHash = i, 5
	r.Block.Hash, r.Block.Local = dynamo.BlockHash(i), 3
	binary.LittleEndian.PutUint64(r.Key[:], uint64(i+1)*0x9e3779b97f4a7c15)
	r.Parent[0] = byte(i)
	return r
}

// frame is the bytes of frame i, in a buffer as a Mover has them.
func (s *Subject) frame(i int) []byte {
	b := tier.Buffer(s.FrameBytes)
	for at := range b {
		b[at] = byte(i + at*7 + at>>8)
	}
	return b
}

// deleted says whether keeps deletes frame i in the end.
func deleted(i int) bool { return i%4 == 3 }

// keeps writes, reads and deletes, from several goroutines at once.
func (s *Subject) keeps(t *testing.T, store tier.Store) {
	ctx := t.Context()
	var all sync.WaitGroup
	for i := range s.Slots {
		all.Go(func() {
			got, want := tier.Buffer(s.FrameBytes), s.frame(i)
			for range 3 {
				if err := store.Put(ctx, ref(i), want); err != nil {
					t.Errorf("put %d: %v", i, err)
				}
				clear(got)
				if err := store.Get(ctx, ref(i), got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("get %d: %v, equal: %v", i, err, bytes.Equal(got, want))
				}
				s.parts(t, store, i, got)
			}
			for range 2 {
				if !deleted(i) {
					break
				}
				if err := store.Delete(ctx, ref(i)); err != nil {
					t.Errorf("delete %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// parts reads a frame in two parts, from the store that can.
func (s *Subject) parts(t *testing.T, store tier.Store, i int, got []byte) {
	p, ok := store.(tier.Parts)
	if !ok {
		return
	}
	want := s.frame(i)
	for at := 0; at <= s.FrameBytes; at += 4096 {
		clear(got)
		if err := p.GetPart(t.Context(), ref(i), got, at, s.FrameBytes); err != nil || !bytes.Equal(got[at:], want[at:]) || bytes.Count(got[:at], []byte{0}) != at {
			t.Errorf("get %d from %d on: %v, equal: %v", i, at, err, bytes.Equal(got[at:], want[at:]))
		}
		if err := p.GetPart(t.Context(), ref(i), got, 0, at); err != nil || !bytes.Equal(got, want) {
			t.Errorf("get %d up to %d: %v, equal: %v", i, at, err, bytes.Equal(got, want))
		}
	}
}

// shared is what a store that goes by key does besides.
func (s *Subject) shared(t *testing.T, store tier.Store, finder tier.Finder) {
	ctx := t.Context()
	n, err := finder.Find(ctx, []dynamo.ContentKey{ref(0).Key, ref(1).Key, ref(2).Key, ref(3).Key, ref(4).Key})
	if n != 3 || err != nil {
		t.Errorf("found %d, %v; want 3", n, err)
	}
	if n, err := finder.Find(ctx, nil); n != 0 || err != nil {
		t.Errorf("of nothing %d found, %v", n, err)
	}
	got := tier.Buffer(s.FrameBytes)
	if err := store.Get(ctx, ref(3), got); dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("get of what was deleted: %v", err)
	}
	if err := store.Put(ctx, ref(0), s.frame(9)); err != nil {
		t.Errorf("put of what is there: %v", err)
	}
	if err := store.Get(ctx, ref(0), got); err != nil || !bytes.Equal(got, s.frame(0)) {
		t.Errorf("a second put replaced the first; %v", err)
	}
	if err := store.Get(ctx, ref(1), tier.Buffer(s.FrameBytes+4096)); dynamo.KindOf(err) != dynamo.KindCorrupt {
		t.Errorf("get of a frame that is shorter: %v", err)
	}
}

// slots is what a store of slots does besides: a Put replaces, and a late Delete of what
// was there before does nothing.
func (s *Subject) slots(t *testing.T, store tier.Store) {
	ctx := t.Context()
	other := ref(1000)
	other.Slot = 3
	got := tier.Buffer(s.FrameBytes)
	if err := store.Put(ctx, other, s.frame(1000)); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(ctx, ref(3)); err != nil {
		t.Fatal(err)
	}
	if err := store.Get(ctx, other, got); err != nil || !bytes.Equal(got, s.frame(1000)) {
		t.Errorf("a late delete took another frame: %v", err)
	}
	found := s.Forgets
	if err := store.List(ctx, func(r tier.Ref) bool { found = found || r == other; return true }); err != nil || !found {
		t.Errorf("a late delete took another record: %v", err)
	}
	if err := store.Delete(ctx, other); err != nil {
		t.Fatal(err)
	}
}

// finds expects what keeps left.
func (s *Subject) finds(t *testing.T, store tier.Store) {
	found := map[dynamo.ContentKey]tier.Ref{}
	if err := store.List(t.Context(), func(r tier.Ref) bool { found[r.Key] = r; return true }); err != nil {
		t.Fatal(err)
	}
	if want := s.Slots - s.Slots/4; len(found) != want {
		t.Errorf("%d frames listed, want %d", len(found), want)
	}
	got := tier.Buffer(s.FrameBytes)
	for i := range s.Slots {
		r, ok := found[ref(i).Key]
		if ok == deleted(i) || ok && r.Slot >= 0 && r != ref(i) {
			t.Errorf("frame %d: listed %v, as %+v", i, ok, r)
		}
		if !ok {
			continue
		}
		if err := store.Get(t.Context(), r, got); err != nil || !bytes.Equal(got, s.frame(i)) {
			t.Errorf("frame %d: %v, equal: %v", i, err, bytes.Equal(got, s.frame(i)))
		}
	}
	n := 0
	if err := store.List(t.Context(), func(tier.Ref) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("%d listed after the first was enough, %v", n, err)
	}
}
