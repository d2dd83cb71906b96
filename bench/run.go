package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"crypto/tls"
)

// runner is what the phases of a run share.
type runner struct {
	cfg     *Config
	dialer  *dialer
	targets []*target
	bodies  *bodies
	alarm   alarm
	mu      struct {
		sync.Mutex
		idle  []*conn
		dealt int
	}
}

// errLimit is why a run ends at MaxErrors.
var errLimit = errors.New("--max-errors was exceeded")

// Run puts the load of c on its endpoint and returns what it measured. It blocks
// until the run is over. When ctx ends, open requests are cut and the result is
// Partial, without an error; an error means that there is no result.
func Run(ctx context.Context, c Config) (*Result, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &runner{cfg: &c, dialer: &dialer{dial: c.Dial, tls: c.TLS, quickAck: c.QuickAck}}
	if r.alarm = (timers{}); r.dialer.dial == nil { // else time may be the caller's as well
		r.dialer.dial, r.alarm = (&net.Dialer{}).DialContext, newAlarm()
	}
	defer r.alarm.close()
	if r.dialer.tls == nil {
		r.dialer.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	headers := slices.Clone(c.Headers)
	if c.APIKey != "" {
		headers = append(headers, "Authorization: Bearer "+c.APIKey)
	}
	for _, u := range c.URLs {
		t, err := newTarget(u, c.path(), headers)
		if err != nil {
			return nil, err
		}
		r.targets = append(r.targets, t)
	}
	var err error
	if r.bodies, err = newBodies(&c); err != nil {
		return nil, err
	}
	defer r.closeIdle()
	if c.WarmUp > 0 {
		if err := r.warmUp(ctx); err != nil {
			return nil, err
		}
	}
	return r.measure(ctx)
}

// warmUp sends requests that are not measured. That all of them fail ends the run:
// nothing would come of it.
func (r *runner) warmUp(ctx context.Context) error {
	c := *r.cfg
	c.Requests, c.Duration, c.RampUp, c.CancelRate, c.Goodput, c.MaxErrors = c.WarmUp, 0, 0, 0, nil, 0
	c.Concurrency = min(max(c.Concurrency, 16), c.WarmUp)
	if r.cfg.Concurrency > 0 {
		c.Concurrency = min(r.cfg.Concurrency, c.WarmUp)
	}
	p := &phase{runner: r, cfg: &c, mode: modeClosed, warm: true, offset: 1 << 40}
	p.run(ctx)
	var res Result
	p.meter.result(&res)
	if res.Requests == 0 && ctx.Err() == nil {
		class, detail := "", ""
		for class, detail = range res.ErrorDetails {
			break
		}
		return fmt.Errorf("warm-up: all %d requests failed; the first %s: %s", c.WarmUp, class, detail)
	}
	return nil
}

// measure is the measured phase.
func (r *runner) measure(ctx context.Context) (*Result, error) {
	c := r.cfg
	p := &phase{runner: r, cfg: c, mode: c.mode()}
	processes, err := readProcesses(c.PIDs)
	if err != nil {
		return nil, err
	}
	before := ownCPU()
	started := time.Now()
	p.run(ctx)
	wall := time.Since(started)
	used := ownCPU() - before
	if p.err != nil {
		return nil, p.err
	}
	res := &Result{Started: started, Config: maps.Clone(c.Settings), Version: c.Version, Machine: machine()}
	p.meter.result(res)
	res.Client.CPUSeconds = used.Seconds()
	if wall > 0 {
		res.Client.CPUShare = used.Seconds() / wall.Seconds() / float64(runtime.GOMAXPROCS(0))
	}
	p.judge(res)
	switch cause := context.Cause(p.soft); {
	case ctx.Err() != nil:
		res.Partial = context.Cause(ctx).Error()
	case errors.Is(cause, errLimit):
		res.Partial = cause.Error()
	}
	if res.Processes, err = processesSince(c.PIDs, processes); err != nil {
		res.Partial = strings.TrimPrefix(res.Partial+"; "+err.Error(), "; ")
	}
	return res, nil
}

// judge says whether the client limited the run.
func (p *phase) judge(r *Result) {
	var why []string
	if r.Client.CPUShare > busyShare {
		why = append(why, fmt.Sprintf("it used %.0f %% of its processors' time", 100*r.Client.CPUShare))
	}
	if late := r.Client.LateP99; late > lateMax {
		why = append(why, fmt.Sprintf("1 in 100 requests was sent %v or more after it was due", late.Round(time.Microsecond)))
	}
	if n := p.blocked; n > 0 {
		why = append(why, fmt.Sprintf("%d requests waited for one of the %d connections (--connections)", n, p.cfg.Connections))
	}
	r.Client.Bottleneck, r.Client.Why = len(why) > 0, strings.Join(why, "; ")
}

// conn returns an idle connection, or one to make.
func (r *runner) conn(start time.Time) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.mu.idle); n > 0 {
		c := r.mu.idle[n-1]
		r.mu.idle = r.mu.idle[:n-1]
		c.start = start
		return c
	}
	t := r.targets[r.mu.dealt%len(r.targets)]
	r.mu.dealt++
	return newConn(r.dialer, t, start)
}

func (r *runner) release(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.idle = append(r.mu.idle, c)
}

func (r *runner) closeIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.mu.idle {
		c.close()
	}
}
