package remoteapi_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// owned lists models as the servers of one maker do.
func owned(by string, rest *fakeServer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprintf(w, `{"object":"list","data":[{"id":"other","owned_by":"vllm"},{"id":"their/model","object":"model","owned_by":%q}]}`, by)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// A tenant's cache is kept apart where the server can, and the word for it reaches
// no server that might not know it.
func TestNamespace(t *testing.T) {
	for owner, want := range map[string]bool{"vllm": true, "sglang": true, "llamacpp": false, "library": false, "system": false, "": false} {
		t.Run(owner, func(t *testing.T) {
			f := &fakeServer{}
			var log bytes.Buffer
			e := open(t, owned(owner, f), func(c *remoteapi.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			if err := e.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, namespace := range []string{"", "tenant \"a\""} {
				r := request()
				r.Namespace = namespace
				if _, _, err := collect(t, e, r); err != nil {
					t.Fatal(err)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if strings.Contains(f.mu.bodies[0], "cache_salt") {
				t.Errorf("a salt for nobody: %s", f.mu.bodies[0])
			}
			if got := strings.Contains(f.mu.bodies[1], `"cache_salt":"tenant \"a\""`); got != want {
				t.Errorf("got %s, want a salt: %t", f.mu.bodies[1], want)
			}
			if got := strings.Contains(log.String(), "Modelfile"); got != (owner == "library") {
				t.Errorf("got the log %q", log.String())
			}
		})
	}
}

// What servers without extensions know is all that a plain request holds, so that
// those that refuse other words take it.
func TestPlainBody(t *testing.T) {
	f := &fakeServer{}
	if _, _, err := collect(t, open(t, f, nil), request()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, strange := range []string{"top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "logit_bias", "cache_salt", "kv_transfer_params", "logprobs", "best_of", "suffix", "echo", `"n"`} {
		if strings.Contains(f.mu.bodies[0], strange) {
			t.Errorf("%s is in %s", strange, f.mu.bodies[0])
		}
	}
}

// A server is trusted by the certificates given, by any certificate if that is
// asked for, and else by none that the machine does not know.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(&fakeServer{})
	s.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	for name, c := range map[string]struct {
		tls  *tls.Config
		good bool
	}{
		"trusted": {&tls.Config{RootCAs: pool}, true}, "any": {&tls.Config{InsecureSkipVerify: true}, true}, "unknown": {nil, false},
		"other": {&tls.Config{RootCAs: x509.NewCertPool()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := remoteapi.DefaultConfig()
			cfg.URL, cfg.Model, cfg.Name, cfg.ContextLength, cfg.VocabSize, cfg.Decode, cfg.TLS = s.URL, "their/model", "ours", 512, 1000, decode, c.tls
			e, err := remoteapi.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, _, err = collect(t, e, request())
			if c.good && err != nil {
				t.Error(err)
			}
			if code, _ := engine.Lost(err); !c.good && (code != engine.CodeLost || !strings.Contains(err.Error(), "certificate")) {
				t.Errorf("got %v, want the certificate refused", err)
			}
		})
	}
}

// A server that fails while it starts is asked again.
func TestReadyAfterFailure(t *testing.T) {
	asked := 0
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			http.Error(w, "starting", http.StatusInternalServerError)
			return
		}
		(&fakeServer{}).ServeHTTP(w, r)
	}), func(c *remoteapi.Config) { c.Timeout = 5 * time.Second })
	if err := e.Ready(t.Context()); err != nil || asked != 3 {
		t.Errorf("asked %d times, got %v", asked, err)
	}
}

// The key travels in its header and is in no error.
func TestKeyIsSecret(t *testing.T) {
	f := &fakeServer{}
	e := open(t, f, func(c *remoteapi.Config) { c.APIKey = "open-sesame" })
	if _, _, err := collect(t, e, request()); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	if got := f.mu.headers[0].Get("Authorization"); got != "Bearer open-sesame" {
		t.Errorf("got the header %q", got)
	}
	f.mu.Unlock()
	e = open(t, answers(401, nil, ""), func(c *remoteapi.Config) { c.APIKey = "open-sesame" })
	if _, _, err := collect(t, e, request()); dynamo.KindOf(err) != dynamo.KindUnavailable || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "--engine-api-key") {
		t.Errorf("got %v", err)
	}
}
