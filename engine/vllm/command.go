package vllm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
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
	name string // the first that it is to be served under
	// sidePort is where ranks from the first on tell other servers of their KV; 0 leaves it
	// to the server.
	sidePort int
}

// sidePortVariable is where vLLM looks for that port. Its own choice is the same for all
// servers of a machine.
const sidePortVariable = "VLLM_NIXL_SIDE_CHANNEL_PORT"

// dashed writes a flag as vLLM's parser reads it: underscores of its name are dashes.
func dashed(arg string) string {
	name, value, joined := strings.Cut(arg, "=")
	if !strings.HasPrefix(name, "--") {
		return arg
	}
	if name = strings.ReplaceAll(name, "_", "-"); joined {
		return name + "=" + value
	}
	return name
}

// argument returns the value that args give a flag by one of its names, as "--flag
// value" or "--flag=value"; "" if they do not. The last one holds.
func argument(args []string, flags ...string) (value string) {
	for i, a := range args {
		a = dashed(a)
		for _, flag := range flags {
			if a == flag && i+1 < len(args) {
				value = args[i+1]
			} else if v, ok := strings.CutPrefix(a, flag+"="); ok {
				value = v
			}
		}
	}
	return value
}

// given reports whether args hold a flag, in its dotted form too.
func given(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		a = dashed(a)
		return a == flag || strings.HasPrefix(a, flag+"=") || strings.HasPrefix(a, flag+".")
	})
}

// makePlan chooses ports and arguments. What the command's own arguments say goes
// before what would be chosen here.
func (e *Engine) makePlan(ctx context.Context) error {
	c := &e.config.Command
	ports, err := freePorts(ctx, 1, ranksOf(c.Args), ranksOf(c.Args), ranksOf(c.Args))
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
	p := plan{args: []string{"serve", c.Model}, name: cmp.Or(argument(c.Args, "--served-model-name"), e.config.Name, c.Model)}
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
	if role := e.config.Role; role != "" {
		add("--kv-transfer-config", transferArgument(role))
		p.sidePort = ports[3]
	}
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
	if e.config.APIKey == "" {
		e.config.APIKey = argument(c.Args, "--api-key")
	}
	return nil
}

// ranksOf returns how many data-parallel ranks arguments ask for.
func ranksOf(args []string) int {
	n, err := strconv.Atoi(argument(args, "--data-parallel-size", "-dp"))
	if err != nil {
		return 1 // the server says what is wrong
	}
	return min(max(n, 1), maxRanks)
}

// Flags that older versions do not know.
const (
	flagScaleOut     = "--enable-scale-out"
	flagTokenDetails = "--enable-prompt-tokens-details"
)

const ourTopic = "kv-events"

// eventsArgument makes the value of --kv-events-config: nobody outside this machine
// has to do with its events. A server binds the endpoint if there is "*" or "::" in
// it, and connects to any other; the replay endpoint it binds always. So the former
// is the loopback address in the IPv6 form, where the resolver makes one of IPv4 of it.
func eventsArgument(port, replay int) string {
	host := "[::ffff:127.0.0.1]"
	if runtime.GOOS != "linux" {
		host = "*"
	}
	return fmt.Sprintf(`{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://%s:%d","replay_endpoint":"tcp://127.0.0.1:%d","topic":%q}`, host, port, replay, ourTopic)
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
	switch {
	case v.Enabled && reachable(v.Endpoint):
		e.events = sources{v.Endpoint, v.Replay, v.Topic}
	case v.Enabled:
		e.log.Warn("vLLM server: " + unreachable(v.Endpoint))
	}
	return nil
}

// freePorts returns ports of this host that nobody listens on at the moment, for each
// size the first of so many that follow each other: a rank's port is so many above
// that of the first.
func freePorts(ctx context.Context, sizes ...int) (ports []int, err error) {
	var held []net.Listener
	defer func() { // all at the end, so that they differ
		for _, l := range held {
			_ = l.Close() // nobody has used it
		}
	}()
	listen := func(port int) (int, error) {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return 0, err
		}
		held = append(held, l)
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	run := func(size int) (first int, err error) {
		if first, err = listen(0); err != nil {
			return 0, err
		}
		for i := 1; i < size && err == nil; i++ {
			_, err = listen(first + i)
		}
		return first, err
	}
	for _, size := range sizes {
		first, err := run(size)
		for tries := 1; err != nil && tries < portTries; tries++ {
			first, err = run(size)
		}
		if err != nil {
			return nil, fmt.Errorf("find %d free ports for vllm: %w", size, err)
		}
		ports = append(ports, first)
	}
	return ports, nil
}

// portFree finds out whether somebody else listens where the server is to: what
// answers there would be taken for it, and two vLLM servers of one user share a port.
func (e *Engine) portFree(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", strings.TrimPrefix(e.plan.base, "http://"))
	if err != nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("vllm is to serve %s at %s, where %s; end that process, or give another port with --port after --", e.plan.name, e.plan.base, e.whoListens(ctx)), Err: err}
	}
	return l.Close()
}

// whoListens says who answers where the server is to.
func (e *Engine) whoListens(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	d := &discovered{base: e.plan.base}
	switch err := e.askModels(ctx, d); {
	case err == nil && e.askVersion(ctx, d) == nil:
		return fmt.Sprintf("a vLLM %s serves %s already", d.info.Version, strings.Join(d.info.Models, ", "))
	case err == nil:
		return "another server serves " + strings.Join(d.info.Models, ", ") + " already"
	}
	return "it cannot listen, for another process does, or may"
}

// ours finds out whether the server that answers is the one that was started.
func (e *Engine) ours(d *discovered, p *process) error {
	select {
	case <-p.gone: // it has just died, or another one answered from the beginning
		return lost(nil, "the vLLM server that was started has ended, and another answers in its place")
	default:
	}
	if slices.Contains(d.info.Models, e.plan.name) {
		return nil
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("vllm was started to serve %s at %s, and the server that answers there (vLLM %s) serves %s: two servers share the port; end the other one, or give another port with --port after --",
		e.plan.name, e.plan.base, d.info.Version, strings.Join(d.info.Models, ", "))}
}

// launch starts the server and waits until it is ready, again and again while it
// dies of something that may pass.
func (e *Engine) launch(ctx context.Context) (*discovered, error) {
	events := e.events
	for tries := 1; ; tries++ {
		e.events = events
		if err := e.makePlan(ctx); err != nil {
			return nil, err
		}
		chosen := e.config.Command.Port == 0 && !given(e.config.Command.Args, "--port")
		if !chosen || tries == portTries || e.portFree(ctx) == nil {
			return e.start(ctx)
		} // another process was quicker to take the port
	}
}

// start starts the server of the plan and waits until it is ready.
func (e *Engine) start(ctx context.Context) (*discovered, error) {
	for failures := 0; ; {
		if err := e.portFree(ctx); err != nil {
			return nil, err
		}
		p, err := e.startProcess(e.plan.args)
		if err != nil {
			return nil, err
		}
		e.process = p
		d, err := e.await(ctx, e.plan.base, p.gone)
		if err == nil {
			err = e.ours(d, p)
		}
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
		if err := e.again(ctx, "the vLLM server died before it was ready", p.crash(known), 0); err != nil {
			return nil, err
		}
	}
}

// again says that the server has ended, and waits until it may be started again.
func (e *Engine) again(ctx context.Context, what string, why error, lived time.Duration) error {
	pause := e.backoff.after(lived)
	e.config.Metrics.restarted()
	e.log.Error(what+"; it is started again", obs.KeyError, why, obs.KeyDuration, pause)
	e.config.Progress(fmt.Sprintf("%s; it is started again in %v", what, pause))
	return sleep(ctx, pause)
}

// backoff is how long a server is left alone that has ended: twice as long each time,
// from min to max, and min again after one that lived for calm.
type backoff struct{ min, max, calm, next time.Duration }

// after returns the pause behind a life of that length as a server that is ready.
func (b *backoff) after(lived time.Duration) time.Duration {
	if lived >= b.calm || b.next == 0 {
		b.next = b.min
	}
	pause := b.next
	b.next = min(2*pause, b.max)
	return pause
}

// supervise starts the server again whenever it ends, until ctx ends or it cannot
// be started any more.
func (e *Engine) supervise(ctx context.Context) error {
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-e.process.gone:
		}
		lived := time.Since(began)
		e.setDown(true)
		if e.again(ctx, "the vLLM server ended", e.process.crash(explain(e.process)), lived) != nil {
			return nil
		}
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
		e.setDown(false)
		e.keepsNone.Store(false)
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
