package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// What floor measures: streams that get a token each every pace, in an event of
// eventBytes.
const (
	floorStreams = 64
	floorTokens  = 500
	floorPace    = 10 * time.Millisecond
	eventBytes   = 240
)

// floor prints the CPU time a token costs a server that does nothing but wake a
// goroutine for each stream and write one event to a connection of its own: what
// no server that sends each token when it comes can go below.
func floor() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	other := exec.Command(self, "-sink", l.Addr().String())
	if err := other.Start(); err != nil {
		return err
	}
	var streams sync.WaitGroup
	before, err := own()
	if err != nil {
		return err
	}
	for range floorStreams {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		streams.Go(func() {
			defer c.Close()
			event, tick := make([]byte, eventBytes), time.NewTicker(floorPace)
			defer tick.Stop()
			for range floorTokens {
				<-tick.C
				if _, err := c.Write(event); err != nil {
					return // the sink's own error tells
				}
			}
		})
	}
	streams.Wait()
	after, err := own()
	if err != nil {
		return err
	}
	fmt.Printf("floor: %.2f CPU-s per 1M tokens\n", (after-before)/(floorStreams*floorTokens)*1e6)
	return other.Wait()
}

// own returns the CPU seconds this process has used.
func own() (float64, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("read the CPU time: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds(), nil
}

// sink reads what floor writes.
func sink(address string) error {
	var all sync.WaitGroup
	for range floorStreams {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer c.Close()
			for b := make([]byte, 4096); ; {
				if _, err := c.Read(b); err != nil {
					return // its end
				}
			}
		})
	}
	all.Wait()
	return nil
}
