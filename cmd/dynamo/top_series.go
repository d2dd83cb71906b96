package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/router"
)

const (
	// rateWindow is the time over which rates are taken, and maxStates how many
	// states are kept for it; the oldest is dropped.
	rateWindow = 10 * time.Second
	maxStates  = 128
	// staleAfter is when the report of a worker that has requests counts as stale. A
	// worker without any has nothing to report.
	staleAfter = 3 * time.Second
)

// series is what is known of one router: its last states, oldest first; there is at
// least one.
type series struct {
	key    string // the model, and which of its routers
	states []*router.State
}

// add keeps a state. One with smaller counts is of a router that began anew, and
// nothing before it counts.
func (s *series) add(st *router.State) {
	if n := len(s.states); n > 0 {
		last := s.states[n-1]
		switch {
		case st.Ended < last.Ended || st.Decisions < last.Decisions || st.PromptTokens < last.PromptTokens || st.At.Before(last.At):
			s.states = nil
		case st.At.Equal(last.At):
			s.states = s.states[:n-1]
		}
	}
	s.states = append(s.states, st)
	// The last state before the window is where its rates begin.
	first := 0
	for first < len(s.states)-2 && st.At.Sub(s.states[first+1].At) >= rateWindow {
		first++
	}
	s.states = slices.Delete(s.states, 0, max(first, len(s.states)-maxStates))
}

func (s *series) last() *router.State { return s.states[len(s.states)-1] }

// rates are what changed over the window. NaN stands for what is not known.
type rates struct {
	seconds             float64
	requests, decisions float64 // a second
	hit, index          float64 // of the prompts' tokens: cached, and said to be by the index
	totalHit            float64 // since the start
}

func (s *series) rates() rates {
	first, last := s.states[0], s.last()
	nan := math.NaN()
	r := rates{requests: nan, decisions: nan, hit: nan, index: nan, totalHit: ratio(last.CachedTokens, last.PromptTokens)}
	if r.seconds = last.At.Sub(first.At).Seconds(); r.seconds <= 0 {
		return r
	}
	r.requests = float64(last.Ended-first.Ended) / r.seconds
	r.decisions = float64(last.Decisions-first.Decisions) / r.seconds
	prompt := last.PromptTokens - first.PromptTokens
	r.hit = ratio(grown(first.CachedTokens, last.CachedTokens), prompt)
	r.index = ratio(grown(first.PredictedTokens, last.PredictedTokens), prompt)
	return r
}

// grown is how much a count grew; one that shrank began anew.
func grown(from, to uint64) uint64 {
	if to < from {
		return to
	}
	return to - from
}

// workerRow is a worker as the table shows it. NaN stands for what is not known.
type workerRow struct {
	*router.WorkerState
	load, kv float64 // shares of what it can hold
	hit      float64
	recent   bool // hit is of the window, else since the start
	stale    bool
}

// rows are the workers of the last state.
func (s *series) rows() []workerRow {
	last := s.last()
	before := map[string]*router.WorkerState{}
	if len(s.states) > 1 {
		for i := range s.states[0].Workers {
			w := &s.states[0].Workers[i]
			before[w.ID] = w
		}
	}
	rows := make([]workerRow, len(last.Workers))
	for i := range last.Workers {
		w := &last.Workers[i]
		r := workerRow{WorkerState: w, hit: ratio(w.CachedTokens, w.PromptTokens), kv: ratio(w.KVUsed, w.KVBlocks)}
		r.load = ratio(max(0, w.Running)+max(0, w.Queued), w.MaxRunning)
		if w.ReportMillis < 0 {
			r.load, r.kv = ratio(w.Booked, w.MaxRunning), math.NaN()
		}
		if b := before[w.ID]; b != nil && b.Epoch == w.Epoch && w.PromptTokens > b.PromptTokens {
			r.hit, r.recent = ratio(grown(b.CachedTokens, w.CachedTokens), w.PromptTokens-b.PromptTokens), true
		}
		r.stale = w.State == "up" && w.Booked > 0 && w.ReportMillis > staleAfter.Milliseconds()
		rows[i] = r
	}
	return rows
}

// sorting is an order of the workers' table.
type sorting int

const (
	byWorker sorting = iota
	byState
	byLoad
	byKV
	byHit
	byTTFT
	byAge
	sortings // their number
)

// String names the column.
func (s sorting) String() string {
	return [sortings]string{"worker", "state", "load", "kv", "hit", "ttft", "age"}[s]
}

// sort puts what needs a look first; workers that are alike stay in the order of
// their ids.
func (s sorting) sort(rows []workerRow) {
	value := func(r *workerRow) float64 {
		switch s {
		case byState:
			return map[string]float64{"up": 0, "draining": 2}[r.State] + map[bool]float64{true: 1}[r.stale] + map[bool]float64{true: 3}[r.State != "up" && r.State != "draining"]
		case byLoad:
			if math.IsNaN(r.load) {
				return float64(r.Booked) / 1e9
			}
			return r.load
		case byKV:
			return r.kv
		case byHit:
			return -r.hit
		case byTTFT:
			return r.TTFTMillis
		case byAge:
			return float64(r.ReportMillis)
		}
		return 0
	}
	slices.SortStableFunc(rows, func(a, b workerRow) int {
		x, y := value(&a), value(&b)
		if nx, ny := math.IsNaN(x), math.IsNaN(y); nx != ny { // what is not known comes last
			if nx {
				return 1
			}
			return -1
		}
		if c := cmp.Compare(y, x); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}

// keyed names the routers of a reading: by model, and by number where a model has
// several.
func keyed(all []router.State) []string {
	seen := map[string]int{}
	keys := make([]string, len(all))
	for i := range all {
		name := all[i].Model
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, seen[name])
		}
		keys[i] = name
	}
	return keys
}
