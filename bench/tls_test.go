package bench_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/dynamo-go/dynamo/bench"
)

// TestTLS asks over https, and refuses a certificate that nobody vouches for.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, someContent+"data: [DONE]\n\n") // the client tells
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c := bench.DefaultConfig()
	c.URLs, c.Model, c.Concurrency, c.Requests = []string{s.URL}, "m", 2, 6
	r, err := bench.Run(t.Context(), c)
	if err != nil || r.Errors[bench.ClassTLS] != 6 {
		t.Errorf("an unknown certificate: errors %v, %v; want 6 of class tls", r.Errors, err)
	}
	c.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} // it vouches for itself
	if r, err = bench.Run(t.Context(), c); err != nil || r.Requests != 6 {
		t.Errorf("%d requests, %v, %v; want 6", r.Requests, r.ErrorDetails, err)
	}
}
