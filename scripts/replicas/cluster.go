package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cluster is a set of processes of this machine.
type cluster struct {
	o      *options
	dir    string
	fronts []*process
	all    []*process
}

// process is one child; ended is closed when it has.
type process struct {
	name, log, addr string
	cmd             *exec.Cmd
	began           time.Time
	ended           chan struct{}
}

// start runs dynamo with arguments of its own and those that all have.
func (c *cluster) start(name, command string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(c.dir, name+".log"), addr: filepath.Join(c.dir, name+".addr"), ended: make(chan struct{})}
	_ = os.Remove(p.addr) // of a process before
	run := filepath.Join(c.dir, "run")
	args = append([]string{command, "--run-dir=" + run, "--state-dir=" + run, "--discovery-backend=file:" + run, "--log=warn"}, args...)
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(c.o.binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.all = append(c.all, p)
	go func() { // ends with the process
		_ = p.cmd.Wait() // how it ended does not matter
		close(p.ended)
	}()
	return p, nil
}

// newCluster starts the workers and n frontends, and waits until each has connections
// to all workers.
func (o *options) newCluster(ctx context.Context, dir string, n int, mocker ...string) (*cluster, error) {
	c := &cluster{o: o, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := append([]string{"--model-path=" + o.model, "--model-name=mock", "--num-workers=" + strconv.Itoa(o.workers), "--max-model-len=131072"}, mocker...)
	if _, err := c.start("mocker", "mocker", args...); err != nil {
		return c, err
	}
	for i := range n {
		p, err := c.frontend("front" + strconv.Itoa(i+1))
		if err != nil {
			return c, err
		}
		c.fronts = append(c.fronts, p)
	}
	for _, p := range c.fronts {
		if err := c.await(ctx, p, func(s *routerState) bool { return s.up() == o.workers && p.ready(ctx) }); err != nil {
			return c, err
		}
	}
	return c, nil
}

// settle waits until each frontend knows all workers' caches and all know the same,
// and until that, and how often they have mended their indexes, has stayed so for as
// long as a worker's digest may take to be told and compared: then they hold what the
// workers hold. It returns how many blocks that is.
func (c *cluster) settle(ctx context.Context) (blocks int, mended []repairs, err error) {
	var same map[string]int
	var since time.Time
	for until := time.Now().Add(startTimeout); ; {
		now, counts, err := c.look(ctx)
		switch {
		case err != nil:
			return 0, nil, err
		case len(now) < c.o.workers || !maps.Equal(now, same) || !slices.Equal(counts, mended):
			same, mended, since = now, counts, time.Now()
		case time.Since(since) > digestWithin:
			for _, n := range now {
				blocks += n
			}
			return blocks, mended, nil
		}
		select {
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		case <-time.After(settleEvery):
		}
		if time.Now().After(until) {
			return 0, nil, fmt.Errorf("after %v the frontends do not all know the same of all workers; repairs: %v", startTimeout, counts)
		}
	}
}

// look asks all frontends what they know, nil if not all know the same, and how often
// each has mended its index.
func (c *cluster) look(ctx context.Context) (same map[string]int, mended []repairs, err error) {
	for i, p := range c.fronts {
		s, err := p.state(ctx)
		if err != nil {
			return nil, nil, err
		}
		n, err := p.repairs(ctx)
		if err != nil {
			return nil, nil, err
		}
		mended = append(mended, n)
		if known := s.known(); i == 0 {
			same = known
		} else if !maps.Equal(same, known) {
			same = map[string]int{}
		}
	}
	return same, mended, nil
}

func (c *cluster) frontend(name string) (*process, error) {
	addr := filepath.Join(c.dir, name+".addr")
	return c.start(name, "frontend", "--http-port=0", "--addr-file="+addr, "--router-mode="+c.o.modes)
}

// stop ends all processes.
func (c *cluster) stop() {
	for _, p := range c.all {
		_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	}
	late := time.After(stopTimeout)
	for _, p := range c.all {
		select {
		case <-p.ended:
		case <-late:
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
}

// urls lists the frontends' addresses.
func (c *cluster) urls() (all []string) {
	for _, p := range c.fronts {
		all = append(all, p.url())
	}
	return all
}

// routerState is what is read of GET /v1/router.
type routerState struct {
	Routers []struct {
		Booked int `json:"booked"`
		Index  struct {
			Blocks int `json:"blocks"`
		} `json:"index"`
		Workers []struct {
			ID     string `json:"id"`
			State  string `json:"state"`
			Cache  string `json:"cache"`
			Blocks int    `json:"blocks"`
		} `json:"workers"`
	} `json:"routers"`
}

func (s *routerState) up() (n int) {
	for _, r := range s.Routers {
		for _, w := range r.Workers {
			if w.State == "up" {
				n++
			}
		}
	}
	return n
}

// exact reports whether n workers' caches are known, with so many blocks.
func (s *routerState) exact(n int) (blocks int, exact bool) {
	for _, r := range s.Routers {
		blocks += r.Index.Blocks
		for _, w := range r.Workers {
			if w.Cache == "exact" {
				n--
			}
		}
	}
	return blocks, n == 0
}

// known lists how many blocks each worker is known to hold; a worker whose cache is not
// known exactly is not in it.
func (s *routerState) known() map[string]int {
	all := map[string]int{}
	for _, r := range s.Routers {
		for _, w := range r.Workers {
			if w.Cache == "exact" {
				all[w.ID] = w.Blocks
			}
		}
	}
	return all
}

// await waits until a frontend's state is as it should be.
func (c *cluster) await(ctx context.Context, p *process, ok func(*routerState) bool) error {
	for until := time.Now().Add(startTimeout); ; {
		s, err := p.state(ctx)
		if err == nil && ok(s) {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name, tail(p.log))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookEvery):
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s is not as it should be after %v (%w): %s", p.name, startTimeout, err, tail(p.log))
		}
	}
}

// url is a frontend's address; empty until it has told it.
func (p *process) url() string {
	b, err := os.ReadFile(p.addr)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "http://" + strings.TrimSpace(string(b))
}

var errNoAddress = errors.New("it has not told its address")

// state asks a frontend what its routers know.
func (p *process) state(ctx context.Context) (*routerState, error) {
	url := p.url()
	if url == "" {
		return nil, errNoAddress
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/router", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var s routerState
	return &s, json.NewDecoder(resp.Body).Decode(&s)
}

// repairs says how often a frontend has mended its index in place, and how often it has
// begun a worker's cache anew.
type repairs struct{ inPlace, anew int }

// repairs reads them from the frontend's metrics.
func (p *process) repairs(ctx context.Context) (r repairs, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url()+"/metrics", nil)
	if err != nil {
		return r, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case `dynamo_router_index_repairs_total{outcome="repaired"}`:
			r.inPlace, err = strconv.Atoi(value)
		case `dynamo_router_index_repairs_total{outcome="anew"}`:
			r.anew, err = strconv.Atoi(value)
		}
		if err != nil {
			return r, err
		}
	}
	return r, lines.Err()
}

// ready asks a frontend whether it serves.
func (p *process) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url()+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// tail is the end of a log.
func tail(path string) string {
	b, _ := os.ReadFile(path) // what cannot be read says nothing
	return string(b[max(0, len(b)-1000):])
}

// listed reports whether name is in a list separated by commas.
func listed(list, name string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(part) == name {
			return true
		}
	}
	return false
}
