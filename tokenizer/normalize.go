package tokenizer

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// A normalizer rewrites a text before it is split. The text is valid UTF-8 and
// so is the result.
type normalizer func(s string) string

// normalizeAll applies ns in order.
func normalizeAll(ns []normalizer, s string) string {
	for _, n := range ns {
		s = n(s)
	}
	return s
}

// readNormalizers reads a normalizer component, flattening sequences.
func (r *reader) readNormalizers(raw rawJSON) ([]normalizer, error) {
	return readParts(r, "normalizer", "normalizers", raw, r.readNormalizer)
}

// readNormalizer reads one normalizer that is no sequence.
func (r *reader) readNormalizer(kind string, raw rawJSON) ([]normalizer, error) {
	switch kind {
	case "NFC", "NFD", "NFKC", "NFKD":
		return r.readForm(kind), nil
	case "Lowercase":
		r.growth *= 2
		return []normalizer{lowercase}, nil
	case "StripAccents":
		return []normalizer{stripAccents}, nil
	case "Strip":
		return r.readStrip(raw)
	case "Prepend":
		return r.readPrepend(raw)
	case "Replace":
		return r.readReplaceNormalizer(raw)
	case "ByteLevel":
		r.growth *= 2
		return []normalizer{func(s string) string { return string(appendSpelled(nil, s)) }}, nil
	case "Nmt":
		return []normalizer{nmt}, nil
	}
	return nil, unsupported("normalizer %q", kind)
}

// readForm returns the normalizer of a Unicode normalization form.
func (r *reader) readForm(kind string) []normalizer {
	if kind == "NFC" {
		r.forms++
	}
	f := map[string]norm.Form{"NFC": norm.NFC, "NFD": norm.NFD, "NFKC": norm.NFKC, "NFKD": norm.NFKD}[kind]
	r.growth *= map[string]int{"NFC": 3, "NFD": 4, "NFKC": 12, "NFKD": 12}[kind]
	return []normalizer{func(s string) string { return normalForm(f, s) }}
}

// lowercase maps every character by itself, without regard to its neighbours.
func lowercase(s string) string {
	if strings.Contains(s, "İ") {
		s = strings.ReplaceAll(s, "İ", "i\u0307")
	}
	return strings.Map(unicode.ToLower, s)
}

// stripAccents takes out all marks.
func stripAccents(s string) string {
	return strings.Map(func(c rune) rune {
		if classes.of(c)&classMask == classM {
			return -1
		}
		return c
	}, s)
}

// readStrip reads a Strip normalizer.
func (r *reader) readStrip(raw rawJSON) ([]normalizer, error) {
	var c struct {
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	r.t.stripsLeft = r.t.stripsLeft || c.Left
	return []normalizer{func(s string) string {
		if c.Left {
			s = trimSpaceLeft(s)
		}
		if c.Right {
			s = trimSpaceRight(s)
		}
		return s
	}}, nil
}

// readPrepend reads a Prepend normalizer.
func (r *reader) readPrepend(raw rawJSON) ([]normalizer, error) {
	var c struct {
		Prepend string `json:"prepend"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	r.growth *= 1 + len(c.Prepend)
	return []normalizer{func(s string) string {
		if s == "" {
			return s
		}
		return c.Prepend + s
	}}, nil
}

// readReplaceNormalizer reads a Replace normalizer.
func (r *reader) readReplaceNormalizer(raw rawJSON) ([]normalizer, error) {
	p, content, err := r.readReplace(raw)
	if err != nil {
		return nil, err
	}
	return []normalizer{func(s string) string { return replaceAll(p, s, content) }}, nil
}

// readReplace reads the pattern and content of a Replace component.
func (r *reader) readReplace(raw rawJSON) (pattern, string, error) {
	var c struct {
		Pattern rawJSON `json:"pattern"`
		Content string  `json:"content"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, "", err
	}
	p, err := r.readPattern(c.Pattern)
	if err != nil {
		return nil, "", err
	}
	r.growth *= 1 + len(c.Content)
	return p, c.Content, nil
}

// replaceAll puts content in place of every match of p.
func replaceAll(p pattern, s, content string) string {
	if lit, ok := p.(literal); ok {
		return strings.ReplaceAll(s, string(lit), content)
	}
	var b strings.Builder
	done := 0
	p.each(s, func(start, end int) {
		b.WriteString(s[done:start])
		b.WriteString(content)
		done = end
	})
	if done == 0 && b.Len() == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// nmt drops control characters and turns unusual spaces into ordinary ones.
func nmt(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 0x01 && c <= 0x08, c == 0x0B, c >= 0x0E && c <= 0x1F, c == 0x7F, c == 0x8F, c == 0x9F:
			return -1
		case c == 0x09, c == 0x0A, c == 0x0C, c == 0x0D, c == 0x1680, c >= 0x200B && c <= 0x200F,
			c == 0x2028, c == 0x2029, c == 0x2581, c == 0xFEFF, c == 0xFFFD:
			return ' '
		}
		return c
	}, s)
}
