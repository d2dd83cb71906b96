package vllm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
)

// Config describes an engine: a server to attach to (URL) or one to run (Command).
type Config struct {
	// URL is the server's, such as http://127.0.0.1:8000. (--engine-url)
	URL string
	// Command is the server to run; its zero value attaches to URL.
	Command Command
	// APIKey is sent as bearer token if it is not empty. A Command is told to demand
	// it; without one here, it is the one among its arguments. (--engine-api-key)
	APIKey string
	// TLS is how the server of an https URL is told apart from others; nil trusts
	// what the machine trusts. (--engine-ca, --engine-insecure)
	TLS *tls.Config

	// Name is the name the model is served under here. Empty: the server's first.
	// If the server knows the name it is also what the server is asked for.
	// (--model-name)
	Name string
	// VocabSize and EOS are the tokenizer's; VocabSize must be given.
	VocabSize int
	EOS       []dynamo.TokenID
	// ContextLength bounds what the server allows; 0 is the server's own bound.
	// (--context-length)
	ContextLength int
	// BlockSize is what the server's KV blocks must hold; 0 takes the server's.
	// With a Command it is passed on. (--kv-cache-block-size)
	BlockSize int

	// Role is engine.RolePrefill for a server that computes prompts for others,
	// engine.RoleDecode for one that goes on with what those computed, or empty. It is
	// the server's --kv-transfer-config that makes it one; a Command is given that.
	// (--disaggregation-mode)
	Role string

	// Events is told what the KV caches store and remove; the batch is valid until
	// it returns. Nil: nothing is subscribed to.
	Events func(*event.KVBatch)
	// EventsEndpoint, ReplayEndpoint and Topic say where the server publishes,
	// where that cannot be asked of it. "*" as a host is the URL's.
	EventsEndpoint, ReplayEndpoint, Topic string

	// ReadyTimeout bounds the wait for a server to answer. Default 10 min.
	ReadyTimeout time.Duration
	// StallTimeout is how long the server's connection may bring nothing within a
	// request. Default 10 min.
	StallTimeout time.Duration
	// PollEvery is the time between two readings of the server's metrics. Default
	// 1 s.
	PollEvery time.Duration
	// StopTimeout is how long a supervised server may take to end before it is
	// killed. Default 15 s.
	StopTimeout time.Duration
	// Restarts is how often in a row a supervised server that dies before it is
	// ready is started again; one that was ready is always. Default 5.
	Restarts int
	// RestartMin and RestartMax bound the pause before a supervised server that has
	// ended is started again. It doubles with each end, up to the first of a server
	// that was ready for RestartCalm. Defaults 1 s, 30 s and 1 min.
	RestartMin, RestartMax, RestartCalm time.Duration

	// Dial connects to the server; nil is net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Progress is told each line of a supervised server's output, shortened to
	// maxLine bytes, and what the engine waits for. Nil: nobody is.
	Progress func(line string)
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil does not.
	Metrics *Metrics
}

// Command is a `vllm serve` to run.
type Command struct {
	// Path is the vllm executable; empty: none is run. (--engine-command)
	Path string
	// Model is the folder or name to serve.
	Model string
	// Args follow the arguments that this package gives. (after --)
	Args []string
	// Env is the whole environment of the process; nil inherits.
	Env []string
	// Host and Port are where it listens. Defaults 127.0.0.1 and a free port.
	Host string
	Port int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Command:      Command{Host: "127.0.0.1"},
		ReadyTimeout: 10 * time.Minute, StallTimeout: 10 * time.Minute, PollEvery: time.Second,
		StopTimeout: 15 * time.Second, Restarts: 5,
		RestartMin: time.Second, RestartMax: 30 * time.Second, RestartCalm: time.Minute,
	}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	switch u, err := url.Parse(c.URL); {
	case c.URL == "" && c.Command.Path == "":
		bad("give the engine's address with --engine-url, or the vllm command to run")
	case c.URL != "" && c.Command.Path != "":
		bad("--engine-url %s names a running server and a command to run is given, too; give one of them", c.URL)
	case c.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == ""):
		bad("--engine-url %q is no address of a server; give one like http://127.0.0.1:8000", c.URL)
	}
	if strings.ContainsAny(c.APIKey, " \t\r\n") {
		bad("the API key (--engine-api-key) has spaces or line ends in it")
	}
	if c.Command.Path != "" && c.Command.Model == "" {
		bad("there is no model for vllm to serve")
	}
	if c.VocabSize < 1 {
		bad("the vocabulary has %d ids; it must have one or more", c.VocabSize)
	}
	if c.ContextLength < 0 {
		bad("--context-length is %d; it must be 0 (the engine's) or more", c.ContextLength)
	}
	if c.BlockSize < 0 || c.BlockSize > maxBlockSize {
		bad("--kv-cache-block-size is %d; it must be 0 (the engine's) to %d", c.BlockSize, maxBlockSize)
	}
	for _, d := range [...]struct {
		name  string
		value time.Duration
	}{{"ready timeout", c.ReadyTimeout}, {"stall timeout", c.StallTimeout}, {"time between two readings of the metrics", c.PollEvery}, {"stop timeout", c.StopTimeout}} {
		if d.value <= 0 {
			bad("the engine's %s is %v; it must be more than 0", d.name, d.value)
		}
	}
	if c.Command.Path != "" && (c.RestartMin <= 0 || c.RestartMax < c.RestartMin || c.RestartCalm <= 0) {
		bad("the pause before the engine is started again is %v to %v, and short after %v of life; the times must be more than 0, and the second not below the first", c.RestartMin, c.RestartMax, c.RestartCalm)
	}
	if !slices.Contains([]string{"", engine.RolePrefill, engine.RoleDecode}, c.Role) {
		bad("--disaggregation-mode: %q is none of agg, %s, %s", c.Role, engine.RolePrefill, engine.RoleDecode)
	}
	if c.Restarts < 0 {
		bad("the engine may be restarted %d times; it must be 0 or more", c.Restarts)
	}
	return errors.Join(faults...)
}
