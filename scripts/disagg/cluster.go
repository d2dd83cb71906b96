package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// served is the name that the model is served under.
const served = "model"

// cluster is a frontend and its workers. One goroutine at a time changes it.
type cluster struct {
	o        *options
	dir, url string
	frontend *process
	workers  []*process
	started  int
	kv       counts // by outcome, of workers that were asked
}

// counts are numbers with names.
type counts map[string]int

// String lists those that are not zero.
func (c counts) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if c[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, c[name]))
		}
	}
	return strings.Join(list, ", ")
}

// process is a child; a goroutine waits for it and closes ended.
type process struct {
	cmd        *exec.Cmd
	role, log  string
	url        string // of its metrics, or empty
	ended      chan struct{}
	readyLines chan string
}

// startCluster starts a frontend and a worker for each role, and waits for them. What it
// returns is to be stopped, also with an error.
func startCluster(ctx context.Context, o *options, name string, roles ...string) (*cluster, error) {
	c := &cluster{o: o, dir: filepath.Join(o.work, name), kv: counts{}}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return c, err
	}
	addr := filepath.Join(c.dir, "frontend.addr")
	var err error
	if c.frontend, err = c.spawn("frontend", append([]string{"frontend", "--http-port=0", "--addr-file=" + addr, "--migration-limit=20", "--disaggregation=" + o.split}, c.flags()...)...); err != nil {
		return c, err
	}
	if _, err := c.frontend.ready(ctx); err != nil {
		return c, err
	}
	b, err := os.ReadFile(addr)
	if err != nil {
		return c, err
	}
	c.url = "http://" + strings.TrimSpace(string(b))
	for _, role := range roles {
		if err := c.add(ctx, role); err != nil {
			return c, err
		}
	}
	return c, c.answers(ctx)
}

func (c *cluster) flags() []string {
	return []string{"--discovery-backend=file", "--run-dir=" + filepath.Join(c.dir, "run"), "--state-dir=" + filepath.Join(c.dir, "state")}
}

// answers waits until a request is answered.
func (c *cluster) answers(ctx context.Context) error {
	r, a := request{marshal(map[string]any{"prompt": "hello", "max_tokens": 1})}, answer{}
	var err error
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if err = c.ask(ctx, http.DefaultClient, &r, &a); err == nil {
			return nil
		}
	}
	return errors.Join(err, context.Cause(ctx))
}

// add starts a worker and waits until it is ready.
func (c *cluster) add(ctx context.Context, role string) error {
	c.started++
	args := append([]string{"worker", c.o.model, "--model-name=" + served, "--threads=1", "--kv-cache-bytes=64MiB", "--context-length=2048", "--step-tokens=64",
		"--disaggregation-mode=" + role, "--kv-transfer=" + c.o.transfer, "--drain-timeout=" + drainTime.String(), "--system-port=0"}, c.flags()...)
	p, err := c.spawn(fmt.Sprintf("%s-%d", role, c.started), args...)
	if err != nil {
		return err
	}
	p.role = role
	c.workers = append(c.workers, p)
	_, err = p.ready(ctx)
	return err
}

// spawn starts the program, whose output is appended to a log.
func (c *cluster) spawn(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(c.o.bin, args...), log: filepath.Join(c.dir, name+".log"), ended: make(chan struct{}), readyLines: make(chan string, 2)}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "$ %s %s\n", c.o.bin, strings.Join(args, " "))
	p.cmd.Stderr = out
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	go func() { // ends with the process
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(out, lines.Text())
			if strings.HasPrefix(lines.Text(), "ready") || strings.HasPrefix(lines.Text(), "look:") {
				select {
				case p.readyLines <- lines.Text():
				default:
				}
			}
		}
		_, _ = io.Copy(out, stdout)
		_ = p.cmd.Wait() // the state says how it ended
		out.Close()
		close(p.ended)
	}()
	return p, nil
}

// ready waits for the ready line, and where metrics are served for the line that says so.
func (p *process) ready(ctx context.Context) (line string, err error) {
	for range 2 {
		select {
		case line = <-p.readyLines:
		case <-p.ended:
			b, _ := os.ReadFile(p.log) // for the message
			return "", fmt.Errorf("a process ended before it was ready: %s", b[max(0, len(b)-600):])
		case <-time.After(startTimeout):
			return "", fmt.Errorf("a process was not ready within %v: %s", startTimeout, p.log)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if url, ok := strings.CutPrefix(line, "look:  curl "); ok {
			p.url, _, _ = strings.Cut(url, "/health")
			return line, nil
		}
		if !slices.Contains(p.cmd.Args, "--system-port=0") {
			return line, nil
		}
	}
	return line, nil
}

func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// disturbance is what was done to workers.
type disturbance struct {
	killed  counts
	drained int
	stopped int
	err     error
}

// disturb kills and drains workers in turn, and starts others in their place, until calm is
// closed.
func (c *cluster) disturb(ctx context.Context, calm <-chan struct{}) (d disturbance) {
	d.killed = counts{}
	r := rand.New(rand.NewPCG(c.o.seed, 2))
	kinds := strings.FieldsFunc(c.o.faults, func(r rune) bool { return r == ',' })
	for turn := 0; len(kinds) > 0; turn++ {
		select {
		case <-calm:
			return d
		case <-time.After(c.o.every/2 + time.Duration(r.Int64N(int64(c.o.every)))):
		}
		i := r.IntN(len(c.workers))
		w := c.workers[i]
		if role := []string{"prefill", "decode"}[turn%2]; w.role != role {
			i = slices.IndexFunc(c.workers, func(p *process) bool { return p.role == role })
			w = c.workers[i]
		}
		c.collect(ctx, w)
		c.workers = slices.Delete(c.workers, i, i+1)
		d.add(w, kinds[turn/2%len(kinds)])
		if err := c.add(ctx, w.role); err != nil {
			d.err = errors.Join(d.err, err)
			return d
		}
	}
	return d
}

// add does one thing to a worker, after which that is gone.
func (d *disturbance) add(w *process, kind string) {
	switch kind {
	case "drain":
		w.signal(syscall.SIGTERM)
		d.drained++
		select {
		case <-w.ended:
		case <-time.After(stopTimeout):
			d.err = errors.Join(d.err, fmt.Errorf("a worker that drains did not end within %v: %s", stopTimeout, w.log))
		}
	case "stop":
		w.signal(syscall.SIGSTOP)
		d.stopped++
		time.Sleep(silence)
	default:
		d.killed[w.role]++
	}
	w.signal(syscall.SIGKILL)
	<-w.ended
}

// stop ends every process.
func (c *cluster) stop() {
	all := c.workers
	if c.frontend != nil {
		all = append(slices.Clip(all), c.frontend)
	}
	for _, p := range all {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range all {
		<-p.ended
	}
}

// collect adds what workers say of the KV that they gave and took.
func (c *cluster) collect(ctx context.Context, workers ...*process) {
	for _, w := range workers {
		m, err := scrape(ctx, w.url)
		if err != nil {
			continue // it may be going
		}
		for name, n := range m {
			if outcome, ok := strings.CutPrefix(name, `dynamo_native_takeovers_total{outcome="`); ok {
				c.kv[strings.TrimSuffix(outcome, `"}`)] += int(n)
			}
		}
		c.kv["given"] += int(m["dynamo_native_handovers_total"])
		c.kv["kilobytes"] += int(m["dynamo_native_handover_bytes_total"] / 1000)
		for path := range strings.SplitSeq("local shm tcp", " ") {
			c.kv["transfers by "+path] += int(m[`dynamo_transfer_transfers_total{op="read",path="`+path+`"}`])
		}
	}
}

// frontendCounts says by which path requests were served.
func (c *cluster) frontendCounts(ctx context.Context) (counts, error) {
	m, err := scrape(ctx, c.url)
	if err != nil {
		return nil, err
	}
	n := counts{}
	for name, v := range m {
		if path, ok := strings.CutPrefix(name, `dynamo_disagg_requests_total{path="`); ok {
			n[strings.TrimSuffix(path, `"}`)] = int(v)
		}
		if class, ok := strings.CutPrefix(name, `dynamo_engine_migrated_requests_total{class="`); ok {
			n["migrated "+strings.NewReplacer(`",outcome="`, ", ", `"}`, "").Replace(class)] = int(v)
		}
	}
	return n, nil
}

// idle waits until no worker keeps KV for anybody.
func (c *cluster) idle(ctx context.Context) (err error) {
	for deadline := time.Now().Add(idleTimeout); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		err = nil
		for _, w := range c.workers {
			m, e := scrape(ctx, w.url)
			if used := m["dynamo_engine_kv_blocks_used"] + m["dynamo_engine_requests_running"]; e != nil || used > 0 {
				err = errors.Join(err, e, fmt.Errorf("a %s worker holds %v blocks or requests", w.role, used))
			}
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// strand stops the frontend (SIGSTOP) while requests are under way, has it go on, and kills
// it. It says how long it took each time until no worker held anything for them.
func (c *cluster) strand(ctx context.Context, requests []request) (stopped, killed time.Duration, err error) {
	asked := make(chan struct{})
	go func() { // ends with the frontend
		defer close(asked)
		_, _ = c.askAll(ctx, requests) // whose end is its error
	}()
	reclaimed := func(s syscall.Signal) time.Duration {
		time.Sleep(strandAfter)
		began := time.Now()
		c.frontend.signal(s)
		if e := c.idle(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("after %v of the frontend: %w", s, e))
		}
		return time.Since(began)
	}
	stopped = reclaimed(syscall.SIGSTOP)
	c.frontend.signal(syscall.SIGCONT)
	err = errors.Join(err, c.answers(ctx))
	killed = reclaimed(syscall.SIGKILL)
	<-c.frontend.ended
	<-asked
	return stopped, killed, err
}

// scrape reads metrics.
func scrape(ctx context.Context, url string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	m := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(response.Body, maxBody))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && name != "#" && err == nil {
			m[name] = n
		}
	}
	return m, lines.Err()
}
