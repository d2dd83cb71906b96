// Command crowd measures a process with many mock workers: it starts `dynamo
// worker --engine mocker --num-workers N`, keeps R requests of each worker in
// progress over the request plane, without a frontend, and prints what the process
// uses. `go run ./scripts/crowd -dynamo BINARY -model FOLDER`.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

type options struct {
	binary, model, flags      string
	workers, requests         int
	prompt, answer, perSecond int
	length                    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.binary, "dynamo", "dynamo", "the binary to measure")
	flag.StringVar(&o.model, "model", "", "folder whose tokenizer is used")
	flag.StringVar(&o.flags, "flags", "", "further flags of the worker, separated by spaces")
	flag.IntVar(&o.workers, "workers", 1000, "mock workers in the process")
	flag.IntVar(&o.requests, "requests", 8, "requests in progress at each")
	flag.IntVar(&o.prompt, "prompt", 1000, "tokens of a prompt")
	flag.IntVar(&o.answer, "answer", 200, "tokens of an answer")
	flag.IntVar(&o.perSecond, "rate", 100_000, "tokens a second of all together")
	flag.DurationVar(&o.length, "time", 30*time.Second, "how long to measure")
	flag.Parse()
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

// run starts the process, loads it and prints the figures.
func (o *options) run() error {
	dir, err := os.MkdirTemp("", "crowd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	model := filepath.Join(dir, "times.json")
	step := float64(o.workers*o.requests) / float64(o.perSecond)
	times := fmt.Sprintf(`{"format":"dynamo-perfmodel/1","name":"steady","closed_form":{"prefill_fixed_seconds":%g,"prefill_seconds_per_token":0,"prefill_seconds_per_token_pair":0,"decode_fixed_seconds":%g,"decode_seconds_per_sequence":0,"decode_seconds_per_kv_token":0}}`, step, step)
	if err := os.WriteFile(model, []byte(times), 0o600); err != nil {
		return err
	}
	began := time.Now()
	p, err := o.start(dir, model)
	if err != nil {
		return err
	}
	defer p.stop()
	idle, err := p.usage()
	if err != nil {
		return err
	}
	fmt.Printf("%d workers ready after %.1f s, %.1f CPU-s: %d MiB\n", o.workers, time.Since(began).Seconds(), idle.cpu.Seconds(), idle.rss>>20)
	return o.load(p, dir)
}

// process is the one that is measured.
type process struct{ cmd *exec.Cmd }

func (o *options) start(dir, times string) (*process, error) {
	args := append([]string{"worker", o.model, "--engine=mocker", "--num-workers=" + strconv.Itoa(o.workers), "--model-name=mock",
		"--perf-model=" + times, "--run-dir=" + dir, "--state-dir=" + dir, "--discovery-backend=file:" + dir, "--log=error", "--context-length=32768", "--drain-timeout=0s"}, strings.Fields(o.flags)...)
	cmd := exec.Command(o.binary, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready: ") {
			return &process{cmd}, nil
		}
	}
	return nil, errors.Join(errors.New("the workers ended before they were ready"), cmd.Wait())
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	_ = p.cmd.Wait()                          // what was measured is printed
}

// use is what a process has used so far, and its memory.
type use struct {
	cpu  time.Duration
	rss  int64
	peak int64
}

// usage reads /proc.
func (p *process) usage() (u use, err error) {
	base := "/proc/" + strconv.Itoa(p.cmd.Process.Pid)
	b, err := os.ReadFile(base + "/stat")
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	for _, f := range fields[11:13] { // utime and stime, in ticks of 10 ms
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	if b, err = os.ReadFile(base + "/status"); err != nil {
		return u, err
	}
	for line := range strings.Lines(string(b)) {
		for name, into := range map[string]*int64{"VmRSS:": &u.rss, "VmHWM:": &u.peak} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				if _, err := fmt.Sscan(rest, into); err != nil {
					return u, err
				}
				*into <<= 10
			}
		}
	}
	return u, nil
}

// load keeps the workers busy and prints what that takes.
func (o *options) load(p *process, dir string) error {
	c := discovery.DefaultConfig()
	store, err := discovery.Open("file:"+dir, c)
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := store.(*discovery.File).ClusterKey()
	if err != nil {
		return err
	}
	rc := rpc.DefaultConfig()
	rc.Key = key
	client, err := rpc.NewClient(rc)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var tokens, answers, failed atomic.Int64
	n := 0
	for u := range store.Watch(ctx, discovery.Path{Namespace: "dynamo", Component: "backend", Endpoint: "generate"}) {
		for _, i := range u.Instances {
			peer := client.Peer(rpc.PeerConfig{Addresses: i.Addresses, Worker: i.ID, Epoch: i.Epoch})
			all.Go(func() { _ = peer.Run(ctx) }) // its error is that ctx has ended
			e := remote.New(peer, i.Card.Card, remote.Config{Worker: i.ID, Epoch: i.Epoch})
			for r := range o.requests {
				all.Go(func() { o.ask(ctx, peer, e, n*o.requests+r, &tokens, &answers, &failed) })
			}
			n++
		}
		if n >= o.workers {
			break
		}
	}
	time.Sleep(o.length / 3) // until all are in step
	before, err := p.usage()
	if err != nil {
		return err
	}
	began, first := time.Now(), tokens.Load()
	time.Sleep(o.length)
	after, err := p.usage()
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	fmt.Printf("%d workers × %d requests of %d + %d tokens: %.0f tokens/s, %.2f cores, %d MiB (peak %d), %d answers, %d failed\n",
		o.workers, o.requests, o.prompt, o.answer, float64(tokens.Load()-first)/took, (after.cpu-before.cpu).Seconds()/took, after.rss>>20, after.peak>>20, answers.Load(), failed.Load())
	return nil
}

// ask keeps one request in progress at a worker until ctx ends.
func (o *options) ask(ctx context.Context, peer *rpc.Peer, e *remote.Engine, number int, tokens, answers, failed *atomic.Int64) {
	if peer.Wait(ctx) != nil {
		return
	}
	// Answers begin at different times.
	wait := time.NewTimer(time.Duration(number*7919%1000) * o.length / 4000)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return
	}
	prompt := make([]dynamo.TokenID, o.prompt)
	for turn := 0; ctx.Err() == nil; turn++ {
		for i := range prompt {
			prompt[i] = dynamo.TokenID((number*31 + turn*17 + i*i) % 250)
		}
		r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprintf("%d-%d", number, turn)), Model: "mock", Tokens: prompt, MaxTokens: o.answer, IgnoreEOS: true}
		for chunk, err := range e.Generate(ctx, r) {
			if err != nil && ctx.Err() == nil {
				if failed.Add(1) == 1 {
					fmt.Fprintln(os.Stderr, "crowd: the first failure:", err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			tokens.Add(int64(len(chunk.Tokens)))
		}
		answers.Add(1)
	}
}
