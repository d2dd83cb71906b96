package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// textServer serves completions that consist of its name.
func textServer(t *testing.T, name string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"data":[{"id":"m"}]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"text\":%q,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", name)
	}))
	t.Cleanup(s.Close)
	return s
}

// TestSeveralServers: one process serves several servers of OpenAI's API, each its
// share, and does without one that is gone.
func TestSeveralServers(t *testing.T) {
	first, second := textServer(t, "first"), textServer(t, "second")
	r := start(t, func(c *Config) {
		c.Engine, c.Foreign.URL, c.Foreign.MoreURLs, c.Engines = EngineOpenAI, first.URL, []string{second.URL}, 2
		c.Cluster.Routing.Mode = "round-robin"
	})
	ask := func(n int) (said map[string]int) {
		said = map[string]int{}
		for range n {
			resp, err := http.Post(r.url+"/v1/completions", "application/json", strings.NewReader(`{"model":"m","prompt":"a","max_tokens":5}`))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d, error %v: %s", resp.StatusCode, err, body)
			}
			for _, name := range []string{"first", "second"} {
				if strings.Contains(string(body), `"text":"`+name+`"`) {
					said[name]++
				}
			}
		}
		return said
	}
	if said := ask(8); said["first"] != 4 || said["second"] != 4 {
		t.Errorf("answers of %v, want four of each", said)
	}
	second.CloseClientConnections()
	second.Close()
	if said := ask(8); said["first"] != 8 {
		t.Errorf("answers of %v, want all of the server that is left", said)
	}
}

func TestServersAndEngines(t *testing.T) {
	for _, tt := range []struct {
		role    string
		engines int
		fault   string
	}{
		{RoleServe, 2, ""},
		{RoleServe, 3, "--num-workers"},
		{RoleServe, 1, "--num-workers"},
		{RoleWorker, 1, "one server"},
	} {
		c := DefaultConfig()
		c.Role, c.Engine, c.Engines = tt.role, EngineOpenAI, tt.engines
		c.Foreign.URL, c.Foreign.MoreURLs = "http://a", []string{"http://b"}
		if err := c.Validate(); (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s with %d engines: error %v, want one with %q", tt.role, tt.engines, err, tt.fault)
		}
	}
}
