package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type modelsCmd struct {
	JSON bool `name:"json" help:"As a JSON array." oneoff:""`
}

// listedModel is a row of the list as JSON.
type listedModel struct {
	Ref       string `json:"ref"`
	Path      string `json:"path"`
	SizeBytes int64  `json:"sizeBytes"`
	Digest    string `json:"digest"`
	Revision  string `json:"revision,omitempty"`
	Source    string `json:"source"`
	Fetched   string `json:"fetched"`
}

// Run lists the cache.
func (c *modelsCmd) Run(a *app) error {
	log, err := a.logger("warn")
	if err != nil {
		return err
	}
	h, err := a.hub(log, nil)
	if err != nil {
		return err
	}
	all, err := h.List()
	if err != nil {
		return err
	}
	if c.JSON {
		rows := make([]listedModel, len(all))
		for i, m := range all {
			rows[i] = listedModel{m.Ref, m.Path, m.SizeBytes, m.Digest, m.Revision, m.Source, m.Fetched.Format("2006-01-02T15:04:05Z07:00")}
		}
		b, err := json.Marshal(rows, jsontext.Multiline(true))
		if err != nil {
			return fmt.Errorf("write the list: %w", err)
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", b)
		return err
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(a.stdout, "no models in %s; fetch one with: dynamo pull %s\n", a.flags.CacheDir, defaultModel)
		return err
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tSIZE\tFETCHED\tFROM")
	for _, m := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Ref, mib(m.SizeBytes), m.Fetched.Local().Format("2006-01-02 15:04"), m.Source)
	}
	return w.Flush()
}
