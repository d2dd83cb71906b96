package main

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// health is what GET /health of a frontend says.
type health struct {
	Status    string           `json:"status"`
	Instances []jsontext.Value `json:"instances"`
}

func (f *frontend) health(ctx context.Context) (*health, error) {
	b, err := get(ctx, f.url+"/health")
	if err != nil {
		return nil, err
	}
	h := &health{}
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("read /health of %s: %w: %s", f.name, err, b)
	}
	return h, nil
}

// state returns the state of a worker, or that it is missing. The worker's id
// stands there as a number or in hexadecimal.
func (h *health) state(id string) string {
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		panic("BUG: " + id + " is no worker id")
	}
	decimal := strconv.FormatUint(n, 10)
	for _, i := range h.Instances {
		if !bytes.Contains(i, []byte(id)) && !bytes.Contains(i, []byte(decimal)) {
			continue
		}
		var e struct {
			State  string `json:"state"`
			Status string `json:"status"`
		}
		if err := json.Unmarshal(i, &e); err != nil {
			return err.Error()
		}
		return e.State + e.Status
	}
	return "missing"
}

// metric sums the samples of a frontend's metrics whose name and labels match.
func (f *frontend) metric(ctx context.Context, series *regexp.Regexp) (sum float64, err error) {
	b, err := get(ctx, f.url+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if i < 0 || line[0] == '#' || !series.MatchString(line[:i]) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			return 0, fmt.Errorf("read a metric: %w: %s", err, line)
		}
		sum += v
	}
	return sum, nil
}

// The series that are looked at.
var (
	seriesMigrations = regexp.MustCompile(`^dynamo_engine_migrations_total\b`)
	seriesStale      = regexp.MustCompile(`^dynamo_discovery_stale\b`)
)

// migrations is how often requests went on elsewhere, over the frontends alive.
func (c *cluster) migrations(ctx context.Context) (sum float64) {
	for _, f := range c.alive() {
		if n, err := f.metric(ctx, seriesMigrations); err == nil { // a frontend that has just gone has no say
			sum += n
		}
	}
	return sum
}

// stale says how many frontends mark their view as stale.
func (c *cluster) stale(ctx context.Context) (n int, err error) {
	for _, f := range c.alive() {
		v, err := f.metric(ctx, seriesStale)
		if err != nil {
			return n, err
		}
		if v > 0 {
			n++
		}
	}
	return n, nil
}
