package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo/node"
)

// The reference's command lines are understood: its weights, its older names, and what
// needs no setting here, which is said.
func TestReferenceRouting(t *testing.T) {
	for _, c := range []struct {
		in   string
		want func(*node.RoutingConfig) bool
		note string
	}{
		{"", func(r *node.RoutingConfig) bool { return r.Mode == "kv" && r.KVEvents && r.PredictTTL == 5*time.Second }, ""},
		{"--router-mode dynamo --router-temperature 0.5 --kv-overlap-score-weight 2", func(r *node.RoutingConfig) bool {
			return r.Params.Reference.Temperature == 0.5 && r.Params.Reference.PrefillScale == 2
		}, ""},
		{"--router-mode kv --router-kv-overlap-score-credit 2", func(r *node.RoutingConfig) bool { return r.Mode == "kv" }, "are for --router-mode dynamo"},
		{"--no-kv-events --router-ttl 30", func(r *node.RoutingConfig) bool { return !r.KVEvents && r.ApproximateTTL == 30*time.Second }, ""},
		{"--no-router-kv-events --router-ttl-secs 1.5", func(r *node.RoutingConfig) bool { return !r.KVEvents && r.ApproximateTTL == 1500*time.Millisecond }, ""},
		{"--router-mode p2c", func(r *node.RoutingConfig) bool { return r.Mode == "p2c" }, ""},
		{"--load-aware", func(r *node.RoutingConfig) bool { return r.Mode == "least-loaded" }, ""},
		{"--router-replica-sync --router-event-threads 4", func(*node.RoutingConfig) bool { return true }, "every router follows"},
		{"--router-queue-threshold 0.5 --router-queue-policy wspt", func(*node.RoutingConfig) bool { return true }, "fairly among tenants"},
	} {
		var f struct{ routingFlags }
		p, err := kong.New(&f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Parse(strings.Fields(c.in)); err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var log bytes.Buffer
		var got node.ClusterConfig
		f.apply(&got, slog.New(slog.NewTextHandler(&log, nil)))
		if !c.want(&got.Routing) {
			t.Errorf("%s: got %+v", c.in, got.Routing)
		}
		if c.note == "" && log.Len() > 0 || !strings.Contains(log.String(), c.note) {
			t.Errorf("%s: said %q, want %q", c.in, log.String(), c.note)
		}
		if err := got.Routing.Validate(); err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
	}
}
