package rpc_test

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := obs.NewRegistry()
		m := rpc.NewMetrics(r)
		p := connect(t, map[string]rpc.Endpoint{
			"count": {Serve: count(1)},
			"full":  {Serve: hold, Admit: func() error { return &dynamo.Error{Kind: dynamo.KindExhausted} }},
		}, options{server: func(c *rpc.ServerConfig) { c.Metrics = m }, client: func(c *rpc.Config) { c.Metrics = m }})
		for _, method := range []string{"count", "full", "nowhere"} {
			_, _ = all(open(t, p.peer, method, "x")) // what they say is tested elsewhere
		}
		p.net.Reset("front", "work")
		synctest.Wait()
		if err := p.peer.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.net.PartitionBoth("front", "work")
		time.Sleep(4 * time.Second)
		p.net.HealAll()
		if err := p.peer.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _ = p.raw().Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		synctest.Wait()
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		text, _ := io.ReadAll(w.Body)
		for _, want := range []string{
			`dynamo_rpc_connections{side="client"} 1`, `dynamo_rpc_connections{side="server"} 1`, `dynamo_rpc_reconnects_total 2`,
			`dynamo_rpc_streams_opened_total{side="client"} 3`, `dynamo_rpc_streams_opened_total{side="server"} 1`,
			`dynamo_rpc_streams_refused_total{reason="admission"} 1`, `dynamo_rpc_streams_refused_total{reason="unknown_endpoint"} 1`,
			`dynamo_rpc_connections_lost_total{cause="broken",side="client"} 1`, `dynamo_rpc_connections_lost_total{cause="silent",side="server"} 1`,
			`dynamo_rpc_handshakes_refused_total{reason="garbage",side="server"} 1`,
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
	})
}
