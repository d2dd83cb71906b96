package openai

// The limits of a request. What exceeds one is refused with an error that names
// the field and the limit.
const (
	// MaxDepth bounds the nesting of arrays and objects in a body.
	MaxDepth = 64
	// MaxMessages bounds a conversation.
	MaxMessages = 16384
	// MaxParts bounds the content parts of one message.
	MaxParts = 1024
	// MaxChoices bounds n, as OpenAI does.
	MaxChoices = 128
	// MaxPrompts bounds the prompts of one completion request, and MaxAnswers
	// prompts times n.
	MaxPrompts = 1024
	MaxAnswers = 1024
	// MaxStops and MaxStopBytes bound the stop list and each string in it;
	// MaxStopTokens bounds stop_token_ids.
	MaxStops      = 64
	MaxStopBytes  = 1024
	MaxStopTokens = 1024
	// MaxLogitBias bounds the entries of logit_bias.
	MaxLogitBias = 1024
	// MaxGuidedBytes bounds what restricts an answer: a schema, a grammar, a list of
	// choices; MaxGuidedChoices the number of choices.
	MaxGuidedBytes   = 64 << 10
	MaxGuidedChoices = 4096
	// MaxTopLogprobs bounds top_logprobs, as OpenAI does; an engine may offer
	// less.
	MaxTopLogprobs = 20
	// MaxTokens bounds max_tokens and its kin. It is far above any context.
	MaxTokens = 1 << 30
	// MaxNameBytes bounds model, user, cache_salt and the like.
	MaxNameBytes = 1024
	// MaxSessionBytes bounds a session's id, MaxRank a data-parallel rank and
	// MaxRoutingWeight the numbers that override the router's.
	MaxSessionBytes  = 256
	MaxRank          = 1<<16 - 1
	MaxRoutingWeight = 1e6
	// MaxLabels bounds the labels that a worker must have, and those that it had better
	// have; MaxLabelBytes each of them.
	MaxLabels     = 32
	MaxLabelBytes = 256
	// MaxExtra bounds the unknown fields kept; more are ignored without a trace.
	MaxExtra = 64
	// MaxEventBytes is the default bound of one server-sent event that Reader
	// accepts.
	MaxEventBytes = 16 << 20
	// readBytes is what Reader asks of its stream at once: a burst of some eighty
	// events. After maxEmptyReads reads in a row that give nothing it gives up.
	readBytes     = 16 << 10
	maxEmptyReads = 100
	// maxKept bounds the scratch memory kept between requests.
	maxKept = 64 << 10
)
