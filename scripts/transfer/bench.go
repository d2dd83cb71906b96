//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/transfer"
)

// bench is the measuring process.
type bench struct {
	*config
	table   table
	times   []int64
	page    *transfer.Shared
	event   int
	targets map[string]*process // "shm" and "tcp", of ours
	sides   map[string]*side
	bare    *process
	wire    net.Conn // to bare
	peers   []*peer
	closers []func()
}

// side is an agent of this process and its target.
type side struct {
	agent *transfer.Agent
	own   *transfer.Memory
	peer  *transfer.Peer
	info  transfer.MemoryInfo
}

// process is a child.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	return p, cmd.Start()
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// role starts this program as another process.
func (b *bench) role(role, dir string) (*process, error) {
	cmd := exec.Command("/proc/self/exe", "-role", role, "-dir", dir, "-region", fmt.Sprint(b.region))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{b.page.File(), os.NewFile(uintptr(b.event), "event")}
	p, err := spawn(cmd)
	if err == nil {
		b.closers = append(b.closers, func() {
			_ = p.in.Close() // which ends it
			_ = cmd.Wait()   // one that was killed says so
		})
	}
	return p, err
}

func (b *bench) close() {
	for _, p := range b.peers {
		p.signal(syscall.SIGCONT)
		p.end()
	}
	for i := len(b.closers) - 1; i >= 0; i-- {
		b.closers[i]()
	}
}

func (b *bench) start() (err error) {
	if b.page, err = transfer.NewShared("times", stampsSize); err != nil {
		return err
	}
	if b.times, err = stamps(int(b.page.File().Fd())); err != nil {
		return err
	}
	if b.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	if b.bare, err = b.role("bare", ""); err != nil {
		return err
	}
	addr, err := b.bare.line()
	if err != nil {
		return err
	}
	if b.wire, err = net.Dial("tcp", addr); err != nil {
		return err
	}
	b.targets, b.sides = map[string]*process{}, map[string]*side{}
	for _, path := range []string{"shm", "tcp"} {
		if err := b.pair(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, c := range b.config.peers {
		p, err := b.newPeer(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		b.peers = append(b.peers, p)
		p.signal(syscall.SIGSTOP)
	}
	return nil
}

// pair starts a target and an agent that reaches it by one path.
func (b *bench) pair(path string) error {
	t, err := b.role("target", b.dir)
	if err != nil {
		return err
	}
	b.targets[path] = t
	line, err := t.line()
	if err != nil {
		return err
	}
	var text string
	var fd int
	if _, err := fmt.Sscan(line, &text, &fd); err != nil {
		return err
	}
	blob, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	c := transfer.DefaultConfig()
	c.Name, c.Key = "measure "+path, key
	if path == "shm" {
		c.SocketDir = b.dir
	}
	s := &side{}
	if s.agent, err = b.agent(c); err != nil {
		return err
	}
	own, err := transfer.NewShared("kv", b.region)
	if err != nil {
		return err
	}
	fill(own.Bytes())
	if s.own, err = s.agent.Register(transfer.Section{Name: "kv", Shared: own, Access: transfer.AccessWrite}); err != nil {
		return err
	}
	if s.peer, err = s.agent.Import(blob); err != nil {
		return err
	}
	s.info, _ = s.peer.Memory("kv")
	b.sides[path] = s
	return nil
}

// agent runs an agent until the end.
func (b *bench) agent(c transfer.Config) (*transfer.Agent, error) {
	a, err := transfer.New(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	b.closers = append(b.closers, func() {
		cancel()
		<-ended
	})
	<-a.Ready()
	return a, nil
}

// list prepares scattered blocks: every second one here to every second one there, in
// another order.
func (s *side) list(block, count int64) (*transfer.List, error) {
	var local, remote []transfer.Descriptor
	for i := range count {
		local = append(local, s.own.At(2*i*block, block))
		remote = append(remote, s.info.At((2*(i*7%count)+1)*block, block))
	}
	return s.agent.Prepare(s.peer, local, remote)
}

// post does a transfer and says how long it took.
func (s *side) post(l *transfer.List, op transfer.Op, o transfer.Options) (int64, error) {
	begun := now()
	t, err := s.agent.Post(l, op, o)
	if err == nil {
		err = t.Wait(context.Background())
	}
	return now() - begun, err
}

// theirs maps the memory of a target here once more, for plain copies.
func (b *bench) theirs() ([]byte, error) {
	s, ok := b.sides["shm"]
	if !ok {
		return nil, errors.New("no shared memory")
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.targets["shm"].cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		path := fmt.Sprintf("/proc/%d/fd/%s", b.targets["shm"].cmd.Process.Pid, f.Name())
		if name, err := os.Readlink(path); err != nil || !strings.HasPrefix(name, "/memfd:dynamo-kv ") {
			continue
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return unix.Mmap(int(file.Fd()), 0, int(s.info.Bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	return nil, errors.New("the target's memory is not among its files")
}

// copyBlocks copies what a list describes, by so many threads.
func copyBlocks(own, theirs []byte, block, count int64, op transfer.Op, threads int) int64 {
	begun := now()
	var next atomic.Int64
	lane := func() {
		for i := next.Add(1) - 1; i < count; i = next.Add(1) - 1 {
			mine, other := own[2*i*block:][:block], theirs[(2*(i*7%count)+1)*block:][:block]
			if op == transfer.Read {
				mine, other = other, mine
			}
			copy(other, mine)
		}
	}
	var others sync.WaitGroup
	for range threads - 1 {
		others.Go(lane)
	}
	lane()
	others.Wait()
	return now() - begun
}

// peer is a system that takes commands.
type peer struct {
	*process
	name   string
	pids   []int
	broken string
}

func (b *bench) newPeer(c command) (*peer, error) {
	cmd := exec.Command(c.args[0], c.args[1:]...)
	cmd.Env = append(append(cmd.Environ(), fmt.Sprint("REGION=", b.region)), c.env...)
	p, err := spawn(cmd)
	if err != nil {
		return nil, err
	}
	x := &peer{process: p, name: c.name}
	line, err := p.line()
	if err != nil {
		return nil, fmt.Errorf("it does not start: %w", err)
	}
	var told struct{ PIDs []int }
	if err := json.Unmarshal([]byte(line), &told); err != nil {
		return nil, err
	}
	x.pids = told.PIDs
	return x, nil
}

func (p *peer) signal(s syscall.Signal) {
	for _, pid := range p.pids {
		_ = syscall.Kill(pid, s) // one that was killed is gone
	}
}

// do sends a command while the system is awake, and returns the time it took.
func (p *peer) do(command map[string]any) (int64, error) {
	if p.broken != "" {
		return 0, errors.New(p.broken)
	}
	b, err := json.Marshal(command)
	if err != nil {
		return 0, err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return 0, err
	}
	line, err := p.line()
	if err != nil {
		p.broken = "it has ended"
		return 0, err
	}
	var a struct {
		NS    int64
		Error string
	}
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		return 0, err
	}
	if a.Error != "" {
		return 0, errors.New(a.Error)
	}
	return a.NS, nil
}

func (p *peer) end() {
	_ = p.in.Close() // which ends it
	for _, pid := range p.pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // its own end is of no interest
	}
	_ = p.cmd.Wait() // as above
}
