package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// KVAnswer is what a worker says of its KV tiers.
type KVAnswer struct {
	Worker dynamo.WorkerID
	Model  string
	tier.Answer
}

// Prompt is a prompt in one of its forms.
type Prompt struct {
	Tokens []dynamo.TokenID `json:"tokens,omitempty"`
	// Text is a prompt of /v1/completions, Messages roles and contents of
	// /v1/chat/completions.
	Text     string      `json:"text,omitzero"`
	Messages [][2]string `json:"messages,omitempty"`
}

// KVCommand is what a process that serves on its own is asked: it has the tokenizer,
// and OpWarm may have prompts in any form.
type KVCommand struct {
	tier.Command
	Prompts []Prompt `json:"prompts,omitempty"`
}

// KVSockets are the sockets in a run directory at which processes that serve on their own
// answer about their KV tiers. Some may be of dead processes.
func KVSockets(runDir string) []string {
	all, _ := filepath.Glob(filepath.Join(runDir, kvSocket+"*.sock")) // the pattern is a good one
	return all
}

// kvSocket begins the names of these sockets.
const kvSocket = "kv-"

// serveKV answers about the KV tiers of a process that serves on its own.
func (n *Node) serveKV(ctx context.Context, h *hosted) {
	if h.kv == nil || n.cfg.Cluster.RunDir == "" {
		return
	}
	for _, path := range KVSockets(n.cfg.Cluster.RunDir) {
		if c, err := net.DialTimeout("unix", path, sweepTimeout); err == nil {
			c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = errors.Join(os.Remove(path), os.Remove(path+".lock")) // of a process that was killed; another may have been faster
		}
	}
	socket := filepath.Join(n.cfg.Cluster.RunDir, kvSocket+strconv.Itoa(os.Getpid())+".sock")
	err := daemon.ServeAdmin(ctx, socket, n.cfg.Logger, h.administer)
	if ctx.Err() == nil {
		n.log.Warn("'dynamo kv' does not reach this process", obs.KeyError, err)
	}
	_ = os.Remove(socket + ".lock")
}

// administer does a KVCommand.
func (h *hosted) administer(ctx context.Context, command []byte) ([]byte, error) {
	var c KVCommand
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the command cannot be read", Err: err}
	}
	var sum tier.Answer
	each := func() error {
		command, err := json.Marshal(&c.Command)
		if err != nil {
			return fmt.Errorf("write the command: %w", err)
		}
		b, err := h.kv(ctx, command)
		if err != nil {
			return err
		}
		blocks, of := sum.Blocks, sum.Of
		if err := json.Unmarshal(b, &sum); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if len(c.Prompts) > 0 {
			sum.Blocks, sum.Of = sum.Blocks+blocks, sum.Of+of
		}
		return nil
	}
	if len(c.Prompts) == 0 {
		if err := each(); err != nil {
			return nil, err
		}
	}
	for i := range c.Prompts {
		var err error
		if c.Tokens, err = c.Prompts[i].tokens(h.meta); err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i+1, err)
		}
		if err := each(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(daemon.Report{Contents: []daemon.ContentReport{{Content: h.card.Model, Answer: sum}}})
}

// KVPeers are the workers whose KV tiers are asked: the one whose name begins with name,
// or with an empty name all of the cluster that have some.
func (v *Cluster) KVPeers(ctx context.Context, name string) ([]discovery.Instance, error) {
	found, _, err := v.find(ctx)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return found, nil
	}
	switch found = named(found, name); len(found) {
	case 0:
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("no worker's name begins with %q; 'dynamo status' lists them", name)}
	case 1:
		return found, nil
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%d workers' names begin with %q; give more of it", len(found), name)}
}

// KV asks one worker something about its KV tiers.
func (v *Cluster) KV(ctx context.Context, i *discovery.Instance, c *tier.Command) (a KVAnswer, err error) {
	a.Worker = i.ID
	if i.Card != nil {
		a.Model = i.Card.Model
	}
	command, err := json.Marshal(c)
	if err != nil {
		return a, fmt.Errorf("write the command: %w", err)
	}
	err = v.reach(ctx, rpc.PeerConfig{Addresses: reachable(*i), Worker: i.ID, Epoch: i.Epoch}, func(ctx context.Context, p *rpc.Peer) error {
		b, err := remote.AskKV(ctx, p, command)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &a.Answer); err != nil {
			return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the worker's answer cannot be read; do both sides run the same version?", Err: err}
		}
		return nil
	})
	return a, err
}

// Tokenize turns prompts into the ids that a frontend would send to a worker of i's
// model for them.
func (v *Cluster) Tokenize(ctx context.Context, i *discovery.Instance, prompts []Prompt) (all [][]dynamo.TokenID, err error) {
	if i.Card == nil || i.Card.Tokenizer.Digest == "" {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("worker %s has no tokenizer of its own; give token ids", i.ID)}
	}
	var meta *metadata
	ids := func(p *Prompt) bool { return p.Tokens != nil }
	if !allOf(prompts, ids) {
		err = v.reach(ctx, rpc.PeerConfig{Addresses: reachable(*i), Worker: i.ID, Epoch: i.Epoch}, func(ctx context.Context, p *rpc.Peer) (err error) {
			meta, err = fetchMetadata(ctx, p, i.Card)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for n := range prompts {
		ids, err := prompts[n].tokens(meta)
		if err != nil {
			return nil, fmt.Errorf("prompt %d: %w", n+1, err)
		}
		all = append(all, ids)
	}
	return all, nil
}

func allOf(prompts []Prompt, holds func(*Prompt) bool) bool {
	return !slices.ContainsFunc(prompts, func(p Prompt) bool { return !holds(&p) })
}

// tokens are the ids of a prompt, as a frontend makes them.
func (p *Prompt) tokens(meta *metadata) ([]dynamo.TokenID, error) {
	switch {
	case p.Tokens != nil:
		return p.Tokens, nil
	case p.Messages == nil:
		return meta.tokenizer.Encode(nil, p.Text, tokenizer.EncodeOptions{AddSpecial: true}), nil
	case meta.template == nil:
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the model has no chat template; give its prompt as text"}
	}
	var values []chat.Value
	for _, m := range p.Messages {
		values = append(values, chat.NewDict(2).Set("role", chat.String(m[0])).Set("content", chat.String(m[1])).Value())
	}
	in := chat.Input{Messages: chat.List(values...), AddGenerationPrompt: true, Vars: templateVars(meta.special), Now: time.Now()}
	text, err := meta.template.Render(nil, &in, chat.DefaultLimits())
	if err != nil {
		return nil, err
	}
	return meta.tokenizer.Encode(nil, string(text), tokenizer.EncodeOptions{}), nil
}

// SealKey is the key that names and seals the KV blocks of a process with this
// configuration that takes part in no cluster: 'dynamo serve', and the KV daemon.
func SealKey(c Config) ([]byte, error) { return (&Node{cfg: c}).sealKey() }

// ClusterKey is the cluster key that a worker with this configuration has: it names and
// seals the KV blocks of the cluster's tiers.
func ClusterKey(c Config) (key []byte, err error) {
	n := &Node{cfg: c}
	store, err := n.openStore()
	if err != nil {
		return nil, err
	}
	key, err = n.clusterKey(store)
	return key, errors.Join(err, store.Close())
}
