package remote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// appendRequest appends the wire form of r, all of it but the deadline.
func appendRequest(b []byte, r *dynamo.Request) []byte {
	if b == nil {
		b = make([]byte, 0, 192+3*(len(r.Tokens)+len(r.Resume)))
	}
	s := &r.Sampling
	var flags byte
	if r.IgnoreEOS {
		flags |= flagIgnoreEOS
	}
	if s.Logprobs {
		flags |= flagLogprobs
	}
	if s.PromptLogprobs {
		flags |= flagPromptLogprobs
	}
	if s.Seeded {
		flags |= flagSeeded
	}
	if r.Guided != (dynamo.Guided{}) {
		flags |= flagGuided
	}
	if r.Prefill {
		flags |= flagPrefill
	}
	if len(r.Handover) > 0 {
		flags |= flagHandover
	}
	if hinted(r.Routing) {
		flags |= flagHints
	}
	b = append(b, requestFormat, flags)
	for _, v := range [...]string{string(r.ID), r.Model, r.Adapter, r.Namespace, string(r.Group)} {
		b = appendString(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Root))
	for _, v := range [...]int{r.Priority, r.MaxTokens, r.MinTokens, r.N, r.Choice, s.TopK, s.TopLogprobs} {
		b = binary.AppendVarint(b, int64(v))
	}
	for _, v := range [...]float32{s.Temperature, s.TopP, s.MinP, s.PresencePenalty, s.FrequencyPenalty, s.RepetitionPenalty} {
		b = appendFloat(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, s.Seed)
	b = binary.AppendUvarint(b, uint64(len(s.LogitBias)))
	for _, v := range s.LogitBias {
		b = appendFloat(binary.AppendUvarint(b, uint64(v.ID)), v.Bias)
	}
	b = appendIDs(b, r.StopTokens)
	b = appendIDs(b, r.Tokens)
	b = appendIDs(b, r.Resume)
	if flags&flagGuided != 0 {
		b = appendGuided(b, &r.Guided)
	}
	if flags&flagHandover != 0 {
		b = appendBytes(b, r.Handover)
	}
	if flags&flagHints != 0 {
		b = appendHints(b, r.Routing)
	}
	return b
}

// hinted reports whether a worker has use for any of r.
func hinted(r *dynamo.Routing) bool {
	return r != nil && (r.Rank != nil || r.ExpectedOutput > 0 || r.Session != "")
}

func appendHints(b []byte, r *dynamo.Routing) []byte {
	rank := uint64(0)
	if r.Rank != nil {
		rank = uint64(max(*r.Rank, 0)) + 1
	}
	hints := binary.AppendUvarint(make([]byte, 0, 32), min(rank, math.MaxInt32))
	hints = binary.AppendUvarint(hints, uint64(min(max(r.ExpectedOutput, 0), math.MaxInt32)))
	return appendBytes(b, appendString(hints, r.Session))
}

func (r *reader) hints() *dynamo.Routing {
	in := reader{b: r.bytes(int(r.uvarint(maxStringBytes)))}
	h := &dynamo.Routing{}
	if rank := int(in.uvarint(math.MaxInt32)) - 1; rank >= 0 {
		h.Rank = &rank
	}
	h.ExpectedOutput = int(in.uvarint(math.MaxInt32))
	h.Session = in.string(maxStringBytes)
	if in.fault != "" {
		r.fail(in.fault)
	}
	return h
}

func appendGuided(b []byte, g *dynamo.Guided) []byte {
	var flags byte
	if g.Compact {
		flags |= flagCompact
	}
	if g.Closed {
		flags |= flagClosed
	}
	b = append(b, flags)
	for _, v := range [...]string{string(g.Kind), g.Value, g.Whitespace} {
		b = appendString(b, v)
	}
	return b
}

func (r *reader) guided() (g dynamo.Guided) {
	flags := r.byte()
	if flags&^flagsOfGuided != 0 {
		r.fail("its restriction has flags that this worker does not know; run one version of dynamo on both sides")
	}
	g.Compact, g.Closed = flags&flagCompact != 0, flags&flagClosed != 0
	g.Kind = dynamo.GuidedKind(r.string(maxStringBytes))
	g.Value, g.Whitespace = r.string(engine.MaxGuidedBytes), r.string(engine.MaxGuidedBytes)
	return g
}

// parseRequest reads what appendRequest wrote; nothing of the request points into
// b. A malformed one is KindInvalid.
func parseRequest(b []byte) (*dynamo.Request, error) {
	in := reader{b: b}
	if f := in.byte(); in.fault == "" && f != requestFormat {
		return nil, badRequest(fmt.Sprintf("it has format %d, this worker reads format %d; run one version of dynamo on both sides", f, requestFormat))
	}
	flags := in.byte()
	r := &dynamo.Request{IgnoreEOS: flags&flagIgnoreEOS != 0, Prefill: flags&flagPrefill != 0}
	s := &r.Sampling
	s.Logprobs, s.PromptLogprobs, s.Seeded = flags&flagLogprobs != 0, flags&flagPromptLogprobs != 0, flags&flagSeeded != 0
	r.ID = dynamo.RequestID(in.string(maxStringBytes))
	for _, v := range [...]*string{&r.Model, &r.Adapter, &r.Namespace} {
		*v = in.string(maxStringBytes)
	}
	r.Group = dynamo.RequestID(in.string(maxStringBytes))
	r.Root = dynamo.CacheRoot(in.u64())
	for _, v := range [...]*int{&r.Priority, &r.MaxTokens, &r.MinTokens, &r.N, &r.Choice, &s.TopK, &s.TopLogprobs} {
		*v = in.varint()
	}
	for _, v := range [...]*float32{&s.Temperature, &s.TopP, &s.MinP, &s.PresencePenalty, &s.FrequencyPenalty, &s.RepetitionPenalty} {
		*v = in.float()
	}
	s.Seed = in.u64()
	if n := in.count(leastBias); n > 0 {
		s.LogitBias = make([]dynamo.LogitBias, n)
		for i := range s.LogitBias {
			s.LogitBias[i] = dynamo.LogitBias{ID: in.id(), Bias: in.float()}
		}
	}
	r.StopTokens = in.ids(nil)
	r.Tokens = in.ids(nil)
	r.Resume = in.ids(nil)
	if flags&flagGuided != 0 {
		r.Guided = in.guided()
	}
	if flags&flagHandover != 0 {
		r.Handover = bytes.Clone(in.bytes(int(in.uvarint(engine.MaxHandoverBytes))))
	}
	if flags&flagHints != 0 {
		r.Routing = in.hints()
	}
	if fault := in.end(); fault != "" {
		return nil, badRequest(fault)
	}
	return r, nil
}

func badRequest(fault string) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the request cannot be read: " + fault}
}
