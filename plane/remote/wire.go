package remote

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dynamo-go/dynamo"
)

// The wire form of a request and of the pieces of its answer. Its parts:
//
//	uvarint  unsigned number: 7 bits a byte, low bits first, the high bit set on
//	         all but the last byte; 10 bytes at most
//	varint   signed number n as the uvarint of (n << 1) ^ (n >> 63)
//	f32      IEEE 754 bits, 4 bytes, little-endian; a NaN keeps its bits
//	u64      8 bytes, little-endian
//	string   uvarint n, n bytes; n is 65536 at most
//	ids      uvarint n, n uvarints below 2^32
//	entries  uvarint n, n times: uvarint id, f32 logprob, uvarint k, k times:
//	         uvarint id, f32 logprob
//
// A request is what the stream is opened with. The deadline is not in it: what is
// left of it travels in the stream's header.
//
//	offset  bytes    what
//	0       1        format, 1
//	1       1        flags: 0x01 IgnoreEOS, 0x02 Logprobs, 0x04 PromptLogprobs,
//	                 0x08 Seeded, 0x10 a restriction, 0x20 Prefill, 0x40 a handover,
//	                 0x80 hints
//	2       strings  ID, Model, Adapter, Namespace, Group
//	        u64      Root
//	        varints  Priority, MaxTokens, MinTokens, N, Choice, TopK, TopLogprobs
//	        6 f32    Temperature, TopP, MinP, PresencePenalty, FrequencyPenalty,
//	                 RepetitionPenalty
//	        u64      Seed
//	        uvarint  n, number of logit biases; n times: uvarint id, f32 bias
//	        ids      StopTokens
//	        ids      Tokens
//	        ids      Resume
//	        guided   if 0x10: Guided: byte, 0x01 Compact, 0x02 Closed, the others
//	                 are 0; strings Kind, Value, Whitespace, of which the last two
//	                 have as many bytes as package engine allows
//	        string   if 0x40: Handover, of as many bytes as package engine allows
//	        hints    if 0x80: what of Routing the worker has use for: uvarint, number
//	                 of bytes, 65536 at most, and in them: uvarint, Rank and 1, or 0
//	                 for none; uvarint ExpectedOutput; string Session; what follows in
//	                 them is from a later version, and passed over
//
// and nothing follows. Lend is not in it: it is another method. There is no flag left: what else is to travel goes into the
// hints, if it may be passed over, or into another format.
//
// A piece of an answer is a message from the worker:
//
//	bytes    what
//	1        bits 6 and 7: format, 1 (0x40), or 2 (0x80), which has a handover;
//	         flags: 0x01 a load, 0x02 a choice, 0x04 an opening, 0x08 logprobs,
//	         0x10 a text, 0x20 an end
//	load     if 0x01: as package event writes it
//	varint   if 0x02: Choice; without it, 0
//	opening  if 0x04: varint Cached, entries PromptLogprobs, uvarint left
//	ids      Tokens
//	entries  if 0x08: Logprobs
//	string   if 0x10: Text, of any length
//	string   in format 2: Handover, of as many bytes as package engine allows
//	end      if 0x20: byte Finish, varints of Usage: Prompt, Cached, Completion
//
// and nothing follows. Left above 0 says that so many prompt logprobs come in the
// openings of the next messages: such a message holds nothing beyond its opening
// and a load, and the chunk is complete with the message whose left is 0. A chunk
// that is long otherwise is cut into several that are valid by themselves.
//
// Without logprobs a token costs about 5 bytes. Only who asked for a prefill is sent
// format 2.
const (
	requestFormat = 1

	flagIgnoreEOS      = 0x01
	flagLogprobs       = 0x02
	flagPromptLogprobs = 0x04
	flagSeeded         = 0x08
	flagGuided         = 0x10
	flagPrefill        = 0x20
	flagHandover       = 0x40
	flagHints          = 0x80

	flagCompact   = 0x01
	flagClosed    = 0x02
	flagsOfGuided = flagCompact | flagClosed

	chunkFormat     = 0x40
	handoverFormat  = 0x80
	chunkFormatMask = 0xc0

	hasLoad     = 0x01
	hasChoice   = 0x02
	hasOpening  = 0x04
	hasLogprobs = 0x08
	hasText     = 0x10
	hasEnd      = 0x20

	// The least bytes of a logit bias, an entry and an alternative: they bound
	// what a count can make a reader set aside.
	leastBias        = 5
	leastEntry       = 6
	leastAlternative = 5
	// The most bytes of an entry and an alternative.
	mostEntry       = 14
	mostAlternative = 9
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendFloat(b []byte, f float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
}

func appendIDs(b []byte, ids []dynamo.TokenID) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		switch {
		case id < 1<<7:
			b = append(b, byte(id))
		case id < 1<<14:
			b = append(b, byte(id)|0x80, byte(id>>7))
		case id < 1<<21:
			b = append(b, byte(id)|0x80, byte(id>>7)|0x80, byte(id>>14))
		default:
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b
}

func appendEntries(b []byte, entries []dynamo.TokenLogprob) []byte {
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for i := range entries {
		e := &entries[i]
		b = appendFloat(binary.AppendUvarint(b, uint64(e.ID)), e.Logprob)
		b = binary.AppendUvarint(b, uint64(len(e.Top)))
		for _, a := range e.Top {
			b = appendFloat(binary.AppendUvarint(b, uint64(a.ID)), a.Logprob)
		}
	}
	return b
}

// reader takes a message apart. After the first fault everything it gives is
// zero; fault says what was wrong.
type reader struct {
	b     []byte
	fault string
}

func (r *reader) fail(what string) {
	if r.fault == "" {
		r.fault = what
	}
	r.b = nil
}

func (r *reader) uvarint(most uint64) uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 && uint64(r.b[0]) <= most {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.fail("a number is cut short or too large")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int {
	v := r.uvarint(math.MaxUint64)
	n := int64(v>>1) ^ -int64(v&1)
	if int64(int(n)) != n {
		r.fail("a number is too large for this machine")
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("it is cut short")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) float() float32 {
	if b := r.bytes(4); b != nil {
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string(most int) string {
	return string(r.bytes(int(r.uvarint(uint64(most)))))
}

// count reads how many things follow, of which each takes at least so many bytes.
func (r *reader) count(least int) int {
	return int(r.uvarint(uint64(len(r.b) / least)))
}

func (r *reader) id() dynamo.TokenID { return dynamo.TokenID(r.uvarint(math.MaxUint32)) }

// ids appends ids to into, whose memory is used again.
func (r *reader) ids(into []dynamo.TokenID) []dynamo.TokenID {
	n := r.count(1)
	if cap(into)-len(into) < n {
		into = append(make([]dynamo.TokenID, 0, len(into)+n), into...)
	}
	b, i := r.b, 0
	for range n {
		// Ids of one to three bytes, which are nearly all, are read in place.
		switch {
		case i+2 >= len(b) || b[i]&b[i+1]&b[i+2] >= 0x80:
			r.b = b[i:]
			into = append(into, r.id())
			b, i = r.b, 0
		case b[i] < 0x80:
			into = append(into, dynamo.TokenID(b[i]))
			i++
		case b[i+1] < 0x80:
			into = append(into, dynamo.TokenID(b[i]&0x7f)|dynamo.TokenID(b[i+1])<<7)
			i += 2
		default:
			into = append(into, dynamo.TokenID(b[i]&0x7f)|dynamo.TokenID(b[i+1]&0x7f)<<7|dynamo.TokenID(b[i+2])<<14)
			i += 3
		}
	}
	r.b = b[i:]
	return into
}

// entries appends n entries to into, and their alternatives to tops; each has so
// many at most.
func (r *reader) entries(n, most int, into []dynamo.TokenLogprob, tops []dynamo.TopLogprob) ([]dynamo.TokenLogprob, []dynamo.TopLogprob) {
	for range n {
		e := dynamo.TokenLogprob{ID: r.id(), Logprob: r.float()}
		k := r.count(leastAlternative)
		if k > most {
			r.fail("a token has more alternatives than were asked for")
		}
		if r.fault != "" {
			return into, tops
		}
		// What tops held before may move when it grows; the entries that point to
		// the old memory keep it.
		start := len(tops)
		for range k {
			tops = append(tops, dynamo.TopLogprob{ID: r.id(), Logprob: r.float()})
		}
		if k > 0 {
			e.Top = tops[start:len(tops):len(tops)]
		}
		into = append(into, e)
	}
	return into, tops
}

// end says what was wrong with the message, if anything was.
func (r *reader) end() string {
	if r.fault == "" && len(r.b) > 0 {
		return "bytes follow its end"
	}
	return r.fault
}

func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(format, args...)}
}
