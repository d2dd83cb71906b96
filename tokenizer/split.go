package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// piece is a part of a text on its way to the model. Pieces never join again.
type piece struct {
	text  string
	first bool // it begins where the whole text begins
}

// A splitter takes pieces apart and may rewrite them.
type splitter interface {
	// split appends the parts of p to dst; empty ones are dropped by the caller.
	split(dst []piece, p piece) []piece
}

// splitAll runs pieces through all splitters in order.
func splitAll(splitters []splitter, pieces []piece) []piece {
	for _, sp := range splitters {
		out := make([]piece, 0, len(pieces)+len(pieces)/2)
		for _, p := range pieces {
			start := len(out)
			out = sp.split(out, p)
			kept := out[:start]
			for _, q := range out[start:] {
				if q.text != "" {
					kept = append(kept, q)
				}
			}
			out = kept
		}
		pieces = out
	}
	return pieces
}

// behaviour says what becomes of the matches a text is split at.
type behaviour string

const (
	removed            behaviour = "Removed"
	isolated           behaviour = "Isolated"
	mergedWithPrevious behaviour = "MergedWithPrevious"
	mergedWithNext     behaviour = "MergedWithNext"
	contiguous         behaviour = "Contiguous"
)

// splitAt splits at the matches of a pattern, or with invert at what is between
// them.
type splitAt struct {
	pattern   pattern
	behaviour behaviour
	invert    bool
}

// part is a stretch of a text that is a match or lies between matches.
type part struct {
	start, end int
	match      bool
}

func (c splitAt) split(dst []piece, p piece) []piece {
	s, done := p.text, 0
	var parts []part
	c.pattern.each(s, func(start, end int) {
		if done < start {
			parts = append(parts, part{done, start, c.invert})
		}
		parts = append(parts, part{start, end, !c.invert})
		done = end
	})
	if done < len(s) {
		parts = append(parts, part{done, len(s), c.invert})
	}
	for _, q := range c.arrange(parts) {
		dst = append(dst, piece{s[q.start:q.end], p.first && q.start == 0})
	}
	return dst
}

// arrange removes or joins parts as the behaviour says.
func (c splitAt) arrange(parts []part) []part {
	out := parts[:0]
	before := false // the part before was a match
	switch c.behaviour {
	case removed:
		for _, q := range parts {
			if !q.match {
				out = append(out, q)
			}
		}
		return out
	case contiguous:
		for _, q := range parts {
			if len(out) > 0 && q.match == before {
				out[len(out)-1].end = q.end
			} else {
				out = append(out, q)
			}
			before = q.match
		}
		return out
	case mergedWithPrevious:
		for _, q := range parts {
			if len(out) > 0 && q.match && !before {
				out[len(out)-1].end = q.end
			} else {
				out = append(out, q)
			}
			before = q.match
		}
		return out
	case mergedWithNext:
		at := len(parts)
		for i := len(parts) - 1; i >= 0; i-- {
			q := parts[i]
			if at < len(parts) && q.match && !before {
				parts[at].start = q.start
			} else {
				at--
				parts[at] = q
			}
			before = q.match
		}
		return parts[at:]
	}
	return parts
}

// byteLevel spells text in the byte-level alphabet, after the GPT-2 split if words
// is set.
type byteLevel struct {
	prefixSpace bool // a piece that does not begin with a space gets one
	words       bool
	spell       bool // false where the model works on raw bytes
}

func (c byteLevel) split(dst []piece, p piece) []piece {
	if c.prefixSpace && !strings.HasPrefix(p.text, " ") {
		p.text = " " + p.text
	}
	start := len(dst)
	if c.words {
		dst = splitAt{pattern: scanned{gpt2Scanner{}}, behaviour: isolated}.split(dst, p)
	} else {
		dst = append(dst, p)
	}
	if c.spell {
		for i := range dst[start:] {
			q := &dst[start+i]
			q.text = string(appendSpelled(nil, q.text))
		}
	}
	return dst
}

// metaspace writes spaces as a visible character and may put one in front.
type metaspace struct {
	replacement string
	prepend     string // "always", "first" or "never"
	splits      bool
}

func (c metaspace) split(dst []piece, p piece) []piece {
	s := strings.ReplaceAll(p.text, " ", c.replacement)
	if (c.prepend == "always" || c.prepend == "first" && p.first) && !strings.HasPrefix(s, c.replacement) {
		s = c.replacement + s
	}
	p.text = s
	if !c.splits {
		return append(dst, p)
	}
	return splitAt{pattern: literal(c.replacement), behaviour: mergedWithNext}.split(dst, p)
}

// fixedLength cuts pieces of so many characters.
type fixedLength int

func (c fixedLength) split(dst []piece, p piece) []piece {
	start, count := 0, 0
	for i := range p.text {
		if count == int(c) {
			dst = append(dst, piece{p.text[start:i], p.first && start == 0})
			start, count = i, 0
		}
		count++
	}
	return append(dst, piece{p.text[start:], p.first && start == 0})
}

// readSplitters reads a pre-tokenizer component, flattening sequences.
func (r *reader) readSplitters(raw rawJSON) ([]splitter, error) {
	return readParts(r, "pre_tokenizer", "pretokenizers", raw, r.readSplitter)
}

// readSplitter reads one pre-tokenizer that is no sequence.
func (r *reader) readSplitter(kind string, raw rawJSON) ([]splitter, error) {
	one := func(s splitter, err error) ([]splitter, error) { return []splitter{s}, err }
	switch kind {
	case "ByteLevel":
		return one(r.readByteLevel(raw))
	case "Split":
		return one(r.readSplit(raw))
	case "Digits":
		return one(readDigits(raw))
	case "Metaspace":
		return one(r.readMetaspace(raw))
	case "Whitespace":
		return one(splitAt{words{}, removed, true}, nil)
	case "WhitespaceSplit":
		return one(splitAt{chars{set: setSpace}, removed, false}, nil)
	case "Punctuation":
		return one(readPunctuation(raw))
	case "BertPreTokenizer":
		return []splitter{splitAt{chars{set: setSpace}, removed, false}, splitAt{chars{flag: flagPunct}, isolated, false}}, nil
	case "CharDelimiterSplit":
		return one(readDelimiter(raw))
	case "FixedLength":
		return one(readFixedLength(raw))
	}
	return nil, unsupported("pre-tokenizer %q", kind)
}

func (r *reader) readByteLevel(raw rawJSON) (splitter, error) {
	c := struct {
		PrefixSpace bool  `json:"add_prefix_space"`
		UseRegex    *bool `json:"use_regex"`
	}{PrefixSpace: true}
	err := decode(raw, &c)
	r.growth *= 2
	return byteLevel{prefixSpace: c.PrefixSpace, words: c.UseRegex == nil || *c.UseRegex, spell: true}, err
}

func (r *reader) readSplit(raw rawJSON) (splitter, error) {
	var c struct {
		Pattern   rawJSON   `json:"pattern"`
		Behaviour behaviour `json:"behavior"`
		Invert    bool      `json:"invert"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.Behaviour.check(); err != nil {
		return nil, err
	}
	p, err := r.readPattern(c.Pattern)
	return splitAt{p, c.Behaviour, c.Invert}, err
}

// check refuses behaviours that do not exist.
func (b behaviour) check() error {
	switch b {
	case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous:
		return nil
	}
	return unsupported("split behaviour %q", string(b))
}

func readDigits(raw rawJSON) (splitter, error) {
	var c struct {
		Individual bool `json:"individual_digits"`
	}
	err := decode(raw, &c)
	if c.Individual {
		return splitAt{chars{flag: flagNumeric}, isolated, false}, err
	}
	return splitAt{chars{flag: flagNumeric}, contiguous, false}, err
}

func readPunctuation(raw rawJSON) (splitter, error) {
	c := struct {
		Behaviour behaviour `json:"behavior"`
	}{isolated}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	return splitAt{chars{flag: flagPunct}, c.Behaviour, false}, c.Behaviour.check()
}

func readDelimiter(raw rawJSON) (splitter, error) {
	var c struct {
		Delimiter string `json:"delimiter"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(c.Delimiter) != 1 {
		return nil, corrupt("delimiter %q is not one character", c.Delimiter)
	}
	return splitAt{literal(c.Delimiter), removed, false}, nil
}

func readFixedLength(raw rawJSON) (splitter, error) {
	c := struct {
		Length int `json:"length"`
	}{5}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if c.Length < 1 {
		return nil, corrupt("pieces of %d characters", c.Length)
	}
	return fixedLength(c.Length), nil
}

// metaspaceConfig is a Metaspace component, as pre-tokenizer and as decoder.
type metaspaceConfig struct {
	Replacement string  `json:"replacement"`
	Prepend     *string `json:"prepend_scheme"`
	PrefixSpace *bool   `json:"add_prefix_space"` // older files
	Split       *bool   `json:"split"`
}

// scheme returns when a space is put in front.
func (c metaspaceConfig) scheme() (string, error) {
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return "", corrupt("Metaspace replacement %q is not one character", c.Replacement)
	}
	scheme := "always"
	if c.Prepend != nil {
		scheme = *c.Prepend
	} else if c.PrefixSpace != nil && !*c.PrefixSpace {
		scheme = "never"
	}
	switch scheme {
	case "always", "first", "never":
		return scheme, nil
	}
	return "", unsupported("Metaspace prepend_scheme %q", scheme)
}

func (r *reader) readMetaspace(raw rawJSON) (splitter, error) {
	c := metaspaceConfig{Replacement: "▁"}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	scheme, err := c.scheme()
	if err != nil {
		return nil, err
	}
	r.growth *= 1 + len(c.Replacement)
	return metaspace{c.Replacement, scheme, c.Split == nil || *c.Split}, nil
}
