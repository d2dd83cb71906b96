package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// ForeignConfig says where an engine is that others wrote.
type ForeignConfig struct {
	// URL is the running server to attach to; MoreURLs are further ones that serve
	// the same model. RoleServe has an engine for each, RoleWorker takes one.
	// (--engine-url)
	URL      string
	MoreURLs []string
	// Command is the vllm executable to run where there is no URL, and Args are
	// its further arguments. Default "vllm". (--engine-command, after --)
	Command string
	Args    []string
	// Model is what the server calls the model; empty: as it is called here.
	// (--engine-model)
	Model string
	// APIKey is the server's. (--engine-api-key)
	APIKey string
	// CA is a file with the certificates that an https URL's server is told by, in
	// PEM; Insecure takes any certificate. (--engine-ca, --engine-insecure)
	CA       string
	Insecure bool
	// Timeout is how long a server of OpenAI's API may send nothing while a request
	// waits for it. Default 2 min. (--engine-timeout)
	Timeout time.Duration
	// Events, Replay and Topic say where the server publishes its KV events, where
	// it does not say so itself. (--engine-events, --engine-replay, --engine-topic)
	Events, Replay, Topic string
}

// tlsConfig is how the server is told apart from others; nil is as usual.
func (f *ForeignConfig) tlsConfig() (*tls.Config, error) {
	if f.CA == "" && !f.Insecure {
		return nil, nil
	}
	for _, u := range append([]string{f.URL}, f.MoreURLs...) {
		if !strings.HasPrefix(u, "https://") {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--engine-ca and --engine-insecure are for an --engine-url that begins with https://, not for %q", u)}
		}
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.Insecure}
	if f.CA != "" {
		pem, err := readBounded(f.CA, maxConfigBytes)
		if err != nil {
			return nil, fmt.Errorf("--engine-ca: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--engine-ca: " + f.CA + " holds no PEM certificate"}
		}
	}
	return t, nil
}

// attached is n as the engine with a number from 0 on has it: each attaches to a
// server of its own, where there are several.
func (n *Node) attached(i int) *Node {
	if i == 0 || len(n.cfg.Foreign.MoreURLs) == 0 {
		return n
	}
	own := *n
	own.cfg.Foreign.URL = n.cfg.Foreign.MoreURLs[i-1]
	return &own
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
	c.EventsEndpoint, c.ReplayEndpoint, c.Topic, c.Role = f.Events, f.Replay, f.Topic, n.cfg.Worker.Role
	if kv != nil {
		c.Events = kv.Publish
	}
	c.Dial = n.cfg.Cluster.Dial
	c.Logger, c.Metrics = n.cfg.Logger, n.vllm()
	if n.cfg.EngineLine != nil {
		c.Progress = n.cfg.EngineLine
	}
	var err error
	if c.TLS, err = f.tlsConfig(); err != nil {
		return nil, err
	}
	e, err := vllm.New(c)
	if err != nil {
		return nil, err
	}
	if err := e.Ready(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	card := e.Card()
	return &hosted{engine: e, card: card, meta: meta, run: e.Run, close: e.Close, load: e.Load, kvBlocks: e.Info().KVBlocks, ranks: e.Info().Ranks, stepTokens: e.Info().StepTokens, ready: Ready{Card: card},
		adapters: func() []string { return e.Card().Adapters }}, nil
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
	var err error
	if c.TLS, err = f.tlsConfig(); err != nil {
		return nil, err
	}
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
