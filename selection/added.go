package selection

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// Gateways may know workers that discovery does not: they add them, and take them out
// again. Such a worker is one of its model's like any other. Where discovery knows the
// model too it is added to the router over those; where it does not, there are routers
// for the added ones alone, until discovery finds the model and after it has lost it.

// addition is the message of the method "add_worker", and what is known of a worker
// that was added.
type addition struct {
	ID    dynamo.WorkerID
	Epoch uint64 // of this life; 0 has the service choose a later one than before
	Model string
	URL   string
	Role  string
	// Ranks are its data-parallel ranks, the others its capacity; 0 is unknown, and for
	// MaxRunning without bounds.
	Ranks, MaxRunning, MaxQueue, KVBlocks, BlockSize, Context int
	// Labels say where it stands.
	Labels   map[string]string
	Adapters []string
}

var additionFields = fields[addition]{
	"worker_id":           func(a *addition) any { return &a.ID },
	"worker_epoch":        func(a *addition) any { return &a.Epoch },
	"model":               func(a *addition) any { return &a.Model },
	"model_name":          func(a *addition) any { return &a.Model },
	"url":                 func(a *addition) any { return &a.URL },
	"endpoint":            func(a *addition) any { return &a.URL },
	"role":                func(a *addition) any { return &a.Role },
	"ranks":               func(a *addition) any { return &a.Ranks },
	"data_parallel_size":  func(a *addition) any { return &a.Ranks },
	"max_running":         func(a *addition) any { return &a.MaxRunning },
	"max_queue":           func(a *addition) any { return &a.MaxQueue },
	"total_kv_blocks":     func(a *addition) any { return &a.KVBlocks },
	"block_size":          func(a *addition) any { return &a.BlockSize },
	"kv_cache_block_size": func(a *addition) any { return &a.BlockSize },
	"context_length":      func(a *addition) any { return &a.Context },
	"topology":            func(a *addition) any { return &a.Labels },
	"labels":              func(a *addition) any { return &a.Labels },
	"lora_names":          func(a *addition) any { return &a.Adapters },
}

// check looks for faults that can be seen without the models.
func (a *addition) check() error {
	switch {
	case a.ID == 0:
		return missing("worker_id")
	case a.Model == "":
		return missing("model")
	case len(a.Model) > maxLabel || strings.ContainsFunc(a.Model, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fault("model", "model is %q; a model's name has at most %d bytes, and no control characters", clip(a.Model), maxLabel)
	case a.Role != "" && a.Role != engine.RolePrefill && a.Role != engine.RoleDecode:
		return fault("role", "role is %q; it is prefill, decode or left out", clip(a.Role))
	case a.KVBlocks > 0 && a.BlockSize == 0:
		return fault("block_size", "total_kv_blocks is there without block_size, the tokens of a block; give both")
	}
	if a.URL != "" {
		u, err := url.Parse(a.URL)
		if err != nil || u.Scheme == "" || u.Host == "" || len(a.URL) > maxURL {
			return fault("url", "url is %q; it is an address such as http://10.0.0.7:8000, of at most %d bytes", clip(a.URL), maxURL)
		}
	}
	for _, f := range []struct {
		param   string
		n, most int
	}{
		{"ranks", a.Ranks, maxRanks}, {"max_running", a.MaxRunning, maxPlaces}, {"max_queue", a.MaxQueue, maxPlaces},
		{"total_kv_blocks", a.KVBlocks, maxPlaces}, {"block_size", a.BlockSize, maxBlockSize}, {"context_length", a.Context, maxContext},
	} {
		if f.n < 0 || f.n > f.most {
			return fault(f.param, "%s is %d; it must be 0 (unknown) to %d", f.param, f.n, f.most)
		}
	}
	return a.checkLabels()
}

// checkLabels checks labels and adapters, and writes labels as workers have them.
func (a *addition) checkLabels() error {
	labels := make(map[string]string, len(a.Labels))
	for key, text := range a.Labels {
		own := strings.TrimPrefix(key, "dynamo.topology/")
		if own == "" || strings.Contains(own, "=") || len(own)+len(text) >= maxLabel {
			return fault("labels", "labels has %q: %q; a label is a name without = and a text, together of less than %d bytes", clip(key), clip(text), maxLabel)
		}
		labels[own] = text
	}
	a.Labels = labels
	for _, name := range a.Adapters {
		if name == "" || len(name) > maxLabel {
			return fault("lora_names", "lora_names has %q; a name has 1 to %d bytes", clip(name), maxLabel)
		}
	}
	return nil
}

// worker is what a router is told of it. What its cache holds it does not say.
func (a *addition) worker(m *Model) router.Worker {
	context := either(a.Context, either(m.ContextLength, math.MaxInt32)) // what is unknown is as others have it
	return router.Worker{
		ID: a.ID, Epoch: a.Epoch, MaxRunning: a.MaxRunning, MaxQueue: a.MaxQueue, KVBlocks: a.KVBlocks, Ranks: a.Ranks, Labels: a.Labels, Silent: true,
		Card: engine.Card{Model: a.Model, Engine: "added", BlockSize: a.BlockSize, ContextLength: context, Role: a.Role, Adapters: slices.Clone(a.Adapters)},
	}
}

// added is a worker that was added, with the router that has it.
type added struct {
	addition
	at *router.Router
}

// registration is the answer of "add_worker" and "remove_worker". Applied says whether
// it has changed anything.
type registration struct {
	WorkerID uint64 `json:"worker_id"`
	Worker   string `json:"worker"`
	Epoch    uint64 `json:"worker_epoch"`
	Model    string `json:"model_name"`
	Applied  bool   `json:"applied"`
}

func (a *addition) registration(applied bool) *registration {
	return &registration{uint64(a.ID), a.ID.String(), a.Epoch, a.Model, applied}
}

// AddWorkers adds workers as the method "add_worker" does, for each line of text that is
// not empty: a JSON object, its message.
func (s *Server) AddWorkers(text []byte) error {
	x, err := find("add_worker")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if _, err := s.perform(context.Background(), x, &message{body: line}); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// addWorker is the method "add_worker". What is known of a worker by now is replaced:
// it is another life of it, with nothing in its cache. Saying the same again changes
// nothing.
func (s *Server) addWorker(_ context.Context, a *addition) (any, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if s.config.NewRouters == nil {
		return nil, fault("", "this service takes no workers from its clients")
	}
	s.adding.Lock()
	defer s.adding.Unlock()
	was := s.addedByID(a.ID)
	if was != nil {
		if was.Model != a.Model {
			e := fault("model", "worker %v is there already, of model %s; remove it before it is one of another", a.ID, was.Model)
			e.Code = "already_registered"
			return nil, e
		}
		same := *a
		same.Epoch = either(a.Epoch, was.Epoch)
		if reflect.DeepEqual(same, was.addition) {
			return was.registration(false), nil
		}
		if a.Epoch != 0 && a.Epoch <= was.Epoch {
			return nil, fault("worker_epoch", "worker_epoch is %d, and the worker is known with %d; a later life has a later one: raise it, or leave it out", a.Epoch, was.Epoch)
		}
	} else if n := s.countAdded(); n >= maxAdded {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Code: "too_many_workers", RetryAfter: retryAfter, Message: fmt.Sprintf("%d workers were added, the most there may be; remove those that have gone", n)}
	}
	if a.Epoch == 0 {
		a.Epoch = uint64(time.Now().UnixNano())
		if was != nil {
			a.Epoch = max(a.Epoch, was.Epoch+1)
		}
	}
	m, err := s.modelFor(a.Model)
	if err != nil {
		return nil, err
	}
	if was == nil && m.knows(a.ID) {
		e := fault("worker_id", "worker %v is one that discovery has found; it need not be added, and leaves by itself", a.ID)
		e.Code = "already_registered"
		return nil, e
	}
	return a.registration(true), s.put(was, &added{addition: *a}, m)
}

// put takes a worker into the routers of its model, in place of what it was. adding is
// held.
func (s *Server) put(was, now *added, m *Model) error {
	if err := now.join(m); err != nil {
		s.settle(m.Name)
		return err
	}
	if was != nil && was.at != now.at { // its role is another one
		was.at.Remove(was.ID, was.Epoch)
	}
	s.mu.Lock()
	s.mu.added[now.ID] = now
	n := len(s.mu.added)
	s.mu.Unlock()
	s.metrics.added.Set(float64(n))
	s.settle(m.Name)
	return nil
}

// join adds the worker to the router of m for its role.
func (a *added) join(m *Model) error {
	r := m.Router
	if a.Role == engine.RolePrefill {
		r = m.Prefill
	}
	if r == nil {
		return fault("role", "model %s has no router for %s workers here; leave role out", m.Name, a.Role)
	}
	if a.at == r {
		return nil
	}
	if err := r.Add(a.worker(m)); err != nil {
		return err
	}
	r.SetUp(a.ID, a.Epoch, true)
	a.at = r
	return nil
}

// knows reports whether one of the routers of m has a worker of that id.
func (m *Model) knows(id dynamo.WorkerID) bool {
	for _, r := range []*router.Router{m.Router, m.Prefill} {
		if r == nil {
			continue
		}
		for _, w := range r.Stats().Workers {
			if w.ID == id {
				return true
			}
		}
	}
	return false
}

// removalMessage is that of the method "remove_worker".
type removalMessage struct {
	ID    dynamo.WorkerID
	Epoch uint64 // 0: whichever
}

var removalFields = fields[removalMessage]{
	"worker_id":    func(q *removalMessage) any { return &q.ID },
	"worker_epoch": func(q *removalMessage) any { return &q.Epoch },
}

// removeWorker is the method "remove_worker". Its reservations end by themselves.
func (s *Server) removeWorker(_ context.Context, q *removalMessage) (any, error) {
	if q.ID == 0 {
		return nil, missing("worker_id")
	}
	s.adding.Lock()
	defer s.adding.Unlock()
	was := s.addedByID(q.ID)
	if was == nil {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Param: "worker_id", Code: "unknown_worker", Message: fmt.Sprintf("worker %v was not added, or has been removed; one that discovery has found leaves by itself", q.ID)}
	}
	if q.Epoch != 0 && q.Epoch != was.Epoch { // it was about an earlier life
		return was.registration(false), nil
	}
	was.at.Remove(was.ID, was.Epoch)
	s.mu.Lock()
	delete(s.mu.added, q.ID)
	n := len(s.mu.added)
	s.mu.Unlock()
	s.metrics.added.Set(float64(n))
	s.settle(was.Model)
	return was.registration(true), nil
}

func (s *Server) addedByID(id dynamo.WorkerID) *added {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.added[id]
}

func (s *Server) countAdded() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.mu.added)
}

// modelFor returns the model that a worker is added to, and makes it where there is
// none. adding is held.
func (s *Server) modelFor(name string) (*Model, error) {
	s.mu.RLock()
	m := either(s.mu.models[name], s.mu.own[name])
	s.mu.RUnlock()
	if m != nil {
		return m, nil
	}
	m = &Model{Name: name}
	var err error
	if m.Router, m.Prefill, err = s.config.NewRouters(name); err != nil {
		return nil, fmt.Errorf("make the routers of model %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.own[name] = m
	return m, nil
}

// rejoin puts the workers that were added for a model into its routers, which are
// others by now. adding is held.
func (s *Server) rejoin(name string) {
	s.mu.RLock()
	var all []*added
	for _, a := range s.mu.added {
		if a.Model == name {
			all = append(all, a)
		}
	}
	s.mu.RUnlock()
	if len(all) > 0 {
		m, err := s.modelFor(name)
		for _, a := range all {
			if err == nil {
				err = a.join(m)
			}
			if err != nil {
				s.log.Warn("a worker that was added is out of use; remove it, or add it again", obs.KeyWorker, a.ID, obs.KeyModel, name, obs.KeyError, err)
			}
		}
	}
	s.settle(name)
}

// settle brings the routers for added workers alone up to date: what they offer, and
// whether there are to be any. adding is held.
func (s *Server) settle(name string) {
	s.mu.Lock()
	own := s.mu.own[name]
	if own == nil {
		s.mu.Unlock()
		return
	}
	now := *own
	now.Adapters, now.ContextLength = nil, 0
	used, bounded := false, true
	for _, a := range s.mu.added {
		if a.Model != name {
			continue
		}
		used = true
		bounded = bounded && a.Context > 0
		now.ContextLength = max(now.ContextLength, a.Context)
		now.Adapters = append(now.Adapters, a.Adapters...)
	}
	if !bounded {
		now.ContextLength = 0
	}
	slices.Sort(now.Adapters)
	now.Adapters = slices.Compact(now.Adapters)
	over := !used || s.mu.models[name] != nil
	if over {
		delete(s.mu.own, name)
	} else {
		s.mu.own[name] = &now
	}
	s.mu.Unlock()
	if over {
		own.Router.Retire()
		own.Prefill.Retire()
	}
}

// Routers lists those that are for workers which clients have added, alone.
func (s *Server) Routers() (all []*router.Router) {
	s.mu.RLock()
	own := maps.Clone(s.mu.own)
	s.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		all = append(all, own[name].Router)
		if len(own[name].Prefill.Stats().Workers) > 0 {
			all = append(all, own[name].Prefill)
		}
	}
	return all
}
