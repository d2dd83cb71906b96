package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// ForeignConfig says where an engine is that others wrote.
type ForeignConfig struct {
	// URL is the running server to attach to. (--engine-url)
	URL string
	// Command is the vllm executable to run where there is no URL, and Args are
	// its further arguments. Default "vllm". (--engine-command, after --)
	Command string
	Args    []string
	// Model is what the server calls the model; empty: as it is called here.
	// (--engine-model)
	Model string
	// APIKey is the server's. (--engine-api-key)
	APIKey string
	// Timeout is how long a server of OpenAI's API may send nothing while a request
	// waits for it. Default 2 min. (--engine-timeout)
	Timeout time.Duration
	// Events, Replay and Topic say where the server publishes its KV events, where
	// it does not say so itself. (--engine-events, --engine-replay, --engine-topic)
	Events, Replay, Topic string
}

// hostVLLM attaches to a vLLM server, or starts one and waits until it serves.
func (n *Node) hostVLLM(ctx context.Context, meta *metadata, kv *event.KVSource) (*hosted, error) {
	f := &n.cfg.Foreign
	c := vllm.DefaultConfig()
	c.URL, c.APIKey, c.Name = f.URL, f.APIKey, n.cfg.ModelName
	if f.URL == "" {
		c.Command.Path, c.Command.Model, c.Command.Args = f.Command, n.cfg.ModelPath, f.Args
	}
	c.VocabSize, c.EOS, c.ContextLength = meta.tokenizer.VocabSize(), slices.Clone(meta.eos), n.cfg.ContextLength
	c.EventsEndpoint, c.ReplayEndpoint, c.Topic = f.Events, f.Replay, f.Topic
	if kv != nil {
		c.Events = kv.Publish
	}
	c.Logger, c.Metrics = n.cfg.Logger, vllm.NewMetrics(n.registry)
	if n.cfg.EngineLine != nil {
		c.Progress = n.cfg.EngineLine
	}
	e, err := vllm.New(c)
	if err != nil {
		return nil, err
	}
	if err := e.Ready(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	card := e.Card()
	return &hosted{engine: e, card: card, meta: meta, run: e.Run, close: e.Close, load: e.Load, kvBlocks: e.Info().KVBlocks, ready: Ready{Card: card}}, nil
}

// hostOpenAI attaches to a server that speaks OpenAI's API, in text.
func (n *Node) hostOpenAI(ctx context.Context, meta *metadata) (*hosted, error) {
	f := &n.cfg.Foreign
	c := remoteapi.DefaultConfig()
	c.URL, c.Model, c.APIKey, c.Name = f.URL, f.Model, f.APIKey, n.cfg.ModelName
	if c.Model == "" {
		c.Model = n.cfg.ModelName
	}
	c.Timeout = f.Timeout
	c.ContextLength, c.VocabSize = meta.contextLength, meta.tokenizer.VocabSize()
	if n.cfg.ContextLength > 0 {
		c.ContextLength = n.cfg.ContextLength
	}
	text := meta.tokenizer // a worker lets go of meta's
	c.Decode = func(ids []dynamo.TokenID) string { return text.Decode(ids, false) }
	c.Begin = text.Encode(nil, "", tokenizer.EncodeOptions{AddSpecial: true}) // what the server adds, too
	c.EOS, c.Logger = slices.Clone(meta.eos), n.cfg.Logger
	e, err := remoteapi.New(c)
	if err != nil {
		return nil, err
	}
	if err := e.Ready(ctx); err != nil {
		e.Close()
		return nil, err
	}
	end := func() error { e.Close(); return nil }
	return &hosted{engine: e, card: e.Card(), meta: meta, load: e.Load, close: end, ready: Ready{Card: e.Card()}}, nil
}
