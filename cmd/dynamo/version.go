package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// release is the version of the next or current release; -ldflags may set it.
var release = "0.1.0-dev"

type versionCmd struct {
	JSON bool `name:"json" help:"As a JSON object." oneoff:""`
}

// build describes the binary.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildInfo reads what the compiler recorded.
func buildInfo() build {
	b := build{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	return b
}

// String is the one-line form.
func (b build) String() string {
	s := "dynamo " + b.Version
	if b.Commit != "" {
		s += " (" + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			s += ", modified"
		}
		s += ")"
	}
	return s + " " + b.Go + " " + b.Platform
}

// Run prints the version.
func (c *versionCmd) Run(a *app) error {
	if !c.JSON {
		_, err := fmt.Fprintln(a.stdout, buildInfo())
		return err
	}
	b, err := json.Marshal(buildInfo(), jsontext.Multiline(true))
	if err != nil {
		return fmt.Errorf("write the version: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}
