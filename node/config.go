package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// The engines a node can host.
const (
	EngineNative = "native" // computes the model in this process
	EngineEcho   = "echo"   // answers with the prompt's own tokens
	EngineVLLM   = "vllm"   // an unmodified vLLM server, attached to or started
	EngineOpenAI = "openai" // any server of OpenAI's API, in text
	EngineMocker = "mocker" // schedules and lets time pass, but computes nothing
)

// The roles of a node.
const (
	RoleServe    = "serve"    // frontend and engines in this process
	RoleFrontend = "frontend" // HTTP for the workers that discovery finds
	RoleWorker   = "worker"   // an engine that frontends find by discovery
	RoleRouter   = "router"   // selections over HTTP for other gateways
)

// Config says what a node serves and how. Zero means zero: start from
// DefaultConfig.
type Config struct {
	// Role is RoleServe, RoleFrontend, RoleWorker or RoleRouter. Default serve.
	Role string
	// Cluster is how the parts of a cluster find and reach each other; of no
	// meaning to RoleServe but for the routing among its engines.
	Cluster ClusterConfig
	// Worker is what only RoleWorker needs to know.
	Worker WorkerConfig
	// Selection is what only RoleRouter needs to know.
	Selection SelectionConfig
	// Engines is the number of engines RoleServe runs in this process. Default 1.
	// (--num-workers with --in-process)
	Engines int
	// Prefill of them compute prompts for the others, and Decode go on with those alone.
	// Default none. (--prefill, --decode with --in-process)
	Prefill, Decode int

	// ModelPath is a .gguf file or a folder in Hugging Face layout. No default.
	ModelPath string
	// Sampling holds where neither a request nor the model's own files say how to
	// sample. Default none.
	Sampling hub.Sampling
	// ModelName is the name it is served under. No default. (--model-name)
	ModelName string
	// ChatTemplate is a file that replaces the model's own chat template; empty
	// for none. (--chat-template)
	ChatTemplate string

	// Engine is EngineNative or EngineEcho. Default native. (--engine)
	Engine string
	// Foreign says where an engine is that is neither.
	Foreign ForeignConfig
	// Tiers says where the native engine keeps KV beyond its cache.
	Tiers TiersConfig
	// Mocker describes a mocker engine.
	Mocker MockerConfig
	// EngineLine is told what a started engine prints; nil is nobody.
	EngineLine func(line string)
	// EchoITL is the echo engine's time between two tokens. Default 0. (--echo-itl)
	EchoITL time.Duration
	// ContextLength bounds a sequence in tokens; 0 is what the model was made
	// for. Default 0. (--context-length)
	ContextLength int
	// Precision is "int8" or "f32". Default int8. (--precision)
	Precision string
	// KernelLevel is "auto" or the name of an instruction level. Default auto.
	// (--kernel-level)
	KernelLevel string
	// Threads that compute; 0 is one per CPU. Default 0. (--threads)
	Threads int
	// KVCacheBytes is the size of the KV cache; 0 chooses: a quarter of the free
	// memory, at most autoContexts contexts. Default 0. (--kv-cache-bytes)
	KVCacheBytes int64
	// PrefixCaching reuses the KV of equal prompt beginnings. Default true.
	// (--prefix-caching)
	PrefixCaching bool
	// StepTokens is the token budget of one step of the batch. Default 512.
	// (--step-tokens)
	StepTokens int
	// MaxRunning and MaxQueue bound the requests in progress and those waiting
	// for their turn. Defaults 64 and 1024. (--max-running, --max-queue)
	MaxRunning, MaxQueue int

	// Listener is where HTTP is served; the node closes it. No default: see
	// Listen. A worker serves health and metrics there, and needs none.
	Listener net.Listener
	// AddrFile receives the bound address once requests are served; empty for
	// none. (--addr-file)
	AddrFile string
	// APIKey is a key that requests must carry, APIKeysFile a file of hashed keys
	// and tenants; both empty admits everybody. (--api-key, --api-keys)
	APIKey, APIKeysFile string
	// StateDir holds the cluster key, which is made once and needed only with API
	// keys, whose tenants it keeps apart. No default. (--state-dir)
	StateDir string
	// BodyLimitBytes bounds a request body. Default 16 MiB. (--body-limit)
	BodyLimitBytes int64
	// MaxWait bounds how long a request waits for its turn, RequestTimeout how
	// long it takes altogether; 0 is no limit. Defaults 1 minute and none.
	// (--max-wait, --request-timeout)
	MaxWait, RequestTimeout time.Duration
	// Pprof serves Go's profiles under /debug/pprof. Default false. (--pprof)
	Pprof bool
	// DrainTimeout is how long running answers may take to end once Run's
	// context is cancelled. Default 30 s. (--drain-timeout)
	DrainTimeout time.Duration

	// Recording says where requests are recorded, without their text, for `dynamo
	// trace` and `dynamo bench`; without a Path nowhere. Its Key is read from
	// RecordingKeyFile, if that is given. (--request-trace, --request-trace-key-file)
	Recording        frontend.RecorderConfig
	RecordingKeyFile string

	// Tracing says where spans go. Default: nowhere; trace contexts are passed on.
	// (--otlp-endpoint)
	Tracing obs.TracerConfig

	// Version is reported by /version.
	Version string
	// Ready is called once requests are served, from Run's goroutine; nil for
	// nobody.
	Ready func(Ready)
	// Loaded is called when something large has been read, which takes more memory
	// than keeping it; nil for nobody.
	Loaded func()
	// Progress hears how loading goes, in bytes; nil for nobody. Several
	// goroutines may call it.
	Progress func(what string, done, total int64)
	// Logger is for what a person audits; nil discards.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Role: RoleServe, Cluster: DefaultClusterConfig(), Worker: WorkerConfig{Count: 1, KVTransfer: KVTransferConfig{Path: TransferAuto, ZeroCopy: transfer.ZeroCopyAuto}}, Selection: DefaultSelectionConfig(), Engines: 1, Mocker: DefaultMockerConfig(), Tiers: DefaultTiersConfig(),
		Engine: EngineNative, Foreign: ForeignConfig{Command: "vllm", Timeout: 2 * time.Minute}, Precision: "int8", KernelLevel: levelAuto, PrefixCaching: true,
		StepTokens: 512, MaxRunning: 64, MaxQueue: 1024,
		BodyLimitBytes: 16 << 20, MaxWait: time.Minute, DrainTimeout: 30 * time.Second,
		Recording: frontend.DefaultRecorderConfig(),
	}
}

// levelAuto chooses the fastest kernels of the machine.
const levelAuto = "auto"

// validateForeign reports what is wrong with the server to attach to or to start.
func (c *Config) validateForeign() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Engine == EngineOpenAI && c.Foreign.URL == "" {
		fault("--engine openai needs --engine-url, the server to attach to")
	}
	if c.Foreign.URL != "" && c.Engine != EngineOpenAI && c.Engine != EngineVLLM {
		fault("--engine-url is for --engine vllm and openai, not for %s", c.Engine)
	}
	if more := len(c.Foreign.MoreURLs); more > 0 && c.Role == RoleWorker {
		fault("--engine-url is there %d times; a worker attaches to one server: start one for each, or one 'dynamo serve' for all", more+1)
	} else if more > 0 && c.Role == RoleServe && c.Engines != more+1 {
		fault("--engine-url is there %d times and --num-workers is %d; there is one engine for each server: leave --num-workers out", more+1, c.Engines)
	}
	if len(c.Foreign.Args) > 0 && (c.Engine != EngineVLLM || c.Foreign.URL != "") {
		fault("arguments after -- are for a vllm that is started here; leave them out")
	}
	return errors.Join(faults...)
}

// Validate reports every fault that can be seen without the model, at once,
// naming the flags.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if roles := []string{RoleServe, RoleFrontend, RoleWorker, RoleRouter}; !slices.Contains(roles, c.Role) {
		fault("a node's role is %q; it must be one of %s", c.Role, strings.Join(roles, ", "))
	}
	if c.Role == RoleRouter {
		faults = append(faults, c.selection().Validate())
	}
	faults = append(faults, c.Cluster.Validate(), c.Tracing.Validate(), c.validateRecording())
	if id := c.Worker.Weights; len(id) > maxWeightsID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		fault("--weights-id: %q must be one word of at most %d bytes", id, maxWeightsID)
	}
	if engines := []string{EngineNative, EngineEcho, EngineVLLM, EngineOpenAI, EngineMocker}; !slices.Contains(engines, c.Engine) {
		fault("--engine: %q is none of %s", c.Engine, strings.Join(engines, ", "))
	}
	if c.Engine == EngineMocker {
		faults = append(faults, c.Mocker.validate())
	}
	if c.Role == RoleWorker {
		faults = append(faults, c.Worker.validate(c.Engine))
	}
	faults = append(faults, c.validateParts())
	faults = append(faults, c.validateForeign(), c.Tiers.validate(c.Engine))
	if c.Precision != "int8" && c.Precision != "f32" {
		fault("--precision: %q is neither int8 nor f32", c.Precision)
	}
	if _, err := kernelLevel(c.KernelLevel); err != nil {
		fault("--kernel-level: %w", err)
	}
	for _, f := range []struct {
		flag string
		n    int64
		min  int64
	}{
		{"--context-length", int64(c.ContextLength), 0}, {"--threads", int64(c.Threads), 0}, {"--kv-cache-bytes", c.KVCacheBytes, 0},
		{"--step-tokens", int64(c.StepTokens), 1}, {"--max-running", int64(c.MaxRunning), 1}, {"--max-queue", int64(c.MaxQueue), 0},
		{"--body-limit", c.BodyLimitBytes, 1}, {"--echo-itl", int64(c.EchoITL), 0}, {"--drain-timeout", int64(c.DrainTimeout), 0},
		{"--max-wait", int64(c.MaxWait), 0}, {"--request-timeout", int64(c.RequestTimeout), 0}, {"--num-workers", int64(c.Engines), 1},
	} {
		if f.n < f.min {
			fault("%s is %d; it must be %d or more", f.flag, f.n, f.min)
		}
	}
	if c.Role != RoleFrontend && c.Role != RoleRouter && c.Engine == EngineNative && c.StepTokens < c.MaxRunning {
		fault("--step-tokens is %d; it must be at least --max-running (%d), so that every running request gets its token", c.StepTokens, c.MaxRunning)
	}
	if c.Role == RoleServe && c.Cluster.Routing.Snapshot != "" {
		fault("--router-snapshot is for dynamo frontend and dynamo router; the engines of dynamo serve end with it, and what they hold")
	}
	if c.StateDir == "" && (c.APIKey != "" || c.APIKeysFile != "") {
		fault("--state-dir: API keys need a folder for the cluster key, and there is no home directory here; give one")
	}
	for _, f := range []struct{ flag, path string }{{"--chat-template", c.ChatTemplate}, {"--api-keys", c.APIKeysFile}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			fault("%s: %w", f.flag, err)
		}
	}
	return errors.Join(faults...)
}

// kernelLevel finds a level by its name.
func kernelLevel(name string) (kernel.Level, error) {
	if name == levelAuto {
		return kernel.Best(), nil
	}
	have := []string{levelAuto}
	for _, l := range kernel.Levels() {
		if l.String() == name {
			return l, nil
		}
		have = append(have, l.String())
	}
	return 0, fmt.Errorf("%q is not among what this machine has: %s", name, strings.Join(have, ", "))
}
