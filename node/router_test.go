package node

import (
	"context"
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

// The selection service is offered over rpc to those who have the cluster key, knows
// workers that it is told of beside those that discovery finds, and ends well.
func TestRouterRPC(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		l, err := b.net.Host("router").Listen("router:90")
		if err != nil {
			t.Fatal(err)
		}
		router := b.start("router", func(c *Config) {
			selecting(c)
			c.Selection.RPC = l
		})
		b.start("w1", mocking)
		b.until("the model is served", func() bool { status, _ := b.get("router", "/ready"); return status == http.StatusOK })
		c := DefaultConfig()
		c.Cluster.Store, c.Cluster.KeyFile, c.Cluster.Dial = b.store, b.key, b.net.Host("gateway").Dial
		v, err := OpenCluster(c)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(method, message, want string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if answer, err := v.AskRouter(ctx, "router:90", method, []byte(message)); err != nil || !strings.Contains(string(answer), want) {
				t.Errorf("%s %s: %s %v, want %s", method, message, answer, err, want)
			}
		}
		ask("add_worker", `{"worker_id":77,"model":"m","url":"http://far:8000","block_size":16,"max_running":4}`, `"applied":true`)
		ask("add_worker", `{"worker_id":78,"model":"n","url":"http://farther:8000","block_size":16,"max_running":4}`, `"applied":true`)
		ask("select_and_reserve", `{"model":"m","text":"abc","request_id":"q1","worker_id":77}`, `"endpoint":"http://far:8000"`)
		ask("select_and_reserve", `{"model":"m","text":"abc","request_id":"q2","excluded_worker_ids":[77]}`, `"endpoint":"tcp://w1:`)
		ask("select_and_reserve", `{"model":"n","token_ids":[1],"request_id":"q3"}`, `"worker_id":78`)
		ask("state", ``, `"booked":2`)
		for _, id := range []string{"q1", "q2", "q3"} {
			ask("explain", fmt.Sprintf(`{"request_id":%q}`, id), `"request":"`+id+`"`)
			ask("release", fmt.Sprintf(`{"reservation_id":%q}`, id), `"applied":true`)
		}
		router.end()
	})
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

// When the last worker of a model has gone for good, no gauge shows anything of it.
func TestGaugesOfTheRetired(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", func(c *Config) { c.Cluster.Routing.Mode = "kv" })
		w := b.start("w1", mocking)
		b.awaitModels("front", "m")
		b.complete("front", "m", strings.Repeat("a prompt of some length. ", 10), 5)
		time.Sleep(10 * time.Second)
		b.get("front", "/v1/router") // brings the gauges up to date
		if b.sample("front", "dynamo_router_index_blocks") == "0" || b.sample("front", `dynamo_frontend_model_migration_limit{model="m"}`) != "3" {
			t.Error("the gauges show nothing of a model that is served")
		}
		w.end()
		time.Sleep(2 * modelGrace)
		for _, name := range []string{"dynamo_router_index_blocks", "dynamo_router_index_bytes", `dynamo_router_workers{state="up"}`, "dynamo_router_booked_requests", "dynamo_router_waiting_requests"} {
			if v := b.sample("front", name); v != "0" {
				t.Errorf("%s is %q, want 0", name, v)
			}
		}
		if v := b.sample("front", `dynamo_frontend_model_migration_limit{model="m"}`); v != "" {
			t.Errorf("the limit of migrations is %q, want none", v)
		}
	})
}
