package selection_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/selection"
)

var clusterKey = []byte("a cluster key for tests only")

// served is a service that is reached over a network in memory.
type served struct {
	*service
	overHTTP, overRPC *selection.Client
	stop              func() // serving; it returns when both have ended
}

// serve serves s on the host "router", and returns its clients. The test is in a bubble.
func serve(t *testing.T, change func(*selection.Config, *router.Config)) *served {
	t.Helper()
	s := &served{service: open(t, change)}
	network := testnet.New()
	web, err := network.Host("router").Listen("router:80")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := network.Host("router").Listen("router:90")
	if err != nil {
		t.Fatal(err)
	}
	rc := rpc.DefaultConfig()
	rc.Key = clusterKey
	sc := rpc.ServerConfig{Config: rc}
	ctx, cancel := context.WithCancel(t.Context())
	var serving, running sync.WaitGroup
	serving.Go(func() {
		if err := s.server.Serve(ctx, web); err != nil {
			t.Errorf("serve HTTP: %v", err)
		}
	})
	serving.Go(func() {
		if err := s.server.ServeRPC(ctx, sc, plain); err != nil {
			t.Errorf("serve rpc: %v", err)
		}
	})
	rc.Dial = network.Host("gateway").Dial
	c, err := rpc.NewClient(rc)
	if err != nil {
		t.Fatal(err)
	}
	peer := c.Peer(rpc.PeerConfig{Addresses: []string{"tcp://router:90"}})
	peering, unpeer := context.WithCancel(t.Context())
	running.Go(func() { _ = peer.Run(peering) })
	if err := peer.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: rc.Dial}
	s.overRPC, s.overHTTP = selection.NewClient(peer), selection.NewHTTPClient(&http.Client{Transport: transport}, "http://router:80/", "")
	s.stop = sync.OnceFunc(func() {
		cancel()
		serving.Wait()
	})
	t.Cleanup(func() {
		s.stop()
		unpeer()
		running.Wait()
		transport.CloseIdleConnections()
	})
	return s
}

// said is an answer or an error, as a client has it. HTTP tells in whole seconds when
// to try again.
func said(answer []byte, err error) string {
	if err == nil {
		return string(answer)
	}
	var e *dynamo.Error
	if !errors.As(err, &e) {
		return "no kind: " + err.Error()
	}
	return fmt.Sprintf("%v %q param %q code %q again in %v", e.Kind, e.Error(), e.Param, e.Code, math.Ceil(e.RetryAfter.Seconds()))
}

// step is a call, and the beginning of what it wants: of the answer, or of the error.
type step struct{ method, message, want string }

// everything calls every method, in good order and not.
var everything = []step{
	{"workers", ``, `{"workers":[{"worker_id":1`},
	{"workers", `{}`, `{"workers":[{"worker_id":1`},
	{"workers", `{"all":true}`, `invalid "there is no field`},
	{"workers", `[]`, `invalid "the body is []; it must be an object"`},
	{"loads", ``, `[{"model_name":"m"`},
	{"select", ``, `invalid "the body is not a complete JSON object`},
	{"select", `{"token_ids":[1,2,3],"request_id":"s"}`, `{"request_id":"s"`},
	{"select", `{"token_ids":[1,2,3],"request_id":7}`, `{"request_id":"7"`},
	{"select", `{"token_ids":[1,2,3],"request_id":-7}`, `invalid "request_id is -7;`},
	{"select", `{"token_ids":[1,2,3`, `invalid "the body is not a complete`},
	{"select", `{"token_ids":[1,2,3]}x`, `invalid "something follows`},
	{"select", "{\"text\":\"\xff\"}", `invalid "the body is not valid JSON at byte`},
	{"select", `{"token_ids":[1],"model":"other"}`, `not_found "there is no model`},
	{"select", `{"token_ids":[1],"role":"prefill"}`, `unavailable "model m has no prefill workers`},
	{"potential_loads", `{"token_ids":[1,2,3,4,5,6,7,8,9],"request_id":"p"}`, `{"loads":[{"worker_id":1`},
	{"overlap_scores", `{"token_ids":[1,2,3,4,5,6,7,8,9],"request_id":"o"}`, `{"isl_tokens":9`},
	{"overlap_scores", `{"token_ids":[1e2]}`, `invalid "token_ids[0] is 1e2;`},
	{"select_and_reserve", `{"token_ids":[1,2,3,4,5,6,7,8,9],"request_id":"r1","lease_seconds":60}`, `{"request_id":"r1"`},
	{"select_and_reserve", `{"token_ids":[1],"request_id":"r1"}`, `invalid "there is a reservation \"r1\" already`},
	{"reserve", `{"token_ids":[1]}`, `invalid "worker_id is not there`},
	{"reserve", `{"token_ids":[1],"worker_id":"0000000000000003","request_id":"r2"}`, `{"request_id":"r2"`},
	{"reserve", `{"token_ids":[1],"pinned_worker":{"worker_id":3},"request_id":"r3"}`, `{"request_id":"r3"`},
	{"reserve", `{"token_ids":[1],"worker_id":3,"request_id":"r4"}`, `exhausted "`},
	{"prefill_complete", `{"reservation_id":"r1","cached_tokens":4}`, `{"reservation_id":"r1","applied":true`},
	{"prefill_complete", `{"reservation_id":"r1"}`, `{"reservation_id":"r1","applied":false`},
	{"prefill_complete", `{"reservation_id":"none"}`, `not_found "there is no reservation \"none\"`},
	{"prefill_complete", ``, `invalid "reservation_id is not there`},
	{"prefill_complete", `{"reservation_id":["r1"]}`, `invalid "reservation_id is [\"r1\"];`},
	{"prefill_complete", `{"reservation_id":"r1"`, `invalid "the body is not a complete`},
	{"prefill_complete", `{"reservation_id":"r1"}{}`, `invalid "something follows`},
	{"prefill_complete", `{"reservation_id":"r1","reservation_id":"r2"}`, `invalid "the body is not valid JSON at byte`},
	{"output_block", `{"tokens":3,"reservation_id":"r1"}`, `{"reservation_id":"r1","applied":true`},
	{"output_block", `{"tokens":-3,"reservation_id":"r1"}`, `invalid "tokens is -3`},
	{"output_block", `{"tokens":"3","reservation_id":"r1"}`, `invalid "tokens is \"3\"`},
	{"output_block", `{"reservation_id":"r1","decay_fraction":1e999}`, `invalid "decay_fraction is 1e999`},
	{"explain", `{"request_id":"r1"}`, `{"request":"r1"`},
	{"explain", `{"request_id":"a/b c?%"}`, `not_found "there is no decision about a request \"a/b c?%\"`},
	{"explain", ``, `invalid "request_id is not there`},
	{"state", ``, `{"model":"m"`},
	{"release", `{"reservation_id":"r1","end":"completed","output_tokens":7}`, `{"reservation_id":"r1","applied":true,"end":"completed"`},
	{"release", `{"reservation_id":"r1","end":"failed"}`, `{"reservation_id":"r1","applied":false,"end":"completed"`},
	{"release", `{"reservation_id":"r2","end":"none"}`, `invalid "end is \"none\"`},
	{"release", `{"reservation_id":"r2","end":null}`, `{"reservation_id":"r2","applied":true`},
	{"release", `{"reservation_id":"r3","output_tokens":99999999999999999999}`, `invalid "output_tokens is 99999999999999999999;`},
	{"release", `{"reservation_id":"r3","output_tokens":2.0}`, `invalid "output_tokens is 2.0;`},
	{"release", `{"reservation_id":"r3"}`, `{"reservation_id":"r3","applied":true`},
	{"add_worker", `{"worker_id":9,"model":"n","worker_epoch":5,"url":"http://ten:8000","max_running":1,"block_size":4,"ranks":2,"topology":{"zone":"a"}}`, `{"worker_id":9,"worker":"0000000000000009","worker_epoch":5,"model_name":"n","applied":true`},
	{"add_worker", `{"worker_id":9,"model":"n","url":"http://ten:8000","max_running":1,"block_size":4,"ranks":2,"topology":{"zone":"a"}}`, `{"worker_id":9,"worker":"0000000000000009","worker_epoch":5,"model_name":"n","applied":false`},
	{"add_worker", `{"worker_id":9,"model":"m"}`, `invalid "worker 0000000000000009 is there already, of model n`},
	{"add_worker", `{"worker_id":2,"model":"m"}`, `invalid "worker 0000000000000002 is one that discovery has found`},
	{"add_worker", `{"worker_id":9,"model":"n","url":"ten"}`, `invalid "url is \"ten\"`},
	{"add_worker", `{"worker_id":0,"model":"n"}`, `invalid "worker_id is 0;`},
	{"add_worker", ``, `invalid "the body is not a complete`},
	{"select", `{"token_ids":[1],"model":"n","request_id":"n1","allowed_worker_ids":["9"]}`, `{"request_id":"n1"`},
	{"remove_worker", `{"worker_id":9,"worker_epoch":4}`, `{"worker_id":9,"worker":"0000000000000009","worker_epoch":5,"model_name":"n","applied":false`},
	{"remove_worker", `{"worker_id":9}`, `{"worker_id":9,"worker":"0000000000000009","worker_epoch":5,"model_name":"n","applied":true`},
	{"remove_worker", `{"worker_id":9}`, `not_found "worker 0000000000000009 was not added`},
	{"remove_worker", `{"worker_id":-9}`, `invalid "worker_id is -9;`},
	{"remove_worker", ``, `invalid "worker_id is not there`},
	{"nothing", ``, `not_found "there is no method \"nothing\"`},
}

// HTTP and rpc are two ways to call one thing: two services that are told the same, each
// in its way, say the same, error by error.
func TestTransportsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		change := func(c *selection.Config, rc *router.Config) {
			c.State = func() any { return map[string]string{"model": "m"} }
			c.NewRouters = newRouters(*rc)
		}
		a, b := serve(t, change), serve(t, change)
		called := map[string]bool{}
		for _, x := range everything {
			called[x.method] = true
			web := said(a.overHTTP.Call(t.Context(), x.method, []byte(x.message)))
			plain := said(b.overRPC.Call(t.Context(), x.method, []byte(x.message)))
			if web != plain {
				t.Errorf("%s %s:\nHTTP %s\nrpc  %s", x.method, x.message, web, plain)
			}
			if !strings.HasPrefix(plain, x.want) {
				t.Errorf("%s %s: got %s, want %s…", x.method, x.message, plain, x.want)
			}
		}
		for _, name := range selection.Methods() {
			if !called[name] {
				t.Errorf("%s was not called", name)
			}
		}
		for _, s := range []*served{a, b} {
			s.quiet()
		}
		if web, plain := a.metric(`dynamo_selection_requests_total{method="release",outcome="ok",transport="http"}`), b.metric(`dynamo_selection_requests_total{method="release",outcome="ok",transport="rpc"}`); web != "4" || web != plain {
			t.Errorf("counted: %q over HTTP, %q over rpc", web, plain)
		}
	})
}

// newRouters makes routers as a node does.
func newRouters(rc router.Config) func(string) (*router.Router, *router.Router, error) {
	return func(model string) (answers, prompts *router.Router, err error) {
		rc.Model = model
		if answers, err = router.New(rc); err == nil {
			prompts, err = router.New(rc)
		}
		return answers, prompts, err
	}
}

// A message that is too large is refused alike, and a service that ends lets calls in
// progress end and leaves nothing booked.
func TestTransportsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(c *selection.Config, rc *router.Config) {
			c.DrainTimeout, rc.Wait = 10*time.Second, time.Minute
		})
		large := slices.Concat([]byte(`{"text":"`), make([]byte, 17<<20))
		for name, c := range map[string]*selection.Client{"HTTP": s.overHTTP, "rpc": s.overRPC} {
			if got := said(c.Call(t.Context(), "select", large)); !strings.Contains(got, "body_too_large") {
				t.Errorf("%s: %s", name, got)
			}
		}
		for i := range 6 {
			if _, err := s.overRPC.Call(t.Context(), "select_and_reserve", fmt.Appendf(nil, `{"token_ids":[1],"request_id":"r%d"}`, i)); err != nil {
				t.Fatal(err)
			}
		}
		waits := make(chan string, 1)
		go func() {
			waits <- said(s.overRPC.Call(t.Context(), "select_and_reserve", []byte(`{"token_ids":[1],"request_id":"w","wait":true}`)))
		}()
		synctest.Wait()
		stopped := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			s.stop()
			stopped <- time.Since(began)
		}()
		time.Sleep(3 * time.Second)
		if got := said(s.overRPC.Call(t.Context(), "select", []byte(`{"token_ids":[1]}`))); !strings.Contains(got, "shutting_down") {
			t.Errorf("a new one: %s", got)
		}
		if got := said(s.overRPC.Call(t.Context(), "release", []byte(`{"reservation_id":"r0"}`))); !strings.Contains(got, `"applied":true`) {
			t.Errorf("a release meanwhile: %s", got)
		}
		if got := <-waits; !strings.HasPrefix(got, `{"request_id":"w"`) {
			t.Errorf("the one that waited: %s", got)
		}
		if took := <-stopped; took > 4*time.Second {
			t.Errorf("it took %v to end", took)
		}
		s.quiet()
	})
}

// Whoever lacks the cluster key is not let in over rpc.
func TestStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testnet.New()
		l, err := network.Host("router").Listen("router:90")
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		rc := rpc.DefaultConfig()
		rc.Key = clusterKey
		var running sync.WaitGroup
		sc := rpc.ServerConfig{Config: rc}
		running.Go(func() { _ = s.server.ServeRPC(ctx, sc, l) })
		rc.Key, rc.Dial = []byte("another cluster's key, longer"), network.Host("stranger").Dial
		c, err := rpc.NewClient(rc)
		if err != nil {
			t.Fatal(err)
		}
		peer := c.Peer(rpc.PeerConfig{Addresses: []string{"tcp://router:90"}})
		running.Go(func() { _ = peer.Run(ctx) })
		limit, over := context.WithTimeout(ctx, time.Minute)
		defer over()
		if peer.Wait(limit) == nil {
			t.Error("one with another key was let in")
		}
		cancel()
		running.Wait()
	})
}
