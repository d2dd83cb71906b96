package vllm

import (
	"context"
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo/obs"
)

// listed is one entry of /v1/models: a name of the base model, or an adapter, which
// has the base model for its parent.
type listed struct {
	ID     string
	Root   string
	Parent string
	Length int `json:"max_model_len"`
}

// listModels reads /v1/models.
func (e *Engine) listModels(ctx context.Context, base string) ([]listed, error) {
	var page struct{ Data []listed }
	if err := e.ask(ctx, base, "/v1/models", &page); err != nil {
		return nil, err
	}
	if len(page.Data) == 0 || len(page.Data) > maxModels {
		return nil, corrupt("at %s lists %d models; one at least is expected", base, len(page.Data))
	}
	return page.Data, nil
}

// adapters returns the names of the adapters in page that requests can reach, and a
// note on those that they cannot: the server takes a name that its base model has
// for the base model.
func adapters(page []listed) (names []string, note string) {
	left := 0
	for _, m := range page {
		if m.Parent == "" {
			continue
		}
		base := slices.ContainsFunc(page, func(b listed) bool { return b.Parent == "" && b.ID == m.ID })
		if base || m.ID == "" || len(m.ID) > maxAdapterName {
			left++
			continue
		}
		names = append(names, m.ID)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if n := len(names); n > maxAdapters {
		left += n - maxAdapters
		names = names[:maxAdapters]
	}
	if left > 0 {
		note = fmt.Sprintf("%d of its LoRA adapters cannot be asked for: at most %d are, with names of at most %d bytes that are not the model's own", left, maxAdapters, maxAdapterName)
	}
	return slices.Clip(names), note
}

// lookForAdapters finds out which adapters the server has by now. One that does not
// answer as it should keeps those it had: whether it is still the same is found out
// elsewhere.
func (e *Engine) lookForAdapters(ctx context.Context, d *discovered) {
	page, err := e.listModels(ctx, d.base)
	if err != nil {
		e.log.Debug("the adapters are not known anew", obs.KeyAddress, d.base, obs.KeyError, err)
		return
	}
	names, _ := adapters(page) // whoever starts a server is told of the note
	e.setAdapters(names)
}

// setAdapters makes names those of the card. Requests in progress go on.
func (e *Engine) setAdapters(names []string) {
	for {
		d := e.found.Load()
		if slices.Equal(d.card.Adapters, names) {
			return
		}
		next := *d
		next.card.Adapters, next.info.Adapters = names, names
		if e.found.CompareAndSwap(d, &next) {
			e.log.Info("the server's LoRA adapters have changed", obs.KeyAddress, d.base, "adapters", len(names))
			return
		}
	}
}
