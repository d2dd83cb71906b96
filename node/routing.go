package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/router/placement"
)

// RoutingConfig says how a worker is chosen for a request.
type RoutingConfig struct {
	// Mode is the policy, a name that placement.ParsePolicy knows. Default kv.
	// (--router-mode)
	Mode string
	// Params are the settings of those policies that have any. Default placement's.
	Params placement.Params
	// Shadow is another policy that is asked what it would do; empty: none.
	// (--router-shadow)
	Shadow string
	// Split says who decides whether prompts are computed by prefill workers: auto (what is
	// predicted to cost less), always or never. Default auto. (--disaggregation)
	Split string
	// KVEvents has workers' KV events say what they hold; without, it is guessed for
	// ApproximateTTL from what they were sent. Defaults true and 2 minutes.
	// (--router-kv-events, --router-ttl-secs)
	KVEvents       bool
	ApproximateTTL time.Duration
	// PredictTTL is how long a worker is expected to hold what it was sent, until its
	// events say so. Default 5 s. (--router-predicted-ttl-secs)
	PredictTTL time.Duration
	// IndexBytes bounds the memory of the prefix index of a model. Default 1 GiB.
	// (--router-index-bytes)
	IndexBytes int64
	// Snapshot is a file in which the routers keep what they know of the workers' KV
	// caches, written every SnapshotEvery and at a clean stop, and read at the start;
	// empty: none. Default none and 1 minute. (--router-snapshot,
	// --router-snapshot-secs)
	Snapshot      string
	SnapshotEvery time.Duration
	// PeerFetch has workers fetch KV that others hold, where that is predicted to be
	// quicker than to compute it. Default true. (--kv-peer-fetch)
	PeerFetch bool
	// Queue is how many requests of a model wait for a worker. Default 1024.
	// (--router-queue)
	Queue int
	// TenantHeader is the header that says which tenant a request is for, where its API
	// key names none; empty: none does. (--trust-tenant-header)
	TenantHeader string
}

// DefaultRoutingConfig returns the defaults.
func DefaultRoutingConfig() RoutingConfig {
	d := router.DefaultConfig()
	return RoutingConfig{
		Mode: d.Mode, Split: placement.SplitAuto.String(), Params: d.Params, KVEvents: true, ApproximateTTL: d.ApproximateTTL, PredictTTL: d.PredictTTL,
		PeerFetch: d.PeerFetch, IndexBytes: d.IndexBytes, Queue: d.Queue, SnapshotEvery: time.Minute,
	}
}

// router is the configuration of a model's router.
func (c *RoutingConfig) router() router.Config {
	rc := router.DefaultConfig()
	rc.Mode, rc.Params, rc.Approximate, rc.ApproximateTTL = c.Mode, c.Params, !c.KVEvents, c.ApproximateTTL
	rc.Shadow = c.Shadow
	rc.PredictTTL, rc.IndexBytes, rc.Queue, rc.PeerFetch = c.PredictTTL, c.IndexBytes, c.Queue, c.PeerFetch
	return rc
}

// Validate reports all faults at once.
func (c *RoutingConfig) Validate() error {
	rc := c.router()
	err := rc.Validate()
	if _, e := placement.ParseSplitMode(c.Split); e != nil {
		err = errors.Join(err, fmt.Errorf("--disaggregation: %w", e))
	}
	if c.SnapshotEvery < minSnapshotEvery || c.SnapshotEvery > maxSnapshotEvery {
		err = errors.Join(err, fmt.Errorf("--router-snapshot-secs is %v; it must be %v to %v", c.SnapshotEvery, minSnapshotEvery, maxSnapshotEvery))
	}
	if c.Snapshot != "" {
		if _, e := os.Stat(filepath.Dir(c.Snapshot)); e != nil {
			err = errors.Join(err, fmt.Errorf("--router-snapshot: the folder of the file must be there: %w", e))
		}
	}
	return err
}

// routers lists the routers of the models that are served, the first ones first.
func (f *fleet) routers() (all []*router.Router) {
	f.mu.Lock()
	models := slices.Collect(maps.Values(f.mu.models))
	f.mu.Unlock()
	slices.SortFunc(models, func(a, b *servedModel) int { return cmp.Compare(a.name, b.name) })
	for _, mod := range models {
		all = append(all, mod.router)
		if len(mod.prefill.Stats().Workers) > 0 {
			all = append(all, mod.prefill)
		}
	}
	return all
}

// explain says why a request went where it did; false: none of the routers knows.
func explain(routers []*router.Router, id dynamo.RequestID) (any, bool) {
	var found *router.Explanation
	for _, r := range routers {
		x, known := r.Explain(id)
		switch {
		case !known:
		case found == nil:
			found = &x
		default:
			found.Attempts = append(found.Attempts, x.Attempts...)
		}
	}
	if found == nil {
		return nil, false
	}
	slices.SortStableFunc(found.Attempts, func(a, b router.AttemptExplanation) int { return a.At.Compare(b.At) })
	return found, true
}

// routerState is what GET /v1/router shows.
func routerState(routers []*router.Router) any {
	state := struct {
		Routers []router.State `json:"routers"`
	}{[]router.State{}}
	for _, r := range routers {
		state.Routers = append(state.Routers, r.State())
	}
	return state
}

// routerRecords is what GET /v1/router/records shows: the last decisions as bytes, from
// each of which the winner follows again.
func routerRecords(routers []*router.Router) any {
	type records struct {
		Model   string   `json:"model"`
		Records [][]byte `json:"records"`
	}
	all := struct {
		Routers []records `json:"routers"`
	}{[]records{}}
	for _, r := range routers {
		all.Routers = append(all.Routers, records{Model: r.Model(), Records: r.Records()})
	}
	return all
}
