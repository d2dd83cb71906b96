// Command etcd runs one etcd member for tests and failure scripts, so that they
// need no etcd installed. It is a module of its own: what an etcd server depends
// on stays out of the module that only speaks to one.
//
//	go build -C scripts/etcd -o FILE .
//	FILE -dir DATA -listen 127.0.0.1:0 -addr-file FILE [-with-parent]
//
// It serves clients on loopback and listens for no peers. It does not sync to
// disk: what it holds survives kill -9, not a loss of power.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

const (
	readyWithin  = 30 * time.Second // until it serves, or the start has failed
	closeWithin  = 3 * time.Second  // a close that hangs on a client ends in an exit
	memoryBytes  = 128 << 20        // soft limit of the Go heap
	quotaBytes   = 64 << 20         // of the key space
	walBytes     = 1 << 20          // of a segment of the log, allocated ahead
	snapshotEach = 1000             // entries kept in memory before a snapshot
	electionMs   = 500
	tickMs       = 50
)

type options struct {
	dir, listen, addrFile string
	withParent, verbose   bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "data folder")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "client address, on loopback")
	flag.StringVar(&o.addrFile, "addr-file", "", "file that gets the client host:port once it serves")
	flag.BoolVar(&o.withParent, "with-parent", false, "end when standard input ends")
	flag.BoolVar(&o.verbose, "v", false, "print etcd's warnings and errors")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	if o.withParent {
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, the parent is gone
			stop <- syscall.SIGTERM
		}()
	}
	c, err := config(o)
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(memoryBytes)
	wal.SegmentSizeBytes = walBytes
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer shut(e)
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-stop:
		return nil
	case <-time.After(readyWithin):
		return fmt.Errorf("not ready within %v", readyWithin)
	}
	if o.addrFile != "" {
		if err := publish(o.addrFile, e.Clients[0].Addr().String()); err != nil {
			return err
		}
	}
	select {
	case err := <-e.Err():
		return err
	case <-stop:
		return nil
	}
}

// config is that of a single member which other hosts cannot reach.
func config(o options) (*embed.Config, error) {
	host, _, err := net.SplitHostPort(o.listen)
	switch {
	case o.dir == "":
		return nil, errors.New("-dir is missing")
	case err != nil:
		return nil, fmt.Errorf("-listen %s: %w", o.listen, err)
	case !net.ParseIP(host).IsLoopback():
		return nil, fmt.Errorf("-listen %s: only loopback addresses are served", o.listen)
	}
	client := []url.URL{{Scheme: "http", Host: o.listen}}
	c := embed.NewConfig()
	c.Dir, c.Name = o.dir, "single"
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenClientUrls, c.AdvertiseClientUrls = client, client
	c.ListenPeerUrls = nil // a single member has none to talk to
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.UnsafeNoFsync = true
	c.EnableGRPCGateway = false
	c.QuotaBackendBytes = quotaBytes
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEach, snapshotEach
	if o.verbose {
		c.LogLevel = "warn"
	} else {
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	}
	return c, nil
}

// publish writes the address so that a reader sees all of it or nothing.
func publish(path, address string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(address+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// shut closes the server; clients with open streams may hold that up for long.
func shut(e *embed.Etcd) {
	done := make(chan struct{})
	go func() { // ends with Close or with the process
		e.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWithin):
	}
}
