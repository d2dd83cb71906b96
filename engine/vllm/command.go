package vllm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// plan is how a server is started: where it listens and publishes stays the same
// from one start to the next, so that everybody finds it again.
type plan struct {
	base string
	args []string
}

// argument returns the value that args give a flag, as "--flag value" or
// "--flag=value"; "" if they do not.
func argument(args []string, flag string) string {
	for i, a := range args {
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
	}
	return ""
}

// given reports whether args hold a flag, in its dotted form too.
func given(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return a == flag || strings.HasPrefix(a, flag+"=") || strings.HasPrefix(a, flag+".")
	})
}

// makePlan chooses ports and arguments. What the command's own arguments say goes
// before what would be chosen here.
func (e *Engine) makePlan(ctx context.Context) error {
	c := &e.config.Command
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	host, port := c.Host, c.Port
	if port == 0 {
		port = ports[0]
	}
	if v := argument(c.Args, "--host"); v != "" {
		host = v
	}
	if v := argument(c.Args, "--port"); v != "" {
		if port, err = strconv.Atoi(v); err != nil {
			return invalid("--port %s of the arguments for vllm is no number", v)
		}
	}
	p := plan{args: []string{"serve", c.Model}}
	add := func(flag string, values ...string) {
		if !given(c.Args, flag) {
			p.args = append(append(p.args, flag), values...)
		}
	}
	add("--host", host)
	add("--port", strconv.Itoa(port))
	if e.config.Name != "" {
		add("--served-model-name", e.config.Name)
	}
	if e.config.BlockSize > 0 {
		add("--block-size", strconv.Itoa(e.config.BlockSize))
	}
	if e.config.ContextLength > 0 {
		add("--max-model-len", strconv.Itoa(e.config.ContextLength))
	}
	add("--max-logprobs", strconv.Itoa(defaultLogprobs+1)) // see askedLogprobs
	add(flagScaleOut)
	add(flagTokenDetails)
	if e.config.Events != nil {
		add("--kv-events-config", eventsArgument(ports[1], ports[2]))
		if err := e.readEventsArgument(argument(append(slices.Clone(p.args), c.Args...), "--kv-events-config")); err != nil {
			return err
		}
	}
	p.args = append(p.args, c.Args...)
	switch host {
	case "0.0.0.0", "", "::", "*":
		host = "127.0.0.1"
	}
	p.base = "http://" + net.JoinHostPort(host, strconv.Itoa(port))
	e.plan = p
	return nil
}

// Flags that older versions do not know.
const (
	flagScaleOut     = "--enable-scale-out"
	flagTokenDetails = "--enable-prompt-tokens-details"
)

const ourTopic = "kv-events"

// eventsArgument makes the value of --kv-events-config. An address with "*" is one
// that the server binds; it connects to any other.
func eventsArgument(port, replay int) string {
	return fmt.Sprintf(`{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:%d","replay_endpoint":"tcp://*:%d","topic":%q}`, port, replay, ourTopic)
}

// readEventsArgument takes the endpoints out of a --kv-events-config.
func (e *Engine) readEventsArgument(value string) error {
	if value == "" || e.events.endpoint != "" {
		return nil // in its dotted form only the server knows
	}
	v := struct {
		Enabled  bool   `json:"enable_kv_cache_events"`
		Endpoint string `json:"endpoint"`
		Replay   string `json:"replay_endpoint"`
		Topic    string `json:"topic"`
	}{Endpoint: "tcp://*:5557"}
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--kv-events-config is no JSON object", Err: err}
	}
	if v.Enabled {
		e.events = sources{v.Endpoint, v.Replay, v.Topic}
	}
	return nil
}

// freePorts returns ports of this host that nobody listens on at the moment.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port for vllm: %w", err)
		}
		defer l.Close() // all at the end, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// portFree finds out whether somebody else listens where the server is to: what
// answers there would be taken for it.
func (e *Engine) portFree(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", strings.TrimPrefix(e.plan.base, "http://"))
	if err != nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "vllm cannot listen at " + e.plan.base + "; end the process that does, or give another port with --port after --", Err: err}
	}
	return l.Close()
}

// launch starts the server and waits until it is ready, again and again while it
// dies of something that may pass.
func (e *Engine) launch(ctx context.Context) (*discovered, error) {
	if err := e.makePlan(ctx); err != nil {
		return nil, err
	}
	return e.start(ctx)
}

// start starts the server of the plan and waits until it is ready.
func (e *Engine) start(ctx context.Context) (*discovered, error) {
	pause := restartMin
	for failures := 0; ; {
		if err := e.portFree(ctx); err != nil {
			return nil, err
		}
		p, err := startProcess(&e.config.Command, e.plan.args, e.config.Progress)
		if err != nil {
			return nil, err
		}
		e.process = p
		d, err := e.await(ctx, e.plan.base, p.gone)
		if err == nil {
			return d, nil
		}
		if ctx.Err() != nil || dynamo.KindOf(err) == dynamo.KindInvalid {
			return nil, withTail(err, p)
		}
		known := explain(p)
		switch {
		case known.drop != "" && slices.Contains(e.plan.args, known.drop):
			e.plan.args = slices.DeleteFunc(slices.Clone(e.plan.args), func(a string) bool { return a == known.drop })
			e.config.Progress("this vllm does not know " + known.drop + "; starting it without")
			continue
		case known.final || failures >= e.config.Restarts:
			return nil, p.crash(known)
		}
		failures++
		e.config.Metrics.restarted()
		e.log.Warn("the vLLM server died before it was ready; it is started again", obs.KeyError, p.crash(known), obs.KeyDuration, pause)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		pause = min(2*pause, restartMax)
	}
}

// supervise starts the server again whenever it ends, until ctx ends or it cannot
// be started any more.
func (e *Engine) supervise(ctx context.Context) error {
	pause := restartMin
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-e.process.gone:
		}
		if time.Since(began) > restartCalm {
			pause = restartMin
		}
		e.log.Error("the vLLM server ended; it is started again", obs.KeyError, e.process.crash(explain(e.process)), obs.KeyDuration, pause)
		e.config.Metrics.restarted()
		if sleep(ctx, pause) != nil {
			return nil
		}
		pause = min(2*pause, restartMax)
		within, cancel := context.WithTimeoutCause(ctx, e.config.ReadyTimeout, &dynamo.Error{
			Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("the vLLM server was not ready again within %v", e.config.ReadyTimeout)})
		_, err := e.start(within)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := e.same(ctx, e.must()); err != nil {
			return err
		}
		e.log.Info("the vLLM server is back", obs.KeyAddress, e.plan.base)
	}
}

// sleep waits, and returns why it could not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return engine.ContextError(ctx)
	}
}
