package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/tokens"
	"golang.org/x/sync/errgroup"
)

// generation is the part of an exchange in which an engine works.
type generation struct {
	*exchange
	params *openai.Params
	answer openai.Answer
	spec   textSpec
	// prompts are generated for at once; choice c of prompt p is choice p·n+c of
	// the answer.
	prompts []prompt
	// defaultMax bounds an answer that max_tokens does not; 0 leaves it to the
	// context.
	defaultMax  int
	topLogprobs int
	echo        bool // the prompt's text comes before the answer's
	promptField string

	firstSeen  atomic.Bool
	firstToken time.Duration // from the arrival; written by whoever set firstSeen, read at the end
	engine     *obs.Span     // the engine's work for all prompts
}

// prompt is one prompt and the state of its choices.
type prompt struct {
	text    string // for echo
	ids     []dynamo.TokenID
	request dynamo.Request
	texter  texter
}

// length is the prompt's number of tokens: that of its ids, unless the engine took
// it as text and has counted otherwise.
func (t *prompt) length() int {
	if n := t.texter.choices[0].prompt; n > 0 {
		return n
	}
	return len(t.ids)
}

// run checks the requests and generates.
func (g *generation) run() error {
	p := g.params
	g.spec = textSpec{
		tokenizer: g.model.Tokenizer, skipSpecial: p.SkipSpecial, includeStop: p.IncludeStop,
		textOnly: g.model.Card.TextOnly, minTokens: p.MinTokens, stops: newStops(p.Stop), stopTokens: p.StopTokens,
	}
	if g.answer.Route == openai.RouteCompletion {
		g.spec.before = g.model.word
	}
	g.answer.Created = g.arrived.Unix()
	g.answer.Model = cmp.Or(g.adapter, g.model.Card.Model)
	g.answer.Fingerprint = g.model.fingerprint
	g.answer.TokenBytes = g.model.Tokenizer.TokenBytes
	g.answer.TokensAsIDs = p.TokensAsIDs
	g.answer.TokenIDs = p.ReturnTokenIDs
	for i := range g.prompts {
		if err := g.prepare(i); err != nil {
			return err
		}
	}
	err := g.answered()
	if r := g.s.config.Recorder; r != nil {
		g.record(r, err)
	}
	return err
}

func (g *generation) answered() error {
	if g.stream {
		return g.streamed()
	}
	return g.whole()
}

// prepare fills in and checks the engine's request for a prompt.
func (g *generation) prepare(i int) error {
	p, t := g.params, &g.prompts[i]
	maxTokens := g.defaultMax
	if maxTokens == 0 {
		maxTokens = max(1, g.model.Card.ContextLength-len(t.ids))
	}
	t.request = dynamo.Request{
		ID: dynamo.RequestID(g.id), Model: g.model.Card.Model, Adapter: g.adapter, Tokens: t.ids,
		Sampling: g.sampling(), Guided: p.Guided, StopTokens: p.StopTokens, IgnoreEOS: p.IgnoreEOS,
		MaxTokens: p.MaxTokens.Or(maxTokens), MinTokens: p.MinTokens,
		Priority: p.Priority, Deadline: g.deadline, Routing: p.Routing, Namespace: g.namespace, Root: tokens.Root(g.adapter, g.namespace),
	}
	if len(g.prompts) > 1 {
		t.request.ID += dynamo.RequestID("-" + strconv.Itoa(i))
		if !p.Seed.Set {
			t.request.Sampling.Seed += uint64(i)
		}
	}
	if g.answer.TokenIDs && g.model.Card.TextOnly {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "return_token_ids", Message: "model " + g.model.Card.Model + " runs on an engine that returns text without token ids; leave return_token_ids out"}
	}
	if err := engine.Check(&g.model.Card, &t.request); err != nil {
		return g.blame(err)
	}
	t.request.N = p.N
	t.texter = texter{next: g.model.Engine, choices: make([]choice, p.N)}
	for c := range t.texter.choices {
		t.texter.choices[c].init(i*p.N+c, &g.spec)
		if p.ShowWorker || p.ShowTiming {
			t.texter.choices[c].trip = &engine.Trip{}
		}
	}
	g.model.metrics.input.Observe(float64(len(t.ids)))
	return nil
}

// blame names the client's own field in an error about the engine's request.
func (g *generation) blame(err error) error {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		return err
	}
	blamed := *e
	switch e.Param {
	case "prompt":
		blamed.Param = g.promptField
	case "guided":
		blamed.Param = g.params.GuidedBy
	}
	return &blamed
}

// leastTemperature is where division by the temperature stops making sense;
// below it the best token is taken, as in vLLM.
const leastTemperature = 1e-5

// sampling merges the request's values with the model's and OpenAI's defaults.
func (g *generation) sampling() dynamo.Sampling {
	p, d := g.params, &g.model.Defaults
	s := dynamo.Sampling{
		Temperature:       float32(p.Temperature.Or(d.Temperature.Or(1))),
		TopP:              float32(p.TopP.Or(d.TopP.Or(1))),
		TopK:              p.TopK.Or(d.TopK.Or(0)),
		MinP:              float32(p.MinP.Or(d.MinP.Or(0))),
		PresencePenalty:   float32(p.PresencePenalty.Or(0)),
		FrequencyPenalty:  float32(p.FrequencyPenalty.Or(0)),
		RepetitionPenalty: float32(p.RepetitionPenalty.Or(d.RepetitionPenalty.Or(1))),
		LogitBias:         p.LogitBias,
		Seed:              g.seed,
		Logprobs:          g.answer.Logprobs,
		TopLogprobs:       g.topLogprobs,
		PromptLogprobs:    g.echo && g.answer.Logprobs,
	}
	if p.Seed.Set {
		s.Seed, s.Seeded = uint64(p.Seed.Value), true
	}
	if s.Temperature < leastTemperature {
		s.Temperature = 0
	}
	if s.TopP == 0 {
		s.TopP = math.SmallestNonzeroFloat32 // 0 would mean off; asked for is the likeliest token alone
	}
	return s
}

// each generates for all prompts, giving every chunk to receive. The choices of
// one prompt come one chunk at a time; those of several prompts at once.
func (g *generation) each(receive func(t *prompt, chunk *dynamo.Chunk) error) error {
	var ctx context.Context
	ctx, g.engine = g.s.config.Tracer.Start(g.ctx, "generate")
	err := g.all(ctx, receive)
	if g.engine != nil {
		u := g.usage()
		g.engine.Set(slog.Int("prompt_tokens", u.Prompt), slog.Int("cached_tokens", u.Cached), slog.Int("output_tokens", u.Completion))
	}
	g.engine.End(err)
	return err
}

func (g *generation) all(ctx context.Context, receive func(t *prompt, chunk *dynamo.Chunk) error) error {
	if len(g.prompts) == 1 {
		return g.one(ctx, &g.prompts[0], receive)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallelPrompts)
	for i := range g.prompts {
		group.Go(func() error {
			if ctx.Err() != nil {
				return engine.ContextError(ctx)
			}
			return g.one(ctx, &g.prompts[i], receive)
		})
	}
	return group.Wait()
}

// one generates for one prompt. A panic beneath it ends the request with an
// error, wherever it runs, and not the server.
func (g *generation) one(ctx context.Context, t *prompt, receive func(*prompt, *dynamo.Chunk) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	open := len(t.texter.choices)
	var chunk dynamo.Chunk // one for all: receive's argument lies on the heap
	for next, err := range engine.Expand(&t.texter).Generate(ctx, &t.request) {
		if err != nil {
			return err
		}
		chunk = next
		g.observe(&t.texter.choices[chunk.Choice], &chunk)
		if err := receive(t, &chunk); err != nil {
			return err
		}
		if chunk.Finish != dynamo.FinishNone {
			open--
		}
	}
	if open > 0 {
		return errors.New("BUG: the engine's sequence ended before all choices did")
	}
	return nil
}

// observe counts a chunk.
func (g *generation) observe(c *choice, chunk *dynamo.Chunk) {
	m, n := g.model.metrics, len(chunk.Tokens)
	if chunk.Text != "" {
		n = 1 // at least
	}
	if n > 0 {
		now := time.Now()
		if c.first.IsZero() {
			c.first = now
		}
		switch {
		case !c.last.IsZero():
			m.interToken.Observe(now.Sub(c.last).Seconds() / float64(n))
		case g.firstSeen.CompareAndSwap(false, true):
			g.firstToken = now.Sub(g.arrived)
			m.firstToken.Observe(g.firstToken.Seconds())
			g.engine.Event("first token")
		}
		c.last = now
		c.counted += n
		m.outputTokens.Add(float64(n))
	}
	if chunk.Finish != dynamo.FinishNone {
		m.outputTokens.Add(float64(max(0, c.count-c.counted))) // of text that its engine counted otherwise
		m.output.Observe(float64(c.count))
	}
}

// fill puts what the client asked for beside the text into c's piece.
func (g *generation) fill(t *prompt, c *choice, chunk *dynamo.Chunk) {
	p := &c.piece
	if c.trip != nil && p.Finish != dynamo.FinishNone {
		p.Extension = g.extension(t, c)
	}
	if g.answer.TokenIDs {
		p.Tokens = chunk.Tokens
	}
	if g.answer.Logprobs {
		p.Logprobs = chunk.Logprobs
		// A stop id is not part of the text, so its logprob is not part of the
		// text's either.
		if n := len(p.Logprobs); n > 0 && n == len(chunk.Tokens) && p.Finish == dynamo.FinishStop && p.StopString == "" && !g.spec.includeStop {
			p.Logprobs = p.Logprobs[:n-1]
		}
	}
}

// extension says who served a choice that has ended, and in what time.
func (g *generation) extension(t *prompt, c *choice) *openai.Extension {
	x, prefill, decode := &openai.Extension{}, c.trip.Prefill, c.trip.Decode
	if prefill.Worker == 0 {
		prefill = decode
	}
	if g.params.ShowWorker && decode.Worker != 0 {
		x.Worker = &openai.ServedBy{Prefill: prefill.Worker, PrefillRank: prefill.Rank, Decode: decode.Worker, DecodeRank: decode.Rank}
	}
	if !g.params.ShowTiming {
		return x
	}
	length := cmp.Or(c.prompt, len(t.ids)) // the other choices' counts are their own goroutines'
	x.Timing = &openai.Timing{Received: g.arrived, Total: time.Since(g.arrived), HitRate: min(1, float64(c.cached)/float64(max(1, length)))}
	if !c.first.IsZero() {
		x.Timing.FirstToken = openai.Some(c.first.Sub(g.arrived))
	}
	if prefill.Worker == 0 {
		return x // nobody has said who serves it
	}
	x.Timing.PrefillWait = openai.Some(prefill.First.Sub(g.arrived))
	if !c.first.IsZero() {
		x.Timing.Prefill = openai.Some(c.first.Sub(prefill.First))
	}
	if c.trip.Waiting >= 0 {
		x.Timing.QueueDepth = openai.Some(c.trip.Waiting)
	}
	return x
}

// usage counts the whole answer.
func (g *generation) usage() openai.Usage {
	var u openai.Usage
	for i := range g.prompts {
		t := &g.prompts[i]
		u.Prompt += t.length()
		u.Cached += t.texter.choices[0].cached
		for c := range t.texter.choices {
			u.Completion += t.texter.choices[c].count
		}
	}
	return u
}

// succeeded counts the end of a request that was answered.
func (g *generation) succeeded() {
	g.done = true
	m, e, s := g.model.metrics, 0, 0
	if g.endpoint == endpointCompletion {
		e = 1
	}
	if g.stream {
		s = 1
	}
	m.succeeded[e][s].Inc()
	m.duration.Observe(time.Since(g.arrived).Seconds())
	for i := range g.prompts {
		m.cached.Observe(float64(g.prompts[i].texter.choices[0].cached))
	}
}

// whole answers with one JSON object.
func (g *generation) whole() error {
	wholes := make([]openai.Piece, len(g.prompts)*g.params.N)
	err := g.each(func(t *prompt, chunk *dynamo.Chunk) error {
		c := &t.texter.choices[chunk.Choice]
		g.fill(t, c, chunk)
		w := &wholes[c.piece.Index]
		if !c.started {
			c.started = true
			w.Index = c.piece.Index
			if g.echo {
				w.Text = append(w.Text, t.text...)
				w.Logprobs = keepLogprobs(w.Logprobs, chunk.PromptLogprobs)
			}
		}
		w.Text = append(w.Text, c.piece.Text...)
		w.Tokens = append(w.Tokens, c.piece.Tokens...)
		w.Logprobs = keepLogprobs(w.Logprobs, c.piece.Logprobs)
		w.Extension = c.piece.Extension
		w.Finish, w.StopString, w.StopToken = c.piece.Finish, c.piece.StopString, c.piece.StopToken
		return nil
	})
	if err != nil {
		return err
	}
	pieces := make([]*openai.Piece, len(wholes))
	for i := range wholes {
		pieces[i] = &wholes[i]
		if g.answer.TokenIDs {
			wholes[i].PromptTokens = g.prompts[i/g.params.N].ids
		}
	}
	body := g.answer.AppendWhole(nil, pieces, g.usage())
	g.succeeded()
	g.reply(200, body)
	return nil
}

// keepLogprobs appends copies: those of a chunk are valid only until the next.
func keepLogprobs(dst, lps []dynamo.TokenLogprob) []dynamo.TokenLogprob {
	for _, lp := range lps {
		lp.Top = slices.Clone(lp.Top)
		dst = append(dst, lp)
	}
	return dst
}
