package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
)

// Cluster is a set of processes on an in-memory network. It lives in a synctest
// bubble.
type Cluster struct {
	shape   Shape
	net     *testnet.Network
	store   *discovery.Mem
	keyFile string
	model   string // folder
	log     *slog.Logger
	// Sabotage changes a node's configuration, to show that the checks find it.
	Sabotage func(*node.Config)

	mu struct {
		sync.Mutex
		processes map[string]*process // by host
		all       []*process
		problems  []error
		// eventsLost counts the KV events that frontends lost without noticing.
		eventsLost int
	}
}

// process is one life of a node.
type process struct {
	host    string
	stop    context.CancelFunc
	done    chan struct{}
	tether  *tether
	started chan struct{}
	mocker  atomic.Pointer[mocker.Engine]           // nil with an echo engine
	routers atomic.Pointer[func() []*router.Router] // of a frontend that serves
	losses  losses
}

// tether is a process's hold on the store: it breaks when the process is killed,
// so that what a dying node still does never reaches the store.
type tether struct {
	discovery.Store
	mem *discovery.Mem
	mu  struct {
		sync.Mutex
		cut bool
	}
}

func (t *tether) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.cut = true
}

func (t *tether) isCut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.cut
}

// Register implements discovery.Store.
func (t *tether) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	if t.isCut() {
		return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "this process was killed"}
	}
	r, err := t.Store.Register(ctx, i)
	if err != nil {
		return nil, err
	}
	return &tetheredRegistration{r, t}, nil
}

// Close keeps the store: it is shared.
func (t *tether) Close() error { return nil }

type tetheredRegistration struct {
	discovery.Registration
	t *tether
}

// Update implements discovery.Registration.
func (r *tetheredRegistration) Update(ctx context.Context, i discovery.Instance) error {
	if r.t.isCut() {
		return nil
	}
	return r.Registration.Update(ctx, i)
}

// Close implements discovery.Registration. A killed process's lease runs out
// instead.
func (r *tetheredRegistration) Close() error {
	if r.t.isCut() {
		return nil
	}
	return r.Registration.Close()
}

// problem notes a broken law.
func (c *Cluster) problem(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.problems = append(c.mu.problems, err)
}

// start runs a process on a host: "front…" is a frontend, "w…" a worker.
func (c *Cluster) start(host string) error {
	h := c.net.Host(host)
	p := &process{host: host, done: make(chan struct{}), started: make(chan struct{}), tether: &tether{Store: c.store, mem: c.store}}
	cfg := node.DefaultConfig()
	cfg.Engine, cfg.ModelPath, cfg.ModelName, cfg.EchoITL = node.EngineEcho, c.model, modelName, c.shape.ITL
	cfg.DrainTimeout, cfg.Logger = 500*time.Millisecond, c.log.With("host", host)
	cfg.Cluster.Store, cfg.Cluster.Dial, cfg.Cluster.KeyFile = p.tether, h.Dial, c.keyFile
	cfg.Cluster.Connections, cfg.Cluster.Routing.Mode = c.shape.Connections, c.shape.RouterMode
	if c.shape.Split != "" {
		cfg.Cluster.Routing.Split = c.shape.Split
	}
	cfg.Cluster.MigrationLimit, cfg.Cluster.WorkerWait = 50, 30*time.Second
	cfg.Ready = func(node.Ready) { close(p.started) }
	var l net.Listener
	var err error
	if host[0] == 'f' {
		cfg.Role, cfg.DrainTimeout = node.RoleFrontend, 10*time.Second
		cfg.MaxRunning, cfg.MaxQueue = frontRunning, frontQueue
		cfg.Cluster.Routers = func(all func() []*router.Router) { p.routers.Store(&all) }
		cfg.Cluster.Tap = func(s event.SubscribeFunc) event.SubscribeFunc { return c.tap(p, s) }
		l, err = h.Listen(host + ":80")
		cfg.Listener = l
	} else {
		cfg.Role, cfg.MaxRunning, cfg.MaxQueue = node.RoleWorker, maxRunning, maxQueue
		n, _ := strconv.Atoi(host[1:]) // hosts are named so
		if c.shape.Mocker {
			c.shape.mock(&cfg, p, n)
		}
		cfg.Worker.ID = dynamo.WorkerID(n)
		l, err = h.Listen(host + ":7000")
		cfg.Worker.Listeners = []net.Listener{l}
	}
	if err != nil {
		return err
	}
	if c.Sabotage != nil {
		c.Sabotage(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	c.mu.Lock()
	c.mu.processes[host] = p
	c.mu.all = append(c.mu.all, p)
	c.mu.Unlock()
	go c.run(ctx, p, n) // ends with p.stop; stopAll waits for it
	return nil
}

func (c *Cluster) run(ctx context.Context, p *process, n *node.Node) {
	defer close(p.done)
	err := n.Run(ctx)
	if err == nil && ctx.Err() == nil {
		err = errors.New("it ended by itself")
	}
	if err != nil && !p.tether.isCut() {
		c.problem(fmt.Errorf("I6: the process on %s: %w", p.host, err))
	}
}

func (c *Cluster) process(host string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.processes[host]
}

// inflict carries a fault out, with its end.
func (c *Cluster) inflict(f Fault) {
	c.log.Info("fault", "fault", f.String())
	switch f.Kind {
	case Delay:
		c.net.Delay(f.A, f.B, f.For)
		c.net.Delay(f.B, f.A, f.For)
	case Reset:
		c.net.Reset(f.A, f.B)
	case Partition, OneWay:
		c.net.Partition(f.A, f.B)
		if f.Kind == Partition {
			c.net.Partition(f.B, f.A)
		}
		time.Sleep(f.For)
		c.net.Heal(f.A, f.B)
	case Pause:
		c.net.Pause(f.A)
		time.Sleep(f.For)
		c.net.Resume(f.A)
	case Lose:
		c.lose(f.A, f.B)
	case StoreDown:
		c.store.SetDown(true)
		time.Sleep(f.For)
		c.store.SetDown(false)
	case Kill, Drain:
		c.end(f)
	}
	c.log.Info("fault over", "fault", f.String())
}

// end ends a host's process and starts another one. Of two ends that overlap the
// second finds nobody.
func (c *Cluster) end(f Fault) {
	c.mu.Lock()
	p := c.mu.processes[f.A]
	delete(c.mu.processes, f.A)
	c.mu.Unlock()
	if p == nil {
		return
	}
	if f.Kind == Kill {
		p.tether.cut()
		c.net.Kill(f.A)
		if n, err := strconv.Atoi(f.A[1:]); err == nil && f.A[0] == 'w' {
			time.AfterFunc(leaseTTL, func() { c.store.Expire(dynamo.WorkerID(n)) })
		}
	}
	if f.Kind == Drain {
		c.net.Resume(f.A) // a stopped process hears of SIGTERM when it goes on
	}
	p.stop()
	<-p.done
	time.Sleep(f.For)
	if f.A[0] == 'w' && f.Kind == Kill {
		time.Sleep(leaseTTL) // the name is taken until then
	}
	c.net.Resume(f.A) // a stop was the old process's
	if err := c.start(f.A); err != nil {
		c.problem(fmt.Errorf("start %s again: %w", f.A, err))
	}
}

// stopAll ends every process, frontends first, and waits for them (I6).
func (c *Cluster) stopAll() {
	c.mu.Lock()
	all := c.mu.all
	c.mu.Unlock()
	late := time.NewTimer(settle)
	defer late.Stop()
	for _, kind := range []byte{'f', 'w'} {
		for _, p := range all {
			if p.host[0] == kind {
				p.stop()
			}
		}
		for _, p := range all {
			if p.host[0] != kind {
				continue
			}
			select {
			case <-p.done:
			case <-late.C:
				c.problem(fmt.Errorf("I6: the process on %s does not end", p.host))
				return
			}
		}
	}
	c.net.HealAll()
	time.Sleep(time.Second) // what the last of them sent may be under way
	if n := c.net.Connections(); n > 0 {
		c.problem(fmt.Errorf("I6: %d connections are left after the end", n))
	}
}

// awaitReady waits until every process serves and every frontend has the model.
func (c *Cluster) awaitReady(ctx context.Context, client *http.Client) error {
	for _, p := range c.mu.all {
		select {
		case <-p.started:
		case <-p.done:
			return fmt.Errorf("the process on %s ended before it served", p.host)
		}
	}
	for i := range c.shape.Frontends {
		for {
			status, _, err := get(ctx, client, fmt.Sprintf("http://front%d:80/ready", i+1))
			if err != nil {
				return err
			}
			if status == http.StatusOK {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// The metric families that the checks read.
const (
	metricMigrations = "dynamo_frontend_model_migration_total"
	metricInFlight   = "dynamo_frontend_inflight_requests"
	metricQueued     = "dynamo_frontend_queued_requests"
	metricBooked     = "dynamo_router_booked_requests"
	metricWaiting    = "dynamo_router_waiting_requests"
	metricLive       = `dynamo_engine_migrated_requests_total{class="live",outcome="completed"}`
)

// metrics reads the sums of a process's metric families of interest.
func metrics(ctx context.Context, client *http.Client, host string) (map[string]float64, error) {
	_, body, err := get(ctx, client, "http://"+host+":80/metrics")
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(body) {
		for _, name := range []string{metricMigrations, metricInFlight, metricQueued, metricBooked, metricWaiting, metricLive} {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
			if err != nil {
				return nil, fmt.Errorf("metric %q: %w", line, err)
			}
			sums[name] += v
		}
	}
	return sums, nil
}

// logger writes every node's records to w at the virtual time.
func logger(w io.Writer) *slog.Logger {
	l, err := obs.NewLogger(obs.LogConfig{Filter: "debug", Output: w})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return l
}
