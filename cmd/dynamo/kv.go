package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// maxPromptFile bounds PROMPTFILE.
const maxPromptFile = 256 << 20

// kvCmd looks after the KV tiers below engines' caches.
type kvCmd struct {
	Stat   kvStatCmd   `cmd:"" help:"Show the tiers: blocks, hits, failures."`
	Ls     kvLsCmd     `cmd:"" help:"List the blocks of the tiers."`
	Verify kvVerifyCmd `cmd:"" help:"Read and check all blocks; wrong ones are given up."`
	Evict  kvEvictCmd  `cmd:"" help:"Give up blocks in all tiers."`
	Warm   kvWarmCmd   `cmd:"" help:"Bring the blocks of prompts from slower tiers into the fastest."`
}

// kvFlags say whose tiers are meant.
type kvFlags struct {
	clusterFlags
	Worker  string        `help:"A worker's name, or enough of its beginning. Default: all of the cluster that have tiers." placeholder:"NAME" oneoff:""`
	Socket  string        `help:"The socket of the KV daemon, in place of workers." placeholder:"FILE" oneoff:""`
	JSON    bool          `name:"json" help:"Print JSON." oneoff:""`
	Timeout time.Duration `help:"How long to wait for an answer." default:"5m" oneoff:""`
}

// offlineFlags are those of commands that can look at a folder that nobody serves.
type offlineFlags struct {
	Dir string `help:"Look at this folder of a disk tier, in place of asking anybody." placeholder:"DIR" oneoff:""`
}

// tierFlag restricts a command to one tier.
type tierFlag struct {
	Tier string `help:"Only this tier: host, disk or remote." enum:"host,disk,remote,all" default:"all" oneoff:""`
}

func (f *tierFlag) name() string { return strings.TrimSuffix(f.Tier, "all") }

type kvStatCmd struct {
	kvFlags
	offlineFlags
}

// Run shows the tiers.
func (c *kvStatCmd) Run(a *app) error {
	if c.Dir != "" {
		return eachFolder(c.Dir, func(dir string, f *tier.Folder) error {
			_, all, err := f.Blocks(context.Background(), 0)
			used := "in use by a process"
			if !f.InUse {
				used = "not in use"
			}
			fmt.Fprintf(a.stdout, "%s: %d of %d blocks of %s, %s\n", dir, all, f.Slots, mib(int64(f.FrameBytes)), used)
			return err
		})
	}
	return c.ask(a, &tier.Command{Op: tier.OpStat}, func(w io.Writer, who string, r *tier.Answer) error {
		fmt.Fprintf(w, "%s: blocks of %d tokens, %s\n", who, r.BlockTokens, mib(int64(r.FrameBytes)))
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "TIER\tBLOCKS\tOF\tSTORED\tREAD\tEVICTED\tSKIPPED\tCORRUPT\tFAILED\tSET ASIDE\t")
		for i := range r.Tiers {
			x := &r.Tiers[i]
			skipped := uint64(0)
			for _, n := range x.Stats.Skipped {
				skipped += n
			}
			down := ""
			switch {
			case x.Stats.Down:
				down = " down"
			case x.Stats.ReadOnly:
				down = " cannot be written"
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", x.Tier, x.Held, x.Stats.Capacity, x.Stats.Stored, x.Stats.Loaded, x.Stats.Evicted,
				skipped, x.Stats.Corrupt, x.Stats.Unread+x.Stats.Unwritten+x.Stats.Missing, x.Stats.Quarantined, down)
		}
		if r.Loads != nil {
			defer fmt.Fprintf(w, "loads: %d, of which %d brought %d blocks, %d failed and %d came late\n", r.Loads.Begun, r.Loads.Arrived, r.Loads.Blocks, r.Loads.Failed, r.Loads.Late)
		}
		return t.Flush()
	})
}

type kvLsCmd struct {
	kvFlags
	offlineFlags
	tierFlag
	Limit int `help:"Blocks listed of each tier." default:"100" oneoff:""`
}

// Run lists blocks, those that are kept longest first.
func (c *kvLsCmd) Run(a *app) error {
	if c.Dir != "" {
		return eachFolder(c.Dir, func(dir string, f *tier.Folder) error {
			blocks, all, err := f.Blocks(context.Background(), c.Limit)
			for i := range blocks {
				fmt.Fprintf(a.stdout, "disk %s depth %d\n", blocks[i].Key, blocks[i].Depth)
			}
			more(a.stdout, "disk", len(blocks), all)
			return err
		})
	}
	return c.ask(a, &tier.Command{Op: tier.OpList, Tier: c.name(), Limit: c.Limit}, func(w io.Writer, who string, r *tier.Answer) error {
		for i := range r.Tiers {
			x := &r.Tiers[i]
			for _, b := range x.Listed {
				fmt.Fprintf(w, "%s %s depth %d\n", x.Tier, b.Key, b.Depth)
			}
			more(w, x.Tier, len(x.Listed), x.Held)
		}
		return nil
	})
}

func more(w io.Writer, tier string, listed, all int) {
	if listed < all {
		fmt.Fprintf(w, "%s: %d more\n", tier, all-listed)
	}
}

type kvVerifyCmd struct {
	kvFlags
	offlineFlags
	tierFlag
}

// Run checks all blocks, and fails if some are wrong.
func (c *kvVerifyCmd) Run(a *app) error {
	bad := 0
	say := func(w io.Writer, who string, v *tier.Verified) {
		bad += v.Bad()
		fmt.Fprintf(w, "%s: %d checked, %d corrupt, %d missing, %d unreadable, %d skipped\n", who, v.Checked, v.Corrupt, v.Missing, v.Unread, v.Skipped)
	}
	var err error
	if c.Dir != "" {
		err = c.offline(a, say)
	} else {
		err = c.ask(a, &tier.Command{Op: tier.OpVerify, Tier: c.name()}, func(w io.Writer, who string, r *tier.Answer) error {
			for i := range r.Tiers {
				say(w, who+" "+r.Tiers[i].Tier, r.Tiers[i].Verified)
			}
			return nil
		})
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d blocks are not what they should be", bad)
	}
	return err
}

func (c *kvVerifyCmd) offline(a *app, say func(io.Writer, string, *tier.Verified)) error {
	cfg := a.nodeConfig(nil)
	c.clusterFlags.apply(&cfg.Cluster)
	key, err := node.ClusterKey(cfg)
	if err != nil {
		return err
	}
	own, err := node.SealKey(cfg)
	if err != nil {
		own = key // there is no place for one
	}
	return eachFolder(c.Dir, func(dir string, f *tier.Folder) error {
		bad := func(r tier.Ref, err error) {
			fmt.Fprintf(a.stdout, "%s slot %d block %s: %v\n", dir, r.Slot, r.Key, err)
		}
		v, err := f.Verify(context.Background(), key, bad)
		if err != nil && dynamo.KindOf(err) == dynamo.KindInvalid { // it is not a worker's
			v, err = f.Verify(context.Background(), own, bad)
		}
		if err == nil {
			say(a.stdout, dir, &v)
		}
		return err
	})
}

// eachFolder visits a folder of a disk tier, or all those in a folder of them.
func eachFolder(dir string, visit func(dir string, f *tier.Folder) error) error {
	dirs := []string{dir}
	if _, err := os.Stat(filepath.Join(dir, "slots")); err != nil {
		all, _ := filepath.Glob(filepath.Join(dir, "*", "slots")) // the pattern is a good one
		if len(all) > 0 {
			dirs = dirs[:0]
		}
		for _, path := range all {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	var faults []error
	for _, dir := range dirs {
		f, err := tier.OpenFolder(dir)
		if err == nil {
			err = errors.Join(visit(dir, f), f.Close())
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

type kvEvictCmd struct {
	kvFlags
	Blocks []string `arg:"" optional:"" help:"Blocks, as 'dynamo kv ls' names them."`
	All    bool     `help:"All blocks." oneoff:""`
}

// Run gives up blocks.
func (c *kvEvictCmd) Run(a *app) error {
	if c.All == (len(c.Blocks) > 0) {
		return usageError{error: errors.New("name the blocks that are to go, or give --all")}
	}
	return c.ask(a, &tier.Command{Op: tier.OpEvict, Keys: c.Blocks}, func(w io.Writer, who string, r *tier.Answer) error {
		fmt.Fprintf(w, "%s: %d copies given up\n", who, r.Copies)
		return nil
	})
}

type kvWarmCmd struct {
	kvFlags
	File string `arg:"" name:"promptfile" help:"A prompt as text, or with the ending .jsonl one on each line, as in a request: {\"prompt\":…} or {\"messages\":[…]}."`
}

// Run brings the blocks of prompts nearer.
func (c *kvWarmCmd) Run(a *app) error {
	if c.Socket != "" {
		return usageError{error: errors.New("the daemon knows blocks by their names, not by prompts; ask a worker")}
	}
	prompts, err := readPrompts(c.File)
	if err != nil {
		return err
	}
	show := func(w io.Writer, who string, r *tier.Answer) error {
		fmt.Fprintf(w, "%s: %d of %d blocks of %d prompts are in the fastest tier\n", who, r.Blocks, r.Of, len(prompts))
		return nil
	}
	return c.each(a, &node.KVCommand{Command: tier.Command{Op: tier.OpWarm}, Prompts: prompts}, func(ctx context.Context, v *node.Cluster, i *discovery.Instance) (r node.KVAnswer, err error) {
		all, err := v.Tokenize(ctx, i, prompts)
		if err != nil {
			return r, err
		}
		blocks, of := 0, 0
		for _, ids := range all {
			if r, err = v.KV(ctx, i, &tier.Command{Op: tier.OpWarm, Tokens: ids}); err != nil {
				return r, err
			}
			blocks, of = blocks+r.Blocks, of+r.Of
		}
		r.Blocks, r.Of = blocks, of
		return r, nil
	}, show)
}

// readPrompts reads PROMPTFILE.
func readPrompts(name string) (all []node.Prompt, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := io.LimitReader(f, maxPromptFile)
	if !strings.HasSuffix(name, ".jsonl") {
		b, err := io.ReadAll(in)
		return []node.Prompt{{Text: string(b)}}, err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxPromptFile)
	for n := 1; lines.Scan(); n++ {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		p, err := readPrompt(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		all = append(all, p)
	}
	return all, lines.Err()
}

func readPrompt(line []byte) (p node.Prompt, err error) {
	var body struct {
		Prompt   jsontext.Value `json:"prompt"`
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(line, &body); err != nil {
		return p, err
	}
	for _, m := range body.Messages {
		p.Messages = append(p.Messages, [2]string{m.Role, m.Content})
	}
	switch {
	case p.Messages != nil:
		return p, nil
	case body.Prompt.Kind() == '"':
		return p, json.Unmarshal(body.Prompt, &p.Text)
	case body.Prompt.Kind() == '[':
		p.Tokens = []dynamo.TokenID{}
		return p, json.Unmarshal(body.Prompt, &p.Tokens)
	}
	return p, errors.New("there is neither a prompt (text or ids) nor messages with text")
}

// shower shows what somebody says.
type shower func(w io.Writer, who string, r *tier.Answer) error

// ask asks the daemon, or all others that are meant, and shows what each says.
func (f *kvFlags) ask(a *app, command *tier.Command, show shower) error {
	if f.Socket == "" {
		return f.each(a, &node.KVCommand{Command: *command}, func(ctx context.Context, v *node.Cluster, i *discovery.Instance) (node.KVAnswer, error) {
			return v.KV(ctx, i, command)
		}, show)
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	r, err := daemon.Ask(ctx, f.Socket, command)
	if err != nil {
		return err
	}
	if len(r.Contents) == 0 && !f.JSON {
		fmt.Fprintln(a.stdout, "the daemon keeps no blocks yet; no client has come")
	}
	return f.report(a, &r, command.Op, show)
}

// report shows what one process says.
func (f *kvFlags) report(a *app, r *daemon.Report, op string, show shower) error {
	if f.JSON {
		return printJSON(a.stdout, r)
	}
	var faults []error
	for i := range r.Contents {
		c := &r.Contents[i]
		name := c.Content
		if c.Layout != "" {
			name += ", " + c.Layout
		}
		faults = append(faults, show(a.stdout, name, &c.Answer))
		for _, client := range c.Clients {
			if op == tier.OpStat {
				fmt.Fprintf(a.stdout, "client %s: %d connections, %d blocks put and kept\n", client.Name, client.Connections, client.Blocks)
			}
		}
	}
	return errors.Join(faults...)
}

// each asks the workers that are meant, and the processes that serve on their own.
func (f *kvFlags) each(a *app, command *node.KVCommand, ask func(context.Context, *node.Cluster, *discovery.Instance) (node.KVAnswer, error), show shower) error {
	v, err := a.cluster(&f.clusterFlags)
	if err != nil {
		return err
	}
	defer v.Close()
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	peers, err := v.KVPeers(ctx, f.Worker)
	if err != nil {
		return err
	}
	var faults []error
	shown := 0
	for i := range peers {
		r, err := ask(ctx, v, &peers[i])
		switch {
		case err != nil && f.Worker == "" && dynamo.KindOf(err) == dynamo.KindNotFound:
			continue // it has no tiers
		case err != nil:
			faults = append(faults, fmt.Errorf("worker %s: %w", peers[i].ID, err))
			continue
		}
		shown++
		if f.JSON {
			faults = append(faults, printJSON(a.stdout, &r))
		} else {
			faults = append(faults, show(a.stdout, "worker "+r.Worker.String(), &r.Answer))
		}
	}
	if f.Worker == "" {
		n, err := f.serving(ctx, a, command, show)
		shown, faults = shown+n, append(faults, err)
	}
	if err := errors.Join(faults...); shown > 0 || err != nil {
		return err
	}
	return errors.New("no worker of the cluster and no 'dynamo serve' of this host has KV tiers; give them --kvbm-cpu-cache-gb, --kvbm-disk-cache-gb or --kvbm-remote")
}

// serving asks the processes of this host that serve on their own.
func (f *kvFlags) serving(ctx context.Context, a *app, command *node.KVCommand, show shower) (shown int, err error) {
	b, err := json.Marshal(command)
	if err != nil {
		return 0, fmt.Errorf("write the command: %w", err)
	}
	var faults []error
	for _, socket := range node.KVSockets(f.RunDir) {
		r, err := daemon.AskJSON(ctx, socket, b)
		switch {
		case dynamo.KindOf(err) == dynamo.KindUnavailable:
			continue // its process is gone
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: %w", socket, err))
			continue
		}
		shown++
		faults = append(faults, f.report(a, &r, command.Op, show))
	}
	return shown, errors.Join(faults...)
}

// printJSON prints a value in one line.
func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	fmt.Fprintf(w, "%s\n", b)
	return nil
}
