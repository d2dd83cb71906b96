package obs

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSystemHandler(t *testing.T) {
	ready, body := true, any(nil)
	full := SystemConfig{Registry: NewRegistry().WithProcess(), Pprof: true, Health: func() (bool, any) { return ready, body }}
	state := struct {
		State string `json:"state"`
	}{"draining"}
	tests := []struct {
		config       SystemConfig
		ready        bool
		body         any
		method, path string
		status       int
		want         string
	}{
		{full, true, nil, "GET", "/health", 200, `{"status":"healthy"}`},
		{full, false, nil, "GET", "/health", 503, `{"status":"unhealthy"}`},
		{full, false, state, "GET", "/health", 503, `{"state":"draining"}`},
		{full, false, nil, "GET", "/live", 200, `{"status":"live","message":"Service is live"}`},
		{full, true, nil, "GET", "/metrics", 200, "go_goroutines"},
		{full, true, nil, "GET", "/debug/pprof/", 200, "goroutine"},
		{full, true, nil, "POST", "/health", 405, ""},
		{SystemConfig{}, false, nil, "GET", "/health", 200, `{"status":"healthy"}`},
		{SystemConfig{}, true, nil, "GET", "/metrics", 404, ""},
		{SystemConfig{}, true, nil, "GET", "/debug/pprof/", 404, ""},
	}
	for _, tt := range tests {
		ready, body = tt.ready, tt.body
		w := httptest.NewRecorder()
		SystemHandler(tt.config).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %.100q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.status, tt.want)
		}
	}
}
