package openai

import (
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// TokenizeRequest is the body of POST /tokenize, in vLLM's shape: a prompt or a
// conversation.
type TokenizeRequest struct {
	// Model may be empty where one model is served.
	Model string
	// Prompt is the text; not set, the conversation holds.
	Prompt Optional[string]
	Conversation
	// AddSpecial not set is true for a prompt and false for a conversation.
	AddSpecial Optional[bool]
	// ReturnStrings asks for the tokens' texts beside their ids.
	ReturnStrings bool
}

// DecodeTokenize reads the body of a tokenize request.
func DecodeTokenize(body []byte) (*TokenizeRequest, error) {
	r := &TokenizeRequest{}
	err := decodeObject(body, func(d *decoder, name string) error {
		switch name {
		case "model":
			return into(&r.Model)(d.name())
		case "prompt":
			return some(&r.Prompt)(d.text())
		case "add_special_tokens":
			return some(&r.AddSpecial)(d.boolean())
		case "return_token_strs":
			return into(&r.ReturnStrings)(d.boolean())
		}
		if known, err := r.Conversation.field(d, name); known {
			return err
		}
		return d.SkipValue()
	})
	switch {
	case err != nil:
		return nil, err
	case r.Prompt.Set && len(r.Messages) > 0:
		return nil, fault("messages", "prompt and messages exclude one another")
	case r.Prompt.Set:
		return r, nil
	case len(r.Messages) == 0:
		return nil, fault("prompt", "neither prompt nor messages is there; send one of them")
	}
	return r, r.Conversation.check(false)
}

// DetokenizeRequest is the body of POST /detokenize.
type DetokenizeRequest struct {
	// Model may be empty where one model is served.
	Model string
	// Tokens may be empty.
	Tokens []dynamo.TokenID
}

// DecodeDetokenize reads the body of a detokenize request.
func DecodeDetokenize(body []byte) (*DetokenizeRequest, error) {
	r := &DetokenizeRequest{}
	there := false
	err := decodeObject(body, func(d *decoder, name string) error {
		switch name {
		case "model":
			return into(&r.Model)(d.name())
		case "tokens":
			there = true
			return into(&r.Tokens)(d.tokens(nil, MaxTokens))
		}
		return d.SkipValue()
	})
	if err == nil && !there {
		err = fault("tokens", "tokens is missing; send an array of token ids")
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// AppendTokenized appends the answer to a tokenize request; texts is nil unless
// asked for.
func AppendTokenized(dst []byte, ids []dynamo.TokenID, contextLength int, texts []string) []byte {
	dst = append(dst, `{"count":`...)
	dst = strconv.AppendInt(dst, int64(len(ids)), 10)
	dst = append(dst, `,"max_model_len":`...)
	dst = strconv.AppendInt(dst, int64(contextLength), 10)
	dst = append(dst, `,"tokens":`...)
	dst = appendIDs(dst, ids)
	dst = append(dst, `,"token_strs":`...)
	if texts == nil {
		return append(dst, "null}"...)
	}
	dst = append(dst, '[')
	for i, s := range texts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, "]}"...)
}

// AppendDetokenized appends the answer to a detokenize request.
func AppendDetokenized(dst []byte, text string) []byte {
	dst = append(dst, `{"prompt":`...)
	return append(appendString(dst, text), '}')
}
