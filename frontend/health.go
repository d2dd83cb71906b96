package frontend

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/openai"
)

// answer writes a small JSON answer of a route without a body.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	x := &exchange{s: s, w: w, r: r, rc: http.NewResponseController(w)}
	x.reply(status, body)
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, e *dynamo.Error) {
	s.answer(w, r, status, openai.AppendError(nil, e))
}

// serveNoRoute answers what no route matches: 405 where the path exists for
// another method, else 404.
func (s *Server) serveNoRoute(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := *r
		other.Method = method
		if _, pattern := mux.Handler(&other); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.refuse(w, r, http.StatusMethodNotAllowed, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "method_not_allowed", Message: fmt.Sprintf("%s does not take %s; use %s", clip(r.URL.Path), clip(r.Method), strings.Join(allowed, " or "))})
		return
	}
	s.refuse(w, r, http.StatusNotFound, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_url", Message: fmt.Sprintf("there is no %s %s here; the chat route is POST /v1/chat/completions", clip(r.Method), clip(r.URL.Path))})
}

// clip keeps an error message readable whatever was sent.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// infos describes the served models and their adapters by name.
func (s *Server) infos() []openai.ModelInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]openai.ModelInfo, 0, len(s.mu.models))
	for name, m := range s.mu.models {
		list = append(list, openai.ModelInfo{ID: name, Created: m.created, ContextLength: m.Card.ContextLength})
	}
	for name, m := range s.mu.adapters.models {
		list = append(list, openai.ModelInfo{ID: name, Parent: m.Card.Model, Created: m.created, ContextLength: m.Card.ContextLength})
	}
	slices.SortFunc(list, func(a, b openai.ModelInfo) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// authorized answers 401 unless r brings a key that is accepted.
func (s *Server) authorized(w http.ResponseWriter, r *http.Request) bool {
	_, ok := s.caller(w, r)
	return ok
}

// serveModels is GET /v1/models.
func (s *Server) serveModels(w http.ResponseWriter, r *http.Request) {
	if s.authorized(w, r) {
		s.answer(w, r, http.StatusOK, openai.AppendModels(nil, s.infos()))
	}
}

// serveModel is GET /v1/models/{id}; ids may contain slashes.
func (s *Server) serveModel(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(w, r) {
		return
	}
	id := r.PathValue("id")
	for _, m := range s.infos() {
		if m.ID == id {
			s.answer(w, r, http.StatusOK, openai.AppendModel(nil, m))
			return
		}
	}
	status, e := publicError(s.notServed(id))
	s.refuse(w, r, status, e)
}

// serveLive is GET /live: whether the process runs at all.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, http.StatusOK, []byte(`{"status":"live","message":"Service is live"}`))
}

// serveReady is GET /ready: whether a request sent now would be taken.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	status, word := s.readiness()
	s.answer(w, r, status, []byte(`{"status":"`+word+`"}`))
}

func (s *Server) readiness() (status int, word string) {
	switch {
	case s.draining.Load():
		return http.StatusServiceUnavailable, "draining"
	case len(s.infos()) == 0:
		return http.StatusServiceUnavailable, "no_models"
	}
	return http.StatusOK, "ready"
}

// serveHealth is GET /health, in the reference's shape: healthy with 200 while a
// request would be taken, else unhealthy with 503, and who serves. Where API keys
// are wanted, the workers and their addresses are shown to those who have one.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	status, word := s.readiness()
	health := "healthy"
	if status != http.StatusOK {
		health = "unhealthy"
	}
	body := []byte(`{"status":"` + health + `","message":"` + word + `",`)
	if _, stranger := s.config.APIKeys.tenant(r); s.config.Instances != nil && stranger == nil {
		var err error
		if body, err = appendInstances(body, s.config.Instances()); err != nil {
			panic("BUG: the instances are not JSON: " + err.Error())
		}
		body = append(body, ',')
	}
	body = append(body, `"models":[`...)
	for i, m := range s.infos() {
		if i > 0 {
			body = append(body, ',')
		}
		body = openai.AppendModel(body, m)
	}
	s.answer(w, r, status, append(body, "]}"...))
}

// serveVersion is GET /version.
func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, http.StatusOK, openai.AppendVersion(nil, s.config.Version))
}
