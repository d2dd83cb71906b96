package main

import (
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/router/placement"
)

// routingFlags say which worker a request goes to, and what happens when that
// fails. The names are the reference's where it has the same thing.
type routingFlags struct {
	RouterMode     string        `help:"How a worker is chosen for a request: kv (the one where it is done soonest and costs the others least, by what each holds of the prompt and has to do), dynamo (the reference's KV cost, with its weights), sticky, lmetric, least-loaded, power-of-two, session, round-robin, random, direct (the one that the request names)." enum:"kv,dynamo,sticky,lmetric,least-loaded,power-of-two,p2c,session,round-robin,random,direct" default:"kv"`
	Disaggregation string        `help:"Whether prompts are computed by prefill workers, where there are any: where that is predicted to cost less than computing them where the answer is (auto), always, or never." enum:"auto,always,never" default:"auto"`
	MigrationLimit int           `help:"How often a request may go on at another worker when its own dies, drains or is cut off; 0 never." default:"3" placeholder:"N"`
	WorkerWait     time.Duration `help:"How long a request waits for a worker when there is none, or all are full." default:"10s"`
	StallTimeout   time.Duration `help:"A request whose worker sends nothing for so long goes on elsewhere; 0 waits for as long as the worker's connection lives." default:"0s"`

	RouterKVEvents      bool     `name:"router-kv-events" help:"Learn from the workers' events what their KV caches hold; without, it is guessed from what they were sent." default:"true" negatable:"" alsoenv:"DYN_KV_EVENTS"`
	RouterTTL           seconds  `name:"router-ttl-secs" aliases:"router-ttl" help:"How long a worker is guessed to hold a prompt, where there are no events." default:"120" placeholder:"SECONDS"`
	RouterPredictedTTL  seconds  `name:"router-predicted-ttl-secs" help:"How long a worker is expected to hold the prompt it was sent, until its events say so; 0 expects nothing." default:"5" placeholder:"SECONDS"`
	RouterShadow        string   `aliases:"shadow" help:"Another mode, which is asked at each decision what it would do; GET /v1/router and dynamo top compare the two." placeholder:"MODE"`
	RouterIndexBytes    byteSize `help:"Memory for the index of who holds what, for each model and block size." default:"1GiB" placeholder:"SIZE"`
	RouterSnapshot      string   `help:"File in which what is known of the workers' KV caches is kept, for the next start to begin with; written every --router-snapshot-secs and at a clean stop. Default: none." placeholder:"FILE"`
	RouterSnapshotEvery seconds  `name:"router-snapshot-secs" help:"How often --router-snapshot is written." default:"60" placeholder:"SECONDS"`
	KVPeerFetch         string   `help:"Whether workers fetch KV that others hold: where that is predicted to be quicker than to compute it (auto), or off. Workers with --kv-transfer off neither lend nor fetch." enum:"auto,off" default:"auto"`
	RouterQueue         int      `help:"Requests of a model that wait for a worker; further ones are refused with 429." default:"1024" placeholder:"N"`
	RouterOverlapCredit float64  `name:"router-kv-overlap-score-credit" help:"For --router-mode dynamo: what a block on the device is worth, in blocks of prefill." default:"1" placeholder:"X"`
	RouterCreditDecay   float64  `name:"router-kv-overlap-score-credit-decay" help:"For dynamo: how fast that falls with the prefill pending beyond the least loaded worker's." default:"0" placeholder:"X"`
	RouterPrefillScale  float64  `name:"router-prefill-load-scale" aliases:"kv-overlap-score-weight" help:"For dynamo: factor of the prefill part of the cost." default:"1" placeholder:"X"`
	RouterRequestWeight float64  `name:"router-decode-active-request-weight" help:"For dynamo: what each active request costs, in blocks." default:"0" placeholder:"X"`
	RouterHostWeight    float64  `name:"router-host-cache-hit-weight" help:"For dynamo: what a block in host memory is worth." default:"0.75" placeholder:"X"`
	RouterDiskWeight    float64  `name:"router-disk-cache-hit-weight" help:"For dynamo: what a block on disk is worth." default:"0.25" placeholder:"X"`
	RouterTemperature   float64  `help:"For dynamo: draws workers by their cost instead of taking the cheapest." default:"0" placeholder:"T"`
	RouterTrackBlocks   bool     `name:"router-track-active-blocks" help:"For dynamo: count the blocks in use." default:"true" negatable:""`
	RouterTrackPrefill  bool     `name:"router-track-prefill-tokens" help:"For dynamo: count the prompts pending." default:"true" negatable:""`
	SharedCredit        float64  `name:"shared-cache-multiplier" help:"For dynamo: what a block in the remote store alone is worth." default:"0" placeholder:"X"`
	referenceRouting
	TrustTenantHeader string `help:"Header that names a request's tenant, where its API key names none. Only behind a proxy that sets it." placeholder:"NAME"`
}

// referenceRouting are further flags of the reference, so that its command lines work:
// older names, and settings of things that need none here.
type referenceRouting struct {
	NoKVEvents        bool   `name:"no-kv-events" hidden:""`
	KVEvents          bool   `name:"kv-events" hidden:""`
	LoadAware         bool   `hidden:""`
	ReplicaSync       bool   `name:"router-replica-sync" hidden:"" negatable:""`
	AssumeReuse       bool   `name:"router-assume-kv-reuse" hidden:"" default:"true" negatable:""`
	TrackOutput       bool   `name:"router-track-output-blocks" hidden:"" negatable:""`
	KVBlockSize       string `name:"kv-cache-block-size" hidden:""`
	EventThreads      string `name:"router-event-threads" hidden:""`
	MinInitialWorkers string `name:"router-min-initial-workers" hidden:""`
	QueueThreshold    string `name:"router-queue-threshold" hidden:""`
	QueuePolicy       string `name:"router-queue-policy" hidden:""`
	PrefillLoadModel  string `name:"router-prefill-load-model" hidden:""`
	CachePolicy       string `name:"router-approximate-cache-policy" hidden:""`
	AffinityTTL       string `name:"router-session-affinity-ttl-secs" hidden:""`
	AffinityMode      string `name:"router-session-affinity-mode" hidden:""`
}

// notes say of each flag that was given why it does nothing, or what does it instead.
func (f *referenceRouting) notes() (notes []string) {
	for _, n := range []struct {
		given bool
		note  string
	}{
		{f.ReplicaSync, "--router-replica-sync: every router follows the workers, which announce what they have accepted; there is nothing to switch on"},
		{!f.AssumeReuse, "--no-router-assume-kv-reuse: no effect; --router-mode least-loaded leaves caches out of account"},
		{f.TrackOutput, "--router-track-output-blocks: answers are always counted as they grow"},
		{f.KVBlockSize != "", "--kv-cache-block-size: workers say how large their blocks are"},
		{f.EventThreads != "", "--router-event-threads: one thread keeps the index, lookups need none"},
		{f.MinInitialWorkers != "", "--router-min-initial-workers: requests wait for workers as long as --worker-wait says"},
		{f.QueueThreshold != "", "--router-queue-threshold: requests wait where no worker can take them, up to --router-queue of them"},
		{f.QueuePolicy != "", "--router-queue-policy: those that wait are served by priority, fairly among tenants, and by deadline"},
		{f.PrefillLoadModel != "", "--router-prefill-load-model: how long prompts take is learned for each worker"},
		{f.CachePolicy != "", "--router-approximate-cache-policy: what is guessed lasts as long as --router-ttl-secs says"},
		{f.AffinityTTL != "" || f.AffinityMode != "", "--router-session-affinity-…: --router-mode session keeps sessions at their workers"},
	} {
		if n.given {
			notes = append(notes, n.note)
		}
	}
	return notes
}

// seconds is a duration that is written as a number of seconds, as the reference
// does, or with a unit.
type seconds time.Duration

// UnmarshalText reads a number of seconds or a duration.
func (s *seconds) UnmarshalText(b []byte) error {
	text := string(b)
	if !strings.ContainsAny(text, "smhµn") {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	*s = seconds(d)
	return err
}

// String prints what UnmarshalText reads.
func (s seconds) String() string { return time.Duration(s).String() }

func (f *routingFlags) apply(c *node.ClusterConfig, log *slog.Logger) {
	c.MigrationLimit, c.WorkerWait, c.StallTimeout = f.MigrationLimit, f.WorkerWait, f.StallTimeout
	r := &c.Routing
	r.Mode, r.KVEvents, r.ApproximateTTL, r.PredictTTL = f.RouterMode, f.RouterKVEvents, time.Duration(f.RouterTTL), time.Duration(f.RouterPredictedTTL)
	r.Shadow, r.Split, r.PeerFetch = f.RouterShadow, f.Disaggregation, f.KVPeerFetch == "auto"
	r.IndexBytes, r.Queue, r.TenantHeader = int64(f.RouterIndexBytes), f.RouterQueue, f.TrustTenantHeader
	r.Snapshot, r.SnapshotEvery = f.RouterSnapshot, time.Duration(f.RouterSnapshotEvery)
	r.Params = placement.DefaultParams(placement.KV)
	if f.NoKVEvents {
		r.KVEvents = false
	}
	if f.LoadAware {
		r.Mode = placement.LeastLoaded.String()
	}
	p := &r.Params.Reference
	p.OverlapCredit, p.CreditDecay, p.PrefillScale, p.RequestWeight = f.RouterOverlapCredit, f.RouterCreditDecay, f.RouterPrefillScale, f.RouterRequestWeight
	p.HostCredit, p.DiskCredit, p.SharedCredit, p.Temperature = f.RouterHostWeight, f.RouterDiskWeight, f.SharedCredit, f.RouterTemperature
	p.IgnoreBlocks, p.IgnorePrefill = !f.RouterTrackBlocks, !f.RouterTrackPrefill
	notes := f.notes()
	if *p != placement.DefaultParams(placement.KV).Reference && r.Mode != placement.Reference.String() {
		notes = append(notes, "the weights of the reference's cost are for --router-mode dynamo; "+r.Mode+" has none")
	}
	for _, note := range notes {
		log.Warn("flag without effect", "why", note)
	}
}
