package chat

import (
	"strings"
	"unicode"
)

func filterWordwrap(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("wordwrap", 0, "width", "break_long_words", "wrapstring", "break_on_hyphens")
	if err != nil {
		return Value{}, err
	}
	width, err := wantInt(got[0], 79)
	if err != nil {
		return Value{}, err
	}
	sep := "\n"
	if got[2].k != kMissing && got[2].k != kNone {
		if sep, err = wantString(got[2], "wordwrap"); err != nil {
			return Value{}, err
		}
	}
	if in.k != kString {
		if in.k == kUndefined {
			return Value{}, r.undefinedError(in)
		}
		return Value{}, fault("'%s' object has no attribute 'splitlines'", in.typeName())
	}
	if width <= 0 {
		return Value{}, fault("invalid width %d (must be > 0)", width)
	}
	w := wrapper{width: width, long: got[1].k == kMissing || got[1].truth(), hyphens: got[3].k == kMissing || got[3].truth()}
	if err := r.room(8 * len(in.str())); err != nil {
		return Value{}, err
	}
	var lines []string
	for _, line := range splitLines(in.str(), false, r.most/24) {
		wrapped := w.wrap([]rune(line))
		if len(wrapped) == 0 {
			wrapped = []string{""}
		}
		lines = append(lines, wrapped...)
	}
	if err := r.room(len(in.str()) + len(lines)*len(sep)); err != nil {
		return Value{}, err
	}
	return String(strings.Join(lines, sep)), nil
}

// wrapper is Python's textwrap without changes to blanks.
type wrapper struct {
	width         int
	long, hyphens bool
}

func isWrapBlank(c rune) bool { return c >= '\t' && c <= '\r' || c == ' ' }

// isWrapPunct is a character that a dash may follow.
func isWrapPunct(c rune) bool { return isWord(c) || strings.ContainsRune(`!"'&.,?`, c) }

func isWrapLetter(c rune) bool { return isWord(c) && !unicode.IsDigit(c) }

// chunks cuts a line into pieces that stay whole: blanks, words, parts of
// hyphenated words, dashes.
func (w *wrapper) chunks(s []rune) (list [][]rune) {
	for i := 0; i < len(s); {
		j := i + 1
		switch {
		case isWrapBlank(s[i]):
			for j < len(s) && isWrapBlank(s[j]) {
				j++
			}
		case !w.hyphens:
			for j < len(s) && !isWrapBlank(s[j]) {
				j++
			}
		case i > 0 && isWrapPunct(s[i-1]) && dashes(s, i) > 0:
			j = i + dashes(s, i)
		default:
			j = wordEnd(s, i+1)
		}
		list = append(list, s[i:j])
		i = j
	}
	return list
}

// dashes is the length of two or more dashes at i that a word follows, 0 if
// there are none.
func dashes(s []rune, i int) int {
	j := i
	for j < len(s) && s[j] == '-' {
		j++
	}
	if j-i >= 2 && j < len(s) && isWord(s[j]) {
		return j - i
	}
	return 0
}

// wordEnd finds where a word, or a part of it, ends.
func wordEnd(s []rune, j int) int {
	letter := func(i int) bool { return i >= 0 && i < len(s) && isWrapLetter(s[i]) }
	for ; j < len(s) && !isWrapBlank(s[j]); j++ {
		if s[j] == '-' && (letter(j-1) && letter(j-2) || letter(j-1) && j >= 3 && s[j-2] == '-' && letter(j-3)) &&
			letter(j+1) && (letter(j+2) || j+2 < len(s) && s[j+2] == '-' && letter(j+3)) {
			return j + 1
		}
		if isWrapPunct(s[j-1]) && dashes(s, j) > 0 {
			return j
		}
	}
	return j
}

func (w *wrapper) wrap(s []rune) (lines []string) {
	chunks := w.chunks(s)
	blank := func(c []rune) bool { return strings.TrimFunc(string(c), isSpace) == "" }
	for len(chunks) > 0 {
		var line [][]rune
		length := 0
		if len(lines) > 0 && blank(chunks[0]) {
			chunks = chunks[1:]
		}
		for len(chunks) > 0 && length+len(chunks[0]) <= w.width {
			line = append(line, chunks[0])
			length += len(chunks[0])
			chunks = chunks[1:]
		}
		if len(chunks) > 0 && len(chunks[0]) > w.width {
			cut := w.cut(chunks[0], w.width-length, len(line) == 0)
			if cut >= 0 {
				// An empty cut counts as a chunk: it keeps the blanks before it.
				line = append(line, chunks[0][:cut])
				if chunks[0] = chunks[0][cut:]; len(chunks[0]) == 0 {
					chunks = chunks[1:]
				}
			}
		}
		if len(line) > 0 && blank(line[len(line)-1]) {
			line = line[:len(line)-1]
		}
		if len(line) == 0 {
			continue
		}
		var b strings.Builder
		for _, c := range line {
			b.WriteString(string(c))
		}
		lines = append(lines, b.String())
	}
	return lines
}

// cut says how much of a chunk longer than a line goes onto a line with so much
// room; -1 is to leave it for the next.
func (w *wrapper) cut(chunk []rune, room int, alone bool) int {
	if !w.long {
		if alone {
			return len(chunk)
		}
		return -1
	}
	if w.hyphens && len(chunk) > room {
		for h := room - 1; h > 0; h-- {
			if chunk[h] == '-' {
				if strings.Trim(string(chunk[:h]), "-") != "" {
					return h + 1
				}
				break
			}
		}
	}
	return room
}
