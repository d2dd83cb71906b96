// Package dynamo is the dictionary of the system: the identifiers, the request
// and its answer, and the kinds of error that every other package speaks in.
// It holds no behaviour beyond naming, imports nothing of this module, and
// changes rarely: a field here crosses every joint of the system.
package dynamo

import (
	"encoding/hex"
	"strconv"
	"sync/atomic"
	"time"
)

// TokenID is an index into a model's vocabulary.
type TokenID uint32

// RequestID names one request for its whole life, across retries and workers.
type RequestID string

// WorkerID names a worker in its cluster, from one life of its process to the
// next if its operator so chooses. Zero is nobody.
type WorkerID uint64

// String prints the id as 16 hexadecimal digits.
func (w WorkerID) String() string { return BlockHash(w).String() }

// ParseWorkerID reads what String prints; leading zeros may be missing.
func ParseWorkerID(s string) (WorkerID, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || n == 0 {
		return 0, &Error{Kind: KindInvalid, Message: strconv.Quote(s) + " is no worker id; it is 1 to 16 hexadecimal digits, not all zero"}
	}
	return WorkerID(n), nil
}

// BlockHash is the 64-bit chained hash of a full KV block: it depends on the
// block's tokens, on every block before it and on the cache root. It is for
// choosing (index, events, traces), never proof that two blocks hold the same
// bytes.
type BlockHash uint64

// String prints the hash as 16 hexadecimal digits.
func (h BlockHash) String() string {
	s := strconv.FormatUint(uint64(h), 16)
	return "0000000000000000"[len(s):] + s
}

// Block is the identity of one full block.
type Block struct {
	Local LocalHash
	Hash  BlockHash
}

// Prefix has room for the identities of a prompt's full blocks, for the first block size
// that they are asked for. Package tokens alone puts something there, and reads it.
type Prefix struct{ Known atomic.Pointer[Blocks] }

// Blocks are the identities of the full blocks of a prompt of so many Tokens. They do
// not change.
type Blocks struct {
	Root         CacheRoot
	Size, Tokens int
	All          []Block
}

// LocalHash is the hash of one block's tokens alone, without its history.
type LocalHash uint64

// ContentKey names KV bytes outside the process that computed them: a keyed
// SHA-256 truncated to 128 bits.
type ContentKey [16]byte

// String prints the key in hexadecimal.
func (k ContentKey) String() string { return hex.EncodeToString(k[:]) }

// CacheRoot separates KV caches that must never match one another (LoRA
// adapters, tenants). It is added to the seed of local hashes; zero is the
// shared root.
type CacheRoot uint64

// Tier is a place KV blocks live in, fastest first.
type Tier uint8

// The tiers.
const (
	TierDevice Tier = iota // G1: memory the engine computes from
	TierHost               // G2: host memory
	TierDisk               // G3: local SSD
	TierRemote             // G4: remote store
)

// String returns the tier's name.
func (t Tier) String() string {
	switch t {
	case TierDevice:
		return "device"
	case TierHost:
		return "host"
	case TierDisk:
		return "disk"
	case TierRemote:
		return "remote"
	}
	return "tier(" + strconv.Itoa(int(t)) + ")"
}

// Request asks an engine for one answer. It is filled in by the frontend, may
// be copied and narrowed by decorators on its way down, and is never changed
// by the engine that serves it.
type Request struct {
	// ID names the request. With N > 1, Expand gives each choice its own ID.
	ID RequestID
	// Model is the served name the client asked for.
	Model string
	// Adapter is the LoRA adapter's name, or empty.
	Adapter string

	// Tokens is the prompt. Never empty.
	Tokens []TokenID
	// Prefix is where the identities of Tokens' blocks are once somebody in this process
	// has hashed them, so that nobody does it twice; nil: everybody does. Copies of a
	// request share it. It does not travel. See package tokens.
	Prefix *Prefix
	// Resume holds ids that were already generated for this request elsewhere.
	// They follow Tokens in the sequence, count towards MaxTokens and as output
	// for penalties and position-keyed sampling, and are not yielded again.
	Resume []TokenID

	Sampling Sampling
	// Guided restricts the answer's text; zero is no restriction.
	Guided Guided

	// StopTokens ends the answer at any of these ids, beside the model's own
	// end-of-sequence ids.
	StopTokens []TokenID
	// IgnoreEOS keeps generating past the model's own end-of-sequence ids.
	IgnoreEOS bool
	// MaxTokens bounds the generated ids, Resume included. Engines clamp it to
	// what the context leaves.
	MaxTokens int
	// MinTokens forbids ending by a stop id before so many ids are generated.
	MinTokens int

	// Priority orders waiting requests: higher runs earlier. Zero is normal.
	Priority int
	// Deadline ends the request with KindDeadline when it passes; zero is none.
	Deadline time.Time
	// Routing is what was said about where the request is to run and for whom; nil is
	// nothing. It is shared and never changed in place: who decides something of it
	// below the frontend, such as the rank, puts a copy in its place.
	Routing *Routing

	// Namespace is the tenant's cache namespace in the form external engines
	// receive as their cache salt; empty is the shared one. Root is derived
	// from it and Adapter (see package tokens).
	Namespace string
	Root      CacheRoot

	// Prefill asks an engine whose card has the role prefill to compute the prompt
	// and draw one id, and to keep the KV for the engine that goes on: see
	// Chunk.Handover.
	Prefill bool
	// Lend asks an engine whose card says Lends to compute nothing, and to keep what KV
	// it has of the leading blocks of Tokens and Resume for an engine that lacks them: see
	// Chunk.Handover. It draws no id; the answer ends at once if there is no such KV.
	Lend bool
	// Handover says where the KV of Tokens and all but the last of Resume is, in the
	// words of the engine that computed it (Chunk.Handover). It is a hint: an engine
	// that cannot make use of it computes them itself. Never changed in place.
	Handover []byte

	// N is the number of choices wanted (0 and 1 mean one). engine.Expand turns
	// it into N requests with Choice 0…N-1 and one Group; engines see one.
	N      int
	Choice int
	Group  RequestID
}

// Routing says where a request is to run and for whom. Of it ExpectedOutput, Session
// and Rank reach the worker; the rest is for those that choose one.
type Routing struct {
	// Worker has to serve the request, and PrefillWorker to compute its prompt, where
	// that is done elsewhere; zero leaves the choice free.
	Worker, PrefillWorker WorkerID
	// Rank and PrefillRank are their data-parallel ranks; nil leaves the choice free.
	Rank, PrefillRank *int
	// Mode says whether the prompt may be computed elsewhere.
	Mode RoutingMode

	// Tenant is who the request is charged to, as its API key says; empty is nobody
	// in particular.
	Tenant string
	// Session names the conversation that the request is a turn of, whose turns are
	// best served by one worker. It means something only together with Tenant.
	Session string
	// ExpectedOutput is how many ids the client expects to be generated; 0 is unknown.
	ExpectedOutput int
	// StrictPriority orders waiting requests before their Priority does: one of a
	// higher tier goes first whatever the others' priorities. Zero is normal.
	StrictPriority int

	// RequiredLabels are those, as "key=value", that the worker must have, and
	// PreferredLabels those that count in its favour; no label is in a list twice.
	RequiredLabels  []string
	PreferredLabels []LabelPreference
	// Overrides stand in for the router's own settings, for this request.
	Overrides RoutingOverrides
}

// RoutingMode says whether a request's prompt may be computed by another worker than
// its answer. The names travel in requests.
type RoutingMode string

// The modes.
const (
	RoutingAny           RoutingMode = ""              // as the router sees fit
	RoutingAggregated    RoutingMode = "aggregated"    // one worker does both
	RoutingDisaggregated RoutingMode = "disaggregated" // two workers, where there are such
)

// LabelPreference says how much a label of a worker counts in its favour: by which
// part of the cost, in 0…1.
type LabelPreference struct {
	Label  string
	Weight float64
}

// RoutingOverrides are settings of the router that a request brings along. Numbers
// are finite and not negative; nil leaves the router's own.
type RoutingOverrides struct {
	// Policy is a policy's name; empty leaves the router's own.
	Policy string
	// OverlapCredit is what a block that a worker holds is worth, in blocks of
	// prefill; PrefillLoadScale multiplies the prefill part of the cost; Temperature
	// draws among workers instead of taking the best.
	OverlapCredit, PrefillLoadScale, Temperature *float64
}

// Sampling says how the next id is drawn from the logits. The zero value is
// greedy decoding without penalties.
type Sampling struct {
	// Temperature divides the logits; 0 is greedy.
	Temperature float32
	// TopP keeps the smallest set of ids whose probability reaches it, in (0,1];
	// 0 means off.
	TopP float32
	// TopK keeps the k most likely ids; 0 means off.
	TopK int
	// MinP drops ids below MinP times the best probability; 0 means off.
	MinP float32
	// PresencePenalty and FrequencyPenalty are subtracted from the logits of
	// generated ids (once; per occurrence).
	PresencePenalty  float32
	FrequencyPenalty float32
	// RepetitionPenalty divides positive and multiplies negative logits of ids
	// seen in prompt or output; 0 and 1 mean off.
	RepetitionPenalty float32
	// LogitBias is added to single logits before anything else.
	LogitBias []LogitBias
	// Seed keys the counter-based random numbers together with the choice and
	// the position, so a resumed request draws what it would have drawn.
	Seed uint64
	// Seeded says that the seed is the client's, who then expects these very draws
	// again; otherwise it is random, and any draws from the same distribution do.
	Seeded bool

	// Logprobs asks for the log-probability of each generated id, and TopLogprobs
	// for that many alternatives beside it.
	Logprobs    bool
	TopLogprobs int
	// PromptLogprobs asks for the same over the prompt.
	PromptLogprobs bool
}

// Guided says which texts an answer may be; an engine that offers it draws no id
// that leads out of them, and ends the answer when it is one of them and cannot
// go on. Where an answer ends by its length it is the beginning of such a text.
type Guided struct {
	// Kind says what Value is; empty is no restriction.
	Kind GuidedKind
	// Value is a JSON schema, a regular expression, a JSON array of strings, a
	// grammar or a structural tag, as its Kind says and as the client wrote it.
	// Empty with GuidedJSONObject.
	Value string
	// Whitespace is a regular expression of the white space between the parts of a
	// JSON text; empty leaves it to the engine.
	Whitespace string
	// Compact allows no such white space at all, and Closed no members of an object
	// that its schema does not name.
	Compact, Closed bool
}

// GuidedKind is a way of saying which texts an answer may be. The names are
// stored in cards and travel in requests.
type GuidedKind string

// The kinds.
const (
	GuidedJSONSchema    GuidedKind = "json_schema"    // JSON that fits the schema, a JSON object
	GuidedJSONObject    GuidedKind = "json_object"    // any JSON object
	GuidedRegex         GuidedKind = "regex"          // a match, in the engine's own dialect
	GuidedChoice        GuidedKind = "choice"         // one of the strings
	GuidedGrammar       GuidedKind = "grammar"        // a word of a context-free grammar, in the engine's own notation
	GuidedStructuralTag GuidedKind = "structural_tag" // free text whose tagged parts are restricted, a JSON object
)

// LogitBias is added to the logit of one id.
type LogitBias struct {
	ID   TokenID
	Bias float32
}

// Chunk is a piece of an answer. Its slices are valid until the iterator is
// asked for the next chunk; whoever keeps them copies them.
type Chunk struct {
	// Choice is the choice the piece belongs to.
	Choice int
	// Tokens are the ids generated since the last chunk of this choice. When
	// Finish is FinishStop the last of them is the stop id that ended the
	// answer: it counts in the usage and is not part of the text.
	Tokens []TokenID
	// Text replaces Tokens from an engine whose card says text-only.
	Text string
	// Logprobs runs parallel to Tokens when they were asked for.
	Logprobs []TokenLogprob
	// PromptLogprobs runs parallel to the prompt, on the first chunk only; the
	// first id has no predecessor and holds a NaN.
	PromptLogprobs []TokenLogprob
	// Cached is the number of prompt tokens whose KV was found, on the first
	// chunk of a choice; 0 where that is not known so early. Usage.Cached is the
	// count.
	Cached int
	// Handover answers Request.Prefill and Request.Lend: where the KV is that the answer can go on
	// with elsewhere, as its engine puts it; whoever is between passes it on as it
	// is. It comes with the id or behind it, and not at all if the answer is
	// complete. With Finish and no id it says that the engine which goes on draws that
	// one, too. On a chunk without Finish it says that the KV is kept until the
	// sequence is ended or ends: by itself it does when the engine keeps it no longer.
	// To a request without Prefill it says that the engine gives the request up, of which
	// no more comes here.
	Handover []byte
	// Finish is set on the last chunk of a choice, together with Usage.
	Finish FinishReason
	Usage  Usage
}

// TokenLogprob is the log-probability of one id under the model's own
// distribution (before temperature, penalties and bias), with the most likely
// alternatives, best first.
type TokenLogprob struct {
	ID      TokenID
	Logprob float32
	Top     []TopLogprob
}

// TopLogprob is one alternative.
type TopLogprob struct {
	ID      TokenID
	Logprob float32
}

// FinishReason says why a choice ended; zero means it has not.
type FinishReason uint8

// The reasons.
const (
	FinishNone   FinishReason = iota
	FinishStop                // a stop id, an end-of-sequence id or a stop string
	FinishLength              // MaxTokens or the end of the context
)

// String returns OpenAI's name of the reason, empty for none.
func (f FinishReason) String() string {
	switch f {
	case FinishStop:
		return "stop"
	case FinishLength:
		return "length"
	}
	return ""
}

// Usage counts the tokens of one choice. Completion includes a stop id and
// resumed ids.
type Usage struct {
	Prompt, Cached, Completion int
}
