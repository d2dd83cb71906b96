package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// common are short words that most vocabularies have as one token, with a space
// before them and without.
const common = `time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city name team minute idea body back parent face others level office door health person art war history party result change morning reason research girl guy moment air teacher force education foot boy age policy music mind sense nation plan college interest death experience effect use class control field development role effort rate heart drug show light voice wife police price report decision son view town road arm value building action season society tax director position player record paper space ground form event official matter center couple site project activity star table need court oil situation cost industry figure street image phone data picture practice piece land product doctor wall patient worker news test movie north love support step baby computer type attention film tree source subject rest term better cut green stop run move write read open close begin turn start play hold bring carry keep leave feel put mean call try ask seem help talk believe happen include continue set learn lead understand watch follow create speak allow add spend grow walk win offer remember consider appear buy wait serve die send expect build stay fall reach kill remain suggest raise pass sell require decide pull`

// minWords is how many words prompts need at least to differ.
const minWords = 16

// vocabulary is what prompts are made of: words of one token each.
type vocabulary struct {
	words []string         // with the space before
	ids   []dynamo.TokenID // of the words; nil without a tokenizer
	first dynamo.TokenID   // with ids and no words: a range
	count uint32
}

// newVocabulary chooses words. With a tokenizer each is exactly one token wherever it
// stands, so that a prompt of n words has n tokens.
func newVocabulary(c *Config) (*vocabulary, error) {
	list := strings.Fields(common)
	if c.Tokenizer == nil {
		if c.PromptIDs {
			return &vocabulary{first: c.FirstID, count: uint32(c.LastID-c.FirstID) + 1}, nil
		}
		v := &vocabulary{}
		for _, w := range list {
			v.words = append(v.words, " "+w)
		}
		v.count = uint32(len(v.words))
		return v, nil
	}
	v := &vocabulary{}
	for _, w := range list {
		v.add(c.Tokenizer, " "+w)
	}
	for id := 0; len(v.words) < minWords && id < c.Tokenizer.VocabSize(); id++ {
		if w := c.Tokenizer.Token(dynamo.TokenID(id)); !c.Tokenizer.Special(dynamo.TokenID(id)) {
			v.add(c.Tokenizer, strings.ReplaceAll(w, "Ġ", " "))
		}
	}
	v.settle(c.Tokenizer)
	if len(v.words) < 2 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--tokenizer: its vocabulary has no words that are one token wherever they stand; leave it out, or use --prompt-ids without it"}
	}
	v.count = uint32(len(v.words))
	return v, nil
}

// add takes a word of lower-case letters if it is one token, also without the space
// before it, which some templates cut off where a text begins.
func (v *vocabulary) add(t *tokenizer.Tokenizer, w string) {
	letters := strings.TrimPrefix(w, " ")
	if letters == "" || strings.Trim(letters, "abcdefghijklmnopqrstuvwxyz") != "" {
		return
	}
	ids := t.Encode(nil, w, tokenizer.EncodeOptions{})
	if bare := t.Encode(nil, letters, tokenizer.EncodeOptions{}); len(ids) == 1 && len(bare) == 1 {
		v.words, v.ids = append(v.words, w), append(v.ids, ids[0])
	}
}

// settle drops words that merge with what stands around them, found by encoding each
// between two others.
func (v *vocabulary) settle(t *tokenizer.Tokenizer) {
	words, ids := v.words[:0:0], v.ids[:0:0]
	for i, w := range v.words {
		alone := true
		for _, j := range []int{i, 0, len(v.words) - 1, len(v.words) / 2, (i*7 + 3) % len(v.words)} {
			text := v.words[j] + w + v.words[j]
			alone = alone && len(t.Encode(nil, text, tokenizer.EncodeOptions{})) == 3
		}
		if alone {
			words, ids = append(words, w), append(ids, v.ids[i])
		}
	}
	v.words, v.ids = words, ids
}

// request is one request of a plan.
type request struct {
	trace.Request
	index  int
	limit  int     // give up after so many events; 0 is never
	patien float64 // share of CancelAfter after which a plain answer is given up; 0 is never
}

// Salts keep draws for different purposes apart.
const (
	saltLengths uint64 = iota + 0x62656e6368
	saltGroup
	saltCancel
	saltArrival
	saltWarmUp
)

// synthetic returns request n of the synthetic plan.
func (c *Config) synthetic(n int) trace.Request {
	r := rand.New(rand.NewPCG(c.Seed^saltLengths, uint64(n)))
	q := trace.Request{
		Input: c.Input.draw(r), Output: c.Output.draw(r), BlockSize: 1, ID: strconv.Itoa(n),
	}
	if c.PrefixGroups > 0 {
		q.BlockSize = c.PrefixTokens
		q.Input = max(q.Input, c.PrefixTokens)
		q.Hashes = []uint64{saltGroup<<20 + uint64(r.IntN(c.PrefixGroups))}
	}
	return q
}

func (l Lengths) draw(r *rand.Rand) int {
	x := l.Mean
	if l.StdDev > 0 {
		x += l.StdDev * r.NormFloat64()
	}
	return int(min(max(math.Round(x), 1), maxPromptTokens))
}

// cancels decides whether request n is given up, and when.
func (c *Config) cancels(q *request) {
	if c.CancelRate <= 0 {
		return
	}
	r := rand.New(rand.NewPCG(c.Seed^saltCancel, uint64(q.index)))
	if r.Float64() >= c.CancelRate {
		return
	}
	if c.Unary {
		q.patien = 1 - r.Float64()
		return
	}
	q.limit = 1 + r.IntN(max(q.Output, 1))
}

// bodies makes request bodies. It is shared; its Append may be called by several
// goroutines.
type bodies struct {
	cfg     *Config
	words   *vocabulary
	prompts trace.Prompts
	fixed   []byte // the members all bodies have
	skip    map[string]bool
}

func newBodies(c *Config) (*bodies, error) {
	v, err := newVocabulary(c)
	if err != nil {
		return nil, err
	}
	b := &bodies{cfg: c, words: v, prompts: trace.Prompts{First: v.first, Count: v.count, Seed: c.Seed}}
	var extra []byte
	b.skip, extra = c.members()
	b.fixed = append(b.fixed, '{')
	b.member("model", quoted(c.Model))
	if !c.Unary {
		b.member("stream", "true")
		b.member("stream_options", `{"include_usage":true}`)
	}
	if c.IgnoreEOS {
		b.member("ignore_eos", "true")
	}
	if c.Tools > 0 {
		b.member("tools", toolList(c.Tools))
		if c.ToolChoice != "" {
			choice := quoted(c.ToolChoice)
			if strings.HasPrefix(c.ToolChoice, "{") {
				choice = c.ToolChoice
			}
			b.member("tool_choice", choice)
		}
	}
	b.fixed = append(b.fixed, extra...)
	return b, nil
}

// member adds a member that all bodies have, unless Extra has it.
func (b *bodies) member(name, value string) {
	if !b.skip[name] {
		b.fixed = fmt.Appendf(b.fixed, "%q:%s,", name, value)
	}
}

func quoted(s string) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil { // not UTF-8: it is replaced
		b, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\ufffd"))
	}
	return string(b)
}

// toolList is n tool definitions of about 60 tokens each.
func toolList(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"function","function":{"name":"look_up_%d","description":"Looks a record up in table %d and returns its fields.","parameters":{"type":"object","properties":{"key":{"type":"string","description":"name of the record"},"limit":{"type":"integer","description":"most fields to return"}},"required":["key"]}}}`, i, i)
	}
	return "[" + b.String() + "]"
}

// made is a body with the buffers it is made in.
type made struct {
	body []byte
	ids  []dynamo.TokenID
}

// append makes the body of q.
func (b *bodies) make(m *made, q *request) {
	m.ids = b.prompts.Append(m.ids[:0], &q.Request)
	d := append(m.body[:0], b.fixed...)
	output := max(q.Output, 1)
	if q.Choices > 1 && !b.skip["n"] {
		output = max(output/q.Choices, 1)
		d = append(strconv.AppendInt(append(d, `"n":`...), int64(q.Choices), 10), ',')
	}
	if !b.skip["max_tokens"] {
		d = append(strconv.AppendInt(append(d, `"max_tokens":`...), int64(output), 10), ',')
	}
	if b.cfg.IgnoreEOS && !b.skip["min_tokens"] {
		d = append(strconv.AppendInt(append(d, `"min_tokens":`...), int64(output), 10), ',')
	}
	switch {
	case b.cfg.PromptIDs:
		d = append(d, `"prompt":[`...)
		for i, id := range m.ids {
			if i > 0 {
				d = append(d, ',')
			}
			if b.words.ids != nil {
				id = b.words.ids[id]
			}
			d = strconv.AppendUint(d, uint64(id), 10)
		}
		d = append(d, `]}`...)
	case b.cfg.Completions:
		d = append(b.text(append(d, `"prompt":"`...), m.ids), `"}`...)
	case b.cfg.PrefixSystem && len(q.Hashes) > 0 && q.BlockSize < len(m.ids):
		d = b.text(append(d, `"messages":[{"role":"system","content":"`...), m.ids[:q.BlockSize])
		d = b.text(append(d, `"},{"role":"user","content":"`...), m.ids[q.BlockSize:])
		d = append(d, `"}]}`...)
	default:
		d = append(b.text(append(d, `"messages":[{"role":"user","content":"`...), m.ids), `"}]}`...)
	}
	m.body = d
}

func (b *bodies) text(d []byte, ids []dynamo.TokenID) []byte {
	for _, id := range ids {
		d = append(d, b.words.words[id]...)
	}
	return d
}
