//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/transfer"
)

// killBytes is the memory of a process that is killed.
const killBytes = 64 << 20

// variant is one system's way of doing what a row measures.
type variant struct {
	system string
	run    func() (int64, error)
	peer   *peer // that has to be awake
}

// contest does the variants in turn. The first time of each does not count. A peer that
// fails is left out from there on.
func (b *bench) contest(r *row, rounds int, variants []variant) error {
	for i := range rounds + 1 {
		for k := range variants {
			v := &variants[k]
			if v.run == nil {
				continue
			}
			if v.peer != nil {
				v.peer.signal(syscall.SIGCONT)
			}
			ns, err := v.run()
			if v.peer != nil {
				v.peer.signal(syscall.SIGSTOP)
			}
			switch {
			case err != nil && v.peer != nil:
				fmt.Fprintf(os.Stderr, "%s: %s: %v\n", r.name, v.system, err)
				v.run = nil
			case err != nil:
				return fmt.Errorf("%s: %s: %w", r.name, v.system, err)
			case i > 0:
				r.add(v.system, ns)
			}
		}
	}
	return nil
}

// of makes variants of the peers that have been given a list.
func (b *bench) of(name string, op transfer.Op, only ...string) (vs []variant) {
	for _, p := range b.peers {
		for _, o := range only {
			if p.name == o {
				vs = append(vs, variant{p.name, func() (int64, error) {
					return p.do(map[string]any{"do": "post", "name": name, "op": op.String()})
				}, p})
			}
		}
	}
	return vs
}

// tell gives the peers a command that has no time.
func (b *bench) tell(command map[string]any) {
	for _, p := range b.peers {
		p.signal(syscall.SIGCONT)
		if _, err := p.do(command); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %s: %v\n", command["do"], p.name, err)
		}
		p.signal(syscall.SIGSTOP)
	}
}

func size(block int64) string {
	if block >= 1<<20 {
		return fmt.Sprint(block>>20, " MiB")
	}
	return fmt.Sprint(block>>10, " KiB")
}

// blocks measures lists of blocks between two processes that map each other's memory.
func (b *bench) blocks() error {
	theirs, err := b.theirs()
	if err != nil {
		return err
	}
	s := b.sides["shm"]
	threads := runtime.GOMAXPROCS(0)
	for _, x := range []struct{ block, count int64 }{{64 << 10, 64}, {64 << 10, 1024}, {1 << 20, 256}, {16 << 20, 16}} {
		if b.short {
			x.count = max(1, x.count/16)
		}
		name := fmt.Sprintf("%s × %d", size(x.block), x.count)
		l, err := s.list(x.block, x.count)
		if err != nil {
			return err
		}
		b.tell(map[string]any{"do": "list", "name": name, "block": x.block, "count": x.count})
		rounds := b.rounds
		if x.block*x.count < 16<<20 {
			rounds *= 10 // 4 MiB are moved in no time
		}
		for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
			r := b.table.row("host to host, "+name+", "+op.String(), "GB/s", x.block*x.count)
			vs := []variant{
				{"machine", func() (int64, error) {
					return copyBlocks(s.own.Bytes(), theirs, x.block, x.count, op, threads), nil
				}, nil},
				{"ours", func() (int64, error) { return s.post(l, op, transfer.Options{}) }, nil},
				{"ours, sums", func() (int64, error) { return s.post(l, op, transfer.Options{Checksum: true}) }, nil},
			}
			if err := b.contest(r, rounds, append(vs, b.of(name, op, "NIXL")...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// streams measures 64 KiB blocks over loopback.
func (b *bench) streams() error {
	block, count := int64(64<<10), int64(256)
	s := b.sides["tcp"]
	l, err := s.list(block, count)
	if err != nil {
		return err
	}
	b.tell(map[string]any{"do": "list", "name": "stream", "block": block, "count": count})
	raw := func() (int64, error) {
		begun := now()
		if _, err := fmt.Fprintln(b.wire, block, count); err != nil {
			return 0, err
		}
		for i := range count {
			if _, err := b.wire.Write(s.own.Bytes()[2*i*block:][:block]); err != nil {
				return 0, err
			}
		}
		_, err := io.ReadFull(b.wire, make([]byte, 1))
		return now() - begun, err
	}
	for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
		r := b.table.row(fmt.Sprintf("tcp loopback, %s × %d, %s", size(block), count, op), "GB/s", block*count)
		vs := []variant{
			{"machine", raw, nil},
			{"ours", func() (int64, error) { return s.post(l, op, transfer.Options{}) }, nil},
			{"ours, sums", func() (int64, error) { return s.post(l, op, transfer.Options{Checksum: true}) }, nil},
		}
		if err := b.contest(r, 2*b.rounds, append(vs, b.of("stream", op, "NIXL tcp", "Mooncake")...)); err != nil {
			return err
		}
	}
	return nil
}

// messages measures 8 bytes in shared memory, one after the other: until the
// transfer has ended here.
func (b *bench) messages() error {
	s := b.sides["shm"]
	b.tell(map[string]any{"do": "list", "name": "small", "block": 8, "count": 1})
	for _, x := range []struct {
		name string
		n    int64
		o    transfer.Options
	}{
		{"8 B, completion", 8, transfer.Options{}},
		{"4 KiB, completion", 4096, transfer.Options{}},
		{"8 B with a notification, completion", 8, transfer.Options{Notify: []byte("message")}},
	} {
		l, err := s.list(x.n, 1)
		if err != nil {
			return err
		}
		vs := []variant{{"ours", func() (int64, error) { return s.post(l, transfer.Write, x.o) }, nil}}
		if x.n == 8 && x.o.Notify == nil {
			vs = append(vs, b.of("small", transfer.Write, "NIXL")...)
		}
		if err := b.contest(b.table.row("shm, "+x.name, "µs", 0), 100*b.rounds, vs); err != nil {
			return err
		}
	}
	return nil
}

// told waits for the time that another process writes, and returns what has passed.
func (b *bench) told(begun int64) (int64, error) {
	for i := 0; ; i++ {
		if at := atomic.LoadInt64(&b.times[0]); at != 0 {
			return at - begun, nil
		}
		if i%1024 == 1023 && now()-begun > int64(10*time.Second) {
			return 0, fmt.Errorf("nothing was heard for 10 s")
		}
	}
}

// tcpMessages measures 8 bytes with a notification by tcp.
func (b *bench) tcpMessages() error {
	s := b.sides["tcp"]
	l, err := s.list(8, 1)
	if err != nil {
		return err
	}
	var o transfer.Options
	ours := variant{"ours", func() (int64, error) { return s.post(l, transfer.Write, o) }, nil}
	vs := append([]variant{ours, {"machine", b.echo, nil}}, b.of("small", transfer.Write, "NIXL tcp", "Mooncake")...)
	if err := b.contest(b.table.row("tcp, 8 B, completion", "µs", 0), 20*b.rounds, vs); err != nil {
		return err
	}
	o.Notify = []byte("message")
	r := b.table.row("tcp, 8 B with a notification, completion", "µs", 0)
	return b.contest(r, 20*b.rounds, []variant{ours, {"machine", b.echo, nil}})
}

// echo is a message and its answer on a bare connection.
func (b *bench) echo() (int64, error) {
	begun := now()
	if _, err := fmt.Fprintln(b.wire, 1, 0); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(b.wire, make([]byte, 1))
	return now() - begun, err
}

// wakes measures how soon a process that sleeps knows, beside a bare eventfd and, by tcp,
// the one way of a bare message. Ours goes that way three times: the bytes, that they are
// in place, and the notification, which is sent only then.
func (b *bench) wakes() error {
	bell := func() (int64, error) {
		time.Sleep(300 * time.Microsecond)
		atomic.StoreInt64(&b.times[0], 0)
		begun := now()
		if _, err := unix.Write(b.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			return 0, err
		}
		return b.told(begun)
	}
	word := func() (int64, error) {
		time.Sleep(300 * time.Microsecond)
		atomic.StoreInt64(&b.times[0], 0)
		begun := now()
		if _, err := fmt.Fprintln(b.wire, 1, 0); err != nil {
			return 0, err
		}
		ns, err := b.told(begun)
		if err == nil {
			_, err = io.ReadFull(b.wire, make([]byte, 1))
		}
		return ns, err
	}
	for _, x := range []struct {
		path    string
		machine func() (int64, error)
	}{{"shm", bell}, {"tcp", word}} {
		s := b.sides[x.path]
		l, err := s.list(8, 1)
		if err != nil {
			return err
		}
		message := func() (int64, error) {
			time.Sleep(300 * time.Microsecond)
			atomic.StoreInt64(&b.times[0], 0)
			begun := now()
			t, err := s.agent.Post(l, transfer.Write, transfer.Options{Notify: []byte("message")})
			if err == nil {
				err = t.Wait(context.Background())
			}
			if err != nil {
				return 0, err
			}
			return b.told(begun)
		}
		r := b.table.row(x.path+", notification to a sleeping process", "µs", 0)
		if err := b.contest(r, 40*b.rounds, []variant{{"machine", x.machine, nil}, {"ours", message, nil}}); err != nil {
			return err
		}
	}
	return nil
}

// kills measures how soon it is known that a peer was killed. The kernel closes the
// connections of a dead process after it has given its memory back, so the time grows
// with that: all systems start anew here, with killBytes.
func (b *bench) kills() error {
	b.region = min(b.region, killBytes)
	for _, path := range []string{"shm", "tcp"} {
		r := b.table.row(fmt.Sprintf("%s, peer with %d MiB killed: until the error", path, b.region>>20), "ms", 0)
		for range 3 {
			if err := b.pair(path); err != nil {
				return err
			}
			ns, err := b.sides[path].kill(b.targets[path])
			if err != nil {
				return err
			}
			r.add("ours", ns)
			for _, c := range b.config.peers {
				if (c.name == "NIXL") != (path == "shm") {
					continue
				}
				if ns, err := b.killPeer(c); err != nil {
					fmt.Fprintf(os.Stderr, "%s: %s: %v\n", r.name, c.name, err)
				} else {
					r.add(c.name, ns)
				}
			}
		}
	}
	return nil
}

// kill ends a target while transfers to it follow each other.
func (s *side) kill(t *process) (int64, error) {
	l, err := s.list(8, 1)
	if err != nil {
		return 0, err
	}
	if _, err := s.post(l, transfer.Write, transfer.Options{}); err != nil {
		return 0, err
	}
	if err := t.cmd.Process.Kill(); err != nil {
		return 0, err
	}
	begun := now()
	for err == nil {
		_, err = s.post(l, transfer.Write, transfer.Options{})
	}
	return now() - begun, nil
}

func (b *bench) killPeer(c command) (int64, error) {
	p, err := b.newPeer(c)
	if err != nil {
		return 0, err
	}
	defer p.end()
	if _, err := p.do(map[string]any{"do": "list", "name": "small", "block": 8, "count": 1}); err != nil {
		return 0, err
	}
	if _, err := p.do(map[string]any{"do": "post", "name": "small", "op": "write"}); err != nil {
		return 0, err
	}
	return p.do(map[string]any{"do": "kill"})
}

// files measures 1 MiB blocks between memory and a file, past the page cache. All systems
// use one file, so that where it lies favours none.
func (b *bench) files() error {
	block, count := int64(1<<20), int64(64)
	c := transfer.DefaultConfig()
	c.Name, c.Key = "files", key
	a, err := b.agent(c)
	if err != nil {
		return err
	}
	path := filepath.Join(b.room, "blocks")
	f, err := transfer.OpenFile(path, block*count)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() { _ = f.Close() })
	own, err := transfer.NewShared("blocks", block*count)
	if err != nil {
		return err
	}
	m, err := a.Register(transfer.Section{Name: "memory", Shared: own})
	if err != nil {
		return err
	}
	if _, err := a.Register(transfer.Section{Name: "file", File: f, Access: transfer.AccessWrite}); err != nil {
		return err
	}
	p, err := a.Import(a.Export())
	if err != nil {
		return err
	}
	info, _ := p.Memory("file")
	l, err := a.Prepare(p, []transfer.Descriptor{m.At(0, block*count)}, []transfer.Descriptor{info.At(0, block*count)})
	if err != nil {
		return err
	}
	s := &side{agent: a}
	b.tell(map[string]any{"do": "file", "path": path, "bytes": block * count, "block": block})
	return b.fileRows(s, l, own.Bytes(), path, block, count)
}

func (b *bench) fileRows(s *side, l *transfer.List, memory []byte, path string, block, count int64) error {
	plain, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil { // a file system that refuses
		if plain, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return err
		}
	}
	defer plain.Close()
	if unix.Fallocate(int(plain.Fd()), 0, 0, block*count) != nil { // likewise
		if err := plain.Truncate(block * count); err != nil {
			return err
		}
	}
	for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
		r := b.table.row(fmt.Sprintf("file, O_DIRECT, %s × %d, %s", size(block), count, op), "GB/s", block*count)
		vs := []variant{
			{"machine", func() (int64, error) { return direct(plain, memory, block, op) }, nil},
			{"ours", func() (int64, error) { return s.post(l, op, transfer.Options{}) }, nil},
		}
		if err := b.contest(r, b.rounds, append(vs, b.of("file", op, "NIXL")...)); err != nil {
			return err
		}
	}
	return nil
}

// direct makes plain calls, four at once.
func direct(f *os.File, memory []byte, block int64, op transfer.Op) (int64, error) {
	begun := now()
	var next atomic.Int64
	ended := make(chan error, 4)
	for range cap(ended) {
		go func() {
			var err error
			for at := next.Add(block) - block; at < int64(len(memory)) && err == nil; at = next.Add(block) - block {
				if op == transfer.Write {
					_, err = f.WriteAt(memory[at:at+block], at)
				} else {
					_, err = f.ReadAt(memory[at:at+block], at)
				}
			}
			ended <- err
		}()
	}
	var err error
	for range cap(ended) {
		if e := <-ended; e != nil {
			err = e
		}
	}
	return now() - begun, err
}
