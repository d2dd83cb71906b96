package selection_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/selection"
)

func adding(c *selection.Config, rc *router.Config) { c.NewRouters = newRouters(*rc) }

// Workers that a gateway adds are a model of their own while discovery knows none, join
// those that it finds, and stay when those have gone.
func TestAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, adding)
		s.wants(404, "POST", "/select", `{"model":"n","token_ids":[1]}`)
		s.wants(201, "POST", "/workers", `{"worker_id":21,"model_name":"n","url":"http://a:1","max_running":1,"block_size":4,"topology":{"dynamo.topology/zone":"east"},"lora_names":["poet"]}`)
		s.wants(201, "POST", "/workers", `{"worker_id":"0000000000000016","model":"n","url":"http://b:2","max_running":1,"block_size":4}`)
		if got := s.metric("dynamo_selection_added_workers"); got != "2" {
			t.Errorf("added: %s", got)
		}
		x := s.wants(201, "POST", "/select_and_reserve", `{"model":"n","request_id":"q","token_ids":[1],"routing_constraints":{"required_taints":["zone=east"]}}`)
		if x["worker_id"] != 21.0 || x["endpoint"] != "http://a:1" {
			t.Errorf("selected %v", x)
		}
		s.wants(429, "POST", "/select", `{"model":"poet","token_ids":[1]}`) // 22 has not the adapter
		s.wants(429, "POST", "/select", `{"model":"n","token_ids":[1],"worker_id":21}`)
		if x := s.wants(200, "POST", "/select", `{"model":"n","token_ids":[1]}`); x["worker_id"] != 22.0 {
			t.Errorf("the free one is 22: %v", x)
		}
		s.wants(400, "POST", "/select", `{"model":"n","text":"a"}`)

		// Discovery finds the model: one router over all its workers.
		rc := router.DefaultConfig()
		rc.Model = "n"
		found, err := router.New(rc)
		if err != nil {
			t.Fatal(err)
		}
		addTo(t, found, "n", 31)
		s.server.AddModel(&selection.Model{Name: "n", Router: found})
		s.server.AddModel(&selection.Model{Name: "n", Router: found, ContextLength: 100}) // it offers something else
		if got := len(found.Stats().Workers); got != 3 {
			t.Errorf("%d workers, want 3", got)
		}
		s.wants(409, "POST", "/workers", `{"worker_id":31,"model":"n"}`)
		s.wants(200, "DELETE", "/reservations/q", "")
		list := fmt.Sprint(s.wants(200, "GET", "/workers", "")["workers"])
		if strings.Count(list, "added:true") != 2 || strings.Count(list, "model_name:n") != 3 {
			t.Errorf("workers: %s", list)
		}

		// And loses it.
		s.server.RemoveModel("n")
		if x := s.wants(200, "POST", "/select", `{"model":"n","token_ids":[1],"worker_id":21}`); x["endpoint"] != "http://a:1" {
			t.Errorf("selected %v", x)
		}
		s.wants(404, "POST", "/select", `{"model":"n","token_ids":[1],"worker_id":31}`)
		s.wants(200, "DELETE", "/workers/21", "")
		s.wants(404, "DELETE", "/workers/21", "")
		s.wants(200, "DELETE", "/workers/0000000000000016", "")
		s.wants(404, "POST", "/select", `{"model":"n","token_ids":[1]}`)
		if all := s.server.Routers(); len(all) != 0 {
			t.Errorf("%d routers are left", len(all))
		}
		if got := s.metric("dynamo_selection_added_workers"); got != "0" {
			t.Errorf("added: %s", got)
		}
		s.quiet()
	})
}

// What a worker that was added holds is guessed from what it was sent, and its ranks are
// used in turn. Said anew it is another life of it, whose reservations of before end as
// they would have.
func TestAddedLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, adding)
		for i := range 3 {
			s.wants(201, "POST", "/workers", fmt.Sprintf(`{"worker_id":%d,"model":"n","block_size":4,"ranks":2}`, 21+i))
		}
		body := func(id, prompt string) string {
			return fmt.Sprintf(`{"model":"n","request_id":"%s","token_ids":[%s]}`, id, prompt)
		}
		first := s.wants(201, "POST", "/select_and_reserve", body("a", "1,2,3,4,5,6,7,8,9"))
		s.wants(201, "POST", "/select_and_reserve", body("b", "11,12,13,14,15,16"))
		time.Sleep(time.Minute)
		again := s.wants(201, "POST", "/select_and_reserve", body("c", "1,2,3,4,5,6,7,8,9"))
		if first["worker_id"] != again["worker_id"] || first["dp_rank"] != again["dp_rank"] || first["dp_rank"] == nil || again["effective_prefill_tokens"] != 1.0 {
			t.Errorf("the first one went to %v, the same again to %v", first, again)
		}
		id := int(first["worker_id"].(float64))
		now := s.wants(201, "POST", "/workers", fmt.Sprintf(`{"worker_id":%d,"model":"n","block_size":4,"ranks":2,"max_running":1}`, id))
		if now["applied"] != true || now["worker_epoch"] == first["worker_epoch"] {
			t.Errorf("another life: %v", now)
		}
		s.wants(400, "POST", "/workers", fmt.Sprintf(`{"worker_id":%d,"model":"n","worker_epoch":3}`, id))
		if x := s.wants(200, "POST", "/overlap_scores", body("d", "1,2,3,4,5,6,7,8,9")); strings.Contains(fmt.Sprint(x), "longest_matched:8") {
			t.Errorf("it holds what it held before: %v", x)
		}
		for _, id := range []string{"a", "b", "c"} {
			if a := s.wants(200, "DELETE", "/reservations/"+id, ""); a["applied"] != true {
				t.Errorf("release %s: %v", id, a)
			}
		}
		// A worker changes sides.
		s.wants(201, "POST", "/workers", fmt.Sprintf(`{"worker_id":%d,"model":"n","role":"prefill"}`, id))
		if x := s.wants(200, "POST", "/select", `{"model":"n","token_ids":[1],"role":"prefill"}`); x["worker_id"] != float64(id) {
			t.Errorf("for the prompt: %v", x)
		}
		s.wants(404, "POST", "/select", fmt.Sprintf(`{"model":"n","token_ids":[1],"worker_id":%d}`, id))
		for _, r := range s.server.Routers() {
			if st := r.Stats(); st.Booked != 0 || st.BookedTokens != 0 {
				t.Errorf("nothing runs, and %+v", st)
			}
		}
	})
}

// A list of workers goes together with waiting: it is for their places alone that the
// request waits, and it holds up nobody who may go elsewhere.
func TestWaitForListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, func(_ *selection.Config, rc *router.Config) { rc.Wait = time.Minute })
		for i := range 4 {
			s.wants(201, "POST", "/reservations", fmt.Sprintf(`{"token_ids":[1],"request_id":"r%d","worker_id":%d}`, i, 1+i%2))
		}
		type answer struct {
			status int
			body   map[string]any
		}
		wait := func(id, list string) chan answer {
			c := make(chan answer, 1)
			go func() {
				status, body, _ := s.call("POST", "/select_and_reserve", fmt.Sprintf(`{"token_ids":[1],"request_id":"%s","wait":true,%s}`, id, list))
				c <- answer{status, body}
			}()
			synctest.Wait()
			return c
		}
		two := wait("two", `"allowed_worker_ids":[2]`)
		one := wait("one", `"excluded_worker_ids":[2,"0000000000000003"]`)
		if got := s.router.Stats().Waiting; got != 2 {
			t.Fatalf("%d wait, want 2: worker 3 is free, and not for them", got)
		}
		if x := s.wants(201, "POST", "/select_and_reserve", `{"token_ids":[1],"request_id":"any","wait":true}`); x["worker_id"] != 3.0 {
			t.Errorf("one that may go anywhere: %v", x)
		}
		time.Sleep(time.Second)
		s.wants(200, "DELETE", "/reservations/r0", "") // a place at worker 1
		if x := <-one; x.status != 201 || x.body["worker_id"] != 1.0 || x.body["waited_ms"] != 1000.0 {
			t.Errorf("the one for worker 1: %v", x)
		}
		if got := s.router.Stats().Waiting; got != 1 {
			t.Errorf("%d wait, want 1", got)
		}
		began := time.Now()
		if x := <-two; x.status != 429 || time.Since(began) != 59*time.Second {
			t.Errorf("the one for worker 2: %v after %v", x, time.Since(began))
		}
		for _, id := range []string{"r1", "r2", "r3", "one", "any"} {
			s.wants(200, "DELETE", "/reservations/"+id, "")
		}
		s.quiet()
	})
}
