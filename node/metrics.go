package node

import (
	"time"

	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/worker"
)

// clusterMetrics are the families of the parts that a role has; nil is of one
// that it lacks.
type clusterMetrics struct {
	rpc       *rpc.Metrics
	discovery *discovery.Metrics
	event     *event.Metrics
	router    *router.Metrics
	migrate   *engine.MigrateMetrics
	disagg    *disagg.Metrics
	worker    *worker.Metrics
	native    *native.Metrics
	transfer  *transfer.Metrics
}

func newClusterMetrics(r *obs.Registry, role string) (m clusterMetrics) {
	if role != RoleServe {
		m.rpc, m.discovery, m.event = rpc.NewMetrics(r), discovery.NewMetrics(r), event.NewMetrics(r)
	}
	if role == RoleWorker || role == RoleServe {
		m.native, m.transfer = native.NewMetrics(r), transfer.NewMetrics(r)
	}
	if role == RoleWorker {
		m.worker = worker.NewMetrics(r)
	} else {
		m.disagg = disagg.NewMetrics(r)
		m.router, m.migrate = router.NewMetrics(r), engine.NewMigrateMetrics(r)
	}
	return m
}

// engineMetrics defines the metrics of an engine's load, which are read
// from its Stats when they are scraped.
func engineMetrics(r *obs.Registry, stats func() loop.Stats) {
	gauge := func(name, help string, read func(loop.Stats) int) {
		r.GaugeFunc(name, help, func() float64 { return float64(read(stats())) })
	}
	counter := func(name, help string, read func(loop.Stats) uint64) {
		r.CounterFunc(name, help, func() float64 { return float64(read(stats())) })
	}
	gauge("dynamo_engine_requests_running", "Requests in the batch.", func(s loop.Stats) int { return s.Scheduler.Running })
	gauge("dynamo_engine_requests_waiting", "Requests that wait for a place in the batch.", func(s loop.Stats) int { return s.Scheduler.Waiting + s.Submitted })
	gauge("dynamo_engine_kv_blocks", "Size of the KV cache in blocks.", func(s loop.Stats) int { return s.Scheduler.KV.Capacity })
	gauge("dynamo_engine_kv_blocks_used", "Blocks of the KV cache that requests hold.", func(s loop.Stats) int {
		return s.Scheduler.KV.Partial + s.Scheduler.KV.Complete + s.Scheduler.KV.Held + s.Scheduler.KV.Loading
	})
	gauge("dynamo_engine_kv_blocks_idle", "Blocks of the KV cache that nobody holds and a prompt may still match.", func(s loop.Stats) int { return s.Scheduler.KV.Idle })
	counter("dynamo_engine_steps_total", "Batches computed.", func(s loop.Stats) uint64 { return s.Scheduler.Steps })
	counter("dynamo_engine_step_tokens_total", "Tokens computed in batches.", func(s loop.Stats) uint64 { return s.Scheduler.Tokens })
	counter("dynamo_engine_prompt_tokens_total", "Prompt tokens of admitted requests.", func(s loop.Stats) uint64 { return s.PromptTokens })
	counter("dynamo_engine_cached_tokens_total", "Prompt tokens whose KV was found in the cache.", func(s loop.Stats) uint64 { return s.CachedTokens })
	counter("dynamo_engine_output_tokens_total", "Tokens generated.", func(s loop.Stats) uint64 { return s.OutputTokens })
	counter("dynamo_engine_preemptions_total", "Requests that gave their blocks to others and were computed again.", func(s loop.Stats) uint64 { return s.Scheduler.Preemptions })
	counter("dynamo_engine_panics_total", "Steps that failed by a bug.", func(s loop.Stats) uint64 { return s.Panics })
}

// lateMetric defines the metric of mockers that fall behind.
func lateMetric(r *obs.Registry, late func() time.Duration) {
	r.CounterFunc("dynamo_mocker_late_seconds_total", "Time by which mockers are behind their model of time for good, summed over them: the machine does not keep up.", func() float64 { return late().Seconds() })
}
