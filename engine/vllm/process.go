package vllm

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// process is a running server: the leader of a process group, for a server is
// several processes.
type process struct {
	cmd   *exec.Cmd
	out   *output
	guard *guard        // ends the group if this process is killed; nil: nobody does
	gone  chan struct{} // closed when the leader has ended and its group is killed
	err   error         // of the leader; read after gone
}

// startProcess starts a server. Its end is awaited by a goroutine that ends with it.
func (e *Engine) startProcess(args []string) (*process, error) {
	c, progress := &e.config.Command, e.config.Progress
	p := &process{cmd: exec.Command(c.Path, args...), out: &output{line: progress, secret: e.config.APIKey}, gone: make(chan struct{})}
	p.cmd.Env = c.Env
	if e.config.APIKey != "" { // not among the arguments, which everybody on the machine can see
		p.cmd.Env = append(p.cmd.Environ(), "VLLM_API_KEY="+e.config.APIKey)
	}
	if e.plan.sidePort > 0 && !slices.ContainsFunc(p.cmd.Environ(), func(v string) bool { return strings.HasPrefix(v, sidePortVariable+"=") }) {
		p.cmd.Env = append(p.cmd.Environ(), sidePortVariable+"="+strconv.Itoa(e.plan.sidePort))
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = lastWords // its children hold its output open
	progress("starting " + p.out.discreet(c.Path+" "+strings.Join(args, " ")))
	guard, err := startGuard()
	if err == nil {
		p.guard = guard
	} else {
		e.log.Warn("nobody ends the vLLM server if this process is killed", obs.KeyError, err)
	}
	if err := p.start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("there is no command %s; install vLLM, or give the path of its vllm with --engine-command", c.Path), Err: err}
		}
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "start the vLLM server", Err: err}
	}
	return p, nil
}

// start starts the command under its guard.
func (p *process) start() error {
	err := p.cmd.Start()
	if err != nil {
		p.release()
		return err
	}
	if p.guard != nil {
		_ = p.guard.watch(p.cmd.Process.Pid) // a guard that has gone is none
	}
	go func() {
		p.err = p.cmd.Wait()
		p.signal(syscall.SIGKILL)
		p.release()
		p.out.close()
		close(p.gone)
	}()
	return nil
}

func (p *process) release() {
	if p.guard != nil {
		p.guard.release()
	}
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
	last := p.out.tail(shownLines)
	if known.line != "" && !strings.Contains(last, known.line) {
		message += ". It said:\n" + known.line + "\n"
	} else {
		message += ". "
	}
	kind := dynamo.KindUnavailable
	if known.final {
		kind = dynamo.KindInvalid
	}
	return &dynamo.Error{Kind: kind, Message: message + "Its last lines:\n" + last}
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
	secret  string // never shown
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
	text = o.discreet(text)
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

// discreet takes the secret out of a text.
func (o *output) discreet(text string) string {
	if o.secret == "" {
		return text
	}
	return strings.ReplaceAll(text, o.secret, "***")
}

// find returns the first of the last lines that holds a text.
func (o *output) find(text string) (line string, found bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.mu.lines {
		if strings.Contains(l, text) {
			return l, true
		}
	}
	return "", false
}
