//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/transfer"
)

// What a process gets from the measuring one: a page for times, and an eventfd.
const (
	stampsFile = 3
	eventFile  = 4
	stampsSize = 4096
)

var key = []byte("a key for measuring package transfer")

// now is the clock that all processes of the machine share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// stamps maps a page of times.
func stamps(fd int) ([]int64, error) {
	b, err := unix.Mmap(fd, 0, stampsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(b))), stampsSize/8), nil
}

// target is the process at the other end: it serves a memory on all paths, and notes
// when it is told something.
func target(dir string, bytes int64) error {
	times, err := stamps(stampsFile)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := transfer.DefaultConfig()
	c.Name, c.Key, c.SocketDir, c.Listener = "target", key, dir, l
	a, err := transfer.New(c)
	if err != nil {
		return err
	}
	s, err := region(a, bytes)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	<-a.Ready()
	fmt.Println(hex.EncodeToString(a.Export()), s.File().Fd())
	go func() {
		for {
			if _, err := a.Notification(ctx); err != nil {
				return
			}
			atomic.StoreInt64(&times[0], now())
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin) // until it ends
	cancel()
	return <-ended
}

// region registers the memory that is measured.
func region(a *transfer.Agent, bytes int64) (*transfer.Shared, error) {
	s, err := transfer.NewShared("kv", bytes)
	if err != nil {
		return nil, err
	}
	fill(s.Bytes())
	_, err = a.Register(transfer.Section{Name: "kv", Shared: s, Access: transfer.AccessWrite})
	return s, err
}

// fill touches all pages.
func fill(b []byte) {
	for i := 0; i < len(b); i += 512 {
		b[i] = byte(i >> 9)
	}
}

// bare is the process at the other end of what the machine does by itself: a thread
// that sleeps in a read of an eventfd, and a connection whose bytes it reads.
func bare() error {
	times, err := stamps(stampsFile)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		var count [8]byte
		for {
			_, err := unix.Read(eventFile, count[:])
			if err == nil {
				atomic.StoreInt64(&times[0], now())
			} else if err != syscall.EINTR {
				return
			}
		}
	}()
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = sink(c, times)
		}
		if err != nil && err != io.EOF {
			fmt.Fprintln(os.Stderr, "transfer: the bare connection:", err)
		}
	}()
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until it ends
	return nil
}

// sink reads blocks into memory as large as a transfer's, and answers each list with a
// byte. A list is announced by its block and count; when an empty one came is noted.
func sink(c net.Conn, times []int64) error {
	r := bufio.NewReaderSize(c, 64)
	memory := make([]byte, 0)
	for {
		var block, count int64
		if _, err := fmt.Fscanln(r, &block, &count); err != nil {
			return err
		}
		if count == 0 {
			atomic.StoreInt64(&times[0], now())
		}
		if need := 2 * block * count; int64(len(memory)) < need {
			memory = make([]byte, need)
		}
		for i := range count {
			at := (2*(i*7%count) + 1) * block
			if _, err := io.ReadFull(r, memory[at:at+block]); err != nil {
				return err
			}
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
	}
}
