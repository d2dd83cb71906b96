package worker_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/worker"
)

// TestRealSockets has a worker serve a TCP and a Unix socket, found in a store of
// files.
func TestRealSockets(t *testing.T) {
	store, err := discovery.Open("file:"+t.TempDir(), discovery.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	e, err := echo.New(echo.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Config: rpcConfig(), Worker: 9, Epoch: 2})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	c := worker.DefaultConfig()
	for _, a := range [][2]string{{"unix", socket}, {"tcp", "127.0.0.1:0"}} {
		l, err := net.Listen(a[0], a[1])
		if err != nil {
			t.Fatal(err)
		}
		c.Listeners = append(c.Listeners, l)
		c.Instance.Addresses = append(c.Instance.Addresses, a[0]+"://"+l.Addr().String())
	}
	c.Instance.Path, c.Instance.ID, c.Instance.Epoch, c.Instance.Started = path, 9, 2, time.Now()
	c.Instance.Card = &discovery.Card{Card: e.Card(), Format: discovery.CardFormat, Ranks: 1, Migration: "replay"}
	c.Engine, c.Store, c.Server = e, store, server
	w, err := worker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()

	found := first(t, store, func(u discovery.Update) bool { return len(u.Instances) == 1 })
	began := time.Now()
	client, err := rpc.NewClient(rpcConfig())
	if err != nil {
		t.Fatal(err)
	}
	peering, hangUp := context.WithCancel(t.Context())
	var peers sync.WaitGroup
	for _, a := range found.Addresses {
		p := client.Peer(rpc.PeerConfig{Addresses: []string{a}, Worker: found.ID, Epoch: found.Epoch})
		peers.Go(func() { _ = p.Run(peering) })
		if err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := &dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{4, 5}, MaxTokens: 100}
		got, err := enginetest.Collect(t.Context(), remote.New(p, found.Card.Card, remote.DefaultConfig()), r)
		if err != nil || len(got.Tokens) != 100 {
			t.Errorf("%s: got %d tokens, %v", a, len(got.Tokens), err)
		}
		t.Logf("%s: answered %v after the worker was found", a, time.Since(began))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	first(t, store, func(u discovery.Update) bool { return u.Kind == discovery.Snapshot && len(u.Instances) == 0 })
	hangUp()
	peers.Wait()
}

// first waits for an update and returns the instance in it, if there is one.
func first(t *testing.T, store discovery.Store, wanted func(discovery.Update) bool) discovery.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for u := range store.Watch(ctx, path) {
		if len(u.Problems) > 0 {
			t.Fatal(u.Problems)
		}
		if !wanted(u) {
			continue
		}
		if len(u.Instances) == 0 {
			return discovery.Instance{}
		}
		return u.Instances[0]
	}
	t.Fatal("the store does not show it")
	return discovery.Instance{}
}
