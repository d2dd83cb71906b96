// Command load is what the figure scripts put behind and beside the servers they
// measure; the load itself comes from `dynamo bench`. With -canned it is a server of
// OpenAI's API whose answers cost nothing, for measuring what stands before it, and,
// with delays that it knows, the load generator itself. With -floor it measures what
// a paced token costs the cheapest server there can be.
//
//	load -canned 127.0.0.1:8001,127.0.0.1:8002 -model smollm2
//	load -canned 127.0.0.1:8001 -first 100ms -pace 10ms
//	load -floor
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	floor  bool
	sink   string
	canned string
	server server
}

func main() {
	var o options
	flag.BoolVar(&o.floor, "floor", false, "measure what a paced token costs the cheapest server there can be")
	flag.StringVar(&o.sink, "sink", "", "internal: the other end of -floor")
	flag.StringVar(&o.canned, "canned", "", "be a server of canned answers at each of these addresses, separated by commas, until SIGINT or SIGTERM")
	flag.StringVar(&o.server.model, "model", "smollm2", "with -canned: model name")
	flag.DurationVar(&o.server.first, "first", 0, "with -canned: mean time before an answer begins, drawn evenly between half and one and a half of it")
	flag.DurationVar(&o.server.pace, "pace", 0, "with -canned: mean time between two events, drawn likewise")
	flag.BoolVar(&o.server.burst, "burst", false, "with -canned: all events of an answer in one write")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	switch {
	case o.sink != "":
		return sink(o.sink)
	case o.floor:
		return floor()
	case o.canned == "":
		return errors.New("say -canned ADDRESS,… or -floor; the load generator is dynamo bench")
	case o.server.burst && o.server.pace > 0:
		return errors.New("-burst and -pace exclude each other")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.server.serve(ctx, strings.Split(o.canned, ",")); err != nil {
		return err
	}
	if o.server.first > 0 || o.server.pace > 0 {
		o.server.print(os.Stdout)
	}
	return nil
}

// drawn is a time between half and one and a half of mean; share is from 0 to 1.
func drawn(mean time.Duration, share float64) time.Duration {
	return time.Duration(float64(mean) * (0.5 + share))
}
