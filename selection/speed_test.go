package selection_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/selection"
)

// long is a selection for a prompt of n tokens.
func long(n int) []byte {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = strconv.Itoa(i * 7 % 100000)
	}
	return []byte(`{"model":"m","token_ids":[` + strings.Join(ids, ",") + `]}`)
}

// BenchmarkSelect asks where a prompt of 4,500 tokens should go, without a socket.
func BenchmarkSelect(b *testing.B) {
	s := open(b, nil)
	body := long(4500)
	s.server.AddModel(&selection.Model{Name: "m", Router: s.router})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		s.server.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/select", bytes.NewReader(body)))
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}

// BenchmarkTransports asks over loopback sockets, one call after the other, over HTTP
// and rpc in turn, so that what else the machine does hits both alike.
func BenchmarkTransports(b *testing.B) {
	s := open(b, nil)
	s.server.AddModel(&selection.Model{Name: "m", Router: s.router})
	var listeners [2]net.Listener
	for i := range listeners {
		var err error
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			b.Fatal(err)
		}
	}
	rc := rpc.DefaultConfig()
	rc.Key = clusterKey
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.server.Serve(ctx, listeners[0]) })
	running.Go(func() { _ = s.server.ServeRPC(ctx, rpc.ServerConfig{Config: rc}, listeners[1]) })
	defer running.Wait()
	defer cancel()
	c, err := rpc.NewClient(rc)
	if err != nil {
		b.Fatal(err)
	}
	peer := c.Peer(rpc.PeerConfig{Addresses: []string{"tcp://" + listeners[1].Addr().String()}})
	running.Go(func() { _ = peer.Run(ctx) })
	if err := peer.Wait(ctx); err != nil {
		b.Fatal(err)
	}
	clients := []struct {
		name string
		*selection.Client
	}{{"http", selection.NewHTTPClient(http.DefaultClient, "http://"+listeners[0].Addr().String(), "")}, {"rpc", selection.NewClient(peer)}}
	for _, n := range []int{16, 500, 4000} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			body := long(n)
			var took [2][]time.Duration
			for b.Loop() {
				for i := range clients {
					began := time.Now()
					if _, err := clients[i].Call(ctx, "select", body); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(began))
				}
			}
			b.ReportMetric(0, "ns/op")
			for i := range clients {
				slices.Sort(took[i])
				for _, p := range []int{50, 99} {
					b.ReportMetric(float64(took[i][len(took[i])*p/100].Nanoseconds())/1000, fmt.Sprintf("%s-p%d-µs", clients[i].name, p))
				}
			}
		})
	}
}
