package frontend

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// textSpec says how the ids of an answer become its text. The choices of a
// request share it.
type textSpec struct {
	tokenizer   *tokenizer.Tokenizer
	textOnly    bool // the engine's card says so
	skipSpecial bool
	includeStop bool
	minTokens   int
	stops       *stops
	stopTokens  []dynamo.TokenID
	// before is read by the decoder ahead of the answer, its text being dropped: an
	// answer that continues a text keeps the space at its start, which
	// SentencePiece vocabularies drop at the beginning of a text.
	before []dynamo.TokenID
}

// choice is the state of one choice's text. Its texter writes it before it yields
// a chunk; whoever receives the chunk reads it before asking for the next.
type choice struct {
	piece openai.Piece // Text is what this chunk released
	// cached is the number of prompt tokens found in the cache, count that of the
	// ids generated so far. Of an answer that comes as text each piece counts as one
	// until its engine has counted; prompt is then its count of the prompt, else 0.
	cached, count, prompt int
	// started, last and counted belong to the receiver: whether it has seen the
	// choice before, when its last token came and how many it has counted.
	started bool
	last    time.Time
	counted int
	first   time.Time // when its first token came
	// trip is where the choice's request has been; nil if nobody wants to know.
	trip *engine.Trip

	spec    *textSpec
	decoder *tokenizer.Decoder
	matcher matcher
	buf     []byte // text not yet released, after sent bytes that were
	sent    int
	text    bool // some of it came as text
}

func (c *choice) init(index int, spec *textSpec) {
	c.piece.Index = index
	c.spec = spec
	c.decoder = spec.tokenizer.NewDecoder(spec.skipSpecial)
	for _, id := range spec.before {
		c.buf = c.decoder.Append(c.buf[:0], id)
	}
	c.buf = c.buf[:0]
	c.matcher = newMatcher(spec.stops)
}

// texter is an engine that turns the ids of another into text, beside them: the
// text of a chunk lies in choices[Choice].piece.Text. It ends a choice where a
// stop string is complete. It stands beneath engine.Expand, so that each choice
// ends by itself.
type texter struct {
	next    engine.Engine
	choices []choice
}

var _ engine.Engine = (*texter)(nil)

// Generate implements engine.Engine.
func (t *texter) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		c, finished := &t.choices[r.Choice], false
		if c.trip != nil {
			ctx = engine.WithTrip(ctx, c.trip)
		}
		for chunk, err := range t.next.Generate(ctx, r) {
			if err != nil {
				yield(dynamo.Chunk{}, err)
				return
			}
			if c.count == 0 && chunk.Cached > 0 {
				c.cached = chunk.Cached
			}
			c.take(&chunk)
			finished = chunk.Finish != dynamo.FinishNone
			if !yield(chunk, nil) || finished {
				return
			}
		}
		yield(dynamo.Chunk{}, fmt.Errorf("engine ended choice %d of request %s without a finish", r.Choice, r.ID))
	}
}

// take reads a chunk: it decodes its ids, looks for stop strings, cuts the chunk
// after the id that completes one, and releases what cannot become part of one.
func (c *choice) take(chunk *dynamo.Chunk) {
	c.buf = append(c.buf[:0], c.buf[c.sent:]...)
	c.sent = 0
	if chunk.Text != "" && c.takeText(chunk) {
		return
	}
	ids := chunk.Tokens
	last := len(ids)
	if chunk.Finish == dynamo.FinishStop && last > 0 && !c.spec.includeStop {
		last--
	}
	for i, id := range ids[:last] {
		from := len(c.buf)
		c.buf = c.decoder.Append(c.buf, id)
		c.count++
		if c.count >= c.spec.minTokens && c.match(chunk, from, i+1) {
			return
		}
	}
	c.count += len(ids) - last
	if chunk.Finish == dynamo.FinishNone {
		c.release(len(c.buf) - c.matcher.held())
		return
	}
	c.finish(chunk, ids)
}

// takeText reads the text of a chunk that has no ids, and reports whether it
// completed a stop string.
func (c *choice) takeText(chunk *dynamo.Chunk) (stopped bool) {
	from := len(c.buf)
	c.buf = append(c.buf, chunk.Text...)
	c.text = true
	c.count++
	return c.count >= c.spec.minTokens && c.match(chunk, from, 0)
}

// match looks for a stop string in the text from byte from on, and if it finds
// one ends the choice after the chunk's first n ids.
func (c *choice) match(chunk *dynamo.Chunk, from, n int) bool {
	if c.spec.stops == nil {
		return false
	}
	found, end := c.matcher.feed(c.buf[from:])
	if found < 0 {
		return false
	}
	c.piece.StopString = c.spec.stops.strings[found]
	end += from
	if !c.spec.includeStop {
		end -= len(c.piece.StopString)
	}
	c.release(end)
	chunk.Tokens = chunk.Tokens[:n]
	if chunk.Logprobs != nil {
		chunk.Logprobs = chunk.Logprobs[:n]
	}
	chunk.Finish = dynamo.FinishStop
	c.piece.Finish = dynamo.FinishStop
	return true
}

// finish releases what is left of a choice that its engine ended.
func (c *choice) finish(chunk *dynamo.Chunk, ids []dynamo.TokenID) {
	c.cached = max(c.cached, chunk.Usage.Cached) // some engines say it at the end alone
	if c.text || c.spec.textOnly {
		c.count, c.prompt = chunk.Usage.Completion, chunk.Usage.Prompt
	}
	from := len(c.buf)
	c.buf = c.decoder.Flush(c.buf)
	if c.match(chunk, from, len(ids)) {
		return
	}
	c.release(len(c.buf))
	c.piece.Finish = chunk.Finish
	if chunk.Finish != dynamo.FinishStop || len(ids) == 0 {
		return
	}
	for _, id := range c.spec.stopTokens {
		if id == ids[len(ids)-1] {
			c.piece.StopToken = openai.Some(id)
		}
	}
}

// release lets the first n bytes go.
func (c *choice) release(n int) {
	c.piece.Text = c.buf[:n]
	c.sent = n
}
