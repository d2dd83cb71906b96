package loop_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// stream is KV that begins to come at once and ends while it is computed with.
type stream struct {
	ends func() (ok bool, err error) // how, and what becomes of the step

	coming, ended  *loop.Task
	ok             bool
	arrived        bool
	begun, givenUp int
}

func (s *stream) External(t *loop.Task) int { return len(t.Request.Tokens) - 1 }

func (s *stream) Begin(t *loop.Task, _ *sched.Action, _ time.Time) {
	s.begun++
	s.coming, s.arrived = t, true
}

func (s *stream) Arriving() *loop.Task {
	if !s.arrived {
		return nil
	}
	s.arrived = false
	return s.coming
}

func (s *stream) Cancel(*loop.Task, time.Time) {
	s.givenUp++
	s.coming, s.arrived = nil, false
}

func (s *stream) Ended(time.Time) (*loop.Task, bool) {
	t := s.ended
	s.ended = nil
	return t, s.ok
}

func (s *stream) Next() (time.Time, bool) { return time.Now(), s.arrived }

// streamer computes with what comes.
type streamer struct {
	adder
	s *stream
}

func (a *streamer) Compute(ctx context.Context, b *sched.Batch, results []sched.Result) error {
	s := a.s
	for i := range b.Entries {
		if e := &b.Entries[i]; s.coming == e.Ref && s.coming != nil {
			ok, err := s.ends()
			if err != nil {
				return err
			}
			s.ended, s.ok, s.coming = s.coming, ok, nil
			e.Void = !ok
		}
	}
	all := b.Entries
	defer func() { b.Entries = all }()
	for i := range all {
		if all[i].Void { // the others are computed
			b.Entries = append(append([]sched.Entry(nil), all[:i]...), all[i+1:]...)
			rest := make([]sched.Result, len(b.Entries))
			err := a.adder.Compute(ctx, b, rest)
			copy(results[:i], rest[:i])
			copy(results[i+1:], rest[i:])
			return err
		}
	}
	return a.adder.Compute(ctx, b, results)
}

// TestArriving has requests computed while their KV comes, which ends well or not, or the
// step does not: the answer is as ever, or the error of the step, and no block is left.
func TestArriving(t *testing.T) {
	for _, c := range []struct {
		name    string
		ends    func() (bool, error)
		fails   bool
		givenUp int
		tokens  uint64 // computed
	}{
		{"it comes", func() (bool, error) { return true, nil }, false, 0, 5},
		{"it does not", func() (bool, error) { return false, nil }, false, 0, 1 + 30 + 4},
		{"the step fails", func() (bool, error) { return false, errors.New("no") }, true, 1, 1},
		{"the step panics", func() (bool, error) { panic("no") }, true, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &dynamo.Request{Tokens: prompt(30), MaxTokens: 5}
				plain, _, _ := start(t, config(&adder{}))
				want, err := enginetest.Collect(t.Context(), plain, r)
				if err != nil {
					t.Fatal(err)
				}
				s := &stream{ends: c.ends}
				cfg := config(nil)
				cfg.Computer, cfg.Transfers = &streamer{s: s}, s
				e, _, _ := start(t, cfg)
				q := *r
				q.Handover = []byte("there")
				got, err := enginetest.Collect(t.Context(), e, &q)
				if (err != nil) != c.fails || err != nil && dynamo.KindOf(err) != dynamo.KindInternal {
					t.Errorf("the error is %v", err)
				}
				if err == nil && !slices.Equal(got.Tokens, want.Tokens) {
					t.Errorf("got %v, want %v", got.Tokens, want.Tokens)
				}
				st := e.Stats()
				if st.Scheduler.Tokens != c.tokens && c.tokens > 0 || s.begun != 1 || s.givenUp != c.givenUp {
					t.Errorf("%d tokens computed, %d loads begun and %d given up; want %d, 1 and %d", st.Scheduler.Tokens, s.begun, s.givenUp, c.tokens, c.givenUp)
				}
				if err := e.Check(); err != nil || st.Busy() > 0 || e.Stats().Scheduler.KV.Loading > 0 {
					t.Errorf("%v; left: %+v", err, e.Stats().Scheduler)
				}
			})
		})
	}
}
