package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/bench/trace"
)

// traceCmd are the tools for traces of requests.
type traceCmd struct {
	Synth     traceSynthCmd     `cmd:"" help:"Make a trace from statistics, or one like a given trace."`
	Stat      traceStatCmd      `cmd:"" help:"Describe a trace: load, lengths, what caches of any size would find, skew, sessions."`
	Convert   traceConvertCmd   `cmd:"" help:"Change a trace's format, block size, speed or extent, or sort it."`
	Anonymize traceAnonymizeCmd `cmd:"" help:"Replace the hashes and names of a trace; what requests share stays."`
}

// traceInput is a trace to read.
type traceInput struct {
	File      string `arg:"" help:"Trace: JSON lines (Mooncake and the tools that play such files), CSV (Azure, BurstGPT) or ShareGPT's JSON, gzip or not; - is the standard input."`
	Format    string `help:"Format of the file, if its first bytes do not tell." enum:",mooncake,mooncake-delta,dynamo,csv,sharegpt" default:"" oneoff:""`
	BlockSize int    `help:"Tokens of a block, where the file does not say. Default: 512." placeholder:"N" oneoff:""`
	Sort      bool   `help:"Sort by time first; needed for what a recorder wrote. Parts that memory does not hold go to temporary files." oneoff:""`
}

// read yields the trace; done closes the file.
func (c *traceInput) read(a *app) (all iter.Seq2[trace.Request, error], done func(), err error) {
	in, done := a.stdin, func() {}
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, nil, err
		}
		in, done = f, func() { _ = f.Close() } // it was only read
	}
	all = trace.Read(in, trace.Options{Format: trace.Format(c.Format), BlockSize: c.BlockSize, Unsorted: c.Sort})
	if c.Sort {
		all = trace.Sort(all, trace.SortOptions{Spill: spillFile})
	}
	return all, done, nil
}

// runFile is a temporary file that nobody else sees.
type runFile struct{ *os.File }

// Rewind implements trace.Run.
func (f runFile) Rewind() error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func spillFile() (trace.Run, error) {
	f, err := os.CreateTemp("", "dynamo-trace-*")
	if err != nil {
		return nil, err
	}
	return runFile{f}, os.Remove(f.Name()) // it lives until it is closed
}

// traceOutput is a trace to write.
type traceOutput struct {
	Output string `short:"o" help:"File to write; with .gz it is compressed. - is the standard output." default:"-" placeholder:"FILE" oneoff:""`
	To     string `help:"Format to write: mooncake (the fields that all tools know), dynamo (all fields) or csv (times and lengths)." enum:"dynamo,mooncake,csv" default:"dynamo" oneoff:""`
}

// write writes a trace. A file appears when it is complete.
func (c *traceOutput) write(a *app, all iter.Seq2[trace.Request, error]) error {
	if c.Output == "-" {
		return writeTrace(a.stdout, trace.Format(c.To), false, all)
	}
	f, err := os.CreateTemp(filepath.Dir(c.Output), "."+filepath.Base(c.Output)+".*")
	if err != nil {
		return err
	}
	err = errors.Join(writeTrace(f, trace.Format(c.To), strings.HasSuffix(c.Output, ".gz"), all), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.Output)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func writeTrace(w io.Writer, f trace.Format, zipped bool, all iter.Seq2[trace.Request, error]) error {
	t, err := trace.WriteAs(w, f, zipped)
	if err != nil {
		return err
	}
	for q, err := range all {
		if err != nil {
			return err
		}
		if err := t.Request(&q); err != nil {
			return err
		}
	}
	return t.Close()
}

// traceSynthCmd makes a trace.
type traceSynthCmd struct {
	traceOutput
	Preset    string         `help:"Statistics to begin with; list shows what there is." default:"mooncake-conversation" placeholder:"NAME" oneoff:""`
	Like      string         `help:"Trace to be like, instead of a preset: its sessions, lengths, sharing and gaps." placeholder:"FILE" oneoff:""`
	Speedup   float64        `help:"How much faster than the original; with --like." default:"1" placeholder:"X" oneoff:""`
	Seed      uint64         `help:"Another seed makes another trace." default:"1" placeholder:"N" oneoff:""`
	Requests  *int           `help:"Requests to make; 0 is no bound." placeholder:"N" oneoff:""`
	Duration  *time.Duration `help:"Time to cover; 0 is no bound." placeholder:"TIME" oneoff:""`
	BlockSize *int           `help:"Tokens of a block." placeholder:"N" oneoff:""`
	Hashes    string         `help:"Block hashes: small numbers, as in published traces, or 64 bits." enum:"small,full" default:"small" oneoff:""`

	Arrival    string         `help:"How sessions begin: poisson, constant, gamma, ramp or sine." placeholder:"NAME" oneoff:""`
	Rate       *float64       `help:"Requests a second." placeholder:"X" oneoff:""`
	RateTo     *float64       `help:"Rate at the end of a ramp." placeholder:"X" oneoff:""`
	Burstiness *float64       `help:"Coefficient of variation of gamma's gaps." placeholder:"X" oneoff:""`
	Period     *time.Duration `help:"Length of the ramp, or of a swing (24h for days)." placeholder:"TIME" oneoff:""`
	Amplitude  *float64       `help:"Share of the rate by which a sine swings." placeholder:"X" oneoff:""`

	System     *int     `help:"Tokens that all prompts begin with." placeholder:"N" oneoff:""`
	Share      *float64 `help:"Share of sessions that begin with a way through the prefix tree." placeholder:"X" oneoff:""`
	Roots      *int     `help:"Roots of the prefix tree: system prompts, documents." placeholder:"N" oneoff:""`
	Depth      *int     `help:"Depth of the prefix tree." placeholder:"N" oneoff:""`
	Branching  *int     `help:"Children of its nodes." placeholder:"N" oneoff:""`
	Zipf       *float64 `help:"How unevenly roots and children are chosen: Zipf's exponent." placeholder:"X" oneoff:""`
	NodeTokens *float64 `help:"Median tokens of a node." placeholder:"N" oneoff:""`

	Turns        *float64 `help:"Requests of a session, on average." placeholder:"X" oneoff:""`
	MaxTurns     *int     `help:"Requests of a session at most." placeholder:"N" oneoff:""`
	FirstTokens  *float64 `help:"Median new tokens of a first prompt." placeholder:"N" oneoff:""`
	FollowTokens *float64 `help:"Median new tokens of a later prompt." placeholder:"N" oneoff:""`
	OutputTokens *float64 `help:"Median tokens of an answer." placeholder:"N" oneoff:""`
	Gap          *float64 `help:"Median seconds from an answer to the next prompt." placeholder:"S" oneoff:""`
	Fork         *float64 `help:"Chance that a turn starts sub-agents." placeholder:"X" oneoff:""`
	ForkAgents   *int     `help:"Sub-agents started at once, at most." placeholder:"N" oneoff:""`
	ForkTurns    *float64 `help:"Requests of a sub-agent, on average." placeholder:"X" oneoff:""`
	MaxInput     *int     `help:"Longest prompt in tokens." placeholder:"N" oneoff:""`
}

// Run makes the trace.
func (c *traceSynthCmd) Run(a *app) error {
	if c.Preset == "list" {
		return listPresets(a.stdout)
	}
	all, err := c.made(a)
	if err != nil {
		return err
	}
	if c.Hashes == "small" {
		all = trace.Change{Renumber: true}.Apply(all)
	}
	return c.write(a, all)
}

func listPresets(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PRESET\tREQUESTS\tRATE\tBLOCK\tFROM") // Flush tells of errors
	for _, p := range trace.Presets() {
		fmt.Fprintf(w, "%s\t%d\t%.3g/s\t%d\t%s\n", p.Name, p.Requests, p.Arrival.Rate, p.BlockSize, p.Source)
	}
	return w.Flush()
}

// made returns the trace, before anything is written.
func (c *traceSynthCmd) made(a *app) (iter.Seq2[trace.Request, error], error) {
	s, err := trace.Preset(c.Preset)
	if err != nil {
		return nil, usageError{error: err}
	}
	c.override(&s)
	if c.Like == "" {
		if err := s.Validate(); err != nil {
			return nil, asUsage(err)
		}
		return s.All(), nil
	}
	in := traceInput{File: c.Like}
	original, done, err := in.read(a)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := trace.Learn(original)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Like, err)
	}
	if !m.Whole() {
		fmt.Fprintf(a.stderr, "dynamo: %s is large: its first %d requests are taken as the model\n", c.Like, m.Requests())
	}
	o := trace.LikeOptions{Seed: c.Seed, Speedup: c.Speedup}
	set(&o.Requests, c.Requests)
	set(&o.Duration, c.Duration)
	if c.Arrival != "" || c.Rate != nil {
		o.Arrival = &s.Arrival
	}
	all := m.Like(o)
	if c.BlockSize != nil {
		all = trace.Change{BlockSize: *c.BlockSize}.Apply(all)
	}
	return all, nil
}

// set sets what was given.
func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// scale gives a distribution another median; its spread stays.
func scale(l *trace.Lengths, median *float64) {
	if median == nil {
		return
	}
	if l.Median > 0 {
		l.Mean *= *median / l.Median
	}
	l.Median = *median
	if l.Max > 0 {
		l.Max = max(l.Max, *median)
	}
	l.Min = min(l.Min, *median)
}

// override applies the flags to a preset.
func (c *traceSynthCmd) override(s *trace.Synth) {
	s.Seed = c.Seed
	if c.Duration != nil && c.Requests == nil {
		s.Requests = 0
	}
	set(&s.Requests, c.Requests)
	set(&s.Duration, c.Duration)
	set(&s.BlockSize, c.BlockSize)
	if c.Arrival != "" {
		s.Arrival.Process = c.Arrival
	}
	set(&s.Arrival.Rate, c.Rate)
	set(&s.Arrival.To, c.RateTo)
	set(&s.Arrival.CV, c.Burstiness)
	set(&s.Arrival.Period, c.Period)
	set(&s.Arrival.Amplitude, c.Amplitude)
	t := &s.Tree
	if t.Depth == 0 && (c.Roots != nil || c.Depth != nil) {
		t.Depth, t.Branching, t.Share, t.Roots = 1, 1, 1, 1
		t.Node = trace.Lengths{Median: 1000, Mean: 1200, Min: 1}
	}
	set(&t.System, c.System)
	set(&t.Share, c.Share)
	set(&t.Roots, c.Roots)
	set(&t.Depth, c.Depth)
	set(&t.Branching, c.Branching)
	set(&t.Zipf, c.Zipf)
	scale(&t.Node, c.NodeTokens)
	set(&s.Turns, c.Turns)
	set(&s.MaxTurns, c.MaxTurns)
	if c.Turns != nil && c.MaxTurns == nil {
		s.MaxTurns = max(s.MaxTurns, int(min(20**c.Turns, 1e6)))
	}
	scale(&s.First, c.FirstTokens)
	scale(&s.Follow, c.FollowTokens)
	scale(&s.Output, c.OutputTokens)
	scale(&s.Gap, c.Gap)
	set(&s.Fork.Chance, c.Fork)
	set(&s.Fork.Agents, c.ForkAgents)
	set(&s.Fork.Turns, c.ForkTurns)
	if s.Fork.Chance > 0 {
		s.Fork.Agents, s.Fork.Turns = max(s.Fork.Agents, 1), max(s.Fork.Turns, 1)
	}
	set(&s.MaxInput, c.MaxInput)
}

// traceConvertCmd changes a trace.
type traceConvertCmd struct {
	traceInput
	traceOutput
	ToBlockSize int           `help:"New tokens of a block: 16 makes of each block of 512 its 32 parts." placeholder:"N" oneoff:""`
	Speedup     float64       `help:"How much faster; delays within sessions stay." default:"1" placeholder:"X" oneoff:""`
	From        time.Duration `help:"Begin at this time." placeholder:"TIME" oneoff:""`
	Until       time.Duration `help:"End at this time." placeholder:"TIME" oneoff:""`
	Skip        int           `help:"Pass over the first requests." placeholder:"N" oneoff:""`
	Requests    int           `help:"End after so many." placeholder:"N" oneoff:""`
	MaxInput    int           `help:"Leave out longer prompts." placeholder:"N" oneoff:""`
	Rebase      bool          `help:"Let the first request come at 0." oneoff:""`
	Hashes      string        `help:"Block hashes: keep them, or give them small numbers, which auto does for mooncake." enum:"auto,keep,small" default:"auto" oneoff:""`
}

// Run changes the trace.
func (c *traceConvertCmd) Run(a *app) error {
	ch := trace.Change{
		From: c.From, To: c.Until, Skip: c.Skip, Requests: c.Requests, Rebase: c.Rebase, Speedup: c.Speedup,
		BlockSize: c.ToBlockSize, MaxInput: c.MaxInput, Renumber: c.Hashes == "small" || c.Hashes == "auto" && c.To == string(trace.FormatMooncake),
	}
	if err := ch.Validate(); err != nil {
		return asUsage(err)
	}
	return c.change(a, &c.traceInput, ch)
}

// change writes what a trace becomes.
func (c *traceOutput) change(a *app, in *traceInput, ch trace.Change) error {
	all, done, err := in.read(a)
	if err != nil {
		return err
	}
	defer done()
	if err := c.write(a, ch.Apply(all)); err != nil {
		return fmt.Errorf("%s: %w", in.File, err)
	}
	return nil
}

// traceAnonymizeCmd replaces what could be linked to something.
type traceAnonymizeCmd struct {
	traceInput
	traceOutput
	KeyFile string  `help:"File with a secret key of at least 16 bytes; files that are anonymized with one key can be linked. Default: a random key that nobody keeps." placeholder:"FILE" oneoff:""`
	Jitter  float64 `help:"Change each gap between requests by at most this share." default:"0" placeholder:"X" oneoff:""`
}

// Run anonymizes the trace.
func (c *traceAnonymizeCmd) Run(a *app) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	if c.KeyFile != "" {
		var err error
		if key, err = os.ReadFile(c.KeyFile); err != nil {
			return err
		}
	}
	anonymizer, err := trace.NewAnonymizer(key, c.Jitter)
	if err != nil {
		return usageError{error: err}
	}
	return c.change(a, &c.traceInput, trace.Change{Anonymize: anonymizer})
}

// traceStatCmd describes a trace.
type traceStatCmd struct {
	traceInput
	JSON        bool    `name:"json" help:"As a JSON object." oneoff:""`
	CacheBlocks []int64 `help:"Cache sizes to look at, in blocks; by default powers of four." placeholder:"N" oneoff:""`
	MaxBlocks   int     `help:"Distinct blocks to remember; beyond it figures are lower bounds. Default: 8 million, some 800 MB." placeholder:"N" oneoff:""`
}

// Run describes the trace.
func (c *traceStatCmd) Run(a *app) error {
	all, done, err := c.read(a)
	if err != nil {
		return err
	}
	defer done()
	d, err := trace.Describe(all, trace.DescribeOptions{CacheBlocks: c.CacheBlocks, MaxBlocks: c.MaxBlocks})
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if c.JSON {
		b, err := json.Marshal(d, jsontext.Multiline(true))
		if err != nil {
			return fmt.Errorf("write the description: %w", err)
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", b)
		return err
	}
	return printDescription(a.stdout, &d)
}

func printDescription(out io.Writer, d *trace.Description) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(format string, args ...any) { fmt.Fprintf(w, format+"\t\n", args...) } // Flush tells of errors
	row("requests\t%d", d.Requests)
	row("duration\t%v", time.Duration(d.Seconds*float64(time.Second)).Round(time.Millisecond))
	row("requests/s\t%.3g", d.Rate)
	row("in the busiest 10 s\t%.3g", d.PeakRate)
	row("burstiness (CV of gaps)\t%.2f", d.Burstiness)
	row("input tokens\t%d", d.InputTokens)
	row("output tokens\t%d", d.OutputTokens)
	row("\t")
	row("tokens\tmean\tmin\tp50\tp90\tp95\tp99\tmax")
	length := func(name string, l trace.Distribution) {
		row("%s\t%.0f\t%d\t%d\t%d\t%d\t%d\t%d", name, l.Mean, l.Min, l.P50, l.P90, l.P95, l.P99, l.Max)
	}
	length("input", d.Input)
	length("output", d.Output)
	if s := d.Sessions; s != nil {
		row("\t")
		row("sessions\t%d%s", s.Sessions, map[bool]string{true: " and more"}[s.More])
		row("turns, mean / p50 / p99\t%.2f / %d / %d", s.Turns.Mean, s.Turns.P50, s.Turns.P99)
		row("delay between turns, mean\t%.3g s", s.MeanDelay)
	}
	if d.Blocks > 0 {
		reuseRows(row, d)
	}
	return w.Flush()
}

// reuseRows print what caches would find.
func reuseRows(row func(string, ...any), d *trace.Description) {
	least, most := "", ""
	if d.Partial {
		least, most = "at least ", "at most "
	}
	row("\t")
	row("blocks of %d tokens\t%d", d.BlockSize, d.Blocks)
	row("distinct (working set)\t%s%d", most, d.Distinct)
	row("used once\t%.1f %%", 100*d.Skew.Once)
	row("uses that go to the top 1 %%\t%.1f %%", 100*d.Skew.Top1)
	row("uses that go to the top 10 %%\t%.1f %%", 100*d.Skew.Top10)
	row("first blocks / Zipf exponent\t%d / %.2f", d.Skew.Roots, d.Skew.Zipf)
	row("\t")
	row("ideal hit rate (tokens)\t%s%.1f %%", least, 100*d.IdealHitRate)
	row("ideal hit rate (blocks)\t%s%.1f %%", least, 100*d.IdealBlockRate)
	for _, p := range d.Curve {
		row("a cache of %d blocks\t%.1f %%", p.Blocks, 100*p.HitRate)
	}
	row("for 90 %% / 99 %% of ideal\t%d / %d blocks", d.Blocks90, d.Blocks99)
}
