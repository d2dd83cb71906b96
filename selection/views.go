package selection

import (
	"context"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router"
)

// held is by tier, under the reference's names, what lies there or in a faster one.
type held struct {
	GPU    int `json:"gpu"`
	CPU    int `json:"cpu"`
	Disk   int `json:"disk"`
	Remote int `json:"remote"`
}

// overlap says how much of the beginning of a prompt a worker holds, in tokens and in
// blocks.
type overlap struct {
	// Longest is whatever the tier.
	Longest int `json:"longest_matched"`
	held
	Blocks held `json:"blocks"`
}

func overlapOf(tokens [4]int, blockSize int) overlap {
	byTier := func(unit int) held {
		return held{tokens[dynamo.TierDevice] / unit, tokens[dynamo.TierHost] / unit, tokens[dynamo.TierDisk] / unit, tokens[dynamo.TierRemote] / unit}
	}
	return overlap{Longest: tokens[dynamo.TierRemote], held: byTier(1), Blocks: byTier(max(blockSize, 1))}
}

// selected is the answer to a selection.
type selected struct {
	RequestID   string `json:"request_id"`
	SelectionID string `json:"selection_id"`
	// Reservation is the id that the reservation's routes take; empty: nothing is booked.
	Reservation string    `json:"reservation_id,omitzero"`
	LeaseUntil  time.Time `json:"lease_until,omitzero"`

	Model     string   `json:"model_name"`
	WorkerID  uint64   `json:"worker_id"`
	Worker    string   `json:"worker"` // the id as the system prints it
	Epoch     uint64   `json:"worker_epoch"`
	Rank      *int     `json:"dp_rank"` // null: any will do
	Endpoint  string   `json:"endpoint"`
	Addresses []string `json:"addresses"`
	BlockSize int      `json:"block_size"`

	Overlap   overlap `json:"overlap"`
	Tokens    int     `json:"isl_tokens"`
	Prefill   int     `json:"effective_prefill_tokens"`
	Predicted float64 `json:"predicted_ttft_ms"`
	Waited    float64 `json:"waited_ms"`
	Policy    string  `json:"policy"`
	Decision  uint64  `json:"decision"`
}

func (s *Server) choice(id string, c *router.Choice) *selected {
	x := &selected{
		RequestID: id, SelectionID: id, Model: c.Model, WorkerID: uint64(c.Worker), Worker: c.Worker.String(), Epoch: c.Epoch, Rank: c.Rank,
		Addresses: s.addresses(c.Worker, c.Epoch), BlockSize: c.BlockSize, Overlap: overlapOf(c.Held, c.BlockSize), Tokens: c.PromptTokens,
		Prefill: c.NewTokens, Predicted: milliseconds(c.Predicted), Waited: milliseconds(c.Waited), Policy: c.Policy, Decision: c.Decision,
	}
	if len(x.Addresses) > 0 {
		x.Endpoint = x.Addresses[0]
	}
	return x
}

func (s *Server) addresses(id dynamo.WorkerID, epoch uint64) []string {
	if a := s.addedByID(id); a != nil && a.Epoch == epoch {
		if a.URL == "" {
			return []string{}
		}
		return []string{a.URL}
	}
	if s.config.Addresses != nil {
		if all := s.config.Addresses(id, epoch); len(all) > 0 {
			return all
		}
	}
	return []string{}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// prepared is a request that a router can be asked.
type prepared struct {
	router *router.Router
	ask    *router.Ask
}

// prepare checks a request and finds its router. A request without an id is given one.
func (s *Server) prepare(q *request) (*prepared, error) {
	if s.draining.Load() {
		return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: "shutting_down", Message: "the server is shutting down; ask another one, or later"}
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	if q.RequestID == "" {
		q.RequestID = newID()
	}
	m, adapter, err := s.model(q.Model)
	if err != nil {
		return nil, err
	}
	p := &prepared{}
	if p.router, err = m.router(q.Role); err != nil {
		return nil, err
	}
	p.ask, err = q.ask(m, adapter)
	return p, err
}

// pick is the method "select".
func (s *Server) pick(ctx context.Context, q *request) (any, error) {
	p, err := s.prepare(q)
	if err != nil {
		return nil, err
	}
	c, err := p.router.Select(ctx, p.ask)
	if err != nil {
		return nil, err
	}
	return s.choice(q.RequestID, &c), nil
}

// workerView is a worker in the answer of "workers".
type workerView struct {
	WorkerID   uint64            `json:"worker_id"`
	Worker     string            `json:"worker"`
	Epoch      uint64            `json:"worker_epoch"`
	Model      string            `json:"model_name"`
	Role       string            `json:"role,omitzero"`
	State      string            `json:"state"`
	Added      bool              `json:"added,omitzero"` // by a client
	Addresses  []string          `json:"addresses"`
	Labels     map[string]string `json:"labels,omitzero"`
	MaxRunning int               `json:"max_running"`
	MaxQueue   int               `json:"max_queue"`
	KVBlocks   int               `json:"total_kv_blocks"`
	BlockSize  int               `json:"block_size"`
}

// loadView is a worker in those of "loads" and "potential_loads".
type loadView struct {
	WorkerID uint64 `json:"worker_id"`
	Worker   string `json:"worker"`
	Role     string `json:"role,omitzero"`
	State    string `json:"state"`
	// What this service has booked there.
	Requests      int `json:"active_requests"`
	BookedTokens  int `json:"booked_tokens"`
	PrefillTokens int `json:"active_prefill_tokens"`
	KVTokens      int `json:"active_decode_tokens"`
	DecodeBlocks  int `json:"active_decode_blocks"`
	// What it says itself; report_ms is how long ago, -1: never.
	Running  int   `json:"reported_running"`
	Queued   int   `json:"reported_queued"`
	KVUsed   int   `json:"reported_kv_used"`
	ReportMS int64 `json:"report_ms"`
	// What the request would make of it.
	PotentialPrefill *int     `json:"potential_prefill_tokens,omitzero"`
	PotentialDecode  *int     `json:"potential_decode_blocks,omitzero"`
	Predicted        *float64 `json:"predicted_ttft_ms,omitzero"`
	Cost             *float64 `json:"cost,omitzero"`
	Verdict          string   `json:"verdict,omitzero"`
}

// modelLoads are the workers of a model.
type modelLoads struct {
	Model   string     `json:"model_name"`
	Group   string     `json:"routing_group"`
	Loads   []loadView `json:"loads"`
	Pending int        `json:"pending_count"`
}

func loadOf(o *router.Outlook, role string, now time.Time) loadView {
	size := max(o.BlockSize, 1)
	v := loadView{
		WorkerID: uint64(o.Worker), Worker: o.Worker.String(), Role: role, State: o.State.String(), Requests: o.Booked, BookedTokens: o.BookedTokens,
		PrefillTokens: o.PrefillTokens, KVTokens: o.KVTokens, DecodeBlocks: (o.KVTokens + size - 1) / size,
		Running: o.Load.Running, Queued: o.Load.Waiting, KVUsed: o.Load.KVUsed, ReportMS: -1,
	}
	if !o.Reported.IsZero() {
		v.ReportMS = now.Sub(o.Reported).Milliseconds()
	}
	if o.Considered {
		prefill, blocks, predicted, cost := o.PrefillTokens+o.NewTokens, (o.KVTokens+o.Prompt+size-1)/size, milliseconds(o.Predicted), o.Cost
		v.PotentialPrefill, v.PotentialDecode, v.Predicted, v.Cost, v.Verdict = &prefill, &blocks, &predicted, &cost, o.Verdict.String()
	}
	return v
}

// sided are the routers of a model with their roles' names.
func (m *Model) sided() map[string]*router.Router {
	all := map[string]*router.Router{"": m.Router}
	if m.Prefill != nil {
		all["prefill"] = m.Prefill
	}
	return all
}

// listWorkers is the method "workers".
func (s *Server) listWorkers(context.Context, *nothing) (any, error) {
	list := []workerView{}
	for _, m := range s.models() {
		for _, role := range []string{"", "prefill"} {
			r := m.sided()[role]
			if r == nil {
				continue
			}
			all, err := r.Survey(nil)
			if err != nil {
				return nil, err
			}
			for i := range all {
				o := &all[i]
				a := s.addedByID(o.Worker)
				list = append(list, workerView{
					Added: a != nil && a.Epoch == o.Epoch,

					WorkerID: uint64(o.Worker), Worker: o.Worker.String(), Epoch: o.Epoch, Model: m.Name, Role: role, State: o.State.String(),
					Addresses: s.addresses(o.Worker, o.Epoch), Labels: o.Labels, MaxRunning: o.MaxRunning, MaxQueue: o.MaxQueue, KVBlocks: o.KVBlocks, BlockSize: o.BlockSize,
				})
			}
		}
	}
	return map[string]any{"workers": list}, nil
}

// loads is the method "loads".
func (s *Server) loads(context.Context, *nothing) (any, error) {
	list := []modelLoads{}
	for _, m := range s.models() {
		x := modelLoads{Model: m.Name, Group: "default", Loads: []loadView{}}
		for _, role := range []string{"", "prefill"} {
			r := m.sided()[role]
			if r == nil {
				continue
			}
			all, err := r.Survey(nil)
			if err != nil {
				return nil, err
			}
			x.Pending += r.Stats().Waiting
			for i := range all {
				x.Loads = append(x.Loads, loadOf(&all[i], role, time.Now()))
			}
		}
		list = append(list, x)
	}
	return list, nil
}

// survey asks what a request would mean to each worker.
func (s *Server) survey(q *request) ([]router.Outlook, error) {
	p, err := s.prepare(q)
	if err != nil {
		return nil, err
	}
	return p.router.Survey(p.ask)
}

// potentialLoads is the method "potential_loads".
func (s *Server) potentialLoads(_ context.Context, q *request) (any, error) {
	all, err := s.survey(q)
	if err != nil {
		return nil, err
	}
	list := make([]loadView, len(all))
	for i := range all {
		list[i] = loadOf(&all[i], q.Role, time.Now())
	}
	return map[string]any{"loads": list}, nil
}

// scoreView is a worker in the answer of "overlap_scores".
type scoreView struct {
	WorkerID uint64  `json:"worker_id"`
	Worker   string  `json:"worker"`
	Overlap  overlap `json:"overlap"`
	Prefill  int     `json:"effective_prefill_tokens"`
}

// overlapScores is the method "overlap_scores".
func (s *Server) overlapScores(_ context.Context, q *request) (any, error) {
	all, err := s.survey(q)
	if err != nil {
		return nil, err
	}
	tokens, list := 0, make([]scoreView, len(all))
	for i := range all {
		o := &all[i]
		tokens = o.Prompt
		list[i] = scoreView{WorkerID: uint64(o.Worker), Worker: o.Worker.String(), Overlap: overlapOf(o.Held, o.BlockSize), Prefill: o.NewTokens}
	}
	return map[string]any{"isl_tokens": tokens, "scores": list}, nil
}
