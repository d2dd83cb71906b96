package obs

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
)

// SystemConfig is what the system port of a process shows.
type SystemConfig struct {
	// Registry is served as /metrics; nil serves none.
	Registry *Registry
	// Pprof serves Go's profiles under /debug/pprof. Default false.
	Pprof bool
	// Health says whether the process takes work, and what /health answers, in
	// JSON: nil is its status alone. It must not block. A nil Health is always
	// ready.
	Health func() (ready bool, body any)
}

// SystemHandler serves the system port: /health, 200 or 503, for load balancers;
// /live, 200 as long as the process runs at all; /metrics; and profiles.
func SystemHandler(c SystemConfig) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		ready, body := true, any(nil)
		if c.Health != nil {
			ready, body = c.Health()
		}
		status, word := http.StatusOK, "healthy"
		if !ready {
			status, word = http.StatusServiceUnavailable, "unhealthy"
		}
		if body == nil {
			body = map[string]string{"status": word}
		}
		text, err := json.Marshal(body)
		if err != nil {
			panic("BUG: the health of a process is not JSON: " + err.Error())
		}
		answerJSON(w, status, text)
	})
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, []byte(`{"status":"live","message":"Service is live"}`))
	})
	if c.Registry != nil {
		mux.Handle("GET /metrics", c.Registry.Handler())
	}
	if c.Pprof {
		HandlePprof(mux)
	}
	return mux
}

func answerJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away, which is nobody's concern here
}

// HandlePprof serves Go's profiles under /debug/pprof.
func HandlePprof(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
