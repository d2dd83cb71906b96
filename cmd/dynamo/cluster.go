package main

import (
	"github.com/dynamo-go/dynamo/node"
)

// clusterFlags say how the parts of a cluster find and reach each other. They
// mean the same to every command that takes part in one.
type clusterFlags struct {
	Namespace        string `help:"Clusters that share a store are kept apart by it." default:"dynamo" placeholder:"NAME"`
	DiscoveryBackend string `help:"Where the parts of a cluster find each other: file (the user's run directory), file:DIR, etcd (on this host), etcd://HOST:PORT,… or mem (this process alone)." default:"file" aliases:"store-kv" alsoenv:"DYN_STORE_KV" placeholder:"STORE"`
	RunDir           string `help:"The user's run directory: discovery files and workers' sockets." default:"${run_dir}" placeholder:"DIR"`
	ClusterKeyFile   string `help:"File of the secret that all parts of a cluster share: 32 bytes in hexadecimal, mode 0600. Default: cluster.key in the file store's directory, made once; with other stores, in --state-dir." placeholder:"FILE"`
	RPCConnections   int    `name:"rpc-connections" help:"Connections from a frontend to each worker." default:"1" placeholder:"N"`
	TLSCert          string `name:"tls-cert" help:"PEM certificate for the connections between frontends and workers." placeholder:"FILE"`
	TLSKey           string `name:"tls-key" help:"Its private key." placeholder:"FILE"`
	TLSCA            string `name:"tls-ca" help:"PEM certificates that must have signed the peer's certificate; on a worker this demands one from frontends." placeholder:"FILE"`
	EventPlane       string `help:"What carries load reports from workers: rpc (the request connections) or nats." enum:"rpc,nats" default:"rpc"`
	NATSServer       string `name:"nats-server" help:"Server of --event-plane nats." default:"nats://127.0.0.1:4222" alsoenv:"NATS_SERVER" placeholder:"URL"`
}

// apply sets the cluster's part of a node's configuration.
func (f *clusterFlags) apply(c *node.ClusterConfig) {
	c.Namespace, c.Discovery, c.RunDir, c.KeyFile = f.Namespace, f.DiscoveryBackend, f.RunDir, f.ClusterKeyFile
	c.Connections, c.TLSCert, c.TLSKey, c.TLSCA = f.RPCConnections, f.TLSCert, f.TLSKey, f.TLSCA
	c.EventPlane, c.NATSServer = f.EventPlane, f.NATSServer
}

// tracingFlags say where spans go.
type tracingFlags struct {
	OTLPEndpoint string  `name:"otlp-endpoint" help:"OTLP/HTTP collector that spans are sent to, as http://HOST:4318. Default: none." alsoenv:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL"`
	OTLPService  string  `name:"otlp-service" help:"Service name of the spans." default:"dynamo" alsoenv:"OTEL_SERVICE_NAME" placeholder:"NAME"`
	TraceRatio   float64 `help:"Share of the requests that are traced when they bring no decision of their own, 0 to 1." default:"1" placeholder:"R"`
}

func (f *tracingFlags) apply(c *node.Config) {
	c.Tracing.Endpoint, c.Tracing.Service, c.Tracing.SampleRatio = f.OTLPEndpoint, f.OTLPService, f.TraceRatio
}
