package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo/node"
)

// routerCmd is the router alone, and its client.
type routerCmd struct {
	Serve routerServeCmd `cmd:"" default:"withargs" help:"Say which worker a request should go to (the word serve may be left out)."`
	Call  routerCallCmd  `cmd:"" help:"Call a method of a router: select, reserve, release, add workers and so on."`
}

// routerServeCmd says which worker a request should go to, for gateways that send
// requests there themselves.
type routerServeCmd struct {
	Host             string        `name:"host" help:"Address to listen on; 0.0.0.0 for every interface. Give an --api-key then, or keep it to a closed network." default:"127.0.0.1" placeholder:"HOST"`
	Port             uint16        `name:"port" help:"Port to listen on; 0 takes a free one." default:"8092" placeholder:"PORT"`
	AddrFile         string        `help:"File the bound address is written to once requests are served." placeholder:"FILE"`
	RPC              string        `name:"rpc" help:"HOST:PORT to serve the same over rpc too, for those who have the cluster key (dynamo router call); port 0 takes a free one. Default: not." placeholder:"HOST:PORT"`
	RPCAddrFile      string        `name:"rpc-addr-file" help:"File the bound address of --rpc is written to." placeholder:"FILE"`
	WorkersFile      string        `help:"File of workers to know from the start, beside those that discovery finds: a JSON object a line, as POST /workers takes it." placeholder:"FILE"`
	APIKey           string        `name:"api-key" help:"Key every request must carry (Authorization: Bearer KEY). Better set in the environment." placeholder:"KEY" secret:""`
	ReservationLease time.Duration `help:"How long a reservation stays booked after the last call about it." default:"5m"`
	MaxReservations  int           `help:"Reservations that are open at once; further ones are refused with 429." default:"100000" placeholder:"N"`
	DrainTimeout     time.Duration `help:"How long requests in progress may take to end after SIGTERM or Ctrl-C." default:"30s"`
	clusterFlags
	routingFlags
	tracingFlags
}

// Run serves until a signal comes.
func (c *routerServeCmd) Run(a *app) error {
	log, err := a.logger("")
	if err != nil {
		return err
	}
	cfg := c.config(a, log)
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	l, err := node.ListenRouter(c.Host, c.Port)
	if err != nil {
		return err
	}
	cfg.Listener = l
	if c.RPC != "" {
		if cfg.Selection.RPC, err = c.listenRPC(); err != nil {
			return errors.Join(err, l.Close())
		}
		defer cfg.Selection.RPC.Close() // a second close of a served listener does nothing
	}
	cfg.Ready = func(r node.Ready) {
		also := ""
		if cfg.Selection.RPC != nil {
			also = " and over rpc at " + cfg.Selection.RPC.Addr().String()
		}
		fmt.Fprintf(a.stdout, "ready: router at %s%s (store %s); ask it with POST /select, start workers with: dynamo worker MODEL\n", httpURL(r.Addr), also, c.DiscoveryBackend)
	}
	return a.runNode(ctx, cfg)
}

func (c *routerServeCmd) config(a *app, log *slog.Logger) node.Config {
	cfg := a.nodeConfig(log)
	cfg.Role = node.RoleRouter
	c.clusterFlags.apply(&cfg.Cluster)
	c.routingFlags.apply(&cfg.Cluster, log)
	c.tracingFlags.apply(&cfg)
	cfg.AddrFile, cfg.APIKey, cfg.DrainTimeout = c.AddrFile, c.APIKey, c.DrainTimeout
	cfg.Selection.Lease, cfg.Selection.Reservations, cfg.Selection.RPCAddrFile = c.ReservationLease, c.MaxReservations, c.RPCAddrFile
	cfg.Selection.WorkersFile = c.WorkersFile
	return cfg
}

// listenRPC takes the address of --rpc.
func (c *routerServeCmd) listenRPC() (net.Listener, error) {
	host, digits, err := net.SplitHostPort(c.RPC)
	port, wrong := strconv.ParseUint(digits, 10, 16)
	if err != nil || wrong != nil {
		return nil, usageError{error: fmt.Errorf("--rpc: %q is not HOST:PORT, such as 127.0.0.1:8093", c.RPC)}
	}
	l, err := node.ListenRouter(host, uint16(port))
	if err != nil {
		return nil, fmt.Errorf("--rpc: %w", err)
	}
	return l, nil
}
