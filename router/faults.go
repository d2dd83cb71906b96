package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// faultLocked notes why m has lost a request while its connection is up.
func (r *Router) faultLocked(m *member, err error, now time.Time) {
	m.fault = clip(err.Error())
	r.missLocked(now)
}

func clip(text string) string {
	if len(text) > maxFaultBytes {
		text = text[:maxFaultBytes] + "…"
	}
	return strings.ToValidUTF8(text, "\ufffd")
}

// missLocked notes since when no worker is there that answers.
func (r *Router) missLocked(now time.Time) {
	for _, m := range r.mu.list {
		if m.up && !m.draining && !m.load.Down && m.fault == "" {
			r.mu.without = time.Time{}
			return
		}
	}
	if r.mu.without.IsZero() {
		r.mu.without = now
	}
}

// complain tells the log, now and then, of requests that found no worker, with what
// the workers said: the client is told neither.
func (r *Router) complain(ctx context.Context, err error) {
	var e *dynamo.Error
	if !errors.As(err, &e) || e.Code != engine.CodeNoWorker {
		return
	}
	now := time.Now()
	r.mu.Lock()
	quiet := now.Sub(r.mu.told) < complainEvery
	var faults []string
	if !quiet {
		r.mu.told = now
		for _, m := range r.mu.list {
			if m.fault != "" && len(faults) < maxFaults {
				faults = append(faults, fmt.Sprintf("worker %v: %s", m.ID, m.fault))
			}
		}
	}
	r.mu.Unlock()
	if !quiet {
		r.log.LogAttrs(ctx, slog.LevelWarn, "no worker for a request", slog.String(obs.KeyModel, r.config.Model), slog.Any(obs.KeyError, err), slog.String("workers", strings.Join(faults, "; ")))
	}
}
