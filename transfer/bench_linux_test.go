package transfer

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchPair runs two agents that reach each other by one path.
func benchPair(b *testing.B, path Path, change ...func(*Config)) (x, y *Agent) {
	dir := b.TempDir()
	process := NewProcess()
	start := func(name string) *Agent {
		c := DefaultConfig()
		c.Name, c.Key = name, testKey
		switch path {
		case PathLocal:
			c.Process = process
		case PathShm:
			c.SocketDir = dir
		case PathUCX:
			c.UCX = true
		case PathTCP:
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			c.Listener = l
		}
		for _, f := range change {
			f(&c)
		}
		a, err := New(c)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		b.Cleanup(func() { cancel(); <-done })
		<-a.Ready()
		return a
	}
	return start("x"), start("y")
}

func benchMemory(b *testing.B, a *Agent, size int64) *Memory {
	s, err := NewShared("bench", size)
	if err != nil {
		b.Fatal(err)
	}
	m, err := a.Register(Section{Name: "kv", Shared: s, Access: AccessWrite})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(m.bytes); i += 512 {
		m.bytes[i] = byte(i >> 9)
	}
	b.Cleanup(func() {
		if err := a.Deregister(context.Background(), m); err != nil {
			b.Error(err)
		}
		_ = s.Close()
	})
	return m
}

func (c *contest) add(name string, f func()) { c.names, c.fs = append(c.names, name), append(c.fs, f) }

// contest times functions in turn, so that what else the machine does meets all of
// them, and reports medians and what they cost.
type contest struct {
	names []string
	fs    []func()
}

func (c *contest) run(b *testing.B, bytes int64) {
	took, spent := make([][]time.Duration, len(c.fs)), make([]time.Duration, len(c.fs))
	for _, f := range c.fs {
		f() // pages, connections
	}
	for b.Loop() {
		for i, f := range c.fs {
			begun, cpu := time.Now(), cpuTime()
			f()
			took[i] = append(took[i], time.Since(begun))
			spent[i] += cpuTime() - cpu
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range c.names {
		slices.Sort(took[i])
		median := took[i][len(took[i])/2]
		if bytes > 0 {
			b.ReportMetric(float64(bytes)/float64(median.Nanoseconds()), name+"-GB/s")
			b.ReportMetric(float64(spent[i].Microseconds())/float64(len(took[i]))/float64(bytes)*1e6, name+"-cpu-ms/GB")
		} else {
			b.ReportMetric(float64(median.Nanoseconds())/1e3, name+"-µs")
			b.ReportMetric(float64(took[i][len(took[i])*99/100].Nanoseconds())/1e3, name+"-p99-µs")
		}
	}
}

// cpuTime is what this process has used, on both sides of a transfer.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTransfer moves lists of scattered blocks beside a copy of the same
// blocks between the same mappings, and over tcp beside a bare connection.
func BenchmarkTransfer(b *testing.B) {
	for _, path := range []Path{PathLocal, PathShm, PathTCP} {
		for _, s := range []struct{ block, count int64 }{{64 << 10, 64}, {64 << 10, 1024}, {1 << 20, 256}, {16 << 20, 16}} {
			if s.block*s.count > 512<<20 && os.Getenv("TRANSFER_BENCH_LARGE") == "" {
				continue
			}
			b.Run(fmt.Sprintf("%s/%dKiBx%d", path, s.block>>10, s.count), func(b *testing.B) { benchBlocks(b, path, s.block, s.count) })
		}
	}
}

func benchBlocks(b *testing.B, path Path, block, count int64) {
	x, y := benchPair(b, path)
	mx, my := benchMemory(b, x, 2*block*count), benchMemory(b, y, 2*block*count)
	p, err := x.Import(y.Export())
	if err != nil {
		b.Fatal(err)
	}
	info, _ := p.Memory("kv")
	var local, remote []Descriptor
	for i := range count {
		local = append(local, mx.At(2*i*block, block))
		remote = append(remote, info.At((2*((i*7)%count)+1)*block, block))
	}
	l, err := x.Prepare(p, local, remote)
	if err != nil {
		b.Fatal(err)
	}
	post := func(op Op, sums bool) func() {
		return func() {
			t, err := x.Post(l, op, Options{Checksum: sums})
			if err == nil {
				err = t.Wait(context.Background())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	post(Write, false)()
	theirs := my.bytes
	for _, r := range p.rails {
		if s, ok := r.rail.(*shmRail); ok && path == PathShm {
			theirs = s.mu.windows[info.ID].data
		}
	}
	c := &contest{}
	c.add("memcpy", func() {
		for i := range local {
			copy(theirs[remote[i].Offset:][:block], mx.bytes[local[i].Offset:][:block])
		}
	})
	if path == PathTCP || path == PathUCX {
		c.add("raw", rawTCP(b, block, count))
	}
	c.add("write", post(Write, false))
	c.add("read", post(Read, false))
	c.add("write-sums", post(Write, true))
	c.add("read-sums", post(Read, true))
	c.run(b, block*count)
}

// BenchmarkZeroCopy moves lists of blocks over tcp, copied and lent, in turn: over the
// loopback, and over another address of this host. In both cases the kernel copies what
// is lent, later; so this is what lending costs, and not what it gains.
func BenchmarkZeroCopy(b *testing.B) {
	for _, host := range []string{"127.0.0.1", ownAddress()} {
		for _, s := range []struct{ block, count int64 }{{16 << 10, 1024}, {64 << 10, 256}, {1 << 20, 64}} {
			b.Run(fmt.Sprintf("%s/%dKiBx%d", host, s.block>>10, s.count), func(b *testing.B) { benchLent(b, host, s.block, s.count) })
		}
	}
}

// ownAddress is one of this host that is not of the loopback, if it has such.
func ownAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.2"
}

func benchLent(b *testing.B, host string, block, count int64) {
	c := &contest{}
	for _, op := range []Op{Write, Read} {
		for _, z := range []ZeroCopy{ZeroCopyOff, ZeroCopyAuto, ZeroCopyAlways} {
			x, y := benchPair(b, PathTCP, func(c *Config) {
				var listen net.ListenConfig
				listen.SetMultipathTCP(false) // of which no socket lends
				l, err := listen.Listen(b.Context(), "tcp", host+":0")
				if err != nil {
					b.Fatal(err)
				}
				_ = c.Listener.Close() // it was never used
				c.Listener, c.ZeroCopy = l, z
			})
			mx := benchMemory(b, x, block*count)
			benchMemory(b, y, block*count)
			p, err := x.Import(y.Export())
			if err != nil {
				b.Fatal(err)
			}
			info, _ := p.Memory("kv")
			var local, remote []Descriptor
			for i := range count {
				local, remote = append(local, mx.At(i*block, block)), append(remote, info.At((i*7%count)*block, block))
			}
			l, err := x.Prepare(p, local, remote)
			if err != nil {
				b.Fatal(err)
			}
			c.add(op.String()+"-"+string(z), func() {
				t, err := x.Post(l, op, Options{})
				if err == nil {
					err = t.Wait(context.Background())
				}
				if err != nil {
					b.Fatal(err)
				}
			})
		}
	}
	c.run(b, block*count)
}

// rawTCP sends blocks over a bare connection to a goroutine that reads them and
// answers each list with a byte.
func rawTCP(b *testing.B, block, count int64) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, block*min(count, 64))
		for i := int64(0); ; i++ {
			at := (i % min(count, 64)) * block
			if _, err := io.ReadFull(c, buf[at:at+block]); err != nil {
				return
			}
			if i%count == count-1 {
				if _, err := c.Write([]byte{1}); err != nil {
					return
				}
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	buf := make([]byte, block*min(count, 64))
	return func() {
		for i := range count {
			at := (i % min(count, 64)) * block
			if _, err := c.Write(buf[at : at+block]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMessage posts 8 bytes with a notification: until the post has ended
// here, and until a goroutine that sleeps there has the notification.
func BenchmarkMessage(b *testing.B) {
	for _, path := range []Path{PathLocal, PathShm, PathTCP} {
		b.Run(path.String(), func(b *testing.B) { benchMessage(b, path) })
	}
}

func benchMessage(b *testing.B, path Path) {
	x, y := benchPair(b, path)
	mx := benchMemory(b, x, 4096)
	benchMemory(b, y, 4096)
	p, err := x.Import(y.Export())
	if err != nil {
		b.Fatal(err)
	}
	info, _ := p.Memory("kv")
	l, err := x.Prepare(p, []Descriptor{mx.At(0, 8)}, []Descriptor{info.At(0, 8)})
	if err != nil {
		b.Fatal(err)
	}
	heard := make(chan time.Time, 1)
	go func() {
		for {
			if _, err := y.Notification(b.Context()); err != nil {
				return
			}
			heard <- time.Now()
		}
	}()
	var done, told []time.Duration
	message := func() {
		begun := time.Now()
		t, err := x.Post(l, Write, Options{Notify: []byte("message")})
		if err == nil {
			err = t.Wait(context.Background())
		}
		if err != nil {
			b.Fatal(err)
		}
		done = append(done, time.Since(begun))
		told = append(told, (<-heard).Sub(begun))
	}
	message()
	for b.Loop() {
		time.Sleep(50 * time.Microsecond) // so that everybody sleeps
		message()
	}
	b.ReportMetric(0, "ns/op")
	for _, m := range []struct {
		name string
		d    []time.Duration
	}{{"done", done}, {"told", told}} {
		slices.Sort(m.d)
		b.ReportMetric(float64(m.d[len(m.d)/2].Nanoseconds())/1e3, m.name+"-p50-µs")
		b.ReportMetric(float64(m.d[len(m.d)*99/100].Nanoseconds())/1e3, m.name+"-p99-µs")
	}
}
