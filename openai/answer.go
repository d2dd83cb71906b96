package openai

import (
	"strconv"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// Route says which of the two generating routes an answer belongs to.
type Route uint8

// The routes.
const (
	RouteChat Route = iota
	RouteCompletion
)

// Answer encodes one answer, streamed or whole. Its fields are set once, before
// the first use; its methods append to dst and may be used by several
// goroutines. In a stream each Append… method adds whole events.
type Answer struct {
	Route Route
	// ID is "chatcmpl-…" or "cmpl-…"; Created in seconds since 1970.
	ID      string
	Created int64
	Model   string
	// Fingerprint names weights and arithmetic; empty is null.
	Fingerprint string
	// TokenBytes returns a token's bytes, for logprobs.
	TokenBytes func(dynamo.TokenID) []byte
	// TokensAsIDs writes tokens as "token_id:123" in logprobs.
	TokensAsIDs bool
	// Logprobs and TokenIDs say that choices carry these.
	Logprobs, TokenIDs bool

	prefix []byte // of every event, up to the choices' index
}

// Piece is what is added to a choice, or a whole choice.
type Piece struct {
	Index int
	// Text is valid UTF-8 or made so.
	Text []byte
	// Tokens and Logprobs are encoded where the Answer says so.
	Tokens   []dynamo.TokenID
	Logprobs []dynamo.TokenLogprob
	// Offset is where the first token's text lies in the choice's text, in
	// characters (completions).
	Offset int
	// PromptTokens are encoded where not nil (completions: within the choice;
	// chat: beside the choices).
	PromptTokens []dynamo.TokenID
	// Finish is set on a choice's last piece. StopString and StopToken say what
	// ended it, if the request named it.
	Finish     dynamo.FinishReason
	StopString string
	StopToken  Optional[dynamo.TokenID]
	// Extension goes beside the choices, with the piece that has it: the last one in a
	// stream; of a whole answer the first choice's holds. Nil is none.
	Extension *Extension
}

// Begin prepares the streaming of a; it must be called before the methods that
// append events.
func (a *Answer) Begin() {
	object := "chat.completion.chunk"
	if a.Route == RouteCompletion {
		object = "text_completion"
	}
	a.prefix = append(a.prefix[:0], "data: "...)
	a.prefix = append(a.appendHead(a.prefix, object), `,"choices":[`...)
}

func (a *Answer) appendHead(dst []byte, object string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, a.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = appendString(dst, a.Model)
	dst = append(dst, `,"system_fingerprint":`...)
	return appendStringOrNull(dst, a.Fingerprint)
}

// eventEnd closes an event after its choices.
const eventEnd = "}\n\n"

// AppendRole appends the event that opens a chat choice. prompt is nil unless
// its ids are wanted.
func (a *Answer) AppendRole(dst []byte, index int, prompt []dynamo.TokenID, usage *Usage) []byte {
	dst = append(dst, a.prefix...)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = append(dst, `,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`...)
	if prompt != nil {
		dst = append(dst, `,"prompt_token_ids":`...)
		dst = appendIDs(dst, prompt)
	}
	return appendEventEnd(dst, usage)
}

// AppendPiece appends the event that adds p to its choice. usage is nil unless
// each event carries it.
func (a *Answer) AppendPiece(dst []byte, p *Piece, usage *Usage) []byte {
	dst = append(dst, a.prefix...)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(p.Index), 10)
	switch {
	case a.Route == RouteCompletion:
		dst = append(dst, `,"text":"`...)
		dst = append(appendText(dst, p.Text), '"')
	case len(p.Text) == 0 && p.Finish != dynamo.FinishNone:
		dst = append(dst, `,"delta":{}`...)
	default:
		dst = append(dst, `,"delta":{"content":"`...)
		dst = append(appendText(dst, p.Text), '"', '}')
	}
	dst = a.appendEnd(dst, p)
	return appendEventEnd(appendExtension(append(dst, ']'), p.Extension), usage)
}

func appendEventEnd(dst []byte, usage *Usage) []byte {
	if usage != nil {
		dst = append(dst, `,"usage":`...)
		dst = appendUsage(dst, *usage)
	}
	return append(dst, eventEnd...)
}

// AppendUsage appends the event with the usage of the whole answer and no
// choices.
func (a *Answer) AppendUsage(dst []byte, u Usage) []byte {
	dst = append(append(dst, a.prefix...), ']')
	return appendEventEnd(dst, &u)
}

// AppendDone appends the event that ends a stream.
func AppendDone(dst []byte) []byte { return append(dst, "data: [DONE]\n\n"...) }

// AppendErrorEvent appends an error that came after the stream had begun.
func AppendErrorEvent(dst []byte, e *dynamo.Error) []byte {
	dst = append(dst, "data: "...)
	return append(AppendError(dst, e), "\n\n"...)
}

// AppendWhole appends an unstreamed answer. Each piece is a whole choice.
func (a *Answer) AppendWhole(dst []byte, choices []*Piece, u Usage) []byte {
	object := "chat.completion"
	if a.Route == RouteCompletion {
		object = "text_completion"
	}
	dst = append(a.appendHead(dst, object), `,"choices":[`...)
	for i, p := range choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"index":`...)
		dst = strconv.AppendInt(dst, int64(p.Index), 10)
		if a.Route == RouteCompletion {
			dst = append(dst, `,"text":"`...)
			dst = append(appendText(dst, p.Text), '"')
		} else {
			dst = append(dst, `,"message":{"role":"assistant","content":"`...)
			dst = append(appendText(dst, p.Text), `","refusal":null}`...)
		}
		dst = a.appendEnd(dst, p)
	}
	dst = append(dst, `],"usage":`...)
	dst = appendUsage(dst, u)
	if a.TokenIDs && a.Route == RouteChat && len(choices) > 0 {
		dst = append(dst, `,"prompt_token_ids":`...)
		dst = appendIDs(dst, choices[0].PromptTokens)
	}
	if len(choices) > 0 {
		dst = appendExtension(dst, choices[0].Extension)
	}
	return append(dst, '}')
}

// appendEnd appends what follows the text of a choice, and closes it.
func (a *Answer) appendEnd(dst []byte, p *Piece) []byte {
	dst = append(dst, `,"logprobs":`...)
	switch {
	case !a.Logprobs:
		dst = append(dst, "null"...)
	case a.Route == RouteCompletion:
		dst = a.appendLegacyLogprobs(dst, p)
	default:
		dst = a.appendLogprobs(dst, p.Logprobs)
	}
	if p.Finish == dynamo.FinishNone {
		dst = append(dst, `,"finish_reason":null`...)
	} else {
		dst = append(dst, `,"finish_reason":"`...)
		dst = append(append(dst, p.Finish.String()...), '"')
	}
	switch {
	case p.StopString != "":
		dst = append(dst, `,"stop_reason":`...)
		dst = appendString(dst, p.StopString)
	case p.StopToken.Set:
		dst = append(dst, `,"stop_reason":`...)
		dst = strconv.AppendUint(dst, uint64(p.StopToken.Value), 10)
	}
	if a.TokenIDs {
		if a.Route == RouteCompletion && p.PromptTokens != nil {
			dst = append(dst, `,"prompt_token_ids":`...)
			dst = appendIDs(dst, p.PromptTokens)
		}
		dst = append(dst, `,"token_ids":`...)
		dst = appendIDs(dst, p.Tokens)
	}
	return append(dst, '}')
}

// appendLogprobs appends chat's form: {"content":[{token, logprob, bytes,
// top_logprobs}],"refusal":null}.
func (a *Answer) appendLogprobs(dst []byte, lps []dynamo.TokenLogprob) []byte {
	dst = append(dst, `{"content":[`...)
	for i := range lps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = a.appendTokenLogprob(dst, lps[i].ID, lps[i].Logprob)
		dst = append(dst, `,"top_logprobs":[`...)
		for j, top := range lps[i].Top {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(a.appendTokenLogprob(dst, top.ID, top.Logprob), '}')
		}
		dst = append(dst, "]}"...)
	}
	return append(dst, `],"refusal":null}`...)
}

func (a *Answer) appendTokenLogprob(dst []byte, id dynamo.TokenID, logprob float32) []byte {
	dst = append(dst, `{"token":`...)
	dst = a.appendToken(dst, id)
	dst = append(dst, `,"logprob":`...)
	dst = appendLogprob(dst, logprob)
	dst = append(dst, `,"bytes":[`...)
	for i, c := range a.TokenBytes(id) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(c), 10)
	}
	return append(dst, ']')
}

// appendToken appends a token as a JSON string.
func (a *Answer) appendToken(dst []byte, id dynamo.TokenID) []byte {
	if a.TokensAsIDs {
		dst = append(dst, `"token_id:`...)
		return append(strconv.AppendUint(dst, uint64(id), 10), '"')
	}
	return appendString(dst, a.TokenBytes(id))
}

// tokenLength returns the length of a token's text in characters.
func (a *Answer) tokenLength(id dynamo.TokenID) int {
	return utf8.RuneCount(a.TokenBytes(id))
}

// Length returns the length of the tokens' texts in characters, as offsets count
// them.
func (a *Answer) Length(lps []dynamo.TokenLogprob) int {
	n := 0
	for i := range lps {
		n += a.tokenLength(lps[i].ID)
	}
	return n
}

// appendLegacyLogprobs appends the completions' form: parallel arrays tokens,
// token_logprobs, top_logprobs (objects from token to logprob) and text_offset.
func (a *Answer) appendLegacyLogprobs(dst []byte, p *Piece) []byte {
	dst = append(dst, `{"tokens":[`...)
	for i := range p.Logprobs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = a.appendToken(dst, p.Logprobs[i].ID)
	}
	dst = append(dst, `],"token_logprobs":[`...)
	for i := range p.Logprobs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendLogprob(dst, p.Logprobs[i].Logprob)
	}
	dst = append(dst, `],"top_logprobs":[`...)
	for i := range p.Logprobs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = a.appendAlternatives(dst, &p.Logprobs[i])
	}
	dst = append(dst, `],"text_offset":[`...)
	offset := p.Offset
	for i := range p.Logprobs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(offset), 10)
		offset += a.tokenLength(p.Logprobs[i].ID)
	}
	return append(dst, "]}"...)
}

// appendAlternatives appends an object from token to logprob: the alternatives
// and the token itself. Where two ids have one text the more likely stands for
// both, as an object's names are unique.
func (a *Answer) appendAlternatives(dst []byte, lp *dynamo.TokenLogprob) []byte {
	if lp.Logprob != lp.Logprob {
		return append(dst, "null"...) // nothing came before the first id of a prompt
	}
	start := len(dst)
	dst = append(dst, '{')
	add := func(id dynamo.TokenID, logprob float32) {
		mark := len(dst)
		if mark > start+1 {
			dst = append(dst, ',')
		}
		from := len(dst)
		dst = append(a.appendToken(dst, id), ':')
		if containsName(dst[start:from], dst[from:]) {
			dst = dst[:mark]
			return
		}
		dst = appendLogprob(dst, logprob)
	}
	for _, top := range lp.Top {
		add(top.ID, top.Logprob)
	}
	add(lp.ID, lp.Logprob)
	return append(dst, '}')
}

// containsName reports whether the encoded name (with its quotes and colon) is in
// object, whose names follow '{' or ','.
func containsName(object, name []byte) bool {
	for i := 0; i+1+len(name) <= len(object); i++ {
		if (object[i] == '{' || object[i] == ',') && string(object[i+1:i+1+len(name)]) == string(name) {
			return true
		}
	}
	return false
}
