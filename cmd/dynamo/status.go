package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/worker"
)

// statusCmd shows a cluster.
type statusCmd struct {
	clusterFlags
	JSON bool `name:"json" help:"Print JSON." oneoff:""`
}

// workerLine is one worker of status.
type workerLine struct {
	Worker    string            `json:"worker"`
	Epoch     uint64            `json:"epoch"`
	Path      string            `json:"path"`
	Model     string            `json:"model"`
	Engine    string            `json:"engine"`
	Role      string            `json:"role"`
	State     string            `json:"state"`
	Running   int               `json:"running"`
	Waiting   int               `json:"waiting"`
	KVUsed    int               `json:"kv_blocks_used"`
	KVBlocks  int               `json:"kv_blocks"`
	Uptime    string            `json:"uptime"`
	Addresses []string          `json:"addresses"`
	Labels    map[string]string `json:"labels,omitempty"`
	Version   string            `json:"version"`
	Error     string            `json:"error,omitempty"`
}

// Run prints a line for each worker. It fails if one of them does not answer.
func (c *statusCmd) Run(a *app) error {
	v, err := a.cluster(&c.clusterFlags)
	if err != nil {
		return err
	}
	defer v.Close()
	all, problems, err := v.Workers(context.Background())
	if err != nil {
		return err
	}
	for _, p := range problems {
		fmt.Fprintf(a.stderr, "dynamo: %v\n", p)
	}
	lines := make([]workerLine, len(all))
	silent := 0
	for i := range all {
		lines[i] = describe(&all[i])
		if all[i].Err != nil {
			silent++
		}
	}
	if c.JSON {
		b, err := json.Marshal(lines, jsontext.WithIndent("  "))
		if err != nil {
			return fmt.Errorf("write the status: %w", err)
		}
		fmt.Fprintf(a.stdout, "%s\n", b)
	} else {
		c.table(a, lines)
	}
	if silent > 0 {
		return fmt.Errorf("%d of %d workers do not answer", silent, len(all))
	}
	return nil
}

func describe(w *node.WorkerStatus) workerLine {
	i := &w.Instance
	l := workerLine{
		Worker: i.ID.String(), Epoch: i.Epoch, Path: i.Namespace + "/" + i.Component + "/" + i.Endpoint, State: "unreachable",
		Uptime: time.Since(i.Started).Round(time.Second).String(), Addresses: i.Addresses, Version: i.Version,
	}
	if i.Card != nil {
		l.Model, l.Engine, l.Role, l.Labels = i.Card.Model, i.Card.Engine, i.Card.Role, i.Card.Labels
	}
	if w.Err != nil {
		l.Error = w.Err.Error()
		return l
	}
	s := &w.Status
	l.State, l.Running, l.Waiting, l.Error = s.State, s.Load.Running, s.Load.Waiting, s.Fault
	if s.Fault != "" && s.State == worker.StateReady {
		l.State = "failing"
	}
	l.KVUsed, l.KVBlocks = s.Load.KVUsed, s.Load.KVBlocks
	return l
}

func (c *statusCmd) table(a *app, lines []workerLine) {
	if len(lines) == 0 {
		fmt.Fprintf(a.stdout, "no workers in namespace %s of store %s; start one with: dynamo worker MODEL\n", c.Namespace, c.DiscoveryBackend)
		return
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKER\tMODEL\tENGINE\tSTATE\tRUNNING\tWAITING\tKV BLOCKS\tUPTIME\tADDRESS")
	for _, l := range lines {
		state := l.State
		if l.Error != "" {
			state += " (" + l.Error + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d/%d\t%s\t%s\n", l.Worker, l.Model, l.Engine, state, l.Running, l.Waiting, l.KVUsed, l.KVBlocks, l.Uptime, strings.Join(l.Addresses, " "))
	}
	t.Flush()
}

// drainCmd lets a worker leave.
type drainCmd struct {
	Worker string `arg:"" help:"The worker's name, or enough of its beginning ('dynamo status' lists them)."`
	clusterFlags
	Timeout time.Duration `help:"How long to wait for the worker to have left; 0 as long as it takes." default:"2m" oneoff:""`
}

// Run returns when the worker has left the cluster.
func (c *drainCmd) Run(a *app) error {
	v, err := a.cluster(&c.clusterFlags)
	if err != nil {
		return err
	}
	defer v.Close()
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	id, err := v.Drain(ctx, c.Worker)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "worker %s has left; its requests end or go on elsewhere\n", id)
	return nil
}

// cluster opens the cluster that the flags name, without a word in the log.
func (a *app) cluster(f *clusterFlags) (*node.Cluster, error) {
	log, err := a.logger("error")
	if err != nil {
		return nil, err
	}
	cfg := a.nodeConfig(log)
	f.apply(&cfg.Cluster)
	return node.OpenCluster(cfg)
}
