package selection

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Server serves selections over HTTP and rpc.
type Server struct {
	config   Config
	log      *slog.Logger
	metrics  *metrics
	table    *table
	handler  http.Handler
	origin   *http.CrossOriginProtection
	draining atomic.Bool
	serving  atomic.Int32 // transports
	inside   inside

	// adding is held while the workers that clients have added change, before mu.
	adding sync.Mutex
	mu     struct {
		sync.RWMutex
		models map[string]*Model          // as AddModel has them
		own    map[string]*Model          // beside those, over added workers alone
		added  map[dynamo.WorkerID]*added // by clients
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
	s.mu.models, s.mu.own, s.mu.added = map[string]*Model{}, map[string]*Model{}, map[dynamo.WorkerID]*added{}
	s.handler = s.routes()
	return s, nil
}

// Handler returns the handler of all routes.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for i := range methods {
		mux.Handle(methods[i].verb+" "+methods[i].path, s.overHTTP(&methods[i]))
	}
	mux.HandleFunc("GET /health", s.serveHealth)
	mux.HandleFunc("GET /ready", s.serveHealth)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, []byte(`{"status":"live"}`)) })
	mux.Handle("GET /metrics", s.config.Registry.Handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			serveNoRoute(w, r, mux)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveNoRoute answers what no route matches: 405 where the path is there for another
// method, else 404.
func serveNoRoute(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := *r
		other.Method = method
		if _, pattern := mux.Handler(&other); pattern != "" {
			w.Header().Set("Allow", method)
			refuse(w, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "method_not_allowed", Message: fmt.Sprintf("%s does not take %s; use %s", clip(r.URL.Path), clip(r.Method), method)})
			return
		}
	}
	refuse(w, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_url", Message: fmt.Sprintf("there is no %s %s here; this is the selection service: ask with POST /select", clip(r.Method), clip(r.URL.Path))})
}

// overHTTP makes a route of a method: for those who may ask, and counted.
func (s *Server) overHTTP(x *method) http.Handler {
	status := either(x.status, http.StatusOK)
	names := wildcards(x.path)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := s.callHTTP(w, r, x, names)
		s.metrics.count(x, overHTTP, err)
		if err != nil {
			refuse(w, err)
			return
		}
		write(w, status, answer)
	})
}

func (s *Server) callHTTP(w http.ResponseWriter, r *http.Request, x *method, names []string) ([]byte, *dynamo.Error) {
	if err := s.authorize(r); err != nil {
		return nil, err
	}
	if !s.inside.begin() {
		return nil, errCrowded
	}
	defer s.inside.end()
	m := &message{}
	for _, name := range names {
		m.args = append(m.args, arg{name, r.PathValue(name)})
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault("", "what follows ? in the address cannot be read: %v", err)
	}
	for name, texts := range query {
		for _, text := range texts {
			m.args = append(m.args, arg{name, text})
		}
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // without support there is none
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), firstBodyBytes)) + bytes.MinRead)
	_, err = body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	m.body = body.Bytes()
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, s.public(syntax(err))
	}
	return s.invoke(r.Context(), x, m)
}

// wildcards are the names in a path.
func wildcards(path string) (names []string) {
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

var errKey = &dynamo.Error{Kind: dynamo.KindInvalid, Code: "invalid_api_key", Message: "this server wants a key it knows; send Authorization: Bearer KEY"}

var errOrigin = &dynamo.Error{Kind: dynamo.KindInvalid, Code: "cross_origin", Message: "a web page of another origin may not use this server"}

var errCrowded = &dynamo.Error{Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: retryAfter, Message: "the server handles as many requests as it can; try again later"}

// authorize lets those in who have the key, and no other web page.
func (s *Server) authorize(r *http.Request) *dynamo.Error {
	if s.origin.Check(r) != nil {
		return errOrigin
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

// state is the method "state".
func (s *Server) state(context.Context, *nothing) (any, error) {
	if s.config.State == nil {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_url", Message: "the state of the routers is not shown here"}
	}
	return s.config.State(), nil
}

type explainMessage struct{ ID string }

var explainFields = fields[explainMessage]{"request_id": func(q *explainMessage) any { return (*name)(&q.ID) }}

// explain is the method "explain".
func (s *Server) explain(_ context.Context, q *explainMessage) (any, error) {
	if q.ID == "" {
		return nil, missing("request_id")
	}
	if s.config.Explain != nil {
		if why, known := s.config.Explain(dynamo.RequestID(q.ID)); known {
			return why, nil
		}
	}
	return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Param: "request_id", Code: "unknown_request", Message: fmt.Sprintf("there is no decision about a request %q: the last ones are kept, under the request_id that they were asked for with or that the answer gave", clip(q.ID))}
}

// Serve accepts connections on l until ctx ends, lets requests in progress end for at
// most Config.DrainTimeout, and then ends all reservations, if ServeRPC does not serve
// still.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.serves(ctx)()
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
	return err
}

// serves counts a transport, and returns what is to be called when it has ended: with
// the last one all reservations end.
func (s *Server) serves(ctx context.Context) (ended func()) {
	s.serving.Add(1)
	return func() {
		if s.serving.Add(-1) == 0 {
			s.table.endAll(context.WithoutCancel(ctx))
		}
	}
}
