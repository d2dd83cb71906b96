package cluster

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/router/placement"
)

// losses are the KV events of workers that a frontend is still to lose without
// anybody noticing, by worker. The cluster's lock guards it.
type losses map[dynamo.WorkerID]int

// tap has a frontend lose what inflict has said it is to lose.
func (c *Cluster) tap(p *process, subscribe event.SubscribeFunc) event.SubscribeFunc {
	return func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		if src.Topic != event.TopicKV {
			return subscribe(ctx, src, from)
		}
		return func(yield func(event.Delivery, error) bool) {
			for d, err := range subscribe(ctx, src, from) {
				if err == nil && losable(d) && c.lost(p, src.Worker) {
					continue
				}
				if !yield(d, err) {
					return
				}
			}
		}
	}
}

// losable says whether d tells of a change and may be lost. A digest is none, and may
// not be: it is what finds the loss.
func losable(d event.Delivery) bool {
	var b event.KVBatch
	return d.Kind == event.Event && b.Parse(d.Payload) == nil && len(b.Events) > 0
}

func (c *Cluster) lost(p *process, w dynamo.WorkerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.losses[w] == 0 {
		return false
	}
	p.losses[w]--
	c.mu.eventsLost++
	return true
}

// lose has a frontend lose the next KV events of a worker.
func (c *Cluster) lose(front, worker string) {
	n, err := strconv.Atoi(worker[1:])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.mu.processes[front]; p != nil {
		if p.losses == nil {
			p.losses = losses{}
		}
		p.losses[dynamo.WorkerID(n)] += lostEvents
	}
}

// stopLosing ends the faults that only events to come would end.
func (c *Cluster) stopLosing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.mu.processes {
		clear(p.losses)
	}
}

// checkIndexes waits until every frontend knows of every worker what its KV cache
// holds, and says where that never comes to be (I3). It returns how many blocks of
// workers it has compared.
func (c *Cluster) checkIndexes() (blocks int) {
	c.stopLosing()
	var found []error
	for until := time.Now().Add(driftMax); ; time.Sleep(driftEvery) {
		blocks, found = c.drift()
		if len(found) == 0 || time.Now().After(until) {
			break
		}
	}
	for _, err := range found {
		c.problem(err)
	}
	return blocks
}

// drift compares the indexes with the caches.
func (c *Cluster) drift() (blocks int, found []error) {
	c.mu.Lock()
	var fronts, workers []*process
	for host, p := range c.mu.processes {
		if host[0] == 'f' {
			fronts = append(fronts, p)
		} else if p.mocker.Load() != nil {
			workers = append(workers, p)
		}
	}
	c.mu.Unlock()
	for _, w := range workers {
		n, _ := strconv.Atoi(w.host[1:]) // hosts are named so
		held, err := held(w.mocker.Load())
		if err != nil {
			found = append(found, fmt.Errorf("I3: what the worker on %s holds: %w", w.host, err))
			continue
		}
		for _, f := range fronts {
			err := compareIndex(f, dynamo.WorkerID(n), held)
			if err != nil {
				found = append(found, fmt.Errorf("I3: %s of %s: %w", f.host, w.host, err))
			}
			for _, all := range held {
				blocks += len(all)
			}
		}
	}
	return blocks, found
}

// held lists the blocks of each rank of a mocker, in order.
func held(e *mocker.Engine) (all [][]dynamo.BlockHash, err error) {
	for rank := range e.Ranks() {
		h, err := e.Held(rank)
		if err != nil {
			return nil, err
		}
		slices.Sort(h)
		all = append(all, h)
	}
	return all, nil
}

// compareIndex compares what a frontend knows of a worker with what that holds.
func compareIndex(f *process, id dynamo.WorkerID, held [][]dynamo.BlockHash) error {
	routers := f.routers.Load()
	if routers == nil {
		return nil // it does not serve yet
	}
	for _, r := range (*routers)() {
		for _, w := range r.Stats().Workers {
			if w.ID != id || w.State == placement.Down || !r.UsesKV() {
				continue
			}
			return compareHoldings(r, w, held)
		}
	}
	if !(*routers)()[0].UsesKV() {
		return nil
	}
	return fmt.Errorf("the worker is not known")
}

func compareHoldings(r *router.Router, w router.WorkerStats, held [][]dynamo.BlockHash) error {
	all, exact := r.Held(w.ID, w.Epoch)
	if !exact {
		return fmt.Errorf("the index does not take itself to be exact")
	}
	known := make([][]dynamo.BlockHash, len(held))
	for _, h := range all {
		if h.Tier != dynamo.TierDevice || h.Rank >= len(held) {
			return fmt.Errorf("the index knows of %d blocks in tier %v of rank %d, which is not there", len(h.Hashes), h.Tier, h.Rank)
		}
		known[h.Rank] = h.Hashes
	}
	for rank := range held {
		missing, extra := lacking(held[rank], known[rank]), lacking(known[rank], held[rank])
		if missing+extra > 0 {
			return fmt.Errorf("of the %d blocks of rank %d the index does not know %d, and it knows of %d others", len(held[rank]), rank, missing, extra)
		}
	}
	return nil
}

// lacking counts what of a is not in b, both in order.
func lacking(a, b []dynamo.BlockHash) (n int) {
	for _, h := range a {
		if _, found := slices.BinarySearch(b, h); !found {
			n++
		}
	}
	return n
}
