package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// decoding is a tokenizer's decoder components, compiled. They run in this order,
// and a file that asks for another is refused:
//
//	before   rewrites of single tokens
//	bytes    runs of tokens <0xNN> become characters
//	after    more rewrites of single tokens
//	fuse     all tokens become one
//	trim     characters taken off both ends
//
// or the byte-level alphabet is undone over all tokens. The rewrites are done
// once for every token of the vocabulary when it is loaded.
type decoding struct {
	arena []byte
	spans []span  // decoded token by id; a hole has off ^0; see wholeText
	byteN []int16 // by id: the byte a token stands for, or -1; nil if none do
	skip  []bool  // by id: special

	byteLevel bool   // bytes are put together before they become characters
	between   string // put between tokens

	before, after []rewrite
	firstDiffers  bool // rewrites treat the first token of a text differently

	trim                stripConfig
	trimStart, trimStop bool
}

// wholeText is set in a span's length if the token is byte level and consists of
// whole characters: unless a character is begun it goes out as it is.
const wholeText = 1 << 31

// rewrite changes one token. first tells whether it begins the text.
type rewrite func(s string, first bool) string

// readDecoder reads the decoder component.
func (r *reader) readDecoder(raw rawJSON) error {
	d := &r.t.decoding
	r.growth = maxGrowth / maxDecoderGrowth
	stages, err := readParts(r, "decoder", "decoders", raw, r.readStage)
	if err != nil {
		return err
	}
	if len(stages) == 0 {
		d.between = " " // without a decoder tokens are joined by spaces
	}
	fused, bytes := false, false
	for i, s := range stages {
		switch {
		case s.byteLevel && i == 0:
			d.byteLevel, fused = true, true
		case s.fuse:
			fused = true
		case s.bytes && !bytes && !fused:
			bytes = true
		case s.strip != nil && fused && !d.byteLevel && d.trim.content == "":
			d.trim, d.trimStart, d.trimStop = *s.strip, s.strip.start > 0, s.strip.stop > 0
		case s.rewrite != nil && !fused && bytes:
			d.after = append(d.after, s.rewrite)
		case s.rewrite != nil && !fused:
			d.before = append(d.before, s.rewrite)
		default:
			return unsupported("decoder %q in place %d of %d", s.kind, i+1, len(stages))
		}
		d.firstDiffers = d.firstDiffers || s.firstDiffers
	}
	if bytes {
		d.byteN = []int16{}
	}
	return nil
}

// stage is one decoder component.
type stage struct {
	kind         string
	byteLevel    bool
	bytes        bool
	fuse         bool
	rewrite      rewrite
	firstDiffers bool
	strip        *stripConfig
}

// stripConfig is a Strip component: up to so many times content, one character,
// is taken off the start and the end.
type stripConfig struct {
	content     string
	start, stop int
}

func (r *reader) readStage(kind string, raw rawJSON) ([]stage, error) {
	switch kind {
	case "ByteLevel":
		return []stage{{kind: kind, byteLevel: true}}, nil
	case "ByteFallback":
		return []stage{{kind: kind, bytes: true}}, nil
	case "Fuse":
		return []stage{{kind: kind, fuse: true}}, nil
	case "Replace":
		p, content, err := r.readReplace(raw)
		if _, ok := p.(literal); err == nil && !ok {
			return nil, unsupported("decoder %q with a regular expression", kind)
		}
		return []stage{{kind: kind, rewrite: func(s string, _ bool) string { return replaceAll(p, s, content) }}}, err
	case "Strip":
		return readStripStage(raw)
	case "Metaspace":
		return readMetaspaceStage(raw)
	}
	return nil, unsupported("decoder %q", kind)
}

func readStripStage(raw rawJSON) ([]stage, error) {
	var c struct {
		Content string `json:"content"`
		Start   int    `json:"start"`
		Stop    int    `json:"stop"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(c.Content) != 1 {
		return nil, corrupt("Strip decoder: %q is not one character", c.Content)
	}
	if c.Start < 0 || c.Stop < 0 || c.Start > maxStripChars || c.Stop > maxStripChars {
		return nil, unsupported("Strip decoder for %d and %d characters", c.Start, c.Stop)
	}
	strip := &stripConfig{c.Content, c.Start, c.Stop}
	return []stage{{kind: "Strip", strip: strip, rewrite: func(s string, _ bool) string {
		for range strip.start {
			s = strings.TrimPrefix(s, c.Content)
		}
		for range strip.stop {
			s = strings.TrimSuffix(s, c.Content)
		}
		return s
	}}}, nil
}

func readMetaspaceStage(raw rawJSON) ([]stage, error) {
	c := metaspaceConfig{Replacement: "▁"}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	scheme, err := c.scheme()
	if err != nil {
		return nil, err
	}
	return []stage{{kind: "Metaspace", firstDiffers: scheme != "never", rewrite: func(s string, first bool) string {
		if first && scheme != "never" {
			return strings.ReplaceAll(s, c.Replacement, "")
		}
		return strings.ReplaceAll(s, c.Replacement, " ")
	}}}, nil
}

// apply runs rewrites over one token.
func apply(rs []rewrite, s string, first bool) string {
	for _, r := range rs {
		s = r(s, first)
	}
	return s
}

// compile decodes every token once.
func (d *decoding) compile(t *Tokenizer) {
	n := t.VocabSize()
	d.spans = make([]span, n)
	d.skip = make([]bool, n)
	if d.byteN != nil {
		d.byteN = make([]int16, n)
	}
	d.arena = make([]byte, 0, len(t.model.vocab.arena))
	spellings := string(t.model.vocab.arena) // once, instead of a copy for every token
	for id, s := range t.model.vocab.spans {
		if s.off == hole {
			d.spans[id].off = hole
			continue
		}
		d.compileToken(uint32(id), spellings[s.off:s.off+s.len])
	}
	for id := len(t.model.vocab.spans); id < n; id++ {
		d.spans[id].off = hole
	}
	for id, a := range t.added {
		d.compileToken(id, a.spelling)
		d.skip[id] = t.special[a.spelling]
	}
}

// compileToken decodes the token spelled s.
func (d *decoding) compileToken(id uint32, s string) {
	start := len(d.arena)
	if d.byteLevel {
		var ok bool
		if d.arena, ok = appendBytes(d.arena, s); !ok {
			d.arena = append(d.arena, s...)
		}
	} else {
		s = apply(d.before, s, false)
		if d.byteN != nil {
			d.byteN[id] = byteToken(s)
			s = apply(d.after, s, false)
		}
		d.arena = append(d.arena, s...)
	}
	n := uint32(len(d.arena) - start)
	if d.byteLevel && utf8.Valid(d.arena[start:]) {
		n |= wholeText
	}
	d.spans[id] = span{uint32(start), n}
}

// byteToken returns the byte that a token <0xNN> stands for, or -1.
func byteToken(s string) int16 {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return -1
	}
	v := int16(0)
	for _, c := range []byte(s[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return -1
		}
		v = v<<4 | int16(c)
	}
	return v
}
