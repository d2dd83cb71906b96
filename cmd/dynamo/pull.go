package main

import (
	"context"
	"fmt"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/hub"
)

type pullCmd struct {
	Model   string `arg:"" help:"An alias (smollm2) or a Hugging Face id: org/name, org/name:file.gguf, org/name@revision."`
	Verify  bool   `help:"Hash every file of the cached model again instead of fetching it." oneoff:"" xor:"how"`
	Refresh bool   `help:"Delete the cached model first, so that it is fetched anew." oneoff:"" xor:"how"`
	Remove  bool   `help:"Delete the cached model and any half-finished download of it." oneoff:"" xor:"how"`
}

// Run brings a model into the cache.
func (c *pullCmd) Run(a *app) error {
	log, err := a.logger("warn")
	if err != nil {
		return err
	}
	view := newConsole(a.stderr)
	defer view.end()
	h, err := a.hub(log, view.hub)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.Remove || c.Refresh {
		err := h.Remove(ctx, c.Model)
		if c.Remove && err == nil {
			_, err = fmt.Fprintf(a.stdout, "removed %s\n", c.Model)
		}
		if c.Remove || err != nil && dynamo.KindOf(err) != dynamo.KindNotFound {
			return err
		}
	}
	fetch := h.Resolve
	if c.Verify {
		fetch = h.Verify
	}
	m, err := fetch(ctx, c.Model)
	if err != nil {
		return err
	}
	view.end()
	return c.report(a, m)
}

func (c *pullCmd) report(a *app, m *hub.Model) error {
	if m.Note != "" {
		fmt.Fprintln(a.stderr, m.Note)
	}
	verb := ""
	if c.Verify {
		verb = "verified: "
	}
	_, err := fmt.Fprintf(a.stdout, "%s%s  %s  %s\n%s\n", verb, m.Ref, mib(m.SizeBytes), m.Digest, m.Path)
	return err
}
