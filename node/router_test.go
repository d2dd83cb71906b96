package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
)

// chosen is what a test reads of a selection.
type chosen struct {
	Worker    uint64   `json:"worker_id"`
	Addresses []string `json:"addresses"`
	Tokens    int      `json:"isl_tokens"`
	Prefill   int      `json:"effective_prefill_tokens"`
	Overlap   struct {
		GPU int `json:"gpu"`
	} `json:"overlap"`
}

// reserve asks a router for a place for "prompt".
func (b *bubble) reserve(host, id, prompt string) chosen {
	b.t.Helper()
	status, text := b.do("POST", host, "/select_and_reserve", fmt.Sprintf(`{"model":"m","request_id":%q,"text":%q,"expected_output":5}`, id, prompt))
	var c chosen
	if err := json.Unmarshal([]byte(text), &c); err != nil || status != http.StatusCreated {
		b.t.Fatalf("reserve %s: %d %s, %v", id, status, text, err)
	}
	return c
}

func selecting(c *Config) {
	c.Role = RoleRouter
	c.Cluster.Routing.Mode, c.Cluster.Routing.PredictTTL = "kv", 0
}

func mocking(c *Config) {
	c.Engine, c.Mocker = EngineMocker, DefaultMockerConfig()
	c.Mocker.BlockSize = 16
}

// A router without a frontend follows the same workers and their events: it says where
// a prompt is held, passes over who has died, and ends with nothing booked.
func TestRouterRole(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		router := b.start("router", selecting)
		if status, text := b.do("POST", "router", "/select", `{"text":"abc"}`); status != http.StatusServiceUnavailable {
			t.Errorf("without workers: %d %s", status, text)
		}
		b.start("front", nil)
		workers := map[uint64]*proc{}
		for i := range uint64(3) {
			workers[i+1] = b.start(fmt.Sprint("w", i+1), mocking)
		}
		up := func(n int) bool {
			_, text := b.get("router", "/workers")
			return strings.Count(text, `"state":"up"`) == n
		}
		b.until("the router knows all workers", func() bool { return up(3) })
		b.awaitModels("front", "m")
		b.awaitState("front", "w3", "ready")
		b.until("the model is served", func() bool { status, _ := b.get("router", "/ready"); return status == http.StatusOK })
		prompt := strings.Repeat("a prompt of some length. ", 10)
		first := b.reserve("router", "q1", prompt)
		if first.Overlap.GPU != 0 || first.Prefill != first.Tokens || len(first.Addresses) == 0 {
			t.Errorf("the first one: %+v", first)
		}
		body := fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":5,"ignore_eos":true,"nvext":{"backend_instance_id":%d}}`, prompt, first.Worker)
		if status, text := b.do("POST", "front", "/v1/completions", body); status != http.StatusOK {
			t.Fatalf("sent to its worker: %d %s", status, text)
		}
		b.do("POST", "router", "/reservations/q1/prefill_complete", "")
		time.Sleep(time.Second) // events come in a batch's time
		second := b.reserve("router", "q2", prompt)
		if second.Worker != first.Worker || second.Overlap.GPU < 200 || second.Prefill >= 32 {
			t.Errorf("the second one: %+v, the first went to %d", second, first.Worker)
		}
		if status, text := b.get("router", "/v1/requests/q2/explain"); status != http.StatusOK || !strings.Contains(text, dynamo.WorkerID(second.Worker).String()) {
			t.Errorf("explanation: %d %s", status, text)
		}
		workers[first.Worker].kill()
		b.until("the worker is missed", func() bool { return up(2) })
		if third := b.reserve("router", "q3", prompt); third.Worker == first.Worker {
			t.Error("a dead worker was chosen")
		}
		for _, id := range []string{"q1", "q2", "q3"} {
			if status, text := b.do("DELETE", "router", "/reservations/"+id, ""); status != http.StatusOK || !strings.Contains(text, `"applied":true`) {
				t.Errorf("release %s: %d %s", id, status, text)
			}
		}
		if _, text := b.get("router", "/v1/router"); !strings.Contains(text, `"booked":0`) {
			t.Errorf("state: %s", text)
		}
		router.end()
	})
}
