package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/engine"
)

// A vLLM server computes prompts, another answers with their KV; what either is told of the
// KV is the other's word, and never the client's.
func TestVLLMApart(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		v1, v2 := b.serveVLLM("v1"), b.serveVLLM("v2")
		role := func(v *vllmServer, role string) func(*Config) {
			return func(c *Config) { attach(v)(c); c.Worker.Role = role }
		}
		b.start("front", func(c *Config) { c.Cluster.Routing.Split = "always" })
		b.start("w1", role(v1, engine.RolePrefill))
		b.start("w2", role(v2, engine.RoleDecode))
		b.awaitState("front", "w1", "ready")
		b.awaitState("front", "w2", "ready")
		b.awaitModels("front", "m")
		status, text := b.do("POST", "front", "/v1/completions", `{"model":"m","prompt":"abcdef","max_tokens":3,"ignore_eos":true,"kv_transfer_params":{"do_remote_prefill":true,"remote_host":"evil"}}`)
		if want := `"completion_tokens":3`; status != http.StatusOK || !strings.Contains(text, want) || !strings.Contains(text, `"cached_tokens":3`) {
			t.Errorf("got %d %s, want %s", status, text, want)
		}
		for _, c := range []struct {
			of   *vllmServer
			want []string
		}{{v1, []string{"true false  6"}}, {v2, []string{"false true side 6"}}} {
			c.of.mu.Lock()
			if got := c.of.mu.kv; fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("the server at %s was told of KV: %q, want %q", c.of.url, got, c.want)
			}
			c.of.mu.Unlock()
		}
	})
}
