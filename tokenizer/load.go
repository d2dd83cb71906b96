package tokenizer

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// rawJSON is the text of a component that is read later.
type rawJSON = jsontext.Value

// FromJSON loads a Hugging Face tokenizer.json. The error is a *dynamo.Error of
// kind corrupt for bytes that are not one, and of kind invalid for a tokenizer
// that uses something this package does not do; it names the component.
//
// Truncation and padding settings are left to the caller: they are passed over.
func FromJSON(data []byte) (*Tokenizer, error) {
	r := &reader{growth: 1, t: &Tokenizer{}}
	r.t.model.vocab.limit = min(maxIDs, len(data)/4+1<<16)
	if err := r.file(data); err != nil {
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	r.t.digest = hex.EncodeToString(sum[:])
	return r.t, nil
}

// reader holds what is known of a tokenizer while it is read.
type reader struct {
	t *Tokenizer

	parts      int  // components so far
	growth     int  // how many times longer a text can become
	forms      int  // NFC normalizers so far
	onlyNFC    bool // there is one normalizer, NFC
	slow       bool // a pattern goes through the regular expression engine
	splitters  []splitter
	added      []addedToken
	normalizer rawJSON
	splitter   rawJSON
	post       rawJSON
	decoder    rawJSON

	hasModel bool
	kind     string
	hasVocab bool
	merges   int // where the merges begin, or 0
	unknown  *string

	merged     bool   // the merges are read,
	mergedWith string // with this prefix
}

// file reads the outermost object. The vocabulary and the merges are read where
// they stand; components are cut out, because what they mean depends on others
// that may follow.
func (r *reader) file(data []byte) error {
	p := &jsonScanner{data: data}
	err := p.object(func(key string) error {
		switch key {
		case "added_tokens":
			return p.unmarshal(&r.added)
		case "normalizer":
			return p.cut(&r.normalizer)
		case "pre_tokenizer":
			return p.cut(&r.splitter)
		case "post_processor":
			return p.cut(&r.post)
		case "decoder":
			return p.cut(&r.decoder)
		case "model":
			r.hasModel = true
			return r.readModel(p)
		}
		_, err := p.skip()
		return err
	})
	if err != nil {
		return err
	}
	if p.peek() != 0 || p.pos != len(data) {
		return p.fail("the end of the file")
	}
	if !r.hasModel {
		return corrupt("tokenizer.json has no model")
	}
	return nil
}

// object calls member for every member of the object at the current place, whose
// value it reads.
func (p *jsonScanner) object(member func(key string) error) error {
	if err := p.open('{'); err != nil {
		return err
	}
	for first := true; ; {
		ok, err := p.more(&first, '}')
		if err != nil || !ok {
			return err
		}
		key, err := p.key()
		if err != nil {
			return err
		}
		if err := member(string(key)); err != nil {
			return err
		}
	}
}

// key reads a member's name and the colon. It is valid until the next string.
func (p *jsonScanner) key() ([]byte, error) {
	key, err := p.str()
	if err != nil {
		return nil, err
	}
	if p.peek() != ':' {
		return nil, p.fail("':'")
	}
	p.pos++
	return key, nil
}

// cut reads any value as its text; null is no text.
func (p *jsonScanner) cut(to *rawJSON) error {
	v, err := p.skip()
	if err == nil && string(v) != "null" {
		*to = v
	}
	return err
}

// unmarshal reads a value through the JSON library.
func (p *jsonScanner) unmarshal(to any) error {
	v, err := p.skip()
	if err != nil {
		return err
	}
	return decode(v, to)
}

// decode unmarshals a component. Members nobody asks for are passed over.
func decode(raw rawJSON, to any) error {
	if len(raw) == 0 {
		return corrupt("a component is missing")
	}
	if err := json.Unmarshal(raw, to, jsontext.AllowDuplicateNames(true)); err != nil {
		return corrupt("%v", err)
	}
	return nil
}

// readModel reads the model's object.
func (r *reader) readModel(p *jsonScanner) error {
	m := &r.t.model
	m.unknown = -1
	err := p.object(func(key string) error {
		switch key {
		case "type":
			return p.unmarshal(&r.kind)
		case "unk_token":
			return p.unmarshal(&r.unknown)
		case "continuing_subword_prefix":
			return p.unmarshal(&m.prefix)
		case "end_of_word_suffix":
			return p.unmarshal(&m.suffix)
		case "fuse_unk":
			return p.unmarshal(&m.fuseUnknown)
		case "byte_fallback":
			return p.unmarshal(&m.byteFallback)
		case "ignore_merges":
			return p.unmarshal(&m.ignoreMerges)
		case "vocab":
			return r.readVocab(p)
		case "merges":
			if r.merges > 0 {
				return corrupt("the model has two lists of merges")
			}
			r.merges = p.pos
			if r.hasVocab {
				r.merged, r.mergedWith = true, m.prefix
				m.vocab.seal()
				return r.readMerges(p)
			}
			_, err := p.skip()
			return err
		}
		_, err := p.skip()
		return err
	})
	if err != nil {
		return err
	}
	if r.kind != "" && r.kind != "BPE" {
		return unsupported("model type %q", r.kind)
	}
	if !r.hasVocab || r.merges == 0 {
		return corrupt("the model has no vocab or no merges")
	}
	if len(m.prefix) > maxTokenBytes || len(m.suffix) > maxTokenBytes {
		return corrupt("the model's prefix or suffix is too long")
	}
	if r.merged && m.prefix == r.mergedWith {
		return nil
	}
	// The merges stood before something they depend on.
	m.vocab.seal()
	return r.readMerges(&jsonScanner{data: p.data, pos: r.merges})
}

// readVocab reads {"token": id, …}.
func (r *reader) readVocab(p *jsonScanner) error {
	if p.peek() != '{' {
		// Unigram models keep a list of pieces with scores.
		if r.kind != "" && r.kind != "BPE" {
			return unsupported("model type %q", r.kind)
		}
		return unsupported("a vocabulary that is no object, as in Unigram models")
	}
	if r.hasVocab {
		return corrupt("the model has two vocabularies")
	}
	r.hasVocab = true
	p.pos++
	for first := true; ; {
		ok, err := p.more(&first, '}')
		if err != nil || !ok {
			return err
		}
		token, err := p.key()
		if err != nil {
			return err
		}
		id, err := p.id()
		if err != nil {
			return err
		}
		if err := r.t.model.vocab.put(token, id); err != nil {
			return err
		}
	}
}

// readMerges reads ["left right", …] or [["left", "right"], …].
func (r *reader) readMerges(p *jsonScanner) error {
	if err := p.open('['); err != nil {
		return err
	}
	b := newMergeBuilder(&r.t.model)
	for first := true; ; {
		ok, err := p.more(&first, ']')
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		left, right, err := p.merge(b.left[:0])
		if err != nil {
			return err
		}
		b.left = left
		if err := b.add(left, right); err != nil {
			return err
		}
	}
	return b.build()
}

// merge reads one merge. The left side is copied to buf; the right side is valid
// until the next string.
func (p *jsonScanner) merge(buf []byte) (left, right []byte, err error) {
	if p.peek() == '"' {
		s, err := p.str()
		if err != nil {
			return nil, nil, err
		}
		for i, c := range s {
			if c == ' ' {
				return append(buf, s[:i]...), s[i+1:], nil
			}
		}
		return nil, nil, corrupt("merge %q is not two tokens", s)
	}
	if err := p.open('['); err != nil {
		return nil, nil, err
	}
	s, err := p.str()
	if err != nil {
		return nil, nil, err
	}
	left = append(buf, s...)
	if p.peek() != ',' {
		return nil, nil, p.fail("','")
	}
	p.pos++
	if right, err = p.str(); err != nil {
		return nil, nil, err
	}
	if p.peek() != ']' {
		return nil, nil, p.fail("']'")
	}
	p.pos++
	return left, right, nil
}

// readParts reads a component: nothing, one part, or sequences of parts under the
// member list. what names it in errors.
func readParts[T any](r *reader, what, list string, raw rawJSON, one func(kind string, raw rawJSON) ([]T, error)) ([]T, error) {
	return readNested(r, what, list, raw, one, 0)
}

func readNested[T any](r *reader, what, list string, raw rawJSON, one func(kind string, raw rawJSON) ([]T, error), depth int) ([]T, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if depth > maxNesting {
		return nil, unsupported("%s: sequences nested deeper than %d", what, maxNesting)
	}
	if r.parts++; r.parts > maxComponents {
		return nil, unsupported("more than %d components", maxComponents)
	}
	var c struct {
		Type string `json:"type"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if c.Type != "Sequence" {
		parts, err := one(c.Type, raw)
		if err == nil && r.growth > maxGrowth {
			err = unsupported("%s %q would make a text more than %d times longer", what, c.Type, maxGrowth)
		}
		return parts, err
	}
	var members map[string]rawJSON
	if err := decode(raw, &members); err != nil {
		return nil, err
	}
	var raws []rawJSON
	if err := decode(members[list], &raws); err != nil {
		return nil, err
	}
	var out []T
	for _, m := range raws {
		parts, err := readNested(r, what, list, m, one, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, parts...)
	}
	return out, nil
}
