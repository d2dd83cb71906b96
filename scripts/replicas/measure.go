package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/trace"
)

// table is what is printed in the end.
type table struct{ rows [][2]string }

func (t *table) add(what, format string, args ...any) {
	t.rows = append(t.rows, [2]string{what, fmt.Sprintf(format, args...)})
	fmt.Printf("%-44s %s\n", what, t.rows[len(t.rows)-1][1])
}

func (t *table) print() {
	fmt.Printf("\n| measure | value |\n|---|---|\n")
	for _, r := range t.rows {
		fmt.Printf("| %s | %s |\n", r[0], r[1])
	}
}

// chats are sessions of several turns under some dozens of system prompts.
func (o *options) chats() trace.Synth {
	return trace.Synth{
		Seed: o.seed, Duration: o.length, BlockSize: 64, Arrival: trace.Arrival{Process: trace.ArrivalPoisson, Rate: o.rate},
		Tree:  trace.Tree{System: 200, Share: 1, Roots: 40, Depth: 1, Branching: 1, Zipf: 1, Node: trace.Lengths{Median: 1500}},
		Turns: 5, MaxTurns: 20, First: trace.Lengths{Median: 300}, Follow: trace.Lengths{Median: 150}, Output: trace.Lengths{Median: 40},
		Gap: trace.Lengths{Median: 2}, MaxInput: 16_000, Pace: 10 * time.Millisecond,
	}
}

// bursts are documents that nobody has seen before, each with some questions at almost
// the same time: the second comes while the first one's prompt is being computed.
func (o *options) bursts() iter.Seq2[trace.Request, error] {
	const block = 64
	return func(yield func(trace.Request, error) bool) {
		rng := rand.New(rand.NewPCG(o.seed, 2))
		at, n := time.Duration(0), uint64(0)
		var all []trace.Request
		for ; at < o.length; at += time.Duration(rng.ExpFloat64() * burstQuestions / o.rate * float64(time.Second)) {
			var document []uint64
			for range burstBlocks {
				n++
				document = append(document, n)
			}
			for range burstQuestions {
				n++
				all = append(all, trace.Request{
					At: at + time.Duration(rng.Int64N(int64(burstWithin))), Input: (burstBlocks + 1) * block, Output: 20, BlockSize: block,
					Hashes: append(slices.Clip(document), n),
				})
			}
		}
		slices.SortStableFunc(all, func(a, b trace.Request) int { return cmp.Compare(a.At, b.At) })
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// load puts requests on some frontends. Connections are dealt to them in turn, so what
// belongs together goes anywhere.
func (o *options) load(ctx context.Context, urls []string, requests iter.Seq2[trace.Request, error]) (*bench.Result, error) {
	c := bench.DefaultConfig()
	c.URLs, c.Model, c.Completions, c.PromptIDs, c.IgnoreEOS = urls, "mock", true, true, true
	c.Trace, c.Duration, c.Timeout = requests, o.length, time.Minute
	if o.short {
		// Its times would make more of the requests come together on a slow machine.
		c.Concurrency, c.Requests, c.Duration, c.Timeout = chatsAtOnce, shortChats, 0, startTimeout
	}
	return bench.Run(ctx, c)
}

func (o *options) hits(ctx context.Context, dir string, t *table) error {
	s := o.chats()
	if o.short {
		s.Duration, s.Requests, s.Gap, s.Output = 0, shortChats, trace.Lengths{Median: 0.01}, trace.Lengths{Median: shortAnswer}
	}
	if err := s.Validate(); err != nil {
		return err
	}
	return o.compare(ctx, dir, "chats", s.All(), t)
}

func (o *options) burst(ctx context.Context, dir string, t *table) error {
	return o.compare(ctx, dir, "bursts", o.bursts(), t)
}

// compare compares how much of the prompts is found in the caches with one frontend
// and with all.
func (o *options) compare(ctx context.Context, dir, shape string, requests iter.Seq2[trace.Request, error], t *table) error {
	var rates []float64
	for _, n := range []int{1, o.replicas} {
		mocker := []string{"--perf-model=" + o.perf, "--speedup-ratio=" + strconv.FormatFloat(o.speedup, 'g', -1, 64)}
		if o.short { // as little load as it has, one worker could take and keep it all
			mocker = append(mocker, "--num-gpu-blocks-override="+strconv.Itoa(shortBlocks), "--max-num-seqs="+strconv.Itoa(shortRunning))
		}
		c, err := o.newCluster(ctx, filepath.Join(dir, strconv.Itoa(n)), n, mocker...)
		if err == nil {
			var r *bench.Result
			if r, err = o.load(ctx, c.urls(), requests); err == nil {
				rate := float64(r.CachedTokens) / (r.InputTokens.Mean * float64(r.Requests))
				rates = append(rates, rate)
				t.add(fmt.Sprintf("%s, %d frontend(s): hit rate", shape, n), "%.2f %% of %d prompts", 100*rate, r.Requests)
				t.add(fmt.Sprintf("%s, %d frontend(s): TTFT p50, p90, p99", shape, n), "%.0f, %.0f, %.0f ms", 1e3*r.TTFT.P50, 1e3*r.TTFT.P90, 1e3*r.TTFT.P99)
				if len(r.Errors) > 0 {
					err = fmt.Errorf("with %d frontends requests failed: %v, %v", n, r.Errors, r.ErrorDetails)
				}
				if r.Client.Bottleneck {
					t.add("the client was slow", "%s", r.Client.Why)
				}
			}
		}
		c.stop()
		if err != nil {
			return err
		}
	}
	t.add(shape+": hit rate of many over that of one", "%.3f", rates[1]/rates[0])
	if rates[1] < rates[0]-hitMargin {
		return fmt.Errorf("%d frontends find %.2f %% of the prompts' tokens in the caches, one finds %.2f %%", o.replicas, 100*rates[1], 100*rates[0])
	}
	return nil
}

// kill kills a frontend that serves, and has a client send what it lost elsewhere.
func (o *options) kill(ctx context.Context, dir string, t *table) error {
	c, err := o.newCluster(ctx, dir, 3, "--perf-model="+o.perf)
	defer c.stop()
	if err != nil {
		return err
	}
	k := &client{urls: c.urls(), prompt: 500, answer: 300}
	done := make(chan tally, 1)
	go func() { done <- k.run(ctx, killRequests) }() // ends with its requests
	time.Sleep(time.Second)
	if err := c.fronts[0].cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	var sum tally
	select {
	case sum = <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.add("kill -9 of 1 of 3 frontends", "%d requests, %d sent again elsewhere, %d lost", sum.requests, sum.again, len(sum.lost))
	return errors.Join(sum.lost...)
}

// comeBack fills the workers' caches and measures how soon a frontend that returns
// serves, and knows all that they hold.
func (o *options) comeBack(ctx context.Context, dir string, t *table) error {
	per := o.blocks/o.workers + fillTokens + 4096
	if o.short {
		per = o.blocks + 2*fillTokens // few prompts may go anywhere
	}
	c, err := o.newCluster(ctx, dir, 2, "--speedup-ratio=0", "--block-size=1", "--num-gpu-blocks-override="+strconv.Itoa(per))
	defer c.stop()
	if err != nil {
		return err
	}
	began := time.Now()
	k := &client{urls: c.urls(), prompt: fillTokens, answer: 1, distinct: true}
	if sum := k.run(ctx, o.blocks/fillTokens+1); len(sum.lost) > 0 {
		return sum.lost[0]
	}
	var blocks int
	known := func(s *routerState) bool {
		var exact bool
		blocks, exact = s.exact(o.workers)
		return exact && blocks >= o.blocks*9/10
	}
	if err := c.await(ctx, c.fronts[1], known); err != nil {
		return fmt.Errorf("the caches are not full: %d blocks: %w", blocks, err)
	}
	t.add("blocks in the workers' caches", "%d, in %v", blocks, time.Since(began).Round(time.Second))
	if err := c.fronts[1].cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-c.fronts[1].ended
	p, err := c.frontend("front2")
	if err != nil {
		return err
	}
	c.fronts[1] = p
	served := make(chan time.Duration, 1)
	go func() { served <- p.firstAnswer(ctx) }() // ends with its answer or ctx
	if err := c.await(ctx, p, known); err != nil {
		return fmt.Errorf("after the return: %d blocks: %w", blocks, err)
	}
	exact := time.Since(p.began)
	t.add("a frontend returns: its first answer", "%v after its process began", (<-served).Round(time.Millisecond))
	t.add("a frontend returns: exact", "%v after its process began, %d blocks", exact.Round(time.Millisecond), blocks)
	blocks, mended, err := c.settle(ctx)
	if err != nil {
		return err
	}
	t.add("all frontends know the same, by the digests", "%d blocks", blocks)
	if slices.ContainsFunc(mended, func(r repairs) bool { return r != repairs{} }) {
		return fmt.Errorf("an index was wrong and has been mended (in place and anew: %v) though nothing was lost: %s", mended, tail(p.log))
	}
	if exact > returnMax && !o.short {
		return fmt.Errorf("it took %v to know all caches, more than %v", exact, returnMax)
	}
	return nil
}
