package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// userHZ is the unit of CPU times in /proc on every architecture Go supports.
const userHZ = 100

// process is one child. Its output goes to a file; the first line that begins
// with "ready" is remembered with its time.
//
// Two goroutines belong to it: one reads its standard output until that ends,
// and one waits for it, closing ended.
type process struct {
	name string
	log  string // path
	addr string // path of its --addr-file
	cmd  *exec.Cmd

	ready chan struct{} // closed at the ready line
	ended chan struct{} // closed when the process has ended
	mu    struct {
		sync.Mutex
		readyAt time.Time
	}
}

// spawn starts a program. Its output is appended to dir/name.log.
func spawn(dir, name, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	fmt.Fprintf(out, "$ %s %s\n", program, strings.Join(args, " "))
	p.cmd.Stderr = out
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = start(p.cmd)
	}
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.read(stdout, out)
		_ = p.cmd.Wait() // the state says how it ended
		out.Close()
		close(p.ended)
	}()
	return p, nil
}

// read copies the output and looks for the ready line.
func (p *process) read(stdout io.Reader, out io.Writer) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxLine)
	for seen := false; lines.Scan(); {
		now := time.Now()
		fmt.Fprintf(out, "%s\n", lines.Bytes())
		if !seen && strings.HasPrefix(lines.Text(), "ready") {
			seen = true
			p.mu.Lock()
			p.mu.readyAt = now
			p.mu.Unlock()
			close(p.ready)
		}
	}
	_, _ = io.Copy(out, stdout) // after a line too long
}

// isReady waits for the ready line, and says when it came.
func (p *process) isReady(ctx context.Context) (time.Time, error) {
	select {
	case <-p.ready:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.mu.readyAt, nil
	case <-p.ended:
		return time.Time{}, fmt.Errorf("%s ended (%v) before it was ready: %s", p.name, p.cmd.ProcessState, p.tail())
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("wait for %s: %w", p.name, context.Cause(ctx))
	case <-time.After(startTimeout):
		return time.Time{}, fmt.Errorf("%s was not ready within %v: %s", p.name, startTimeout, p.tail())
	}
}

// address is what the process wrote into its address file.
func (p *process) address() (string, error) {
	b, err := os.ReadFile(p.addr)
	if err != nil {
		return "", fmt.Errorf("read the address of %s: %w", p.name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to %s: %w", s, p.name, err)
	}
	return nil
}

// end waits for the process to end by itself and returns its exit code.
func (p *process) end(ctx context.Context, within time.Duration) (int, error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("%s did not end within %v: %s", p.name, within, p.tail())
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the end of %s: %w", p.name, context.Cause(ctx))
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// text is the whole log.
func (p *process) text() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// tail is the end of the log, for messages.
func (p *process) tail() string {
	text := strings.TrimSpace(p.text())
	return text[max(0, len(text)-400):]
}

// cpu returns the seconds of CPU time the process has used.
func (p *process) cpu() (float64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", p.name, err)
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("read the CPU time of %s: %q is no stat line", p.name, text)
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / userHZ, nil
}

// memory returns a field of /proc/PID/status, as VmRSS, in bytes.
func (p *process) memory(field string) (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", p.name, err)
	}
	_, rest, _ := strings.Cut(string(b), "\n"+field+":")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0, fmt.Errorf("read the memory of %s: no %s", p.name, field)
	}
	kib, err := strconv.ParseInt(f[0], 10, 64)
	return kib << 10, err
}

// output is what a command that has ended leaves.
type output struct {
	stdout, stderr string
	code           int
}

// command runs a program to its end.
func command(ctx context.Context, program string, args ...string) (output, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := output{stdout: stdout.String(), stderr: stderr.String()}
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return out, fmt.Errorf("run %s %s: %w", program, strings.Join(args, " "), errors.Join(err, ctx.Err()))
	}
	out.code = cmd.ProcessState.ExitCode()
	return out, nil
}

// until calls check every pollEvery until it gives no error, and returns its last
// one when that takes too long.
func until(ctx context.Context, within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", within, err)
		}
		if sleep(ctx, pollEvery) != nil {
			return context.Cause(ctx)
		}
	}
}

// sleep waits for d or for ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
