package vllm

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// body writes what a server is asked for r: the prompt, what was generated already
// as the prompt's end, and every parameter of the sampling, so that the server's
// own defaults (a model's generation_config.json) have no say. Nothing but what
// stands here reaches a server.
type body struct {
	b     []byte
	first bool
}

// requestBody returns the request's body for one of the two routes. params are what the
// server is told of KV that is elsewhere; nil: nothing.
func (d *discovered) requestBody(r *dynamo.Request, priority bool, params []byte) []byte {
	w := d.begin(r, priority)
	w.raw("stream", "true")
	w.raw("stream_options", `{"include_usage":true}`)
	if params != nil {
		w.raw("kv_transfer_params", string(params))
	}
	d.openSampling(w)
	w.sampling(d, r)
	return d.finish(w)
}

// begin writes what comes before the parameters of the sampling, whatever the server is
// to do with the prompt.
func (d *discovered) begin(r *dynamo.Request, priority bool) *body {
	w := &body{b: make([]byte, 0, 512+8*(len(r.Tokens)+len(r.Resume))+len(r.Guided.Value)), first: true}
	w.b = append(w.b, '{')
	model := d.info.Model
	if r.Adapter != "" {
		model = r.Adapter
	}
	w.text("model", model)
	if d.info.TokensInOut {
		w.ids("token_ids", r.Tokens, r.Resume)
	} else {
		w.ids("prompt", r.Tokens, r.Resume)
		w.raw("return_token_ids", "true")
		w.raw("return_tokens_as_token_ids", "true")
		w.raw("skip_special_tokens", "false")
	}
	if r.Namespace != "" {
		w.text("cache_salt", r.Namespace)
	}
	if priority && r.Priority != 0 && r.Priority != math.MinInt {
		w.integer("priority", -r.Priority) // theirs runs the lower earlier
	}
	return w
}

// openSampling goes to where the route has the parameters of the sampling, and finish
// ends the body behind them.
func (d *discovered) openSampling(w *body) {
	if d.info.TokensInOut {
		w.name("sampling_params")
		w.b, w.first = append(w.b, '{'), true
		w.raw("detokenize", "false")
	}
}

func (d *discovered) finish(w *body) []byte {
	if d.info.TokensInOut {
		w.b = append(w.b, '}')
	}
	return append(w.b, '}')
}

func (w *body) sampling(d *discovered, r *dynamo.Request) {
	s := &r.Sampling
	w.integer("max_tokens", engine.Room(&d.card, r))
	// The id that ends an answer may be the MinTokens-th; theirs may only follow it.
	if n := r.MinTokens - 1 - len(r.Resume); n > 0 {
		w.integer("min_tokens", n)
	}
	w.raw("ignore_eos", strconv.FormatBool(r.IgnoreEOS))
	if r.IgnoreEOS {
		w.ids("stop_token_ids", r.StopTokens, nil)
	} else {
		w.ids("stop_token_ids", r.StopTokens, d.card.EOS)
	}
	w.real("temperature", s.Temperature)
	w.real("top_p", orOne(s.TopP))
	w.integer("top_k", s.TopK)
	w.real("min_p", s.MinP)
	w.real("presence_penalty", s.PresencePenalty)
	w.real("frequency_penalty", s.FrequencyPenalty)
	w.real("repetition_penalty", orOne(s.RepetitionPenalty))
	if s.Temperature > 0 && s.Seeded { // each seed costs the server a generator of its own
		w.seed(s.Seed, r.Choice)
	}
	if len(s.LogitBias) > 0 {
		w.bias(s.LogitBias)
	}
	if s.Logprobs {
		w.integer("logprobs", d.askedLogprobs(s.TopLogprobs))
	}
	if r.Guided.Kind != "" {
		w.guided(d, &r.Guided)
	}
}

// askedLogprobs is how many alternatives the server is asked for so that top of
// them come back. /inference/v1/generate counts the drawn id, whatever its rank,
// as one of them.
func (d *discovered) askedLogprobs(top int) int {
	if d.info.TokensInOut && top > 0 {
		return min(top+1, d.maxLogprobs)
	}
	return top
}

// seed gives each choice a seed of its own; the first has the request's, as far as
// theirs is a positive 64-bit integer.
func (w *body) seed(seed uint64, choice int) {
	seed += uint64(choice) * 0x9e3779b97f4a7c15
	w.name("seed")
	w.b = strconv.AppendUint(w.b, seed&math.MaxInt64, 10)
}

func (w *body) bias(list []dynamo.LogitBias) {
	w.name("logit_bias")
	w.b = append(w.b, '{')
	for i, l := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, '"')
		w.b = strconv.AppendUint(w.b, uint64(l.ID), 10)
		w.b = append(w.b, '"', ':')
		w.b = strconv.AppendFloat(w.b, float64(l.Bias), 'g', -1, 32)
	}
	w.b = append(w.b, '}')
}

func (w *body) name(name string) {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *body) raw(name, value string) {
	w.name(name)
	w.b = append(w.b, value...)
}

func (w *body) text(name, value string) {
	quoted, err := json.Marshal(value)
	if err != nil {
		panic("BUG: vllm: a string that JSON cannot hold: " + err.Error())
	}
	w.raw(name, string(quoted))
}

func (w *body) integer(name string, value int) {
	w.name(name)
	w.b = strconv.AppendInt(w.b, int64(value), 10)
}

func (w *body) real(name string, value float32) {
	w.name(name)
	w.b = strconv.AppendFloat(w.b, float64(value), 'g', -1, 32)
}

func (w *body) ids(name string, lists ...[]dynamo.TokenID) {
	w.name(name)
	w.b = append(w.b, '[')
	comma := false
	for _, list := range lists {
		for _, id := range list {
			if comma {
				w.b = append(w.b, ',')
			}
			comma = true
			w.b = strconv.AppendUint(w.b, uint64(id), 10)
		}
	}
	w.b = append(w.b, ']')
}

func orOne(v float32) float32 {
	if v == 0 {
		return 1
	}
	return v
}
