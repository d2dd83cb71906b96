package selection

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Server serves selections over HTTP.
type Server struct {
	config   Config
	log      *slog.Logger
	metrics  *metrics
	table    *table
	handler  http.Handler
	origin   *http.CrossOriginProtection
	draining atomic.Bool
	handling atomic.Int64

	mu struct {
		sync.RWMutex
		models map[string]*Model
	}
}

// New returns a server without models. It starts nothing.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure the selection service: %w", err)
	}
	if c.Registry == nil {
		c.Registry = obs.NewRegistry()
	}
	s := &Server{config: c, log: obs.For(c.Logger, "selection"), metrics: newMetrics(c.Registry), origin: http.NewCrossOriginProtection()}
	s.table = newTable(c.Reservations, s.metrics)
	s.mu.models = map[string]*Model{}
	s.handler = s.routes()
	return s, nil
}

// Handler returns the handler of all routes.
func (s *Server) Handler() http.Handler { return s.handler }

// handler answers a request, or returns the error to answer with.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"POST /select":                             s.serveSelect,
		"POST /select_and_reserve":                 s.serveReserve(false),
		"POST /reservations":                       s.serveReserve(true),
		"POST /reservations/{id}/prefill_complete": s.servePrefill,
		"POST /reservations/{id}/output_block":     s.serveOutput,
		"DELETE /reservations/{id}":                s.serveRelease,
		"GET /workers":                             s.serveWorkers,
		"GET /loads":                               s.serveLoads,
		"POST /potential_loads":                    s.servePotential,
		"POST /overlap_scores":                     s.serveOverlaps,
		"GET /v1/router":                           s.serveState,
		"GET /v1/requests/{id}/explain":            s.serveExplain,
	} {
		mux.Handle(pattern, s.counted(routeLabel(pattern), h))
	}
	mux.HandleFunc("GET /health", s.serveHealth)
	mux.HandleFunc("GET /ready", s.serveHealth)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, []byte(`{"status":"live"}`)) })
	mux.Handle("GET /metrics", s.config.Registry.Handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			s.serveNoRoute(w, r, mux)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveNoRoute answers what no route matches: 405 where the path is there for another
// method, else 404.
func (s *Server) serveNoRoute(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := *r
		other.Method = method
		if _, pattern := mux.Handler(&other); pattern != "" {
			w.Header().Set("Allow", method)
			s.refuse(w, &statusError{http.StatusMethodNotAllowed, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "method_not_allowed", Message: fmt.Sprintf("%s does not take %s; use %s", clip(r.URL.Path), clip(r.Method), method)}})
			return
		}
	}
	s.refuse(w, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_url", Message: fmt.Sprintf("there is no %s %s here; this is the selection service: ask with POST /select", clip(r.Method), clip(r.URL.Path))})
}

// counted makes a route of h: for those who may ask, and counted.
func (s *Server) counted(route string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := s.authorize(r)
		switch {
		case err != nil:
		case s.handling.Add(1) > maxHandlers:
			s.handling.Add(-1)
			err = errCrowded
		default:
			err = h(w, r)
			s.handling.Add(-1)
		}
		outcome := "ok"
		if err != nil {
			outcome = s.refuse(w, err)
		}
		s.metrics.requests.WithLabelValues(route, outcome).Inc()
	})
}

var errKey = &statusError{http.StatusUnauthorized, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "invalid_api_key", Message: "this server wants a key it knows; send Authorization: Bearer KEY"}}

var errCrowded = &dynamo.Error{Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: retryAfter, Message: "the server handles as many requests as it can; try again later"}

// authorize lets those in who have the key, and no other web page.
func (s *Server) authorize(r *http.Request) error {
	if s.origin.Check(r) != nil {
		return &statusError{http.StatusForbidden, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "cross_origin", Message: "a web page of another origin may not use this server"}}
	}
	if s.config.Key == "" {
		return nil
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(strings.TrimSpace(key))), sha256.Sum256([]byte(s.config.Key))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return errKey
	}
	return nil
}

// serveHealth is GET /health and GET /ready: 200 while a request would be taken.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	status, word := http.StatusOK, "ready"
	switch {
	case s.draining.Load():
		status, word = http.StatusServiceUnavailable, "draining"
	case len(s.models()) == 0:
		status, word = http.StatusServiceUnavailable, "no_models"
	}
	write(w, status, []byte(`{"status":"`+word+`"}`))
}

// serveState is GET /v1/router.
func (s *Server) serveState(w http.ResponseWriter, _ *http.Request) error {
	if s.config.State == nil {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_url", Message: "the state of the routers is not shown here"}
	}
	return s.answer(w, http.StatusOK, s.config.State())
}

// serveExplain is GET /v1/requests/{id}/explain.
func (s *Server) serveExplain(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if s.config.Explain != nil {
		if why, known := s.config.Explain(dynamo.RequestID(id)); known {
			return s.answer(w, http.StatusOK, why)
		}
	}
	return &dynamo.Error{Kind: dynamo.KindNotFound, Param: "id", Code: "unknown_request", Message: fmt.Sprintf("there is no decision about a request %q: the last ones are kept, under the request_id that they were asked for with or that the answer gave", clip(id))}
}

// Serve accepts connections on l until ctx ends, lets requests in progress end for at
// most Config.DrainTimeout, and then ends all reservations.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		s.draining.Store(true)
		limit, cancel := context.WithTimeout(context.Background(), s.config.DrainTimeout)
		defer cancel()
		err := hs.Shutdown(limit)
		if err != nil {
			s.log.Warn("drain cut requests off", obs.KeyError, err)
			err = hs.Close()
		}
		ended <- err
	})
	err := hs.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = <-ended
	} else if stop() {
		err = fmt.Errorf("serve HTTP: %w", err)
	}
	s.table.endAll(context.WithoutCancel(ctx))
	return err
}
