package remote

import (
	"encoding/binary"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
)

// chunkEncoder writes the chunks of one answer. Its buffers are used again, so
// that a chunk costs no allocation.
type chunkEncoder struct {
	b       []byte
	chunk   dynamo.Chunk // what of it is not written yet
	load    engine.Load
	hasLoad bool
}

// setLoad sends l along with the next message.
func (e *chunkEncoder) setLoad(l engine.Load) { e.load, e.hasLoad = l, true }

// begin takes a chunk, which must stay as it is until next has no more.
func (e *chunkEncoder) begin(c dynamo.Chunk) { e.chunk = c }

// next returns the next message of the chunk, valid until the next call, and
// whether there are more.
func (e *chunkEncoder) next() (b []byte, more bool) {
	c := &e.chunk
	room := pieceBytes
	opening := fitting(c.PromptLogprobs, mostEntry, 1, &room)
	if opening < len(c.PromptLogprobs) {
		e.b = e.appendOpening(e.appendHead(e.b[:0]), opening)
		e.b = append(e.b, 0) // no tokens
		c.PromptLogprobs = c.PromptLogprobs[opening:]
		return e.b, true
	}
	tokens := len(c.Tokens)
	least := 0
	if opening == 0 {
		least = 1
	}
	switch len(c.Logprobs) {
	case 0:
		tokens = min(tokens, max(room/binary.MaxVarintLen32, least))
	case tokens:
		tokens = fitting(c.Logprobs, mostEntry+binary.MaxVarintLen32, least, &room)
	}
	more = tokens < len(c.Tokens)
	e.b = e.appendWhole(e.appendHead(e.b[:0]), tokens, more)
	c.PromptLogprobs, c.Cached = nil, 0
	c.Tokens = c.Tokens[tokens:]
	c.Logprobs = c.Logprobs[min(tokens, len(c.Logprobs)):]
	return e.b, more
}

// fitting returns how many entries, each with extra bytes at most beside its
// alternatives, fit into room, but at least so many, and takes them off it.
func fitting(entries []dynamo.TokenLogprob, extra, least int, room *int) int {
	for i := range entries {
		n := extra + mostAlternative*len(entries[i].Top)
		if i >= least && n > *room {
			return i
		}
		*room -= n
	}
	return len(entries)
}

// appendHead begins a message.
func (e *chunkEncoder) appendHead(b []byte) []byte {
	b = append(b, chunkFormat)
	if e.hasLoad {
		b[0] |= hasLoad
		b = event.AppendLoad(b, e.load)
		e.hasLoad = false
	}
	return b
}

// appendOpening appends the opening, with so many of the prompt logprobs.
func (e *chunkEncoder) appendOpening(b []byte, n int) []byte {
	c := &e.chunk
	b[0] |= hasOpening
	b = binary.AppendVarint(b, int64(c.Cached))
	b = appendEntries(b, c.PromptLogprobs[:n])
	return binary.AppendUvarint(b, uint64(len(c.PromptLogprobs)-n))
}

// appendWhole appends what follows the head of a message that completes a chunk
// with so many of the tokens; what ends the answer waits while there are more.
func (e *chunkEncoder) appendWhole(b []byte, tokens int, more bool) []byte {
	c := &e.chunk
	if c.Choice != 0 {
		b[0] |= hasChoice
		b = binary.AppendVarint(b, int64(c.Choice))
	}
	if len(c.PromptLogprobs) > 0 || c.Cached != 0 {
		b = e.appendOpening(b, len(c.PromptLogprobs))
	}
	b = appendIDs(b, c.Tokens[:tokens])
	logprobs := c.Logprobs
	if more {
		logprobs = logprobs[:min(tokens, len(logprobs))]
	}
	if len(logprobs) > 0 {
		b[0] |= hasLogprobs
		b = appendEntries(b, logprobs)
	}
	if more {
		return b
	}
	if c.Text != "" {
		b[0] |= hasText
		b = appendString(b, c.Text)
	}
	if len(c.Handover) > 0 {
		b[0] ^= chunkFormat | handoverFormat
		b = appendBytes(b, c.Handover)
	}
	if c.Finish != dynamo.FinishNone {
		b[0] |= hasEnd
		b = append(b, byte(c.Finish))
		for _, v := range [...]int{c.Usage.Prompt, c.Usage.Cached, c.Usage.Completion} {
			b = binary.AppendVarint(b, int64(v))
		}
	}
	return b
}

// chunkDecoder reads the chunks of one answer. Its buffers are used again, so
// that a chunk costs no allocation.
type chunkDecoder struct {
	// prompt is the length of the prompt, and top the number of alternatives that
	// were asked for: what the answer may hold is bounded by them.
	prompt, top int

	chunk   dynamo.Chunk
	load    engine.Load // of the last message
	hasLoad bool

	tokens       []dynamo.TokenID
	logprobs     []dynamo.TokenLogprob
	tops         []dynamo.TopLogprob
	opening      []dynamo.TokenLogprob
	openingTops  []dynamo.TopLogprob
	openingLeft  int // prompt logprobs that must follow
	openingTotal int // those that have come
	handover     []byte
}

func newChunkDecoder(r *dynamo.Request) chunkDecoder {
	// Some engines give the chosen id beside the alternatives.
	return chunkDecoder{prompt: len(r.Tokens), top: max(r.Sampling.TopLogprobs, 0) + 1}
}

// decode reads a message, and reports whether chunk is complete with it. The
// chunk's slices are valid until the next message. A malformed one is
// KindCorrupt.
func (d *chunkDecoder) decode(b []byte) (whole bool, err error) {
	in := reader{b: b}
	flags := in.byte()
	format := flags & chunkFormatMask
	if format != chunkFormat && format != handoverFormat {
		return false, corrupt("the worker's answer has another format; run one version of dynamo on both sides")
	}
	d.hasLoad = flags&hasLoad != 0
	if d.hasLoad {
		if d.load, in.b, err = event.ParseLoad(in.b); err != nil {
			return false, err
		}
	}
	continued := d.openingLeft > 0
	d.chunk = dynamo.Chunk{}
	if flags&hasChoice != 0 {
		d.chunk.Choice = in.varint()
	}
	if flags&hasOpening != 0 {
		d.open(&in)
	} else if continued {
		in.fail("prompt logprobs are missing")
	}
	d.tokens = in.ids(d.tokens[:0])
	d.chunk.Tokens = d.tokens
	if flags&hasLogprobs != 0 {
		d.logprobs, d.tops = in.entries(in.count(leastEntry), d.top, d.logprobs[:0], d.tops[:0])
		d.chunk.Logprobs = d.logprobs
	}
	if flags&hasText != 0 {
		d.chunk.Text = in.string(len(in.b))
	}
	if format == handoverFormat {
		d.handover = append(d.handover[:0], in.bytes(int(in.uvarint(engine.MaxHandoverBytes)))...)
		d.chunk.Handover = d.handover
	}
	if flags&hasEnd != 0 {
		d.chunk.Finish = dynamo.FinishReason(in.byte())
		for _, v := range [...]*int{&d.chunk.Usage.Prompt, &d.chunk.Usage.Cached, &d.chunk.Usage.Completion} {
			*v = in.varint()
		}
		if d.chunk.Finish == dynamo.FinishNone {
			in.fail("it ends for no reason")
		}
	}
	if d.openingLeft > 0 && (format == handoverFormat || flags&^(chunkFormatMask|hasLoad|hasOpening) != 0 || len(d.tokens) > 0) {
		in.fail("it goes on before its prompt logprobs are complete")
	}
	if fault := in.end(); fault != "" {
		return false, corrupt("the worker's answer cannot be read: %s", fault)
	}
	return d.openingLeft == 0, nil
}

// open reads an opening; what a chunk's earlier messages held is kept.
func (d *chunkDecoder) open(in *reader) {
	if d.openingLeft == 0 {
		d.opening, d.openingTops = d.opening[:0], d.openingTops[:0]
	}
	d.chunk.Cached = in.varint()
	n := in.count(leastEntry)
	d.openingTotal += n
	if d.openingTotal > d.prompt {
		in.fail("it has more prompt logprobs than the prompt has tokens")
	}
	if d.openingLeft > 0 && n == 0 {
		in.fail("prompt logprobs are missing")
	}
	if in.fault != "" {
		return
	}
	d.opening, d.openingTops = in.entries(n, d.top, d.opening, d.openingTops)
	left := int(in.uvarint(uint64(d.prompt - d.openingTotal)))
	if left > 0 && n == 0 || d.openingLeft > 0 && left != d.openingLeft-n {
		in.fail("its prompt logprobs are counted wrong")
	}
	d.openingLeft = left
	if len(d.opening) > 0 {
		d.chunk.PromptLogprobs = d.opening
	}
}
