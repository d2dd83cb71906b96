package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// Options say what to run.
type Options struct {
	Seed uint64
	// Faults happen to the cluster that the seed draws; nil draws them too.
	Faults []Fault
	// Model is a folder with the tokenizer, KeyFile holds the cluster key.
	Model, KeyFile string
	// Sabotage changes the nodes' configuration; nil leaves it.
	Sabotage func(*node.Config)
}

// Result is what a run found.
type Result struct {
	Problems []error
	Faults   []Fault
	Requests int
	// Migrations and Reconnections tell that the faults had an effect.
	Migrations int
	// Live are the requests that ended well after they had last gone on elsewhere with
	// their KV.
	Live int
	// Preemptions are those of the mockers that lived to the end, and Transfers how
	// often they took KV from others.
	Preemptions, Transfers int
	// Blocks is how many blocks of workers were compared with frontends' indexes at the
	// end, and EventsLost how many KV events those had lost unnoticed.
	Blocks, EventsLost int
	Log                []byte
}

// Run runs one cluster through its faults and checks the laws.
func Run(t *testing.T, o Options) Result {
	s := shape(o.Seed)
	res := Result{Faults: o.Faults, Requests: s.Requests}
	if res.Faults == nil {
		res.Faults = s.Faults(o.Seed)
	}
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{shape: s, net: testnet.New(), store: discovery.NewMem(), keyFile: o.KeyFile, model: o.Model, log: logger(&log), Sabotage: o.Sabotage}
		c.mu.processes = map[string]*process{}
		c.run1(t.Context(), o.Seed, &res)
		res.Problems = append(res.Problems, c.mu.problems...)
	})
	res.Log = log.Bytes()
	return res
}

// run1 is the whole life of the cluster.
func (c *Cluster) run1(ctx context.Context, seed uint64, res *Result) {
	defer c.store.Close()
	defer c.stopAll()
	for i := range c.shape.Workers {
		if err := c.start(fmt.Sprintf("w%d", i+1)); err != nil {
			c.problem(err)
			return
		}
	}
	for i := range c.shape.Frontends {
		if err := c.start(fmt.Sprintf("front%d", i+1)); err != nil {
			c.problem(err)
			return
		}
	}
	dial := c.net.Host("client").Dial
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}
	client := &http.Client{Transport: transport}
	if err := c.awaitReady(ctx, client); err != nil {
		c.problem(err)
		return
	}
	var failing sync.WaitGroup
	for _, f := range res.Faults {
		failing.Go(func() {
			time.Sleep(f.At)
			c.inflict(f)
		})
	}
	loaded := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watch(ctx, client, loaded) })
	outcomes := drive(ctx, c.shape.load(ctx, seed), dial)
	close(loaded)
	watching.Wait()
	failing.Wait()
	c.judge(outcomes, res.Faults)
	c.quiesce(ctx, client, res)
}

// judge checks every request. What a killed frontend served may have been cut.
func (c *Cluster) judge(outcomes []outcome, faults []Fault) {
	for i := range outcomes {
		o := &outcomes[i]
		err := o.check()
		lost := slices.ContainsFunc(faults, func(f Fault) bool { return f.Kind == Kill && f.A == o.front })
		if lost && (o.err != nil || !o.done) {
			for i, got := range o.texts {
				text, _ := o.expected(i)
				if !strings.HasPrefix(text, got) {
					c.problem(fmt.Errorf("I2: request %d: got %q of %q before its frontend was killed", o.n, got, text))
				}
			}
			continue
		}
		if err != nil {
			c.problem(err)
		}
	}
}

// watch looks at the queues while the load runs (I5).
func (c *Cluster) watch(ctx context.Context, client *http.Client, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(watchEvery):
		}
		for i := range c.shape.Frontends {
			m, err := metrics(ctx, client, fmt.Sprintf("front%d", i+1))
			if err != nil {
				continue // it was killed a moment ago
			}
			if n := m[metricQueued]; n > frontQueue {
				c.problem(fmt.Errorf("I5: front%d queues %v requests, limit %d", i+1, n, frontQueue))
			}
			if n := m[metricWaiting]; n > routerQueue {
				c.problem(fmt.Errorf("I5: the router of front%d keeps %v requests waiting, limit %d", i+1, n, routerQueue))
			}
		}
	}
}

// quiesce checks that nothing is left in flight once the load has ended.
func (c *Cluster) quiesce(ctx context.Context, client *http.Client, res *Result) {
	time.Sleep(5 * time.Second)
	preemptions, transfers := c.checkPools()
	res.Preemptions, res.Transfers = res.Preemptions+preemptions, res.Transfers+transfers
	res.Blocks += c.checkIndexes()
	c.mu.Lock()
	res.EventsLost += c.mu.eventsLost
	c.mu.Unlock()
	for i := range c.shape.Frontends {
		host := fmt.Sprintf("front%d", i+1)
		if c.process(host) == nil {
			continue
		}
		m, err := metrics(ctx, client, host)
		if err != nil {
			c.problem(fmt.Errorf("I1: read the metrics of %s at quiesce: %w", host, err))
			continue
		}
		res.Migrations += int(m[metricMigrations])
		res.Live += int(m[metricLive])
		for _, name := range []string{metricInFlight, metricQueued, metricBooked, metricWaiting} {
			v, ok := m[name]
			if !ok {
				c.problem(fmt.Errorf("%s has no metric %s", host, name))
			} else if v != 0 {
				c.problem(fmt.Errorf("I1: %s says %s is %v at quiesce, want 0", host, name, v))
			}
		}
	}
}

// errFound sums a result up with the line that repeats it.
func (r *Result) errFound(seed uint64) error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w\nrepeat with: go test ./internal/cluster -run TestCluster -seed %d -faults '%s'", errors.Join(r.Problems...), seed, Format(r.Faults))
}
