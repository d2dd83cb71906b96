package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// benchRounds is how often a gap or a start is measured.
const benchRounds = 5

// bench measures processes and prints a table.
func bench(ctx context.Context, o *options) error {
	fmt.Printf("%-66s %10s %12s\n", "measure", "to reach", "measured")
	row := func(what, want, format string, args ...any) {
		fmt.Printf("%-66s %10s %12s\n", what, want, fmt.Sprintf(format, args...))
	}
	t := &trial{scenario: &scenario{name: "bench", engine: engineEcho}, o: o, r: &report{verbose: o.verbose}, store: storeFile}
	for i, part := range []func(context.Context, *trial, func(string, string, string, ...any)) error{benchIdle, benchAtOnce, benchInStep, benchGap} {
		t.dir = filepath.Join(o.work, "bench-"+strconv.Itoa(i))
		err := part(ctx, t, row)
		if t.cluster != nil {
			t.cluster.stop()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// benchIdle measures what parts need when nothing happens, and how soon a worker
// serves.
func benchIdle(ctx context.Context, t *trial, row func(string, string, string, ...any)) error {
	var took []time.Duration
	for range benchRounds {
		if t.cluster != nil {
			t.cluster.stop()
		}
		if err := t.start(ctx, shape{frontends: 1}); err != nil {
			return err
		}
		d, err := t.timeToFirst(ctx)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	c := t.cluster
	slices.Sort(took)
	row("a worker's first request after its ready line, median/slowest of "+strconv.Itoa(benchRounds), "200 ms", "%s/%s", short(quantile(took, 0.5)), short(took[len(took)-1]))
	w, err := c.addWorker(ctx, c.newID())
	if err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	for _, p := range []*process{c.frontends[0].process, w.process} {
		rss, err := p.memory("VmRSS")
		if err != nil {
			return err
		}
		before, err := p.cpu()
		if err != nil {
			return err
		}
		if err := sleep(ctx, 2*time.Second); err != nil {
			return err
		}
		after, err := p.cpu()
		if err != nil {
			return err
		}
		row("idle resident memory of "+p.name, "40 MiB", "%.1f MiB", float64(rss)/(1<<20))
		row("idle CPU of "+p.name, "-", "%.1f %%", (after-before)/2*100)
	}
	return nil
}

// benchAtOnce measures CPU time with an engine that answers at once.
func benchAtOnce(ctx context.Context, t *trial, row func(string, string, string, ...any)) error {
	return benchCPU(ctx, t, 0, 64, 1000, 16, func(frontend, worker, tokens, wall float64) {
		row("CPU-s per 1M tokens, echo at once: frontend + worker", "5", "%.2f", frontend+worker)
		row("  of which frontend / worker; tokens a second", "-", "%.2f/%.2f; %.0fk", frontend, worker, tokens/wall/1000)
	})
}

// benchInStep measures CPU time with 64 streams that get their tokens together.
func benchInStep(ctx context.Context, t *trial, row func(string, string, string, ...any)) error {
	return benchCPU(ctx, t, itl, 64, 1000, 1, func(frontend, worker, tokens, wall float64) {
		row("CPU-s per 1M tokens, 64 streams at 10 ms a token: both", "12", "%.2f", frontend+worker)
		row("  of which frontend / worker; tokens a second", "-", "%.2f/%.2f; %.1fk", frontend, worker, tokens/wall/1000)
	})
}

// benchCPU sends rounds of n streams of so many tokens, and tells the CPU seconds
// per million tokens of both processes.
func benchCPU(ctx context.Context, t *trial, pace time.Duration, n, tokens, rounds int, tell func(frontend, worker, tokens, wall float64)) error {
	if err := t.start(ctx, shape{frontends: 1, workers: 1, itl: pace}); err != nil {
		return err
	}
	c := t.cluster
	client := newClient()
	defer client.CloseIdleConnections()
	one := func(length, rounds int) (total int, err error) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				r := completion("bench", i, 100, length)
				for range rounds {
					got, e := drink(ctx, client, c.frontends[0].url, &r)
					mu.Lock()
					total, err = total+got, errors.Join(err, e)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		return total, err
	}
	if _, err := one(50, 2); err != nil { // connections, caches, heaps
		return err
	}
	var used [2]float64
	parts := []*process{c.frontends[0].process, c.workers[0].process}
	for i, p := range parts {
		s, err := p.cpu()
		if err != nil {
			return err
		}
		used[i] = -s
	}
	began := time.Now()
	total, err := one(tokens, rounds)
	if err != nil {
		return err
	}
	wall := time.Since(began).Seconds()
	for i, p := range parts {
		s, err := p.cpu()
		if err != nil {
			return err
		}
		used[i] = (used[i] + s) / float64(total) * 1e6
	}
	tell(used[0], used[1], float64(total), wall)
	return nil
}

var usageTokens = regexp.MustCompile(`"completion_tokens":(\d+)`)

// drink reads an answer without looking at more than its end, so that the reader
// costs little, and returns the tokens that its usage states.
func drink(ctx context.Context, client *http.Client, url string, r *request) (int, error) {
	response, err := post(ctx, client, url+r.path, r.body())
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	buffer, tail := make([]byte, 32<<10), []byte(nil)
	for {
		n, err := response.Body.Read(buffer)
		tail = append(tail[max(0, len(tail)-1024):], buffer[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	m := usageTokens.FindSubmatch(tail)
	if m == nil {
		return 0, fmt.Errorf("an answer ends without usage: %s", tail[max(0, len(tail)-200):])
	}
	return strconv.Atoi(string(m[1]))
}

// benchGap measures what streams wait when their worker is killed.
func benchGap(ctx context.Context, t *trial, row func(string, string, string, ...any)) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	var faults []fault
	for range benchRounds {
		f := t.mark(ctx)
		faults = append(faults, f)
		w := c.workers[len(c.workers)-3]
		w.kill()
		if _, err := c.addWorker(ctx, c.newID()); err != nil {
			return err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	migrated := c.migrations(ctx) - faults[0].migrations
	outcomes := l.stop()
	v := tallied(outcomes)
	if err := v.err(manyStreams); err != nil {
		return err
	}
	gaps, share := gapsAround(outcomes, faults)
	n := min(int(migrated*share+0.5), len(gaps))
	if n == 0 {
		return errors.New("no stream migrated")
	}
	gaps = gaps[len(gaps)-n:]
	// What is to be computed again is, with the echo engine, the pause before the
	// next token.
	beyond := func(q float64) time.Duration { return max(0, quantile(gaps, q)-itl) }
	row(fmt.Sprintf("kill -9 of a worker: gap beyond recompute p50 / p99 (%d streams)", n), "100/500 ms", "%s/%s", short(beyond(0.5)), short(beyond(0.99)))
	return nil
}
