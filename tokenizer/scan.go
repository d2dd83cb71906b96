package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// A scanner finds the matches of one splitting pattern by hand, some twenty times
// faster than a regular expression engine does. next returns the match that
// begins at or after s[i], i < len(s); start is len(s) if there is none.
//
// Scanners are keyed by the exact text of the pattern (see patterns); a pattern
// nobody wrote a scanner for goes through the engine in regex.go.
type scanner interface {
	next(s string, i int) (start, end int)
}

// patterns maps the text of a splitting pattern to its scanner.
var patterns = map[string]scanner{
	// GPT-2, and with it SmolLM, Falcon, OPT and the ByteLevel component.
	gpt2Pattern: gpt2Scanner{},
	`(?:'[sdmt]|'ll|'ve|'re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: gpt2Scanner{},

	// cl100k and Llama 3; Qwen 2 and 3 with single digits; StarCoder-like digits.
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                              cl100kScanner{digits: 3, letters: setL},
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                   cl100kScanner{digits: 1, letters: setL},
	`(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: cl100kScanner{digits: 3, letters: setL, ascii: true},
	`(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:      cl100kScanner{digits: 1, letters: setL, ascii: true},
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                       cl100kScanner{digits: 1, letters: setL | setM},

	// o200k (gpt-oss) and, without contractions, tekken (Mistral Nemo).
	`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`: o200kScanner{digits: 3, suffix: true},
	`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`:                                                                o200kScanner{digits: 1},

	// The three stages of DeepSeek V3.
	deepseekDigits: digitsScanner{},
	deepseekCJK:    cjkScanner{},
	deepseekWords:  deepseekScanner{},
}

const (
	gpt2Pattern    = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	deepseekDigits = `\p{N}{1,3}`
	deepseekCJK    = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
	deepseekWords  = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)

// contraction returns the length of 's 't 're 've 'm 'll or 'd at s[i], in any
// case if fold is set, or 0. Folding makes the long s an s, as the library's
// engine does, unless ascii is set.
func contraction(s string, i int, fold, ascii bool) int {
	if s[i] != '\'' || i+1 >= len(s) {
		return 0
	}
	lower := uint8(0)
	if fold {
		lower = 0x20
	}
	var second uint8
	switch s[i+1] | lower {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		second = 'e'
	case 'l':
		second = 'l'
	default:
		if fold && !ascii && strings.HasPrefix(s[i+1:], "ſ") {
			return 3
		}
		return 0
	}
	if i+2 < len(s) && s[i+2]|lower == second {
		return 3
	}
	return 0
}

// asciiWord returns the end of a word of ASCII letters at s[i], with a character of
// prefix before it or without, or 0 if there is none or if it may go on with other
// characters.
func asciiWord(s string, i int, prefix uint16) int {
	if asciiSets[s[i]]&prefix != 0 {
		i++
	}
	j := i
	for j < len(s) && asciiSets[s[j]]&setL != 0 {
		j++
	}
	if j == i || j < len(s) && s[j] >= utf8.RuneSelf {
		return 0
	}
	return j
}

// space matches \s+(?!\S)|\s+ at s[i], which is white space; with lines set,
// \s*[\r\n]+ comes first.
func space(s string, i int, lines bool) int {
	end, last, line := i, i, -1
	for end < len(s) && asciiSets[s[end]]&setSpace != 0 {
		last = end
		end++
		if asciiSets[s[last]] == setNL {
			line = end
		}
	}
	wide := end < len(s) && s[end] >= utf8.RuneSelf
	for wide && end < len(s) {
		e, n := classes.at(s, end)
		if !in(e, setSpace) {
			break
		}
		last = end
		end += n
		if e&classMask == classNewline {
			line = end
		}
	}
	switch {
	case lines && line >= 0:
		return line
	case end == len(s) || last == i:
		return end
	}
	return last
}

// digits matches \p{N}{1,most} at s[i], which is a number.
func digits(s string, i, most int) int {
	for ; most > 0 && i < len(s); most-- {
		e, n := classes.at(s, i)
		if !in(e, setN) {
			break
		}
		i += n
	}
	return i
}

// gpt2Scanner matches gpt2Pattern. Every character is part of a match.
type gpt2Scanner struct{}

func (gpt2Scanner) next(s string, i int) (start, end int) {
	if end := asciiWord(s, i, 1<<classSpace); end > 0 && (s[i] == ' ' || asciiSets[s[i]]&setL != 0) {
		return i, end
	}
	if s[i] == '\'' {
		if n := contraction(s, i, false, true); n > 0 {
			return i, i + n
		}
	}
	j := i
	if s[i] == ' ' && i+1 < len(s) {
		j++
	}
	e, n := classes.at(s, j)
	switch {
	case in(e, setL):
		return i, classes.run(s, j+n, setL)
	case in(e, setN):
		return i, classes.run(s, j+n, setN)
	case !in(e, setSpace):
		return i, classes.run(s, j+n, setAll&^setLN&^setSpace)
	}
	return i, space(s, i, false)
}

// cl100kScanner matches the patterns of cl100k, Llama 3 and Qwen. Every character
// is part of a match.
type cl100kScanner struct {
	digits  int    // the most numbers in one piece
	letters uint16 // the classes of a word
	ascii   bool   // contractions in ASCII only
}

func (c cl100kScanner) next(s string, i int) (start, end int) {
	if end := asciiWord(s, i, setAll&^setLN&^setNL); end > 0 && s[i] != '\'' {
		return i, end
	}
	if s[i] == '\'' {
		if n := contraction(s, i, true, c.ascii); n > 0 {
			return i, i + n
		}
	}
	first, n := classes.at(s, i)
	if in(first, setL) {
		return i, classes.run(s, i+n, c.letters)
	}
	if in(first, setN) {
		return i, digits(s, i, c.digits)
	}
	if !in(first, setNL) {
		if end := classes.run(s, i+n, c.letters); end > i+n {
			return i, end
		}
		if in(first, c.letters) {
			return i, i + n
		}
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if end := classes.run(s, j, setAll&^setN&^setSpace&^setL&^c.letters); end > j {
		for end < len(s) && (s[end] == '\r' || s[end] == '\n') {
			end++
		}
		return i, end
	}
	return i, space(s, i, true)
}

// o200kScanner matches the patterns of o200k and tekken. Every character is part
// of a match.
type o200kScanner struct {
	digits int  // the most numbers in one piece
	suffix bool // a word takes the contraction behind it
}

func (o o200kScanner) next(s string, i int) (start, end int) {
	if end := o.asciiWord(s, i); end > 0 {
		return i, end
	}
	first, n := classes.at(s, i)
	if in(first, setN) {
		return i, digits(s, i, o.digits)
	}
	if end := o.word(s, i, first, n); end > i {
		if o.suffix && end < len(s) && s[end] == '\'' {
			end += contraction(s, end, true, false)
		}
		return i, end
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if end := classes.run(s, j, setAll&^setLN&^setSpace); end > j {
		for end < len(s) && (s[end] == '\r' || s[end] == '\n' || s[end] == '/') {
			end++
		}
		return i, end
	}
	return i, space(s, i, true)
}

// asciiWord returns the end of a word of ASCII letters at s[i] that ends in lower
// case, with a space before it or without, or 0 if there is none or if it may go
// on with other characters.
func (o o200kScanner) asciiWord(s string, i int) int {
	if s[i] == ' ' {
		i++
	}
	for i < len(s) && asciiSets[s[i]] == 1<<classLu {
		i++
	}
	j := i
	for j < len(s) && asciiSets[s[j]] == 1<<classLl {
		j++
	}
	if j == i || j < len(s) && (s[j] >= utf8.RuneSelf || o.suffix && s[j] == '\'') {
		return 0
	}
	return j
}

// word matches prefix? upper* lower+ | prefix? upper+ lower* at s[i], whose table
// entry and length are given, or returns i. Letters without case and marks are
// both upper and lower, so upper* gives back what lower+ needs.
func (o o200kScanner) word(s string, i int, first uint8, n int) int {
	prefixed := i
	if !in(first, setL|setNL) {
		prefixed = i + n
	}
	end, upper := cased(s, prefixed)
	if end > prefixed && !upper {
		return end
	}
	if prefixed > i && in(first, setM) {
		// The prefix is a mark, which may begin the word itself.
		if end, upper := cased(s, i); !upper {
			return end
		}
	}
	if end > prefixed {
		return end
	}
	return i
}

// cased matches upper* lower+ at s[i] and, where that fails, upper+; upper tells
// that it was the second.
func cased(s string, i int) (end int, upper bool) {
	both := -1 // end of the last character that is upper and lower
	for i < len(s) {
		e, n := classes.at(s, i)
		if !in(e, setUpper) {
			if e&classMask == classLl {
				return classes.run(s, i, setLower), false
			}
			break
		}
		i += n
		if in(e, setLower) {
			both = i
		}
	}
	if both >= 0 {
		return both, false
	}
	return i, true
}

// digitsScanner matches \p{N}{1,3}.
type digitsScanner struct{}

func (digitsScanner) next(s string, i int) (start, end int) {
	i = classes.run(s, i, setAll&^setN)
	return i, digits(s, i, 3)
}

// cjkScanner matches deepseekCJK.
type cjkScanner struct{}

func (cjkScanner) next(s string, i int) (start, end int) {
	for ; i < len(s); i++ {
		if isCJK(s, i) {
			break
		}
	}
	end = i
	for end < len(s) && isCJK(s, end) {
		end += 3
	}
	return i, end
}

// isCJK reports whether one of the characters of deepseekCJK begins at s[i].
func isCJK(s string, i int) bool {
	if c := s[i]; c < 0xE3 || c > 0xE9 {
		return false
	}
	r, _ := runeAt(s, i)
	return r >= 0x4E00 && r <= 0x9FA5 || r >= 0x3040 && r <= 0x30FF
}

// deepseekScanner matches deepseekWords. Numbers and control characters need not
// be part of a match.
type deepseekScanner struct{}

func (d deepseekScanner) next(s string, i int) (start, end int) {
	for ; i < len(s); i++ {
		if s[i]&0xC0 == 0x80 {
			continue
		}
		if end := d.match(s, i); end > i {
			return i, end
		}
	}
	return i, i
}

// match matches at s[i], or returns i.
func (deepseekScanner) match(s string, i int) int {
	first, n := classes.at(s, i)
	if in(first, setPS) && s[i] < 0x80 {
		end := i + 1
		for end < len(s) && s[end]|0x20 >= 'a' && s[end]|0x20 <= 'z' {
			end++
		}
		if end > i+1 {
			return end
		}
	}
	if in(first, setL|setM) {
		return classes.run(s, i+n, setL|setM)
	}
	if !in(first, setNL|setPS) {
		if end := classes.run(s, i+n, setL|setM); end > i+n {
			return end
		}
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if end := classes.run(s, j, setPS); end > j {
		for end < len(s) && (s[end] == '\r' || s[end] == '\n') {
			end++
		}
		return end
	}
	if in(first, setSpace) {
		return space(s, i, true)
	}
	return i
}
