package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Vocab is the tokenizer inside a GGUF file, as its tokenizer.ggml.* keys hold it.
type Vocab struct {
	Model  string    // tokenizer.ggml.model: "gpt2" or "llama"
	Pre    string    // tokenizer.ggml.pre; empty if the file has none
	Tokens []string  // tokenizer.ggml.tokens, by id
	Types  []int32   // tokenizer.ggml.token_type, by id; nil means all normal
	Merges []string  // tokenizer.ggml.merges, first merge first ("gpt2")
	Scores []float32 // tokenizer.ggml.scores, by id ("llama")

	// BOS, EOS and UNK are ids, or -1 where the file names none.
	BOS, EOS, UNK int

	// AddBOS, AddEOS and AddSpacePrefix are the keys of the same name; nil means
	// the file has none and the model's default holds.
	AddBOS, AddEOS, AddSpacePrefix *bool
}

// Token types of tokenizer.ggml.token_type.
const (
	typeUnknown     = 2
	typeControl     = 3
	typeUserDefined = 4
	typeByte        = 6
)

// FromGGUF makes the tokenizer described by v. It gives the ids of the
// tokenizer.json the file was converted from, as far as the file tells them:
// where llama.cpp's splitting differs from the original, this follows the
// original. Errors are as those of FromJSON.
func FromGGUF(v Vocab) (*Tokenizer, error) {
	r := &reader{growth: 1, t: &Tokenizer{}}
	m := &r.t.model
	m.unknown = -1
	m.vocab.limit = maxIDs
	switch {
	case len(v.Tokens) == 0:
		return nil, corrupt("the file holds no tokens")
	case v.Types != nil && len(v.Types) != len(v.Tokens):
		return nil, corrupt("%d token types for %d tokens", len(v.Types), len(v.Tokens))
	case v.Model == "llama" && len(v.Scores) != len(v.Tokens):
		return nil, corrupt("%d scores for %d tokens", len(v.Scores), len(v.Tokens))
	}
	for id, s := range v.Tokens {
		if err := m.vocab.put([]byte(strings.ToValidUTF8(s, "\uFFFD")), uint32(id)); err != nil {
			return nil, err
		}
	}
	m.vocab.seal()
	var err error
	switch v.Model {
	case "gpt2":
		err = r.gpt2(v)
	case "llama":
		err = r.sentencePiece(v)
	case "bert", "t5", "rwkv", "plamo2":
		err = unsupported("GGUF tokenizer %q", v.Model)
	default:
		err = unsupported("GGUF tokenizer %q (known are gpt2 and llama)", v.Model)
	}
	if err != nil {
		return nil, err
	}
	for id, s := range v.Tokens {
		if kind := v.kind(id); kind == typeControl || kind == typeUserDefined || kind == typeUnknown {
			r.added = append(r.added, addedToken{ID: uint32(id), Content: strings.ToValidUTF8(s, "\uFFFD"), Special: kind != typeUserDefined})
		}
	}
	if err := r.assemble(); err != nil {
		return nil, err
	}
	r.t.digest = v.digest()
	return r.t, nil
}

// kind returns the type of token id.
func (v *Vocab) kind(id int) int32 {
	if v.Types == nil {
		return 1
	}
	return v.Types[id]
}

// around sets the ids that AddSpecial puts around a text.
func (r *reader) around(v Vocab, addBOS bool) error {
	if v.AddBOS != nil {
		addBOS = *v.AddBOS
	}
	if addBOS && v.BOS >= 0 {
		r.t.before = []uint32{uint32(v.BOS)}
	}
	if v.AddEOS != nil && *v.AddEOS && v.EOS >= 0 {
		r.t.behind = []uint32{uint32(v.EOS)}
	}
	for _, id := range []int{v.BOS, v.EOS, v.UNK} {
		if id >= len(v.Tokens) {
			return corrupt("special token %d in a vocabulary of %d", id, len(v.Tokens))
		}
	}
	return nil
}

// preTokenizer is what the name under tokenizer.ggml.pre stands for.
type preTokenizer struct {
	patterns     []string // split at one after the other
	digits       bool     // single digits are split off first
	ignoreMerges bool
	addBOS       bool
	nfc          bool
}

// The patterns of GGUF files that no tokenizer.json pattern covers.
const (
	llama3Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen35Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	o200kPattern   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenPattern  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	bailingPattern = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	seedPattern    = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
	falconPunct    = "[\\p{P}\\$\\+<=>\\^~\\|`]+"
	threeDigits    = `[0-9][0-9][0-9]`
	deepseekLine   = `[\r\n]`
	deepseekHan    = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
	defaultPunct   = `[\p{P}\$\+<=>\^~\|]+`
	numbersPattern = `\p{N}+`
	numberPattern  = `\p{N}`
	spacedLetters  = `\s?\p{L}+`
	spacedPunct    = `\s?\p{P}+`
	noContractions = `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// preTokenizers is keyed by groups of names, separated by spaces.
var preTokenizers = map[string]preTokenizer{
	"gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum modern-bert exaone4 roberta-bpe": {patterns: []string{gpt2Pattern}},
	"smollm starcoder refact codeshell exaone minerva-7b mellum2":                                                {digits: true, patterns: []string{gpt2Pattern}},
	"command-r": {digits: true, patterns: []string{gpt2Pattern}, nfc: true},
	"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": {patterns: []string{llama3Pattern}, ignoreMerges: true, addBOS: true},
	"dbrx smaug-bpe chatglm-bpe":                                        {patterns: []string{llama3Pattern}},
	"glm4 glm5":                                                         {patterns: []string{llama3Pattern}, ignoreMerges: true},
	"qwen2":                                                             {patterns: []string{qwen2Pattern}, nfc: true},
	"deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2": {patterns: []string{qwen2Pattern}},
	"qwen35":                              {patterns: []string{qwen35Pattern}, nfc: true},
	"gpt-4o llama4 kanana2 minimax-m2":    {patterns: []string{o200kPattern}, ignoreMerges: true},
	"tekken":                              {patterns: []string{tekkenPattern}, ignoreMerges: true, addBOS: true},
	"deepseek-v3 hunyuan-dense joyai-llm": {patterns: []string{deepseekDigits, deepseekCJK, deepseekWords}},
	"deepseek-coder":                      {patterns: []string{deepseekLine, spacedLetters, spacedPunct, deepseekHan, numberPattern}},
	"falcon":                              {patterns: []string{falconPunct, gpt2Pattern, threeDigits}},
	"bailingmoe bailingmoe2 llada-moe":    {patterns: []string{bailingPattern}},
	"seed-coder":                          {patterns: []string{seedPattern}},
	"ufakzeka":                            {patterns: []string{noContractions}},
	"default":                             {patterns: []string{defaultPunct, gpt2Pattern, numbersPattern, threeDigits}},
}

// findPre returns the pre-tokenizer of a name.
func findPre(name string) (preTokenizer, error) {
	if name == "" {
		name = "default"
	}
	known := make([]string, 0, 64)
	for names, p := range preTokenizers {
		fields := strings.Fields(names)
		if slices.Contains(fields, name) {
			return p, nil
		}
		known = append(known, fields...)
	}
	slices.Sort(known)
	return preTokenizer{}, unsupported("GGUF pre-tokenizer %q (known are %s)", name, strings.Join(known, ", "))
}

// gpt2 sets up byte-level BPE.
func (r *reader) gpt2(v Vocab) error {
	pre, err := findPre(v.Pre)
	if err != nil {
		return err
	}
	if len(v.Merges) == 0 {
		return corrupt("the file holds no merges")
	}
	m := &r.t.model
	m.ignoreMerges = pre.ignoreMerges
	b := newMergeBuilder(m)
	for i, s := range v.Merges {
		if len(s) == 0 {
			return corrupt("merge %d is empty", i)
		}
		space := strings.IndexByte(s[1:], ' ') + 1
		if space == 0 {
			return corrupt("merge %d: %q is not two tokens", i, s)
		}
		if err := b.add([]byte(s[:space]), []byte(s[space+1:])); err != nil {
			return err
		}
	}
	if err := b.build(); err != nil {
		return err
	}
	if pre.nfc {
		r.t.normalizers, r.onlyNFC = []normalizer{func(s string) string { return normalForm(norm.NFC, s) }}, true
	}
	if pre.digits {
		r.splitters = append(r.splitters, splitAt{chars{flag: flagNumeric}, isolated, false})
	}
	for _, text := range pre.patterns {
		p, err := newRegex(text)
		if err != nil {
			return err
		}
		r.splitters = append(r.splitters, splitAt{p, isolated, false})
	}
	r.splitters = append(r.splitters, byteLevel{spell: true})
	r.t.decoding.byteLevel = true
	return r.around(v, pre.addBOS)
}

// sentencePiece sets up a SentencePiece BPE: characters, spaces as ▁, the pair
// whose result has the highest score first.
func (r *reader) sentencePiece(v Vocab) error {
	t, m := r.t, &r.t.model
	m.byteFallback, m.fuseUnknown = true, true
	if v.UNK >= 0 && v.UNK < len(v.Tokens) {
		m.unknown = int32(v.UNK)
	}
	if err := r.scoreMerges(v); err != nil {
		return err
	}
	prefix := v.AddSpacePrefix == nil || *v.AddSpacePrefix
	t.normalizers = []normalizer{func(s string) string {
		if prefix && s != "" {
			s = " " + s
		}
		return strings.ReplaceAll(s, " ", spaceMark)
	}}
	d := &t.decoding
	d.before = []rewrite{func(s string, _ bool) string { return strings.ReplaceAll(s, spaceMark, " ") }}
	d.byteN = []int16{}
	if prefix {
		d.trim, d.trimStart = stripConfig{content: " ", start: 1}, true
	}
	return r.around(v, true)
}

// scoreMerges makes the merges that scores imply: every way to put a token
// together from two others, ranked by the token's score. All ways to one token
// share a rank, so that the leftmost goes first.
func (r *reader) scoreMerges(v Vocab) error {
	m := &r.t.model
	order := make([]uint32, 0, len(v.Tokens))
	for id, s := range v.Tokens {
		switch kind := v.kind(id); {
		case kind == typeControl || kind == typeUnknown || kind == typeByte || utf8.RuneCountInString(s) < 2:
		case math.IsNaN(float64(v.Scores[id])):
		default:
			order = append(order, uint32(id))
		}
	}
	slices.SortStableFunc(order, func(a, b uint32) int {
		switch x, y := v.Scores[a], v.Scores[b]; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	b := newMergeBuilder(m)
	ranks := make([]uint32, 0, len(order))
	for rank, id := range order {
		s := m.vocab.spelling(id)
		for cut := charLen(s[0]); cut < len(s); cut += charLen(s[cut]) {
			left, ok := m.vocab.find(s[:cut])
			if !ok {
				continue
			}
			right, ok := m.vocab.find(s[cut:])
			if !ok {
				continue
			}
			b.join(s[:cut], s[cut:])
			b.merges = append(b.merges, mergeRule{left, right, id})
			ranks = append(ranks, uint32(rank))
		}
	}
	return b.buildRanked(ranks, order)
}

// digest hashes everything the tokenizer depends on.
func (v *Vocab) digest() string {
	h := sha256.New()
	hashStrings(h, []string{"gguf", v.Model, v.Pre})
	hashStrings(h, v.Tokens)
	hashStrings(h, v.Merges)
	for _, list := range []any{v.Types, v.Scores, []int64{int64(v.BOS), int64(v.EOS), int64(v.UNK)}} {
		// A hash never fails to write, and the sizes of these elements are fixed.
		_ = binary.Write(h, binary.LittleEndian, list)
	}
	for _, b := range []*bool{v.AddBOS, v.AddEOS, v.AddSpacePrefix} {
		switch {
		case b == nil:
			h.Write([]byte{2})
		case *b:
			h.Write([]byte{1})
		default:
			h.Write([]byte{0})
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashStrings writes the number of strings and each with its length.
func hashStrings(h hash.Hash, list []string) {
	buf := binary.LittleEndian.AppendUint64(nil, uint64(len(list)))
	for _, s := range list {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(s)))
		buf = append(buf, s...)
		if len(buf) > 1<<16 {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	h.Write(buf)
}
