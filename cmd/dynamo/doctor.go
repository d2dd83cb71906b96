package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/node"
)

type doctorCmd struct {
	Model          string `arg:"" optional:"" help:"With --engine-url: the model whose tokenizer and template are compared with the server's. Default: smollm2 ($DYN_MODEL)."`
	EngineURL      string `name:"engine-url" help:"Look at this vLLM server instead of the machine, as http://HOST:PORT." placeholder:"URL" oneoff:""`
	EngineAPIKey   string `name:"engine-api-key" help:"Its API key." placeholder:"KEY" secret:""`
	EngineEvents   string `help:"ZMQ endpoint of its KV events, where it does not say itself." placeholder:"ENDPOINT"`
	EngineReplay   string `help:"ZMQ endpoint of their replay." placeholder:"ENDPOINT"`
	EngineTopic    string `help:"Their topic." placeholder:"TOPIC"`
	EngineCA       string `name:"engine-ca" help:"PEM file of the certificates that an https server is trusted by." placeholder:"FILE"`
	EngineInsecure bool   `help:"Take any certificate of it: for tests." negatable:""`
	HTTPHost       string `name:"http-host" help:"Address serve would listen on." default:"127.0.0.1" placeholder:"HOST"`
	HTTPPort       uint16 `name:"http-port" help:"Port serve would listen on." default:"8000" placeholder:"PORT"`
}

// What doctor wants to see for the default model.
const (
	doctorMemory  = 512 << 20
	doctorDisk    = 512 << 20
	pythonTimeout = 10 * time.Second
)

// verdict is how a check ended.
type verdict string

const (
	good verdict = "ok"
	warn verdict = "warn"
	fail verdict = "fail"
)

// finding is one line of the report.
type finding struct {
	verdict
	what, detail string
}

// Run checks the machine and prints a line for each thing that serve depends
// on. It fails if one of them would keep serve from working.
func (c *doctorCmd) Run(a *app) error {
	log, err := a.logger("warn")
	if err != nil {
		return err
	}
	h, err := a.hub(log, nil)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.EngineURL != "" {
		return c.lookAtEngine(ctx, a, h)
	}
	checks := []func() finding{
		func() finding { return finding{good, "version", buildInfo().String()} },
		checkCPU, checkMemory,
		func() finding { return checkDir("model cache", a.flags.CacheDir) },
		func() finding { return checkDir("state", a.flags.StateDir) },
		func() finding { return checkModels(h) },
		func() finding { return checkPython(ctx, a.flags.Python) },
		func() finding { return checkPort(c.HTTPHost, c.HTTPPort) },
		func() finding { return checkConfig(a.settings) },
	}
	var all []finding
	for _, check := range checks {
		f := check()
		if err := f.print(a.stdout); err != nil {
			return err
		}
		all = append(all, f)
	}
	return verdictOf(all)
}

// verdictOf is the error of a report with failures.
func verdictOf(all []finding) error {
	failed := 0
	for _, f := range all {
		if f.verdict == fail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(all))
	}
	return nil
}

// lookAtEngine reports on a vLLM server.
func (c *doctorCmd) lookAtEngine(ctx context.Context, a *app, h *hub.Hub) error {
	ref, _ := a.settings.model(c.Model)
	m, err := h.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	cfg := a.nodeConfig(nil)
	cfg.ModelPath = m.Path
	cfg.Foreign.URL, cfg.Foreign.APIKey = c.EngineURL, c.EngineAPIKey
	cfg.Foreign.CA, cfg.Foreign.Insecure = c.EngineCA, c.EngineInsecure
	cfg.Foreign.Events, cfg.Foreign.Replay, cfg.Foreign.Topic = c.EngineEvents, c.EngineReplay, c.EngineTopic
	probes, err := node.ProbeEngine(ctx, cfg)
	var all []finding
	for _, p := range probes {
		f := finding{good, p.What, p.Detail}
		switch {
		case !p.OK && p.Minor:
			f.verdict = warn
		case !p.OK:
			f.verdict = fail
		}
		if err := f.print(a.stdout); err != nil {
			return err
		}
		all = append(all, f)
	}
	return errors.Join(err, verdictOf(all))
}

func (f finding) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%-4s  %-12s %s\n", f.verdict, f.what, f.detail)
	return err
}

// checkCPU names the kernels that would be chosen.
func checkCPU() finding {
	var levels []string
	for _, l := range kernel.Levels() {
		levels = append(levels, l.String())
	}
	d := fmt.Sprintf("%d CPUs, %s; kernels: %s (offered: %s)", runtime.GOMAXPROCS(0), runtime.GOARCH, kernel.Best(), strings.Join(levels, ", "))
	if kernel.Best() == kernel.LevelScalar {
		return finding{warn, "cpu", d + "; portable code only: expect a tenth of the speed"}
	}
	return finding{good, "cpu", d}
}

func checkMemory() finding {
	m := node.AvailableMemory()
	if m.AvailableBytes == math.MaxInt64 {
		return finding{warn, "memory", "this system does not say how much is free"}
	}
	d := fmt.Sprintf("%s available of %s (%s)", mib(m.AvailableBytes), mib(m.TotalBytes), m.Limit)
	if m.AvailableBytes < doctorMemory {
		return finding{warn, "memory", d + "; the default model wants " + mib(doctorMemory)}
	}
	return finding{good, "memory", d}
}

// checkDir wants a folder that can be written, or made.
func checkDir(what, dir string) finding {
	if dir == "" {
		return finding{fail, what, "no folder: there is no home directory here; set --cache-dir and --state-dir"}
	}
	at := dir
	for {
		info, err := os.Stat(at)
		if err == nil {
			if !info.IsDir() {
				return finding{fail, what, at + " is not a folder"}
			}
			break
		}
		if up := filepath.Dir(at); up != at {
			at = up
			continue
		}
		return finding{fail, what, fmt.Sprintf("%s cannot be reached: %v", dir, err)}
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return finding{fail, what, at + " cannot be written; set --cache-dir or --state-dir to a folder of your own"}
	}
	free, err := hub.FreeBytes(at)
	if err != nil {
		return finding{warn, what, fmt.Sprintf("%s: %v", dir, err)}
	}
	if free < doctorDisk {
		return finding{warn, what, fmt.Sprintf("%s: only %s free", dir, mib(free))}
	}
	return finding{good, what, fmt.Sprintf("%s: %s free", dir, mib(free))}
}

func checkModels(h *hub.Hub) finding {
	all, err := h.List()
	if err != nil {
		return finding{fail, "models", err.Error()}
	}
	if len(all) == 0 {
		return finding{good, "models", "none fetched; serve fetches " + defaultModel + " by itself"}
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.Ref + " (" + mib(m.SizeBytes) + ")"
	}
	return finding{good, "models", strings.Join(names, ", ")}
}

// checkPython looks for pip, the default model's first source.
func checkPython(ctx context.Context, python string) finding {
	ctx, cancel := context.WithTimeout(ctx, pythonTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-m", "pip", "--version").Output()
	if err != nil {
		why := "does not run"
		if _, missing := errors.AsType[*exec.ExitError](err); missing {
			why = "has no pip"
		}
		return finding{warn, "python", fmt.Sprintf("%s %s; the default model then comes from the Hugging Face hub in another form", python, why)}
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " from ")
	return finding{good, "python", python + ": " + version}
}

func checkPort(host string, port uint16) finding {
	l, err := node.Listen(host, port)
	if err != nil {
		return finding{fail, "port", err.Error()}
	}
	if err := l.Close(); err != nil {
		return finding{warn, "port", err.Error()}
	}
	return finding{good, "port", net.JoinHostPort(host, strconv.Itoa(int(port))) + " is free"}
}

func checkConfig(s *settings) finding {
	if s.path == "" {
		return finding{good, "config", "no configuration file"}
	}
	return finding{good, "config", s.path}
}
