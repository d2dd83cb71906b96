package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event/nats"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
)

// fleet is a frontend's view of the workers: it follows discovery, keeps a
// connection to each worker, and puts a model with a router over its workers
// into the HTTP server.
//
// The connection is the truth about a worker that is known, the store is for
// finding them: a worker that the store forgets is used until its connection
// ends, and one that the store still lists is passed over while it has none.
//
// One goroutine follows the store (the caller of follow) and one keeps what the routers
// know in a file, if that is wanted; each member has one that keeps its connection, one
// that reads its load and, until the model is served, one that fetches its tokenizer.
// All end before follow returns.
//
// Locks: serving before mu, and mu before a Router's own, which calls nobody.
type fleet struct {
	n      *Node
	log    *slog.Logger
	server modelServer
	client *rpc.Client
	bus    *nats.Bus // nil: loads come over the request connections
	keeper *keeper   // nil: what the routers know is not kept

	running sync.WaitGroup // the members' goroutines
	serving sync.Mutex     // held while the HTTP server's set of models changes
	mu      struct {
		sync.Mutex
		stale   bool
		ended   bool // follow drops everybody; nobody is adopted
		members map[memberKey]*member
		models  map[string]*servedModel
	}
}

// modelServer is who serves the models to clients.
type modelServer interface {
	AddModel(m *frontend.Model) error
	RemoveModel(name string)
	SetAdapters(name string, adapters []string)
}

// memberKey is one life of a worker.
type memberKey struct {
	id    dynamo.WorkerID
	epoch uint64
}

// member is a worker that was found.
type member struct {
	memberKey
	fleet  *fleet
	peer   *rpc.Peer
	ctx    context.Context // ends when the member is dropped; guards nothing else
	cancel context.CancelFunc
	// prefill says that its worker is for prompts alone.
	prefill bool

	// Guarded by fleet.mu.
	instance discovery.Instance
	listed   bool         // the store has it
	up       bool         // it is connected
	away     string       // why it is not; empty if it never was
	model    *servedModel // whose router has it; nil while it is not in use
	refused  string       // why it is not in use
	load     engine.Load
}

// servedModel is what one name is served by.
type servedModel struct {
	name string
	card discovery.Card // of the worker that it began with
	// prefill is over the workers for prompts alone, router over all others.
	router, prefill *router.Router
	sides           sides
	splitter        *splitter // made when it is first served
	// asking has a place for each member that may be asked for the tokenizer at once.
	asking chan struct{}
	// created is when it was first served here.
	created time.Time

	// Guarded by fleet.mu.
	ready bool        // the HTTP server has it
	empty time.Time   // since when it has no members; zero if it has
	grace *time.Timer // runs meanwhile

	adapters adapterSet
	meta     *metadata // its tokenizer and template; nil until it is served
	offer    offer
	shrink   *time.Timer // runs for a while after a member has gone
	// before is the model whose place it takes once it is served: requests wait there
	// that were prepared for other workers than its own.
	before *servedModel
}

func newFleet(n *Node, s modelServer, c *rpc.Client, bus *nats.Bus) *fleet {
	f := &fleet{n: n, log: obs.For(n.cfg.Logger, "node"), server: s, client: c, bus: bus, keeper: n.openKeeper()}
	n.restored = f.keeper.restored()
	f.mu.members, f.mu.models = map[memberKey]*member{}, map[string]*servedModel{}
	return f
}

// follow keeps the view until ctx ends, and then drops every member.
func (f *fleet) follow(ctx context.Context, store discovery.Store) {
	defer f.running.Wait()
	defer f.dropAll()
	if f.keeper != nil {
		f.keeper.routers = f.routers
		f.running.Go(func() { f.keeper.run(ctx) })
		defer f.keeper.last()
	}
	for u := range store.Watch(ctx, f.n.cfg.Cluster.path()) {
		for _, err := range u.Problems {
			f.log.Warn("an entry of the store is passed over", obs.KeyError, err)
		}
		switch u.Kind {
		case discovery.Snapshot:
			f.snapshot(ctx, u.Instances)
		case discovery.Put:
			for _, i := range u.Instances {
				f.put(ctx, i)
			}
		case discovery.Delete:
			for _, i := range u.Instances {
				f.forget(memberKey{i.ID, i.Epoch})
			}
		case discovery.Stale:
			f.setStale(true)
		case discovery.Fresh:
			f.setStale(false)
		}
	}
	if ctx.Err() == nil {
		f.log.Error("the store ended its watch; no worker is known any more, restart this process")
	}
}

func (f *fleet) setStale(stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if stale != f.mu.stale {
		f.log.Warn("the store's state changed; serving goes on with the last view while it is stale", "stale", stale)
	}
	f.mu.stale = stale
}

// snapshot takes over the whole set.
func (f *fleet) snapshot(ctx context.Context, all []discovery.Instance) {
	var gone []memberKey
	f.mu.Lock()
	for k := range f.mu.members {
		if !slices.ContainsFunc(all, func(i discovery.Instance) bool { return k == memberKey{i.ID, i.Epoch} }) {
			gone = append(gone, k)
		}
	}
	f.mu.Unlock()
	for _, k := range gone {
		f.forget(k)
	}
	for _, i := range all {
		f.put(ctx, i)
	}
}

// put takes in a worker, or what has changed of it.
func (f *fleet) put(ctx context.Context, i discovery.Instance) {
	if i.Card == nil {
		return // no model to serve
	}
	k := memberKey{i.ID, i.Epoch}
	f.mu.Lock()
	m := f.mu.members[k]
	if m != nil {
		changed := !slices.Equal(m.instance.Card.Adapters, i.Card.Adapters)
		m.instance, m.listed = i, true
		used := m.model
		f.recountLocked(used)
		f.mu.Unlock()
		if used != nil && i.Draining {
			used.routerOf(m).SetDraining(i.ID, i.Epoch)
		}
		if used != nil && changed {
			f.adaptersChanged(m, used, i.Card.Adapters)
		}
		return
	}
	m = &member{memberKey: k, fleet: f, instance: i, listed: true, prefill: i.Card.Role == engine.RolePrefill}
	m.ctx, m.cancel = context.WithCancel(ctx)
	m.peer = f.client.Peer(rpc.PeerConfig{
		Addresses: reachable(i), Worker: i.ID, Epoch: i.Epoch,
		Changed: func(up bool, err error) { f.changed(m, up, err) },
	})
	f.mu.members[k] = m
	f.mu.Unlock()
	f.log.Info("worker found", obs.KeyWorker, i.ID, obs.KeyModel, i.Card.Model, obs.KeyAddress, strings.Join(i.Addresses, " "))
	f.running.Go(func() { _ = m.peer.Run(m.ctx) }) // ends with the member
	f.running.Go(m.serve)
}

// reachable lists the addresses of i that this host can use.
func reachable(i discovery.Instance) []string {
	return slices.DeleteFunc(slices.Clone(i.Addresses), func(a string) bool {
		return strings.HasPrefix(a, "unix:") && i.Host != discovery.HostID()
	})
}

// forget is told that the store has a worker no longer. While it is connected it
// is used on: it says itself when it leaves.
func (f *fleet) forget(k memberKey) {
	f.mu.Lock()
	m := f.mu.members[k]
	if m == nil {
		f.mu.Unlock()
		return
	}
	m.listed = false
	leaving, used, up := m.instance.Draining, m.model, m.up
	f.mu.Unlock()
	if leaving && used != nil {
		used.routerOf(m).SetDraining(k.id, k.epoch)
	}
	if !up {
		f.drop(m)
	}
}

// changed hears of a member's connection.
func (f *fleet) changed(m *member, up bool, err error) {
	f.mu.Lock()
	m.up, m.away = up, ""
	if err != nil {
		m.away = ": " + err.Error()
	}
	f.recountLocked(m.model)
	used, refused, listed, leaving := m.model, m.refused != "", m.listed, m.instance.Draining
	f.mu.Unlock()
	if used != nil {
		used.routerOf(m).SetUp(m.id, m.epoch, up)
	}
	if up {
		f.log.Info("worker connected", obs.KeyWorker, m.id)
		if refused {
			f.adoptRefused() // those it differed from may have gone while it was away
		}
		return
	}
	level := slog.LevelWarn
	if !listed || leaving || m.ctx.Err() != nil {
		level = slog.LevelInfo // it was to be expected
	}
	f.log.Log(m.ctx, level, "worker not connected", obs.KeyWorker, m.id, obs.KeyError, err)
	if !listed {
		f.drop(m)
	}
}

// drop ends a member: nobody lists it and it is not connected.
func (f *fleet) drop(m *member) {
	f.mu.Lock()
	if f.mu.members[m.memberKey] != m {
		f.mu.Unlock()
		return
	}
	delete(f.mu.members, m.memberKey)
	mod, had := m.model, len(m.instance.Card.Adapters) > 0
	if mod != nil {
		m.model = nil
		mod.routerOf(m).Remove(m.id, m.epoch)
		f.recountLocked(mod)
		f.watchEmptyLocked(mod)
	}
	f.mu.Unlock()
	if mod != nil && had {
		f.settleAdapters(mod, true)
	}
	if mod != nil {
		f.shrinkLater(mod)
	}
	m.cancel()
	f.log.Info("worker gone", obs.KeyWorker, m.id)
	f.adoptRefused()
}

func (f *fleet) dropAll() {
	f.mu.Lock()
	f.mu.ended = true
	for _, mod := range f.mu.models {
		mod.stopGrace()
		mod.adapters.stop()
		mod.stopShrinking()
	}
	var all []*member
	for _, m := range f.mu.members {
		all = append(all, m)
	}
	f.mu.Unlock()
	for _, m := range all {
		f.drop(m)
	}
}

// serve puts the member into use once it is connected, and reads its load until
// it is dropped.
func (m *member) serve() {
	if m.peer.Wait(m.ctx) != nil {
		return // dropped before it was ever connected
	}
	m.fleet.adopt(m)
	m.fleet.n.followLoad(m.ctx, m.fleet.bus, m.peer, m.id, m.epoch, m.report)
}

// report takes in the load a worker tells of.
func (m *member) report(l engine.Load) {
	m.fleet.mu.Lock()
	changed := m.load.Down != l.Down
	m.load = l
	used := m.model
	if changed {
		m.fleet.recountLocked(used)
	}
	m.fleet.mu.Unlock()
	if used != nil {
		used.routerOf(m).Report(m.id, m.epoch, l)
	}
}

// adopt puts a connected member into use, if its card agrees with those of the
// other workers of its name.
func (f *fleet) adopt(m *member) {
	mod, refused := f.enlist(m)
	if refused != "" {
		f.log.Warn("worker refused", obs.KeyWorker, m.id, obs.KeyModel, m.name(), "reason", refused)
	}
	if mod == nil {
		return
	}
	f.catchUp(m, mod)
	f.settleAdapters(mod, false)
	f.settleOffer(mod, false)
	f.running.Go(func() { f.publish(m, mod) })
	if r := mod.routerOf(m); r.UsesKV() {
		f.running.Go(func() { f.n.followKV(m.ctx, f.bus, m.peer, m.id, m.epoch, r) })
	}
}

// enlist adds a member to the router of its model, or notes why not. It returns
// nil if there is nothing more to do.
func (f *fleet) enlist(m *member) (mod *servedModel, refused string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.ended || f.mu.members[m.memberKey] != m || m.model != nil {
		return nil, "" // dropped meanwhile, or in use already
	}
	defer func() { m.refused = refused }()
	card := *m.instance.Card
	mod = f.mu.models[card.Model]
	var before *servedModel
	if mod != nil {
		if odd := differs(&card, &mod.card); odd != "" && f.hasMembersLocked(mod) {
			return nil, fmt.Sprintf("its card differs from the other workers' of model %s in the %s; %s", card.Model, odd, remedy(&card, &mod.card))
		} else if odd != "" {
			mod.stopGrace() // nobody is left to agree with: m sets the model anew
			before, mod = mod, nil
		}
	}
	if mod == nil {
		var err error
		if mod, err = f.newModel(card); err != nil {
			return nil, err.Error()
		}
		mod.before = before
		f.mu.models[card.Model] = mod
	}
	rc := remote.DefaultConfig()
	rc.Worker, rc.Epoch, rc.OnLoad, rc.Logger, rc.Tracer = m.id, m.epoch, m.report, f.n.cfg.Logger, f.n.tracer
	err := mod.routerOf(m).Add(router.Worker{
		ID: m.id, Epoch: m.epoch, Engine: remote.New(m.peer, card.Card, rc), Card: card.Card,
		MaxRunning: card.MaxRunning, MaxQueue: card.MaxQueue, KVBlocks: card.KVBlocks, StepTokens: card.StepTokens, Ranks: card.Ranks, Labels: card.Labels,
	})
	if err != nil {
		return nil, err.Error()
	}
	mod.stopGrace()
	m.model = mod
	f.recountLocked(mod)
	return mod, ""
}

// card is what a member's worker is registered with.
func (m *member) card() *discovery.Card {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	return m.instance.Card
}

// name is the model a member serves.
func (m *member) name() string {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	return m.instance.Card.Model
}

// catchUp tells a router what has become of a worker since before it knew it.
func (f *fleet) catchUp(m *member, mod *servedModel) {
	for {
		f.mu.Lock()
		up, draining := m.up, m.instance.Draining
		f.mu.Unlock()
		mod.routerOf(m).SetUp(m.id, m.epoch, up)
		if draining {
			mod.routerOf(m).SetDraining(m.id, m.epoch)
		}
		f.mu.Lock()
		same := m.up == up && m.instance.Draining == draining
		f.mu.Unlock()
		if same {
			return
		}
	}
}

// newModel makes the router of a model.
func (f *fleet) newModel(card discovery.Card) (*servedModel, error) {
	r, err := f.n.newRouter(card.Model)
	if err != nil {
		return nil, err
	}
	p, err := f.n.newPrefillRouter(card.Model)
	if err != nil {
		return nil, err
	}
	return &servedModel{name: card.Model, card: card, router: r, prefill: p, asking: make(chan struct{}, maxAsking)}, nil
}

// publish gives a model to the HTTP server, with the tokenizer and template that
// the worker serves. Each worker of a model tries until one of them has done it.
func (f *fleet) publish(m *member, mod *servedModel) {
	for wait := publishMin; ; wait = min(2*wait, publishMax) {
		if f.isServed(mod) || m.ctx.Err() != nil {
			return
		}
		err := f.fetch(m, mod)
		if err == nil {
			return
		}
		if m.ctx.Err() == nil {
			f.log.Warn("a worker's tokenizer cannot be had; it will be asked again", obs.KeyModel, mod.name, obs.KeyWorker, m.id, obs.KeyError, err)
		}
		select {
		case <-time.After(wait):
		case <-m.ctx.Done():
		}
	}
}

func (f *fleet) isServed(mod *servedModel) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return mod.ready
}

// serveModel puts a model into the HTTP server, once.
func (f *fleet) serveModel(mod *servedModel, meta *metadata) {
	served, err := f.addModel(mod, meta)
	switch {
	case err != nil:
		f.log.Error("model not served", obs.KeyModel, mod.name, obs.KeyError, err)
	case served:
		f.log.Info("model served", obs.KeyModel, mod.name)
		f.n.loaded()
	}
}

// addModel reports whether it was the one to add the model.
func (f *fleet) addModel(mod *servedModel, meta *metadata) (bool, error) {
	f.serving.Lock()
	defer f.serving.Unlock()
	f.mu.Lock()
	over := mod.ready || f.mu.models[mod.name] != mod // or another took its place
	if !over {
		mod.meta, mod.created = meta, time.Now()
		mod.offer, _ = f.offerLocked(mod)
	}
	f.mu.Unlock()
	var err error
	if !over {
		err = f.install(mod)
		f.retireBefore(mod)
	}
	f.mu.Lock()
	mod.ready = true // nobody is told so before it is
	f.mu.Unlock()
	return !over, err
}

// retireBefore ends the waiting for the workers of the models whose place mod has.
func (f *fleet) retireBefore(mod *servedModel) {
	f.mu.Lock()
	before := mod.before
	mod.before = nil
	f.mu.Unlock()
	if before != nil {
		before.router.Retire()
		before.prefill.Retire()
		f.retireBefore(before)
	}
}

// fetch serves a model with what m has of it, unless it is served by then. Of many
// workers that come at once few are asked; more than one, for one may not answer.
func (f *fleet) fetch(m *member, mod *servedModel) error {
	select {
	case mod.asking <- struct{}{}:
		defer func() { <-mod.asking }()
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	}
	if f.isServed(mod) {
		return nil
	}
	meta, err := fetchMetadata(m.ctx, m.peer, m.card())
	if err == nil {
		f.serveModel(mod, meta)
	}
	return err
}

// fetchMetadata asks a worker for the files its card names.
func fetchMetadata(ctx context.Context, peer *rpc.Peer, card *discovery.Card) (*metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, artifactTimeout)
	defer cancel()
	m := &metadata{special: card.Special}
	data, err := remote.FetchArtifact(ctx, peer, card.Tokenizer.Digest, maxTokenizerBytes)
	if err != nil {
		return nil, fmt.Errorf("fetch the tokenizer: %w", err)
	}
	if m.tokenizer, err = parseTokenizer(card.Tokenizer.Name, data); err != nil {
		return nil, err
	}
	if card.Template.Digest == "" {
		return m, nil
	}
	if data, err = remote.FetchArtifact(ctx, peer, card.Template.Digest, maxTemplateBytes); err != nil {
		return nil, fmt.Errorf("fetch the chat template: %w", err)
	}
	return m, m.parseTemplateFile(card.Template.Name, data)
}

func templateVars(special map[string]string) *chat.Dict {
	vars := chat.NewDict(len(special))
	for name, text := range special {
		vars.Set(name, chat.String(text))
	}
	return vars
}

// watchEmptyLocked begins the grace of a model that has lost its last member.
func (f *fleet) watchEmptyLocked(mod *servedModel) {
	mod.stopGrace()
	if f.mu.ended || f.hasMembersLocked(mod) {
		return
	}
	mod.empty = time.Now()
	mod.grace = time.AfterFunc(modelGrace, func() { f.retire(mod) })
}

// stopGrace keeps a model from being retired. The fleet's lock is held.
func (mod *servedModel) stopGrace() {
	mod.empty = time.Time{}
	if mod.grace != nil {
		mod.grace.Stop()
	}
}

func (f *fleet) hasMembersLocked(mod *servedModel) bool {
	for _, m := range f.mu.members {
		if m.model == mod {
			return true
		}
	}
	return false
}

// retire takes a model out of service that has had no worker for modelGrace.
func (f *fleet) retire(mod *servedModel) {
	if f.removeModel(mod) {
		f.log.Info("model no longer served; it has no workers", obs.KeyModel, mod.name)
	}
}

// removeModel reports whether the grace was over.
func (f *fleet) removeModel(mod *servedModel) bool {
	f.serving.Lock()
	defer f.serving.Unlock()
	f.mu.Lock()
	over := f.mu.models[mod.name] == mod && !mod.empty.IsZero() && time.Since(mod.empty) >= modelGrace
	if over {
		delete(f.mu.models, mod.name)
	}
	f.mu.Unlock()
	if over {
		f.server.RemoveModel(mod.name) // also an earlier one whose place it took without being served itself
		f.retireBefore(mod)
		mod.router.Close()
		mod.prefill.Close()
		f.n.metrics.migrate.Forget(mod.name)
	}
	return over
}

// adoptRefused looks again at workers whose card differed from those that are
// gone.
func (f *fleet) adoptRefused() {
	f.mu.Lock()
	var again []*member
	for _, m := range f.mu.members {
		mod := f.mu.models[m.instance.Card.Model]
		if m.refused != "" && m.up && !m.instance.Draining && (mod == nil || !f.hasMembersLocked(mod)) {
			again = append(again, m)
		}
	}
	slices.SortFunc(again, func(a, b *member) int { return a.instance.Started.Compare(b.instance.Started) })
	f.mu.Unlock()
	for _, m := range again {
		f.adopt(m)
	}
}

// instances lists the workers for /health.
func (f *fleet) instances() []frontend.Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]frontend.Instance, 0, len(f.mu.members))
	faults := map[memberKey]string{}
	for _, mod := range f.mu.models {
		for _, w := range slices.Concat(mod.router.Stats().Workers, mod.prefill.Stats().Workers) {
			faults[memberKey{w.ID, w.Epoch}] = w.Fault
		}
	}
	for _, m := range f.mu.members {
		state := "ready"
		switch {
		case m.refused != "":
			state = "refused: " + m.refused
		case m.instance.Draining:
			state = "draining"
		case !m.up:
			state = "unreachable" + m.away
		case m.model == nil || !m.model.ready:
			state = "joining"
		case faults[m.memberKey] != "":
			state = "failing: " + faults[m.memberKey]
		case m.load.Down:
			state = "failing: its engine is down and expected back; see the worker's log"
		}
		list = append(list, frontend.Instance{
			Namespace: m.instance.Namespace, Component: m.instance.Component, Endpoint: m.instance.Endpoint,
			ID: m.id, Address: strings.Join(m.instance.Addresses, " "), Model: m.instance.Card.Model, State: state, Load: m.load,
		})
	}
	slices.SortFunc(list, func(a, b frontend.Instance) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return list
}
