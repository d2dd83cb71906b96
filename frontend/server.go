package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// Model is what AddModel serves: an engine with what surrounds it. It must not
// change once added.
type Model struct {
	// Card says what the engine serves; Card.Model is the served name, beside which
	// the names of Card.Adapters can be asked for.
	Card engine.Card
	// Engine answers; it must be running.
	Engine engine.Engine
	// Tokenizer is the model's.
	Tokenizer *tokenizer.Tokenizer
	// Template renders conversations; nil refuses chat for this model.
	Template *chat.Set
	// Vars are further variables of the template, such as bos_token and
	// eos_token; may be nil.
	Vars *chat.Dict
	// Defaults hold where a request does not say how to sample.
	Defaults Defaults
	// Created is when the model was made or loaded, for GET /v1/models.
	Created time.Time
}

// Defaults are the sampling values of a model's generation_config; those not set
// are OpenAI's: temperature 1 and nothing else.
type Defaults struct {
	Temperature, TopP, MinP, RepetitionPenalty openai.Optional[float64]
	TopK                                       openai.Optional[int]
}

// served is a Model in service.
type served struct {
	*Model
	gate        *engine.Admit
	metrics     *modelMetrics
	fingerprint string
	created     int64
	// maxTextBytes is a length no prompt that fits the context reaches.
	maxTextBytes int
	// word is an ordinary token, for textSpec.before; nil if there is none.
	word []dynamo.TokenID
}

// Server serves models over HTTP. It is an http.Handler's owner: use Serve, or
// Handler within a server of your own.
type Server struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	cache   *tokenizer.Cache
	handler http.Handler
	origin  *http.CrossOriginProtection
	asked   *asked // nil: nothing is explained

	handling atomic.Int64 // generating requests between arrival and end
	draining atomic.Bool
	// base is cancelled, with errDrained, when a drain runs out of time.
	base   context.Context
	cutOff context.CancelCauseFunc
	// drained is closed when the first Drain has ended.
	drained     chan struct{}
	drainedOnce sync.Once

	mu struct {
		sync.RWMutex
		models   map[string]*served
		adapters adapters
		servers  []*http.Server
	}
}

// New returns a server without models. It starts nothing.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure the frontend: %w", err)
	}
	if c.Registry == nil {
		c.Registry = obs.NewRegistry()
	}
	s := &Server{
		config:  c,
		log:     obs.For(c.Logger, "frontend"),
		metrics: newMetrics(c.Registry, c.Instances),
		cache:   tokenizer.NewCache(c.TokenizerCacheBytes),
		origin:  http.NewCrossOriginProtection(),
		drained: make(chan struct{}),
	}
	if c.Explain != nil {
		s.asked = newAsked(c.ExplainKept)
	}
	s.base, s.cutOff = context.WithCancelCause(context.Background())
	s.mu.models = map[string]*served{}
	s.handler = s.routes()
	return s, nil
}

// AddModel serves m from now on, in place of one of the same name; requests in
// progress stay with the model they began with.
func (s *Server) AddModel(m *Model) error {
	if m.Card.Model == "" || m.Engine == nil || m.Tokenizer == nil || m.Card.ContextLength < 1 {
		return errors.New("add a model: its name, context length, engine and tokenizer are needed")
	}
	sv := &served{Model: m, metrics: s.metrics.model(m.Card.Model), created: m.Created.Unix()}
	if m.Created.IsZero() {
		sv.created = time.Now().Unix()
	}
	// The gate's next engine is not asked for anything: a request passes the gate
	// before its prompt is known, and is generated within.
	var err error
	if sv.gate, err = engine.NewAdmit(gateway{}, s.config.admit()); err != nil {
		return fmt.Errorf("add model %s: %w", m.Card.Model, err)
	}
	if n := len(m.Card.Revision); n > 0 {
		sv.fingerprint = "fp_" + m.Card.Revision[:min(n, 12)]
	}
	sv.word = ordinaryWord(m.Tokenizer)
	sv.maxTextBytes = m.Card.ContextLength * shortening * longestToken(m.Tokenizer)
	s.mu.Lock()
	s.metrics.serve(&m.Card, sv.gate)
	s.mu.models[m.Card.Model] = sv
	hidden := s.nameAdaptersLocked()
	s.mu.Unlock()
	s.warnHidden(hidden)
	return nil
}

// ordinaryWord returns a token whose text a decoder puts out at once, if the
// tokenizer has one at hand.
func ordinaryWord(t *tokenizer.Tokenizer) []dynamo.TokenID {
	ids := t.Encode(nil, "a", tokenizer.EncodeOptions{})
	if len(ids) != 1 || len(t.NewDecoder(true).Append(nil, ids[0])) == 0 {
		return nil
	}
	return ids
}

// longestToken returns the length in bytes of the longest token's text, at least
// 1.
func longestToken(t *tokenizer.Tokenizer) int {
	longest := 1
	for id := range t.VocabSize() {
		longest = max(longest, len(t.TokenBytes(dynamo.TokenID(id))))
	}
	return longest
}

// RemoveModel serves the model no longer; requests in progress end by themselves.
func (s *Server) RemoveModel(name string) {
	s.mu.Lock()
	delete(s.mu.models, name)
	s.metrics.unserve(name)
	hidden := s.nameAdaptersLocked()
	s.mu.Unlock()
	s.warnHidden(hidden)
}

// model finds the served model that name means, and the adapter if it means one.
func (s *Server) model(name string) (m *served, adapter string, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if m, ok := s.mu.models[name]; ok {
		return m, "", nil
	}
	if m, ok := s.mu.adapters.models[name]; ok {
		return m, name, nil
	}
	if name == "" && len(s.mu.models) == 1 {
		for _, m := range s.mu.models {
			return m, "", nil
		}
	}
	if len(s.mu.models) == 0 {
		return nil, "", errNoModel
	}
	return nil, "", s.notServedLocked(name)
}

// notServed is the error of a model that is not there.
func (s *Server) notServed(name string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.notServedLocked(name)
}

func (s *Server) notServedLocked(name string) error {
	return &dynamo.Error{
		Kind: dynamo.KindNotFound, Param: "model", Code: "model_not_found",
		Message: fmt.Sprintf("the model %q is not served here; served are: %s", clip(name), s.namesLocked()),
	}
}

// Handler returns the handler of all routes.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.serveChat)
	mux.HandleFunc("POST /v1/completions", s.serveCompletion)
	mux.HandleFunc("POST /tokenize", s.serveTokenize)
	mux.HandleFunc("POST /detokenize", s.serveDetokenize)
	mux.HandleFunc("GET /v1/models", s.serveModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.serveModel)
	mux.HandleFunc("GET /health", s.serveHealth)
	mux.HandleFunc("GET /live", s.serveLive)
	mux.HandleFunc("GET /ready", s.serveReady)
	mux.HandleFunc("GET /version", s.serveVersion)
	mux.Handle("GET /metrics", s.config.Registry.Handler())
	if s.config.Explain != nil {
		mux.HandleFunc("GET /v1/requests/{id}/explain", s.serveExplain)
	}
	if s.config.RouterState != nil {
		mux.HandleFunc("GET /v1/router", s.toOperator(s.config.RouterState))
	}
	if s.config.RouterRecords != nil {
		mux.HandleFunc("GET /v1/router/records", s.toOperator(s.config.RouterRecords))
	}
	if s.config.Pprof {
		obs.HandlePprof(mux)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern == "" {
			s.serveNoRoute(w, r, mux)
			return
		}
		if strings.Contains(pattern, "{") {
			h = mux // which fills in the path's values
		}
		h.ServeHTTP(w, r)
	})
}

// Serve accepts connections on l until Drain is called or ctx ends, which drains
// for at most Config.DrainTimeout. It returns when the drain has ended: nil,
// whether or not that had to cut requests off; else why accepting failed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return context.WithValue(s.base, baseKey{}, s) },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	s.mu.servers = append(s.mu.servers, hs)
	s.mu.Unlock()
	if s.draining.Load() {
		return errors.Join(l.Close())
	}
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.Background(), s.config.DrainTimeout)
		defer cancel()
		if err := s.Drain(limit); err != nil {
			s.log.Warn("drain cut requests off", obs.KeyError, err)
		}
	})
	defer stop()
	if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	<-s.drained
	return nil
}

// baseKey marks contexts that descend from Server.base.
type baseKey struct{}

// Drain stops accepting, refuses requests that still arrive with 503, and waits
// for those in progress. When ctx ends first they are cancelled, which their
// clients hear, and the error says how many there were.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	defer s.drainedOnce.Do(func() { close(s.drained) })
	s.mu.RLock()
	servers := slices.Clone(s.mu.servers)
	s.mu.RUnlock()
	var err error
	for _, hs := range servers {
		if e := hs.Shutdown(ctx); e != nil && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("stop accepting: %w", e))
		}
	}
	if s.awaitHandlers(ctx) && ctx.Err() == nil {
		return err
	}
	left := s.handling.Load()
	s.cutOff(errDrained)
	grace, cancel := context.WithTimeout(context.Background(), cutGrace)
	defer cancel()
	s.awaitHandlers(grace)
	for _, hs := range servers {
		err = errors.Join(err, hs.Close())
	}
	if left == 0 {
		return err
	}
	return errors.Join(err, fmt.Errorf("drain: %d requests were cut off: %w", left, context.Cause(ctx)))
}

// awaitHandlers waits until no generating request is left, or ctx ends, and
// reports which.
func (s *Server) awaitHandlers(ctx context.Context) bool {
	// A drain happens once in a process's life, so that looking every so often is
	// better than making each request announce its end.
	const every = 5 * time.Millisecond
	for s.handling.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(every):
		}
	}
	return true
}
