package native

import (
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
)

// forward computes batches. It is the model and its KV cache, or a stand-in.
type forward interface {
	// run computes entries of different sequences and the logits they ask for. The
	// rows are valid until the next run, and the caller may change them.
	run(entries []sched.Entry) error
	// row returns the i-th row of logits, in the order of the entries.
	row(i int) []float32
	// close frees the cache.
	close() error
}

// New returns an engine for m, which must stay open until Run has returned. It
// reserves the KV cache, whose memory is taken as blocks are first written (with an
// Exchange a little before that) and given back when Run returns.
//
// A cache that holds less than the model's context bounds the context; the card
// says so.
func New(c Config, m *model.Model) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	cache, moves, err := reserve(&c, m)
	if err != nil {
		return nil, err
	}
	var e *Engine
	tiers, err := newTiered(&c, m, cache)
	if err == nil {
		e, err = build(c, describe(&c, m.Config()), &modelForward{model: m, cache: cache}, tiers, moves)
	}
	if err != nil {
		_ = cache.Close() // the error that matters is the other
		if moves != nil {
			_ = moves.close()
		}
		return nil, err
	}
	if length := m.Config().ContextLength; e.Card().ContextLength < length && c.Logger != nil {
		c.Logger.Info("context is shorter than the model's", obs.KeyTokens, e.Card().ContextLength, obs.KeyModel, c.Name)
	}
	return e, nil
}

// reserve makes the KV cache and sets c.Blocks to its size. Others may read it, if the
// configuration says so.
func reserve(c *Config, m *model.Model) (*model.Cache, *exchange, error) {
	per := int64(m.BlockBytes())
	if c.Blocks == 0 && c.CacheBytes < per {
		return nil, nil, &dynamo.Error{
			Kind:    dynamo.KindInvalid,
			Message: fmt.Sprintf("--kv-cache-bytes is %d, and a single block of %d tokens takes %d bytes; choose many times that", c.CacheBytes, model.BlockSize, per),
		}
	}
	if c.Blocks == 0 {
		c.Blocks = int(min(c.CacheBytes/per, kvbm.MaxBlocks))
	}
	if c.Exchange != nil {
		x, err := newExchange(c, m)
		if err != nil {
			return nil, nil, err
		}
		return x.cache, x, nil
	}
	cache, err := m.NewCache(c.Blocks)
	return cache, nil, err
}

// describe is the card of a model served under c.
func describe(c *Config, m model.Config) engine.Card {
	length := min(m.ContextLength, c.Blocks*model.BlockSize)
	if c.ContextLength > 0 {
		length = min(length, c.ContextLength)
	}
	eos := m.EOS
	if c.EOS != nil {
		eos = c.EOS
	}
	return engine.Card{
		Model: c.Name, Engine: engineName, Revision: m.Revision, NumericClass: m.NumericClass,
		ContextLength: length, BlockSize: model.BlockSize, VocabSize: m.Vocab, EOS: eos,
		MaxTopLogprobs: MaxTopLogprobs, PromptLogprobs: true, Sampling: true, Resume: true, ResumeSeeded: true, Role: c.Role, Lends: c.Exchange != nil && c.PrefixCaching,
	}
}

// modelForward is forward by a model.
type modelForward struct {
	model *model.Model
	cache *model.Cache
	batch []model.Seq
	out   model.Output
}

func (f *modelForward) run(entries []sched.Entry) error {
	f.batch = f.batch[:0]
	var until time.Time
	for i := range entries {
		e := &entries[i]
		s := model.Seq{Tokens: e.Tokens, Start: e.Start, Blocks: e.Blocks}
		switch e.Logits {
		case sched.LogitsLast:
			s.Logits = model.LogitsLast
		case sched.LogitsAll:
			s.Logits = model.LogitsAll
		}
		if t, ok := e.Ref.(*loop.Task); ok {
			if x := t.State.(*query).arriving; x != nil {
				if until.IsZero() {
					until = time.Now().Add(awaitMax)
				}
				s.Await, x.until = x.await, until
			}
		}
		f.batch = append(f.batch, s)
	}
	if err := f.model.Forward(f.cache, f.batch, &f.out); err != nil {
		return fmt.Errorf("compute %d sequences: %w", len(entries), err)
	}
	return nil
}

func (f *modelForward) row(i int) []float32 { return f.out.Row(i) }

func (f *modelForward) close() error { return f.cache.Close() }
