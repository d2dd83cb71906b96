package remoteapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Ready waits until the server answers, and returns an error if it does so in a
// way that will not do: it refuses the key or does not know the model. A server
// without a list of models is believed to know it. Its list tells what kind of server
// it is: requests are made for that.
func (e *Engine) Ready(ctx context.Context) error {
	for wait := readyPause; ; wait = min(2*wait, readyPauseMax) {
		err := e.look(ctx)
		if _, lost := engine.Lost(err); err == nil || !lost && dynamo.KindOf(err) != dynamo.KindInternal {
			return err
		}
		e.log.Debug("the server is not ready", obs.KeyError, err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(engine.ContextError(ctx), err)
		}
	}
}

// look asks for the models once.
func (e *Engine) look(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(e.config.Timeout, cancel)
	defer w.disarm()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+"/models", http.NoBody)
	if err != nil {
		return err
	}
	e.sign(q)
	response, err := e.client.Do(q)
	if err != nil {
		if ctx.Err() != nil {
			return engine.ContextError(ctx)
		}
		return e.unreachable(err)
	}
	body := &watched{response.Body, w}
	defer func() { _ = body.Close() }() // it has been read, or will not be
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil
	default:
		return e.refused(body, response)
	}
	b, err := io.ReadAll(io.LimitReader(body, maxListBytes))
	if err != nil {
		if ctx.Err() != nil {
			return engine.ContextError(ctx)
		}
		return e.unreachable(err)
	}
	return e.listed(b)
}

// listed looks for the model in the server's list.
func (e *Engine) listed(list []byte) error {
	var body struct {
		Data []struct {
			ID    string `json:"id"`
			Owner string `json:"owned_by"`
		} `json:"data"`
	}
	if err := json.Unmarshal(list, &body, jsontext.AllowDuplicateNames(true)); err != nil {
		return e.corrupt("its list of models cannot be read: " + said(string(list)))
	}
	var names []string
	for _, m := range body.Data {
		// Ollama lists a model with its tag.
		if m.ID == e.model || m.ID == e.model+":latest" {
			e.ownedBy(m.Owner)
			return nil
		}
		names = append(names, fmt.Sprintf("%q", said(m.ID)))
	}
	if len(names) == 0 {
		return nil // some list nothing and serve all the same
	}
	slices.Sort(names)
	more := ""
	if len(names) > maxNamed {
		more, names = fmt.Sprintf(" and %d more", len(names)-maxNamed), names[:maxNamed]
	}
	return &dynamo.Error{
		Kind: dynamo.KindNotFound, Code: "model_not_found",
		Message: fmt.Sprintf("the model's server at %s has no model %q; choose one of its own with --engine-model: %s%s", e.base, e.model, strings.Join(names, ", "), more),
	}
}

// ownedBy draws conclusions from who made the model's server, as its list has it.
func (e *Engine) ownedBy(owner string) {
	switch owner {
	case "vllm", "sglang":
		e.salts.Store(true)
	case "library": // Ollama's
		e.log.Warn("Ollama puts the model's own template around what /v1/completions is given, and takes no top_k, min_p, stop ids or logit bias there: make a model with TEMPLATE {{ .Prompt }} in its Modelfile, and ask for that with --engine-model", obs.KeyAddress, e.base, obs.KeyModel, e.model)
	}
}
