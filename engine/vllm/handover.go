package vllm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// A server with a KV connector computes a prompt for another: it is asked for one id,
// keeps the KV of the prompt, and says in kv_transfer_params how the other gets it, which
// is sent the prompt and these words. The other draws the first id again, so that the one
// which came is used by nobody.
//
// The words are good once, and for as long as the server keeps the KV: later it gives the
// blocks to others, and who fetches them then gets other KV, of which neither server says
// a word to whoever asked.

// handover is what this package says of KV that a server keeps (dynamo.Chunk.Handover):
// a JSON object.
type handover struct {
	Engine string `json:"engine"` // engineName
	// Tokens is the length of the prompt whose KV it is.
	Tokens int `json:"tokens"`
	// At is when the server had computed it, in milliseconds of the Unix epoch.
	At int64 `json:"at_ms"`
	// Lease is for how long it keeps it at the least, in milliseconds.
	Lease int64 `json:"lease_ms"`
	// Params are the server's own words.
	Params jsontext.Value `json:"params"`
}

const engineName = "vllm"

// askToKeep is what a server is told that is to compute a prompt for another.
const askToKeep = `{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}`

// nixlParams are the words of NixlConnector without which a server that is told the others
// ends.
type nixlParams struct {
	Prefill bool           `json:"do_remote_prefill"`
	Decode  bool           `json:"do_remote_decode"`
	Blocks  jsontext.Value `json:"remote_block_ids"`
	Engine  string         `json:"remote_engine_id"`
	Request jsontext.Value `json:"remote_request_id"` // older versions have none
	Host    string         `json:"remote_host"`
	Port    int            `json:"remote_port"`
}

// checkParams finds out whether a server can be given b as transfer parameters: the words
// of a server that keeps KV for another. No name is there twice, of which a server might
// read the other.
func checkParams(b []byte) error {
	var p nixlParams
	switch b = bytes.TrimSpace(b); {
	case len(b) == 0:
		return errors.New("there are none")
	case b[0] != '{':
		return errors.New("they are no JSON object")
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return errors.New("they are not in the form of NixlConnector")
	}
	switch {
	case !p.Prefill || p.Decode:
		return errors.New("they are no words of a server that keeps KV for another")
	case p.Engine == "" || p.Host == "" || p.Port < 1 || p.Port > math.MaxUint16 || len(p.Request) > 0 && (p.Request.Kind() != '"' || string(p.Request) == `""`):
		return errors.New("they do not say where the KV is")
	case !blocksNamed(p.Blocks):
		return errors.New("they name no blocks")
	}
	return nil
}

// blocksNamed reports whether b lists the numbers of blocks, or several such lists, one of
// each group of layers: newer versions have groups.
func blocksNamed(b []byte) bool {
	var groups [][]uint32
	var flat []uint32
	if json.Unmarshal(b, &groups) != nil {
		return json.Unmarshal(b, &flat) == nil && len(flat) > 0
	}
	return slices.ContainsFunc(groups, func(g []uint32) bool { return len(g) > 0 })
}

// brought returns what the server is told of KV that is elsewhere, and how long its
// answer may take to begin; nil: nothing, and it computes the prompt.
func (a *answer) brought(ctx context.Context) (params []byte, within time.Duration) {
	r := a.r
	if len(r.Handover) == 0 || a.e.config.Role != engine.RoleDecode {
		return nil, 0
	}
	var h handover
	var why string
	if err := json.Unmarshal(r.Handover, &h); err != nil || h.Engine != engineName {
		why = "it is none of a vLLM server's"
	} else if age, lease := time.Since(time.UnixMilli(h.At)), leaseOf(h.Lease); age > lease/2 || age < -handoverSkew {
		why = "it is too old, or of another clock"
	} else if within = lease*5/6 - max(age, 0); lease <= 0 {
		why = "it is kept for no time"
	} else if h.Tokens != len(r.Tokens)+len(r.Resume) {
		why = "it is of another prompt"
	} else if err := checkParams(h.Params); err != nil {
		why = err.Error()
	}
	if why == "" {
		return h.Params, within
	}
	a.e.config.Metrics.handover(handoverUnfit)
	a.e.log.LogAttrs(ctx, slog.LevelDebug, "a handover of no use; the prompt is computed here", slog.String(obs.KeyRequest, string(r.ID)), slog.String("reason", why))
	return nil, 0
}

// leaseOf is a lease in milliseconds, as another process says, within what is believed.
func leaseOf(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), maxLease.Milliseconds())) * time.Millisecond
}

// ask has the server answer, with KV from elsewhere if there is some that it can get.
func (a *answer) ask(ctx context.Context) error {
	if a.keeps {
		return a.prefill(ctx)
	}
	if params, within := a.brought(ctx); params != nil {
		if again, err := a.fetching(ctx, params, within); !again {
			return err
		}
	}
	return a.answered(ctx, nil)
}

// answered asks the server and reads its answer.
func (a *answer) answered(ctx context.Context, params []byte) error {
	resp, err := a.post(ctx, eventStream, func(priority bool) []byte { return a.d.requestBody(a.r, priority, params) })
	if err != nil {
		return err
	}
	err = a.read(ctx, resp)
	resp.Body.Close() // an answer that is not at its end ends with its connection
	return err
}

// fetching is answered with KV from elsewhere. again says that it came to nothing, and
// that the server is to compute the prompt. An answer that begins while the KV is kept for
// certain was begun with that KV; of one that begins later nobody knows.
func (a *answer) fetching(ctx context.Context, params []byte, limit time.Duration) (again bool, err error) {
	m := a.e.config.Metrics
	m.handover(handoverTaken)
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.fetch = time.AfterFunc(limit, func() {
		cancel(&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the vLLM server did not begin to answer while the KV was kept for certain"})
	})
	defer a.fetch.Stop()
	err = a.answered(within, params)
	if err == nil || ctx.Err() != nil || a.began || a.stopped || a.came > 0 {
		return false, err
	}
	if _, gone := engine.Lost(err); gone {
		return false, err
	}
	m.handover(handoverFailed)
	a.e.log.LogAttrs(ctx, slog.LevelWarn, "the vLLM server does not get the KV of a prompt from where it was computed, and computes it again; see that it reaches the side channel (VLLM_NIXL_SIDE_CHANNEL_HOST) of the other",
		slog.String(obs.KeyRequest, string(a.r.ID)), slog.Any(obs.KeyError, err))
	a.finish, a.usage = dynamo.FinishNone, false
	return true, nil
}

// prefill has the server compute the prompt and keep its KV, and says where that is.
func (a *answer) prefill(ctx context.Context) error {
	if a.e.keepsNone.Load() {
		return keepsNoKV()
	}
	resp, err := a.post(ctx, jsonPage, func(priority bool) []byte { return a.d.prefillBody(a.r, priority) })
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	at := time.Now()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxFrame+1))
	var f frame
	switch {
	case ctx.Err() != nil:
		return engine.ContextError(ctx)
	case err != nil:
		return ended(ctx, err)
	case len(b) > maxFrame || !f.parse(b, 0):
		return corrupt("answered a prompt with %q", excerpt(b))
	}
	if _, err := a.settle(&f); err != nil {
		return err
	}
	if err := a.check(&f); err != nil {
		return err
	}
	if a.finish == dynamo.FinishNone {
		return corrupt("did not end the answer of a prompt: %q", excerpt(b))
	}
	if err := checkParams(f.transfer); err != nil { // none, or those of another connector
		a.e.config.Metrics.handover(handoverNone)
		if a.e.keepsNone.CompareAndSwap(false, true) {
			a.e.log.Error("the vLLM server says nothing of use about KV that it keeps for others, and is asked for no prompts of theirs any more; start it with --kv-transfer-config '"+transferArgument(engine.RolePrefill)+"', and this worker again",
				obs.KeyAddress, a.d.base, "said", excerpt(f.transfer), obs.KeyError, err)
		}
		return keepsNoKV()
	}
	return a.hand(&f, at)
}

// hand yields where the server keeps the KV. It is kept until it is fetched, or as long as
// the server keeps what nobody fetches.
func (a *answer) hand(f *frame, at time.Time) error {
	prompt := len(a.r.Tokens)
	h := handover{Engine: engineName, Tokens: prompt + len(a.r.Resume), At: at.UnixMilli(), Lease: a.d.info.Lease.Milliseconds(), Params: f.transfer}
	b, err := json.Marshal(&h)
	if err != nil || len(b) > engine.MaxHandoverBytes {
		return corrupt("needs %d bytes to say what KV it keeps; %d are possible", len(b), engine.MaxHandoverBytes)
	}
	a.e.config.Metrics.handover(handoverKept)
	a.yield(dynamo.Chunk{
		Choice: a.r.Choice, Handover: b, Finish: dynamo.FinishLength,
		Usage: dynamo.Usage{Prompt: prompt, Cached: min(a.cached, prompt), Completion: len(a.r.Resume)},
	}, nil)
	return nil
}

func keepsNoKV() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the vLLM server keeps no KV for others that it can tell of: start it with --kv-transfer-config"}
}

// transferArgument makes the value of --kv-transfer-config for a server of that role.
func transferArgument(role string) string {
	if role == engine.RolePrefill {
		return `{"kv_connector":"NixlConnector","kv_role":"kv_producer"}`
	}
	return `{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}`
}

// The types of page that a server is asked for.
const (
	eventStream = "text/event-stream"
	jsonPage    = "application/json"
)

// prefillBody is requestBody for a server that computes the prompt alone. The id that it
// draws says nothing of the answer's first, so that it may be any.
func (d *discovered) prefillBody(r *dynamo.Request, priority bool) []byte {
	w := d.begin(r, priority)
	w.raw("stream", "false")
	w.raw("kv_transfer_params", askToKeep)
	d.openSampling(w)
	w.raw("max_tokens", "1")
	w.raw("ignore_eos", "true")
	w.raw("temperature", "0")
	return d.finish(w)
}
