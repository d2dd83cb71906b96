package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// A pattern is what a component looks for in a text.
type pattern interface {
	// each calls f for the matches in s, from left to right.
	each(s string, f func(start, end int))
}

// literal matches itself.
type literal string

func (l literal) each(s string, f func(start, end int)) {
	if l == "" {
		return
	}
	for i := 0; ; {
		n := strings.Index(s[i:], string(l))
		if n < 0 {
			return
		}
		f(i+n, i+n+len(l))
		i += n + len(l)
	}
}

// chars matches single characters by their table entry.
type chars struct {
	flag uint8 // of the entry; or
	set  uint16
	runs bool // runs of such characters are one match
}

func (c chars) each(s string, f func(start, end int)) {
	for i := 0; i < len(s); {
		e, n := classes.at(s, i)
		end := i + n
		if !c.has(e) {
			i = end
			continue
		}
		for c.runs && end < len(s) {
			e, n := classes.at(s, end)
			if !c.has(e) {
				break
			}
			end += n
		}
		f(i, end)
		i = end
	}
}

func (c chars) has(entry uint8) bool { return entry&c.flag != 0 || in(entry, c.set) }

// words matches \w+|[^\w\s]+.
type words struct{}

func (words) each(s string, f func(start, end int)) {
	kind := func(i int) (int, int) {
		e, n := classes.at(s, i)
		switch {
		case e&flagWord != 0:
			return 1, n
		case in(e, setSpace):
			return 0, n
		}
		return 2, n
	}
	for i := 0; i < len(s); {
		k, n := kind(i)
		end := i + n
		for k != 0 && end < len(s) {
			k2, n := kind(end)
			if k2 != k {
				break
			}
			end += n
		}
		if k != 0 {
			f(i, end)
		}
		i = end
	}
}

// scanned matches what a scanner finds.
type scanned struct{ scanner }

func (c scanned) each(s string, f func(start, end int)) {
	for i := 0; i < len(s); {
		start, end := c.next(s, i)
		if start == end {
			return
		}
		f(start, end)
		i = end
	}
}

// engine matches a regular expression that has no scanner. The engine backtracks,
// so a match has a time limit and a limit on its stack; a text that reaches one is
// not searched any further.
type engine struct{ re *regexp2.Regexp }

func (e engine) each(s string, f func(start, end int)) {
	text := []rune(s)
	atRune, atByte := 0, 0
	offset := func(i int) int {
		for ; atRune < i; atRune++ {
			atByte += utf8.RuneLen(text[atRune])
		}
		return atByte
	}
	// The only errors are the limits: what was found before them stands.
	_ = e.re.FindRunesMatches(text, 0, func(v regexp2.MatchView) bool {
		i, n, ok := v.GroupRange(0)
		if ok {
			start := offset(i)
			f(start, offset(i+n))
		}
		return ok
	})
}

// newRegex returns the pattern of a regular expression.
func newRegex(text string) (pattern, error) {
	if s, ok := patterns[text]; ok {
		return scanned{s}, nil
	}
	if len(text) > maxPatternBytes {
		return nil, unsupported("a pattern of %d bytes, limit %d", len(text), maxPatternBytes)
	}
	re, err := regexp2.Compile(text, regexp2.OptionMaxBacktrackingStackSize(regexStack))
	if err != nil {
		return nil, unsupported("pattern %q (%v)", text, err)
	}
	re.MatchTimeout = regexTime
	return engine{re}, nil
}

// readPattern reads {"String": …} or {"Regex": …}.
func (r *reader) readPattern(raw rawJSON) (pattern, error) {
	var c struct {
		String *string `json:"String"`
		Regex  *string `json:"Regex"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	switch {
	case c.String != nil:
		return literal(*c.String), nil
	case c.Regex != nil:
		p, err := newRegex(*c.Regex)
		if _, ok := p.(engine); ok {
			r.slow = true
		}
		return p, err
	}
	return nil, corrupt("a pattern that is neither a string nor a regex")
}
