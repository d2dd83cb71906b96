//go:build linux

// Command transfer measures package transfer beside what it is compared with, in one
// run: each system does the same in turn, round after round, so that what else the
// machine does meets all of them, and those whose turn it is not are stopped. It prints
// a table of medians and 99th percentiles. The others are programs that take commands
// (peer_nixl.py, peer_mooncake.py), and what the machine itself does: a copy of the same
// blocks between the same memories, a bare connection, plain O_DIRECT calls, a bare
// eventfd. run.sh builds and starts it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

// config is what the flags say.
type config struct {
	dir    string // of sockets
	room   string // of what is measured
	rounds int
	short  bool
	only   string
	region int64 // the memory of each side, of every system
	out    string
	peers  []command
}

// command starts a peer.
type command struct {
	name string
	args []string
	env  []string
}

func main() {
	var c config
	var nixl, mooncake, python string
	role := flag.String("role", "", "what this process is: target or bare (of the measuring process's)")
	flag.StringVar(&c.dir, "dir", "", "a directory for sockets")
	flag.StringVar(&c.room, "files", "", "a directory for the files that are measured; default -dir")
	flag.IntVar(&c.rounds, "rounds", 15, "rounds of each bulk measure")
	flag.BoolVar(&c.short, "short", false, "small amounts, few rounds: does everything run?")
	flag.StringVar(&c.only, "only", "", "one step: blocks, streams, files, messages, tcp, wakes or kills")
	flag.StringVar(&c.out, "out", "", "a file for every sample, as JSON lines")
	flag.Int64Var(&c.region, "region", 512<<20, "bytes of each side's memory")
	flag.StringVar(&python, "python", "", "the interpreter of the peers")
	flag.StringVar(&nixl, "nixl", "", "peer_nixl.py")
	flag.StringVar(&mooncake, "mooncake", "", "peer_mooncake.py")
	flag.Parse()
	if c.room == "" {
		c.room = c.dir
	}
	if nixl != "" {
		c.peers = append(c.peers, command{"NIXL", []string{python, nixl}, nil}, command{"NIXL tcp", []string{python, nixl}, []string{"UCX_TLS=tcp,self"}})
	}
	if mooncake != "" {
		c.peers = append(c.peers, command{"Mooncake", []string{python, mooncake}, nil})
	}
	var err error
	switch *role {
	case "target":
		err = target(c.dir, c.region)
	case "bare":
		err = bare()
	default:
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transfer:", err)
		os.Exit(1)
	}
}

func (c *config) run() (err error) {
	b := &bench{config: c}
	defer b.close()
	if err := b.start(); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{{"blocks", b.blocks}, {"streams", b.streams}, {"files", b.files}, {"messages", b.messages}, {"tcp", b.tcpMessages}, {"wakes", b.wakes}, {"kills", b.kills}} {
		if c.only != "" && c.only != step.name {
			continue
		}
		if err := step.do(); err != nil {
			return err
		}
	}
	b.table.print(os.Stdout)
	if c.out == "" {
		return nil
	}
	f, err := os.Create(c.out)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range b.table.rows {
		for system, samples := range r.samples {
			line := map[string]any{"measure": r.name, "unit": r.unit, "bytes": r.bytes, "system": system, "ns": samples}
			if err := json.NewEncoder(f).Encode(line); err != nil {
				return err
			}
		}
	}
	return nil
}
