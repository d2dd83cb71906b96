package frontend

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/router/placement"
)

// serveChat is POST /v1/chat/completions.
func (s *Server) serveChat(w http.ResponseWriter, r *http.Request) {
	x, ok := s.begin(w, r, endpointChat)
	defer x.finish()
	if !ok {
		return
	}
	if err := x.chat(); err != nil {
		x.fail(err)
	}
}

func (x *exchange) chat() error {
	// Life 1: frontend reads and decodes the body within its limits, gives the request its id, and derives the tenant's cache namespace
	body, err := x.body()
	if err != nil {
		return err
	}
	r, err := openai.DecodeChat(body)
	if err != nil {
		return err
	}
	if err := x.accept(&r.Params, 0); err != nil {
		return err
	}
	defer x.leave()
	return x.admitted(func() error {
		ids := r.TokenData
		if len(ids) == 0 {
			_, span := x.s.config.Tracer.Start(x.ctx, "preprocess")
			ids, err = x.conversation(&r.Conversation, r.AddSpecial.Or(false))
			span.End(err)
			if err != nil {
				return err
			}
		}
		r.Conversation = openai.Conversation{} // so that the body is not held while the answer is made
		g := &generation{
			exchange:    x,
			params:      &r.Params,
			answer:      openai.Answer{Route: openai.RouteChat, ID: "chatcmpl-" + x.id, Logprobs: r.Logprobs},
			prompts:     []prompt{{ids: ids}},
			topLogprobs: r.TopLogprobs,
			promptField: "messages",
		}
		return g.run()
	})
}

// accept settles which model a decoded request is for, and counts it.
func (x *exchange) accept(p *openai.Params, endpoint int) error {
	x.stream = p.Stream
	if err := x.serveBy(p.Model, p.CacheSalt); err != nil {
		return err
	}
	if err := x.route(p); err != nil {
		return err
	}
	x.s.asked.remember(x.id, x.tenant, x.name)
	x.limitTime()
	if p.Transfers > 0 {
		x.model.metrics.transfers.Add(float64(p.Transfers))
		x.s.log.Debug("transfer parameters of a client dropped", obs.KeyRequest, x.id, obs.KeyModel, x.label)
	}
	kind := 0
	if p.Stream {
		kind = 1
	}
	x.model.metrics.started[endpoint][kind].Inc()
	x.model.metrics.active.Inc()
	x.model.metrics.inflight.Inc()
	return nil
}

// route completes what is said about where the request is to run.
func (x *exchange) route(p *openai.Params) error {
	if err := p.TakeHeaders(x.r.Header); err != nil {
		return err
	}
	if p.Routing != nil && p.Routing.Overrides.Policy != "" {
		if _, known := placement.ParsePolicy(p.Routing.Overrides.Policy); !known {
			return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "nvext.router_config_override.policy", Message: fmt.Sprintf("there is no router policy %q; it must be one of %s", p.Routing.Overrides.Policy, strings.Join(placement.Policies(), ", "))}
		}
	}
	if x.tenant == "" {
		return nil
	}
	if p.Routing == nil {
		p.Routing = &dynamo.Routing{}
	}
	p.Routing.Tenant = x.tenant
	return nil
}

// leave undoes accept's counting of the request in progress.
func (x *exchange) leave() {
	x.model.metrics.active.Dec()
	x.model.metrics.inflight.Dec()
}

// serveCompletion is POST /v1/completions.
func (s *Server) serveCompletion(w http.ResponseWriter, r *http.Request) {
	x, ok := s.begin(w, r, endpointCompletion)
	defer x.finish()
	if !ok {
		return
	}
	if err := x.completion(); err != nil {
		x.fail(err)
	}
}

// defaultCompletionTokens bounds a completion that does not say max_tokens, as
// OpenAI does.
const defaultCompletionTokens = 16

func (x *exchange) completion() error {
	body, err := x.body()
	if err != nil {
		return err
	}
	r, err := openai.DecodeCompletion(body)
	if err != nil {
		return err
	}
	if err := x.accept(&r.Params, 1); err != nil {
		return err
	}
	defer x.leave()
	return x.admitted(func() error {
		g := &generation{
			exchange:    x,
			params:      &r.Params,
			answer:      openai.Answer{Route: openai.RouteCompletion, ID: "cmpl-" + x.id, Logprobs: r.Logprobs.Set},
			prompts:     make([]prompt, len(r.Prompts)),
			defaultMax:  defaultCompletionTokens,
			topLogprobs: r.Logprobs.Or(0),
			echo:        r.Echo,
			promptField: "prompt",
		}
		if err := g.takePrompts(r.Prompts); err != nil {
			return err
		}
		r.Prompts = nil // as above
		return g.run()
	})
}

// takePrompts encodes the prompts.
func (g *generation) takePrompts(prompts []openai.Prompt) (err error) {
	_, span := g.s.config.Tracer.Start(g.ctx, "preprocess")
	defer func() { span.End(err) }()
	for i := range prompts {
		if err := g.takePrompt(i, &prompts[i]); err != nil {
			return err
		}
	}
	return nil
}

// takePrompt encodes prompt i. Ids are used as they are; where its text is echoed
// they are decoded.
func (g *generation) takePrompt(i int, p *openai.Prompt) error {
	t := &g.prompts[i]
	if t.ids = p.Tokens; t.ids == nil {
		t.text = p.Text
		var err error
		t.ids, err = g.encode(g.promptField, p.Text, g.params.AddSpecial.Or(true))
		return err
	}
	if !g.echo {
		return nil
	}
	if err := g.checkIDs(t.ids); err != nil {
		return err
	}
	t.text = g.model.Tokenizer.Decode(t.ids, g.params.SkipSpecial)
	return nil
}

// checkIDs refuses ids outside the vocabulary before anything is done with them.
func (x *exchange) checkIDs(ids []dynamo.TokenID) error {
	for i, id := range ids {
		if int64(id) >= int64(x.model.Card.VocabSize) {
			return invalidID("prompt", i, id, x.model)
		}
	}
	return nil
}
