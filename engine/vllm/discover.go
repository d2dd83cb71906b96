package vllm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// The server's pages.
const (
	pageGenerate    = "/inference/v1/generate"
	pageCompletions = "/v1/completions"
)

// discovered is what was found out of a server; it does not change.
type discovered struct {
	base        string // URL without a path
	info        Info
	card        engine.Card
	names       metricNames
	ranks       []rank
	maxLogprobs int // the most alternatives that the server returns
}

// rank is a data-parallel engine behind the server.
type rank struct{ number, blocks int }

// blocksOf returns the size of the KV cache of a rank, by its label in the metrics.
func (d *discovered) blocksOf(engine string) int {
	for _, r := range d.ranks {
		if strconv.Itoa(r.number) == engine || len(d.ranks) == 1 {
			return r.blocks
		}
	}
	return 0
}

func (d *discovered) page() string {
	if d.info.TokensInOut {
		return pageGenerate
	}
	return pageCompletions
}

// statusError is a page's answer that is not 200.
type statusError struct {
	page   string
	status int
	body   []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.page, e.status, excerpt(e.body))
}

// get reads a page.
func (e *Engine) get(ctx context.Context, base, page string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+page, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", page, err)
	}
	e.authorize(req)
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err == nil && len(b) > maxPage {
		err = corrupt("answered %s with more than %d bytes", page, maxPage)
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &statusError{page, resp.StatusCode, b}
	}
	return b, err
}

func (e *Engine) authorize(req *http.Request) {
	if e.config.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+e.config.APIKey)
	}
}

// ask reads a page of JSON within askTimeout.
func (e *Engine) ask(ctx context.Context, base, page string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := e.get(ctx, base, page)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return corrupt("answered %s with %q, which is no JSON of the form expected; is it a vLLM server?", page, excerpt(b))
	}
	return nil
}

// discover finds out what the server at base is. An error of KindInvalid says that
// it will not do; others, that it may answer later.
func (e *Engine) discover(ctx context.Context, base string) (*discovered, error) {
	d := &discovered{base: base, names: currentNames, maxLogprobs: defaultLogprobs}
	steps := []func(context.Context, *discovered) error{e.askVersion, e.askModels, e.askMetrics, e.askRoute, e.askSources}
	for _, step := range steps {
		if err := step(ctx, d); err != nil {
			return nil, err
		}
	}
	if d.info.TokensInOut && e.config.Role != "" && passesNoParams(d.info.Version) {
		d.info.TokensInOut = false
		d.info.Notes = append(d.info.Notes, "completions are asked, which pass transfer parameters on")
	}
	e.describe(d, e.askConfig(ctx, d))
	if err := e.checkConnector(d); err != nil {
		return nil, err
	}
	return d, nil
}

func (e *Engine) askVersion(ctx context.Context, d *discovered) error {
	var v struct{ Version string }
	if err := e.ask(ctx, d.base, "/version", &v); err != nil {
		var status *statusError
		if keyRefused(err) {
			return e.wantsKey(d.base)
		}
		if errors.As(err, &status) && status.status == http.StatusNotFound || dynamo.KindOf(err) == dynamo.KindCorrupt {
			return invalid("the server at %s is no vLLM: it has no /version (%v); for another server of OpenAI's API use --engine openai", d.base, err)
		}
		return err
	}
	notes, err := examine(v.Version)
	d.info.Version, d.info.Notes = v.Version, notes
	return err
}

// keyRefused reports whether a page was refused to somebody without the right key.
func keyRefused(err error) bool {
	var status *statusError
	return errors.As(err, &status) && (status.status == http.StatusUnauthorized || status.status == http.StatusForbidden)
}

func (e *Engine) wantsKey(base string) error {
	what := "an API key"
	if e.config.APIKey != "" {
		what = "another API key than the one it was given"
	}
	return invalid("the server at %s wants %s: --engine-api-key", base, what)
}

func (e *Engine) askModels(ctx context.Context, d *discovered) error {
	page, err := e.listModels(ctx, d.base)
	if err != nil {
		if keyRefused(err) {
			return e.wantsKey(d.base)
		}
		return err
	}
	for _, m := range page {
		d.info.Models = append(d.info.Models, m.ID)
		if m.Parent == "" && (d.info.Model == "" || m.ID == e.config.Name) {
			d.info.Model, d.info.Root, d.info.ContextLength = m.ID, m.Root, m.Length
		}
	}
	if d.info.Model == "" || d.info.ContextLength < 1 {
		return corrupt("at %s lists the models %s, none of which is a base model with a length", d.base, strings.Join(d.info.Models, ", "))
	}
	var note string
	if d.info.Adapters, note = adapters(page); note != "" {
		d.info.Notes = append(d.info.Notes, note)
	}
	return nil
}

// askMetrics reads the layout of the KV cache, which nothing else tells.
func (e *Engine) askMetrics(ctx context.Context, d *discovered) error {
	page, err := e.readMetrics(ctx, d)
	if err != nil && e.config.BlockSize == 0 {
		return fmt.Errorf("read the block size from the metrics of the vLLM server (or give it with --kv-cache-block-size): %w", err)
	}
	samples(page, d.names.config, func(_, labels, _ string) {
		r := rank{number: len(d.ranks)}
		if n, err := strconv.Atoi(label(labels, "engine")); err == nil && n >= 0 && n < maxRanks {
			r.number = n
		}
		d.info.BlockSize, _ = strconv.Atoi(label(labels, "block_size")) // 0 is found below
		if n, err := strconv.Atoi(label(labels, "num_gpu_blocks")); err == nil && n > 0 {
			r.blocks = n
		}
		d.info.KVBlocks += r.blocks
		d.ranks = append(d.ranks, r)
		d.info.PrefixCaching = label(labels, "enable_prefix_caching") == "True"
		d.info.HashAlgorithm = label(labels, "prefix_caching_hash_algo")
	})
	want := e.config.BlockSize
	switch {
	case d.info.BlockSize == 0 && want > 0:
		d.info.BlockSize = want
	case d.info.BlockSize < 1 || d.info.BlockSize > maxBlockSize:
		return invalid("the metrics of the vLLM server at %s tell no block size (%s); give it with --kv-cache-block-size", d.base, d.names.config)
	case want > 0 && want != d.info.BlockSize:
		return invalid("the vLLM server at %s has KV blocks of %d tokens, --kv-cache-block-size is %d: start vLLM with --block-size %d, or leave the option out", d.base, d.info.BlockSize, want, want)
	}
	if len(d.ranks) == 0 {
		d.ranks = []rank{{}}
	}
	if d.info.Ranks = len(d.ranks); d.info.Ranks > maxRanks {
		return corrupt("claims %d ranks", d.info.Ranks)
	}
	return nil
}

// askRoute finds out whether /inference/v1/generate is on, by a request that cannot
// be served.
func (e *Engine) askRoute(ctx context.Context, d *discovered) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+pageGenerate, bytes.NewReader([]byte("{}")))
	if err != nil {
		return fmt.Errorf("ask %s: %w", pageGenerate, err)
	}
	e.authorize(req)
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxFaultBytes))
	switch code := resp.StatusCode; {
	case code >= http.StatusInternalServerError:
		return &statusError{page: pageGenerate, status: code}
	case code == http.StatusBadRequest, code == http.StatusUnprocessableEntity:
		d.info.TokensInOut = true
	case code == http.StatusUnauthorized:
		return e.wantsKey(d.base)
	default:
		d.info.Notes = append(d.info.Notes, pageGenerate+" is off: completions are asked, whose text is made for nothing; start vLLM with --enable-scale-out")
	}
	return err
}

// askSources finds out where KV events are published: from the server, where it
// says so, else from the configuration.
func (e *Engine) askSources(ctx context.Context, d *discovered) error {
	var page map[string]struct {
		Enabled   bool   `json:"enable_kv_cache_events"`
		Publisher string `json:"publisher"`
		Endpoint  string `json:"endpoint"`
		Replay    string `json:"replay_endpoint"`
		Topic     string `json:"topic"`
	}
	err := e.ask(ctx, d.base, "/kv_event_sources", &page)
	if ctx.Err() != nil {
		return err
	}
	if err == nil && len(page) <= maxRanks && e.config.EventsEndpoint == "" {
		d.info.EventsAsked = true
		for name, s := range page {
			rank, err := strconv.Atoi(name)
			if err != nil || rank < 0 || rank >= maxRanks || !s.Enabled || s.Publisher != "zmq" || s.Endpoint == "" {
				continue
			}
			if !reachable(s.Endpoint) {
				d.info.Notes = append(d.info.Notes, unreachable(s.Endpoint))
				continue
			}
			d.info.Sources = append(d.info.Sources, Source{rank, reach(s.Endpoint, d.base), reach(s.Replay, d.base), s.Topic})
		}
		slices.SortFunc(d.info.Sources, func(a, b Source) int { return a.Rank - b.Rank })
	} else if e.events.endpoint != "" {
		for _, r := range d.ranks {
			d.info.Sources = append(d.info.Sources, e.events.forRank(r.number, d.base))
		}
		slices.SortFunc(d.info.Sources, func(a, b Source) int { return a.Rank - b.Rank })
	}
	switch {
	case e.config.Events == nil:
	case len(d.info.Sources) == 0:
		d.info.Notes = append(d.info.Notes, "it publishes no KV events, or does not say where: requests cannot be routed by its cache; start vLLM with --kv-events-config, or give --engine-events")
	case d.info.Sources[0].ReplayEndpoint == "":
		d.info.Notes = append(d.info.Notes, `its KV events cannot be replayed: a missed one forgets the whole cache; add "replay_endpoint" to --kv-events-config`)
	}
	return nil
}

// reachable reports whether a server of that endpoint lets others connect to it,
// rather than connect itself or speak within its process only.
func reachable(endpoint string) bool {
	return strings.HasPrefix(endpoint, "ipc://") || strings.HasPrefix(endpoint, "tcp://") && (strings.Contains(endpoint, "*") || strings.Contains(endpoint, "::"))
}

func unreachable(endpoint string) string {
	return fmt.Sprintf("it sends its KV events to %s, where nobody listens for them: give an endpoint with a * in --kv-events-config, such as tcp://*:5557", endpoint)
}

// reach replaces a host that means every interface by the server's.
func reach(endpoint, base string) string {
	rest, tcp := strings.CutPrefix(endpoint, "tcp://")
	host, port, err := net.SplitHostPort(rest)
	if !tcp || err != nil {
		return endpoint
	}
	u, err := url.Parse(base)
	if err != nil {
		return endpoint
	}
	switch host {
	case "*", "", "0.0.0.0", "::":
		return "tcp://" + net.JoinHostPort(u.Hostname(), port)
	}
	return endpoint
}

// askConfig asks a server in development mode for the type it computes in and the most
// tokens of a step. Others do not tell: the type is "auto" then, and the tokens unknown,
// or they are what a command says.
func (e *Engine) askConfig(ctx context.Context, d *discovered) (dtype string) {
	var page struct {
		Config struct {
			Model     struct{ Dtype string } `json:"model_config"`
			Scheduler struct {
				Tokens float64 `json:"max_num_batched_tokens"`
			} `json:"scheduler_config"`
			Transfer json.RawMessage `json:"kv_transfer_config"`
		} `json:"vllm_config"`
	}
	d.info.StepTokens, _ = strconv.Atoi(argument(e.config.Command.Args, "--max-num-batched-tokens"))
	// An error says that the server does not tell.
	err := e.ask(ctx, d.base, "/server_info?config_format=json", &page)
	if n := page.Config.Scheduler.Tokens; err == nil && n >= 1 && n <= maxStepTokens {
		d.info.StepTokens = int(n)
	}
	d.info.readConnector(page.Config.Transfer)
	if d.info.StepTokens < 0 || d.info.StepTokens > maxStepTokens {
		d.info.StepTokens = 0
	}
	if err == nil && page.Config.Model.Dtype != "" {
		return strings.TrimPrefix(page.Config.Model.Dtype, "torch.")
	}
	if v := argument(e.config.Command.Args, "--dtype"); v != "" {
		return v
	}
	return "auto"
}

// readConnector takes in what a server says of its KV connector, null if it has none.
func (i *Info) readConnector(b []byte) {
	var c struct {
		Connector string `json:"kv_connector"`
		Extra     struct {
			Lease float64 `json:"kv_lease_duration"` // seconds
		} `json:"kv_connector_extra_config"`
	}
	if i.Lease = defaultLease; len(b) == 0 || json.Unmarshal(b, &c) != nil {
		return
	}
	i.Connector, i.ConnectorAsked = c.Connector, true
	if s := c.Extra.Lease; s > 0 {
		i.Lease = time.Duration(min(s, maxLease.Seconds()) * float64(time.Second))
	}
}

// checkConnector finds out whether the server can have the role that it is given. One
// that hands nothing over would compute every prompt in vain.
func (e *Engine) checkConnector(d *discovered) error {
	if e.config.Role == "" || !d.info.ConnectorAsked || d.info.Connector != "" {
		return nil
	}
	what := "start it with --kv-transfer-config '" + transferArgument(e.config.Role) + "'"
	if e.config.Role == engine.RolePrefill {
		return invalid("the vLLM server at %s has no KV connector, so that it cannot compute prompts for others (--disaggregation-mode prefill): %s", d.base, what)
	}
	d.info.Notes = append(d.info.Notes, "it has no KV connector, and computes the prompts that prefill workers have computed again: "+what)
	return nil
}

// describe makes the card.
func (e *Engine) describe(d *discovered, dtype string) {
	d.info.Dtype = dtype
	identity := sha256.Sum256(fmt.Appendf(nil, "vllm %q %q %q", path.Base(d.info.Root), d.info.Version, dtype))
	name := e.config.Name
	if name == "" {
		name = d.info.Model
	}
	if argument(e.config.Command.Args, "--max-logprobs") == "" && e.config.Command.Path != "" {
		d.maxLogprobs++ // serveArgs asks for one more
	}
	length := d.info.ContextLength
	if e.config.ContextLength > 0 {
		length = min(length, e.config.ContextLength)
	}
	d.card = engine.Card{
		Model: name, Engine: engineName, Revision: hex.EncodeToString(identity[:]),
		ContextLength: length, BlockSize: d.info.BlockSize, VocabSize: e.config.VocabSize, EOS: slices.Clone(e.config.EOS),
		MaxTopLogprobs: maxTopLogprobs, Sampling: true, Resume: true, Guided: d.guidedKinds(), Adapters: d.info.Adapters,
		NumericClass: "vllm-" + d.info.Version + "-" + dtype, Role: e.config.Role,
	}
}

// same examines the server again and tells whether another has taken its place.
func (e *Engine) same(ctx context.Context, was *discovered) error {
	is, err := e.discover(ctx, was.base)
	switch {
	case err != nil && dynamo.KindOf(err) != dynamo.KindInvalid:
		return nil // it has gone again; its return is seen, too
	case err != nil:
		return err
	}
	for _, c := range []struct{ what, was, is string }{
		{"serves the model", was.info.Model, is.info.Model},
		{"was loaded from", was.info.Root, is.info.Root},
		{"is vLLM", was.info.Version, is.info.Version},
		{"computes in", was.info.Dtype, is.info.Dtype},
		{"has KV blocks in tokens of", strconv.Itoa(was.info.BlockSize), strconv.Itoa(is.info.BlockSize)},
		{"has a context in tokens of", strconv.Itoa(was.info.ContextLength), strconv.Itoa(is.info.ContextLength)},
		{"publishes KV events at", fmt.Sprint(was.info.Sources), fmt.Sprint(is.info.Sources)},
	} {
		if c.was != c.is {
			return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf(
				"the server at %s is another one than before: it %s %s, and was: %s; restart this worker to serve it", was.base, c.what, c.is, c.was)}
		}
	}
	if was.info.TokensInOut != is.info.TokensInOut || was.info.KVBlocks != is.info.KVBlocks {
		next := *is
		next.card = was.card
		next.card.Adapters = is.card.Adapters
		e.found.Store(&next)
		e.log.Info("the server came back with another configuration", obs.KeyAddress, was.base, "tokens_in_out", is.info.TokensInOut, "kv_blocks", is.info.KVBlocks)
	}
	e.setAdapters(is.info.Adapters)
	return nil
}
