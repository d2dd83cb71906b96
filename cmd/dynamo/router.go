package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo/node"
)

// routerCmd is the router alone: it says which worker a request should go to, for
// gateways that send requests there themselves.
type routerCmd struct {
	Host             string        `name:"host" help:"Address to listen on; 0.0.0.0 for every interface. Give an --api-key then, or keep it to a closed network." default:"127.0.0.1" placeholder:"HOST"`
	Port             uint16        `name:"port" help:"Port to listen on; 0 takes a free one." default:"8092" placeholder:"PORT"`
	AddrFile         string        `help:"File the bound address is written to once requests are served." placeholder:"FILE"`
	APIKey           string        `name:"api-key" help:"Key every request must carry (Authorization: Bearer KEY). Better set in the environment." placeholder:"KEY" secret:""`
	ReservationLease time.Duration `help:"How long a reservation stays booked after the last call about it." default:"5m"`
	MaxReservations  int           `help:"Reservations that are open at once; further ones are refused with 429." default:"100000" placeholder:"N"`
	DrainTimeout     time.Duration `help:"How long requests in progress may take to end after SIGTERM or Ctrl-C." default:"30s"`
	clusterFlags
	routingFlags
	tracingFlags
}

// Run serves until a signal comes.
func (c *routerCmd) Run(a *app) error {
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
	cfg.Ready = func(r node.Ready) {
		fmt.Fprintf(a.stdout, "ready: router at %s (store %s); ask it with POST /select, start workers with: dynamo worker MODEL\n", httpURL(r.Addr), c.DiscoveryBackend)
	}
	return a.runNode(ctx, cfg)
}

func (c *routerCmd) config(a *app, log *slog.Logger) node.Config {
	cfg := a.nodeConfig(log)
	cfg.Role = node.RoleRouter
	c.clusterFlags.apply(&cfg.Cluster)
	c.routingFlags.apply(&cfg.Cluster, log)
	c.tracingFlags.apply(&cfg)
	cfg.AddrFile, cfg.APIKey, cfg.DrainTimeout = c.AddrFile, c.APIKey, c.DrainTimeout
	cfg.Selection.Lease, cfg.Selection.Reservations = c.ReservationLease, c.MaxReservations
	return cfg
}
