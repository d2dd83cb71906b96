package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/etcd"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
)

// ClusterConfig says how the parts of a cluster find and reach each other.
type ClusterConfig struct {
	// Namespace separates clusters that share a store. Default "dynamo".
	// (--namespace)
	Namespace string
	// Discovery names the store: "mem", "file", "file:DIR", "etcd" or
	// "etcd://HOST:PORT,…". Default file. (--discovery-backend)
	Discovery string
	// RunDir is where "file" keeps its files, and workers their sockets. No
	// default. (--run-dir)
	RunDir string
	// KeyFile holds the cluster key; empty takes the store's own, or the state
	// directory's. (--cluster-key-file)
	KeyFile string
	// Connections is the number of connections to each worker. Default 1.
	// (--rpc-connections)
	Connections int
	// TLSCert, TLSKey and TLSCA are PEM files: with TLSCert and TLSKey a worker
	// serves TLS and a frontend shows who it is; with TLSCA each demands a
	// certificate signed by it of the other. All empty: no TLS. (--tls-cert,
	// --tls-key, --tls-ca)
	TLSCert, TLSKey, TLSCA string
	// EventPlane is "rpc" or "nats", and NATSServer the URL of the latter.
	// Defaults rpc and nats://127.0.0.1:4222. (--event-plane, --nats-server)
	EventPlane, NATSServer string
	// Routing says how a worker is chosen for a request.
	Routing RoutingConfig
	// MigrationLimit is how often a request may go on at another worker. Default
	// 3. (--migration-limit)
	MigrationLimit int
	// WorkerWait is how long a request waits for a worker to appear when there is
	// none. Default 10 s. (--worker-wait)
	WorkerWait time.Duration
	// StallTimeout is how long a worker may send nothing for a request before that
	// goes on elsewhere; 0 waits while its connection lives. Default 0.
	// (--stall-timeout)
	StallTimeout time.Duration

	// Store replaces Discovery, and Dial the network's dialler, in tests.
	Store discovery.Store
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	// Routers hears, before a frontend serves, how to list its routers, and Tap changes
	// how it is told of events; nil is nobody. For simulators.
	Routers func(list func() []*router.Router)
	Tap     func(event.SubscribeFunc) event.SubscribeFunc
}

// DefaultClusterConfig returns the defaults.
func DefaultClusterConfig() ClusterConfig {
	return ClusterConfig{
		Namespace: "dynamo", Discovery: "file", Connections: 1, EventPlane: eventRPC, NATSServer: "nats://127.0.0.1:4222",
		Routing: DefaultRoutingConfig(), MigrationLimit: 3, WorkerWait: 10 * time.Second,
	}
}

// The event planes.
const (
	eventRPC  = "rpc"
	eventNATS = "nats"
)

// Validate reports all faults at once.
func (c *ClusterConfig) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Namespace == "" || strings.ContainsAny(c.Namespace, "/ \t\n") {
		fault("--namespace: %q must be one word without slashes", c.Namespace)
	}
	if c.Connections < 1 || c.Connections > maxConnections {
		fault("--rpc-connections is %d; it must be 1 to %d", c.Connections, maxConnections)
	}
	if c.EventPlane != eventRPC && c.EventPlane != eventNATS {
		fault("--event-plane: %q is neither %s nor %s", c.EventPlane, eventRPC, eventNATS)
	}
	if c.MigrationLimit < 0 {
		fault("--migration-limit is %d; it must be 0 (never) or more", c.MigrationLimit)
	}
	faults = append(faults, c.Routing.Validate())
	if c.WorkerWait < 0 {
		fault("--worker-wait is %v; it must be 0 or more", c.WorkerWait)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("--tls-cert and --tls-key belong together; give both")
	}
	for _, f := range []struct{ flag, path string }{{"--tls-cert", c.TLSCert}, {"--tls-key", c.TLSKey}, {"--tls-ca", c.TLSCA}, {"--cluster-key-file", c.KeyFile}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			fault("%s: %w", f.flag, err)
		}
	}
	return errors.Join(faults...)
}

// store opens the store that c names.
func (n *Node) openStore() (discovery.Store, error) {
	c := &n.cfg.Cluster
	if c.Store != nil {
		return c.Store, nil
	}
	d := discovery.DefaultConfig()
	d.Dir, d.Logger, d.Metrics = c.RunDir, n.cfg.Logger, n.metrics.discovery
	var store discovery.Store
	var err error
	if strings.HasPrefix(c.Discovery, "etcd") {
		store, err = etcd.Open(c.Discovery, d)
	} else {
		store, err = discovery.Open(c.Discovery, d)
	}
	if err != nil {
		return nil, err // store may hold a nil pointer, which is not nil
	}
	return store, nil
}

// clusterKey is the secret that peers prove they share: from its own file, from
// the store that keeps one, or from the state directory.
func (n *Node) clusterKey(store discovery.Store) ([]byte, error) {
	if n.crowd != nil {
		return n.crowd.key, nil
	}
	if path := n.cfg.Cluster.KeyFile; path != "" {
		key, err := discovery.ReadKey(path)
		if err != nil {
			return nil, fmt.Errorf("--cluster-key-file: %w", err)
		}
		return key, nil
	}
	if f, ok := store.(*discovery.File); ok {
		return f.ClusterKey()
	}
	if n.cfg.StateDir == "" {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the peers of a cluster need a common secret and there is no home directory to keep one in; give --cluster-key-file"}
	}
	return discovery.MakeKey(n.cfg.StateDir)
}

// rpcConfig is what both sides of the request plane share.
func (n *Node) rpcConfig(key []byte) rpc.Config {
	c := rpc.DefaultConfig()
	c.Key, c.Dial, c.Connections = key, n.cfg.Cluster.Dial, n.cfg.Cluster.Connections
	c.Logger, c.Metrics = n.cfg.Logger, n.metrics.rpc
	return c
}

// tlsConfig reads the certificates. As a server it demands the peer's
// certificate, as a client it trusts a server's, if TLSCA signed it.
func (c *ClusterConfig) tlsConfig() (*tls.Config, error) {
	if c.TLSCert == "" && c.TLSCA == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if c.TLSCA != "" {
		pem, err := readBounded(c.TLSCA, maxConfigBytes)
		if err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--tls-ca: " + c.TLSCA + " holds no PEM certificate"}
		}
		t.RootCAs, t.ClientCAs, t.ClientAuth = pool, pool, tls.RequireAndVerifyClientCert
	}
	return t, nil
}

// path is where workers of the cluster register.
func (c *ClusterConfig) path() discovery.Path {
	return discovery.Path{Namespace: c.Namespace, Component: "backend", Endpoint: "generate"}
}
