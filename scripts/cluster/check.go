package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scenario is one failure with its checks.
type scenario struct {
	name   string
	store  string // the only store it makes sense with; empty for each
	engine string // of its workers
	run    func(ctx context.Context, t *trial) error
}

// wanted says whether the command line asks for s with a store.
func (s *scenario) wanted(o *options, store string) bool {
	// A native model is slow, and its answers have nothing to do with the store: it
	// runs with the first store alone.
	once := s.engine == engineNative && store != o.stores[0]
	return (s.store == "" || s.store == store) && !once && slices.Contains(o.engines, s.engine) && o.run.MatchString(s.name)
}

// report counts checks and prints them.
type report struct {
	verbose                 bool
	passed, failed, skipped int
	scenarios               int
}

// trial is one run of a scenario.
type trial struct {
	*scenario
	o       *options
	r       *report
	store   string
	dir     string
	starts  int // of clusters
	cluster *cluster
	failed  bool
}

// scenario runs s and prints its checks.
func (r *report) scenario(ctx context.Context, o *options, s *scenario, store string) {
	r.scenarios++
	t := &trial{scenario: s, o: o, r: r, store: store, dir: filepath.Join(o.work, strconv.Itoa(r.scenarios)+"-"+store)}
	began := time.Now()
	err := s.run(ctx, t)
	if t.cluster != nil {
		t.cluster.stop()
	}
	if err != nil {
		t.check(s.name, err, "")
	}
	t.note("%s took %.1f s", s.name, time.Since(began).Seconds())
	if !t.failed && !o.keep {
		err = os.RemoveAll(t.dir)
	}
	if err != nil && !t.failed {
		t.check("clean up after "+s.name, err, "")
	}
}

// start starts the scenario's cluster.
func (t *trial) start(ctx context.Context, s shape) (err error) {
	s.engine = t.engine
	t.starts++
	t.cluster, err = startCluster(ctx, t.o, t.store, filepath.Join(t.dir, strconv.Itoa(t.starts)), s)
	if err != nil {
		return fmt.Errorf("start a cluster: %w", err)
	}
	t.note("cluster of %d frontends and %d workers is up", s.frontends, s.workers)
	return nil
}

// check prints the result of one check: an error fails it.
func (t *trial) check(what string, err error, format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	if err == nil {
		t.r.passed++
		t.line("ok", what, detail)
		return
	}
	t.r.failed++
	t.failed = true
	why := err.Error()
	if len(why) > maxWhy {
		why = why[:maxWhy] + "…"
	}
	t.line("FAIL", what, strings.TrimSpace(detail+" "+why))
	fmt.Printf("     logs: %s\n", t.dir)
}

// skip prints that a check cannot be made here, and why.
func (t *trial) skip(what, why string) {
	t.r.skipped++
	t.line("skip", what, why)
}

func (t *trial) line(verdict, what, detail string) {
	fmt.Printf("%-4s %-4s %-6s %-52s %s\n", verdict, t.store, t.engine, what, strings.ReplaceAll(detail, "\n", "\n     "))
}

// note prints what is done, with -v.
func (t *trial) note(format string, args ...any) {
	if t.r.verbose {
		fmt.Printf("     %s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

// fault is when something was done to a cluster, and what its frontends had
// counted before.
type fault struct {
	at         time.Time
	migrations float64
	loses      bool // a worker that has requests
}

// mark notes the moment before a fault.
func (t *trial) mark(ctx context.Context) fault {
	return fault{migrations: t.cluster.migrations(ctx), at: time.Now()}
}

// markLoss notes the moment before a worker that has requests is lost: some must
// then go on elsewhere.
func (t *trial) markLoss(ctx context.Context) fault {
	f := t.mark(ctx)
	f.loses = true
	return f
}

// verdict ends a load and checks its streams. The gap is the longest that a
// stream which lived through one of the faults waited for its next event, over as
// many streams as migrated: those with the longest.
func (t *trial) verdict(ctx context.Context, what string, l *load, atLeast int, faults ...fault) {
	outcomes := l.stop()
	v := tallied(outcomes)
	err := v.err(atLeast)
	detail := fmt.Sprintf("streams=%d failed=%d differing=%d", v.streams, v.failed, v.differing)
	if v.lost > 0 {
		detail += fmt.Sprintf(" lost-with-their-frontend=%d", v.lost)
	}
	if len(faults) > 0 {
		migrated := t.cluster.migrations(ctx) - faults[0].migrations
		detail += fmt.Sprintf(" migrated=%.0f", migrated)
		if err == nil && faults[0].loses && migrated == 0 {
			err = errors.New("a worker that had requests was lost, and none migrated")
		}
		gaps, share := gapsAround(outcomes, faults)
		if n := min(int(migrated*share+0.5), len(gaps)); n > 0 {
			gaps = gaps[len(gaps)-n:]
			detail += fmt.Sprintf(" gap p50=%s p99=%s max=%s", short(quantile(gaps, 0.5)), short(quantile(gaps, 0.99)), short(gaps[len(gaps)-1]))
		}
	}
	quiet := undisturbedGaps(outcomes, faults)
	detail += fmt.Sprintf(" (undisturbed itl p50=%s p99=%s)", short(quantile(quiet, 0.5)), short(quantile(quiet, 0.99)))
	t.check(what, err, "%s", detail)
}

// tally counts the streams of a load.
type tally struct {
	streams, failed, differing, lost int
	examples                         []string
	kinds                            map[string]int // of requests that failed or differed
}

func tallied(outcomes []outcome) tally {
	var t tally
	for i := range outcomes {
		o := &outcomes[i]
		switch {
		case o.lost:
			t.lost++
			continue
		case o.err != nil:
			t.failed++
			t.example("failed: "+o.err.Error(), o)
		case o.differs != "":
			t.differing++
			t.example("differs: "+o.differs, o)
		}
		t.streams++
	}
	return t
}

func (t *tally) example(what string, o *outcome) {
	if t.kinds == nil {
		t.kinds = map[string]int{}
	}
	t.kinds[o.name[:strings.LastIndexByte(o.name, ' ')]]++
	if len(t.examples) < maxExamples {
		t.examples = append(t.examples, fmt.Sprintf("%s (%s at frontend %d, %v after its beginning, %s)", what, o.name, o.frontend+1, short(o.ended.Sub(o.began)), o.began.Format("15:04:05.000")))
	}
}

// err says what is wrong with the streams.
func (t *tally) err(atLeast int) error {
	if t.failed+t.differing > 0 {
		return fmt.Errorf("of %v\n%s", t.kinds, strings.Join(t.examples, "\n"))
	}
	if t.streams < atLeast {
		return fmt.Errorf("only %d streams; the check wants %d", t.streams, atLeast)
	}
	return nil
}

// gapsAround returns, in order, the longest gap of each steady stream that was
// under way at a fault and ended well: between the two events around the fault, or
// later until the next one and within what it takes to find a silent peer. The share is that of these
// streams in all sequences that were under way.
func gapsAround(outcomes []outcome, faults []fault) (gaps []time.Duration, share float64) {
	sequences := 0
	for k, f := range faults {
		until := f.at.Add(deadPeer)
		if k+1 < len(faults) && faults[k+1].at.Before(until) {
			until = faults[k+1].at
		}
		for i := range outcomes {
			o := &outcomes[i]
			if o.lost || o.err != nil || o.ended.Before(f.at) || o.began.After(until) {
				continue
			}
			sequences += o.choices
			if !o.steady() {
				continue
			}
			longest := time.Duration(0)
			for gap, from := range o.gaps() {
				if !from.Add(gap).Before(f.at) && from.Before(until) {
					longest = max(longest, gap)
				}
			}
			gaps = append(gaps, longest)
		}
	}
	slices.Sort(gaps)
	return gaps, float64(len(gaps)) / float64(max(sequences, 1))
}

// undisturbedGaps returns, in order, the gaps of steady streams that ended before
// the first fault.
func undisturbedGaps(outcomes []outcome, faults []fault) []time.Duration {
	var gaps []time.Duration
	for i := range outcomes {
		if !outcomes[i].steady() {
			continue
		}
		first := true
		for gap, from := range outcomes[i].gaps() {
			if !first && (len(faults) == 0 || from.Add(gap).Before(faults[0].at)) {
				gaps = append(gaps, gap)
			}
			first = false
		}
	}
	slices.Sort(gaps)
	return gaps
}

// quantile of an ordered list.
func quantile(ordered []time.Duration, q float64) time.Duration {
	if len(ordered) == 0 {
		return 0
	}
	return ordered[int(q*float64(len(ordered)-1))]
}

// short prints a duration with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
