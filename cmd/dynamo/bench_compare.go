package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// benchCompareCmd sets runs side by side.
type benchCompareCmd struct {
	Runs   []string `arg:"" help:"Directories that dynamo bench --output wrote, or their result.json; the first is what the others are measured by."`
	HTML   string   `name:"html" help:"Write a page with the runs' plots over each other." placeholder:"FILE" oneoff:""`
	Plots  string   `name:"plots" help:"Write these plots as SVG and as PNG." placeholder:"DIR" oneoff:""`
	JSON   bool     `name:"json" help:"Print JSON." oneoff:""`
	FailIf []string `name:"fail-if" help:"Exit with 1 if this holds of a ratio, as in ttft_p99>1.1, or ttft_p99.low>1.1 for one that is surely above; may be repeated." placeholder:"CONDITION" oneoff:""`
	Seed   uint64   `help:"Seed of the intervals' draws." default:"1" oneoff:""`
}

// Run prints the comparison; it fails if a condition holds.
func (c *benchCompareCmd) Run(a *app) error {
	var conditions []report.Condition
	for _, text := range c.FailIf {
		condition, err := report.ParseCondition(text)
		if err != nil {
			return usageError{error: fmt.Errorf("--fail-if: %w", err)}
		}
		conditions = append(conditions, condition)
	}
	var runs []*report.Run
	for _, path := range c.Runs {
		run, err := report.Open(path)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	all, err := report.Compare(runs, report.CompareOptions{Bootstrap: stats.Bootstrap{Seed: c.Seed}})
	if err != nil {
		return asUsage(err)
	}
	write := all.WriteText
	if c.JSON {
		write = all.WriteJSON
	}
	if err := write(a.stdout); err != nil {
		return err
	}
	if c.HTML != "" {
		var page bytes.Buffer
		if err := all.WriteHTML(&page); err != nil {
			return err
		}
		if err := os.WriteFile(c.HTML, page.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if c.Plots != "" {
		if err := all.WritePlots(c.Plots); err != nil {
			return err
		}
	}
	return c.judge(a, all, conditions)
}

// judge says which conditions hold, and fails if any does.
func (c *benchCompareCmd) judge(a *app, all *report.Comparison, conditions []report.Condition) error {
	failed := false
	for _, condition := range conditions {
		held, err := condition.Holds(all)
		if err != nil {
			return fmt.Errorf("--fail-if: %w", err)
		}
		for _, i := range held {
			failed = true
			fmt.Fprintf(a.stderr, "dynamo: %s holds of %s\n", condition, all.Runs[i].Name)
		}
	}
	if failed {
		return exitRequest(exitFailed)
	}
	return nil
}
