package frontend

import (
	"net/http"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
)

// streamed answers with server-sent events.
func (g *generation) streamed() error {
	g.answer.Begin()
	h := g.w.Header()
	out := newOutbox(g.w, g.rc, g.s.config.WriteTimeout)
	h["Content-Type"], h["Cache-Control"] = eventType, noCache
	err := g.each(func(t *prompt, chunk *dynamo.Chunk) error { return g.send(out, t, chunk) })
	if err != nil && out.unused() {
		h.Del("Cache-Control")
		return err
	}
	g.status = http.StatusOK
	// Life 12: the sequence has ended once, with an answer, an error or a client gone; usage is counted and the request leaves
	_ = out.add(func(b []byte) []byte { // an error is close's too
		if err != nil {
			_, e := publicError(err)
			return openai.AppendDone(openai.AppendErrorEvent(b, e))
		}
		if g.params.IncludeUsage {
			b = g.answer.AppendUsage(b, g.usage())
		}
		return openai.AppendDone(b)
	})
	gone := out.close()
	switch {
	case err != nil:
		g.failLate(err)
	case gone != nil:
		g.failLate(gone)
	default:
		g.succeeded()
	}
	return nil
}

// failLate counts an error that came after the stream had begun, of which the
// stream itself has told the client.
func (g *generation) failLate(err error) {
	kind := dynamo.KindOf(err)
	g.failure = err
	g.ended(kind)
	if kind == dynamo.KindInternal || kind == dynamo.KindCorrupt {
		g.s.log.Error("request failed", obs.KeyRequest, g.id, obs.KeyModel, g.label, obs.KeyError, err)
	}
}

// send puts what a chunk adds into the outbox.
func (g *generation) send(out *outbox, t *prompt, chunk *dynamo.Chunk) error {
	c := &t.texter.choices[chunk.Choice]
	g.fill(t, c, chunk)
	p := &c.piece
	if c.started && len(p.Text) == 0 && p.Finish == dynamo.FinishNone && len(p.Tokens)+len(p.Logprobs) == 0 {
		return nil // half a character, or text held back
	}
	var usage *openai.Usage
	if g.params.ContinuousUsage {
		usage = &openai.Usage{Prompt: t.length(), Cached: c.cached, Completion: c.count}
	}
	// Life 11: ids become text, text that cannot become a stop string becomes an event, and the events that are ready leave in one write
	err := out.add(func(b []byte) []byte {
		if !c.started {
			b = g.open(b, t, c, chunk, usage)
		}
		if len(p.Text)+len(p.Tokens)+len(p.Logprobs) == 0 && p.Finish == dynamo.FinishNone {
			return b
		}
		return g.answer.AppendPiece(b, p, usage)
	})
	p.PromptTokens = nil
	if g.answer.Logprobs && g.answer.Route == openai.RouteCompletion {
		p.Offset += g.answer.Length(p.Logprobs)
	}
	if err != nil || g.last(chunk) {
		return err
	}
	return out.flush()
}

// last reports whether chunk is the last of the whole answer, which leaves
// together with what ends the stream.
func (g *generation) last(chunk *dynamo.Chunk) bool {
	return chunk.Finish != dynamo.FinishNone && len(g.prompts)*g.params.N == 1
}

// open appends the events that come before the first text of a choice.
func (g *generation) open(b []byte, t *prompt, c *choice, chunk *dynamo.Chunk, usage *openai.Usage) []byte {
	c.started = true
	var ids []dynamo.TokenID
	if g.answer.TokenIDs {
		ids = t.ids
	}
	if g.answer.Route == openai.RouteChat {
		return g.answer.AppendRole(b, c.piece.Index, ids, usage)
	}
	c.piece.PromptTokens = ids
	if g.echo {
		before := openai.Piece{Index: c.piece.Index, Text: []byte(t.text), Logprobs: chunk.PromptLogprobs, PromptTokens: ids}
		b = g.answer.AppendPiece(b, &before, usage)
		c.piece.PromptTokens = nil
		c.piece.Offset = g.answer.Length(chunk.PromptLogprobs)
	}
	return b
}
