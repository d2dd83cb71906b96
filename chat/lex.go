package chat

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is what a token of a template is.
type tokenKind uint8

const (
	tEOF tokenKind = iota
	tData
	tBlockBegin
	tBlockEnd
	tPrintBegin
	tPrintEnd
	tName
	tString
	tInteger
	tFloat
	tOperator
)

// token is a piece of a template. text is the data, the name, the operator, the
// decoded string or the number's digits without underscores.
type token struct {
	kind tokenKind
	line int
	text string
}

// describe names a token as jinja2's messages do.
func (t token) describe() string {
	switch t.kind {
	case tEOF:
		return "end of template"
	case tData:
		return "template data / text"
	case tBlockBegin:
		return "begin of statement block"
	case tBlockEnd:
		return "end of statement block"
	case tPrintBegin:
		return "begin of print statement"
	case tPrintEnd:
		return "end of print statement"
	case tString:
		return "string"
	case tInteger:
		return "integer"
	case tFloat:
		return "float"
	}
	return t.text
}

// lexer cuts a template into tokens the way jinja2 does with trim_blocks and
// lstrip_blocks set.
type lexer struct {
	src    string
	pos    int
	line   int
	tokens []token
	// lineStart says that what was consumed last ended with a newline, so that a
	// tag's indentation may be stripped.
	lineStart bool
}

// lex cuts source into tokens; the last one is tEOF.
func lex(source string) ([]token, error) {
	source = strings.ReplaceAll(source, "\r\n", "\n")
	source = strings.ReplaceAll(source, "\r", "\n")
	// One newline at the very end does not count.
	source = strings.TrimSuffix(source, "\n")
	l := &lexer{src: source, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		if err := l.root(); err != nil {
			return nil, err
		}
	}
	l.emit(tEOF, "")
	return l.tokens, nil
}

func (l *lexer) emit(k tokenKind, text string) {
	l.tokens = append(l.tokens, token{k, l.line, text})
}

// advance consumes n bytes.
func (l *lexer) advance(n int) {
	s := l.src[l.pos : l.pos+n]
	l.line += strings.Count(s, "\n")
	l.lineStart = strings.HasSuffix(s, "\n")
	l.pos += n
}

func (l *lexer) data(text string) {
	if text != "" {
		l.emit(tData, text)
	}
}

// root consumes data up to the next tag, and the tag.
func (l *lexer) root() error {
	rest := l.src[l.pos:]
	at := nextTag(rest)
	if at < 0 {
		l.data(rest)
		l.advance(len(rest))
		return nil
	}
	text, tag := rest[:at], rest[at:at+2]
	sign := byte(0)
	if at+2 < len(rest) && (rest[at+2] == '-' || rest[at+2] == '+') {
		sign = rest[at+2]
	}
	switch {
	case sign == '-':
		text = trimRightSpace(text)
	case sign == 0 && tag != "{{":
		text = l.stripIndent(text)
	}
	l.data(text)
	begin := at + 2
	if sign != 0 {
		begin++
	}
	if n, ok := rawBegin(rest[at:]); ok {
		l.advance(at + n)
		return l.raw()
	}
	l.advance(at)
	switch tag {
	case "{#":
		l.advance(begin - at)
		return l.comment()
	case "{{":
		l.emit(tPrintBegin, tag)
		l.advance(begin - at)
		return l.expression(tPrintEnd)
	}
	l.emit(tBlockBegin, tag)
	l.advance(begin - at)
	return l.expression(tBlockEnd)
}

// nextTag finds the next opening of a tag, or -1.
func nextTag(s string) int {
	for i := 0; ; i++ {
		j := strings.IndexByte(s[i:], '{')
		if j < 0 || i+j+1 >= len(s) {
			return -1
		}
		i += j
		if c := s[i+1]; c == '%' || c == '{' || c == '#' {
			return i
		}
	}
}

// stripIndent removes blanks between the last newline and a tag.
func (l *lexer) stripIndent(text string) string {
	start := strings.LastIndexByte(text, '\n') + 1
	if start > 0 || l.lineStart {
		if tail := text[start:]; tail != "" && trimLeftSpace(tail) == "" {
			return text[:start]
		}
	}
	return text
}

// rawBegin matches the opening of a raw block and returns its length.
func rawBegin(s string) (int, bool) {
	if !strings.HasPrefix(s, "{%") {
		return 0, false
	}
	i := 2
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	i += spacePrefix(s[i:])
	if !strings.HasPrefix(s[i:], "raw") {
		return 0, false
	}
	i += 3
	i += spacePrefix(s[i:])
	if strings.HasPrefix(s[i:], "%}") {
		return i + 2, true
	}
	if strings.HasPrefix(s[i:], "-%}") {
		i += 3
		return i + spacePrefix(s[i:]), true
	}
	return 0, false
}

// raw consumes the body of a raw block and its end.
func (l *lexer) raw() error {
	rest := l.src[l.pos:]
	for from := 0; ; {
		at := strings.Index(rest[from:], "{%")
		if at < 0 {
			return syntaxError(l.line, "Missing end of raw directive")
		}
		at += from
		from = at + 2
		i := at + 2
		sign := byte(0)
		if i < len(rest) && (rest[i] == '-' || rest[i] == '+') {
			sign = rest[i]
			i++
		}
		i += spacePrefix(rest[i:])
		if !strings.HasPrefix(rest[i:], "endraw") {
			continue
		}
		i += len("endraw")
		i += spacePrefix(rest[i:])
		n, ok := tagEnd(rest[i:], "%}", true)
		if !ok {
			continue
		}
		text := rest[:at]
		switch sign {
		case '-':
			text = trimRightSpace(text)
		case 0:
			text = l.stripIndent(text)
		}
		l.data(text)
		l.advance(i + n)
		return nil
	}
}

// tagEnd matches the close of a tag: with a minus it takes the blanks that
// follow, without a sign one newline where trim says so. It returns the length.
func tagEnd(s, end string, trim bool) (int, bool) {
	switch {
	case strings.HasPrefix(s, end):
		n := len(end)
		if trim && strings.HasPrefix(s[n:], "\n") {
			n++
		}
		return n, true
	case strings.HasPrefix(s, "-") && strings.HasPrefix(s[1:], end):
		n := 1 + len(end)
		return n + spacePrefix(s[n:]), true
	case trim && strings.HasPrefix(s, "+") && strings.HasPrefix(s[1:], end):
		return 1 + len(end), true
	}
	return 0, false
}

func (l *lexer) comment() error {
	rest := l.src[l.pos:]
	at := strings.Index(rest, "#}")
	if at < 0 {
		return syntaxError(l.line, "Missing end of comment tag")
	}
	if at > 0 && (rest[at-1] == '-' || rest[at-1] == '+') {
		at--
	}
	n, _ := tagEnd(rest[at:], "#}", true)
	l.advance(at + n)
	return nil
}

// expression consumes the inside of a tag up to its end.
func (l *lexer) expression(end tokenKind) error {
	var open []byte // the brackets that wait for their partner
	mark := "}}"
	if end == tBlockEnd {
		mark = "%}"
	}
	for {
		rest := l.src[l.pos:]
		if rest == "" {
			return nil // the parser reports the unexpected end
		}
		if len(open) == 0 {
			if n, ok := tagEnd(rest, mark, end == tBlockEnd); ok {
				l.emit(end, mark)
				l.advance(n)
				return nil
			}
		}
		if n := spacePrefix(rest); n > 0 {
			l.advance(n)
			continue
		}
		if err := l.lexeme(rest, &open); err != nil {
			return err
		}
	}
}

// lexeme consumes one number, name, string or operator.
func (l *lexer) lexeme(rest string, open *[]byte) error {
	c := rest[0]
	switch {
	case c >= '0' && c <= '9':
		l.number(rest)
		return nil
	case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf:
		return l.name(rest)
	case c == '"' || c == '\'':
		return l.quoted(rest)
	}
	op := operatorPrefix(rest)
	if op == "" {
		r, _ := utf8.DecodeRuneInString(rest)
		return syntaxError(l.line, "unexpected char %s at %d", pyRepr(string(r)), utf8.RuneCountInString(l.src[:l.pos]))
	}
	switch op {
	case "(":
		*open = append(*open, ')')
	case "[":
		*open = append(*open, ']')
	case "{":
		*open = append(*open, '}')
	case ")", "]", "}":
		if len(*open) == 0 {
			return syntaxError(l.line, "unexpected '%s'", op)
		}
		want := (*open)[len(*open)-1]
		*open = (*open)[:len(*open)-1]
		if want != op[0] {
			return syntaxError(l.line, "unexpected '%s', expected '%c'", op, want)
		}
	}
	l.emit(tOperator, op)
	l.advance(len(op))
	return nil
}

func operatorPrefix(s string) string {
	if len(s) > 1 {
		switch s[:2] {
		case "//", "**", "==", "!=", ">=", "<=":
			return s[:2]
		}
	}
	if strings.IndexByte("+-/*%~[](){}><=.:|,;", s[0]) >= 0 {
		return s[:1]
	}
	return ""
}

func (l *lexer) name(rest string) error {
	n := 0
	for n < len(rest) {
		r, size := utf8.DecodeRuneInString(rest[n:])
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Nl, r) && !unicode.Is(unicode.Mn, r) && !unicode.Is(unicode.Mc, r) {
			break
		}
		n += size
	}
	if n == 0 {
		r, _ := utf8.DecodeRuneInString(rest)
		return syntaxError(l.line, "unexpected char %s at %d", pyRepr(string(r)), utf8.RuneCountInString(l.src[:l.pos]))
	}
	if r, _ := utf8.DecodeRuneInString(rest); r != '_' && !unicode.IsLetter(r) && !unicode.Is(unicode.Nl, r) {
		return syntaxError(l.line, "Invalid character in identifier")
	}
	if n > maxName {
		return syntaxError(l.line, "a name of more than %d bytes", maxName)
	}
	l.emit(tName, rest[:n])
	l.advance(n)
	return nil
}

// digitRun returns the length of digits with single underscores between them.
func digitRun(s string, digit func(byte) bool) int {
	i := 0
	for i < len(s) {
		switch {
		case digit(s[i]):
			i++
		case s[i] == '_' && i > 0 && i+1 < len(s) && digit(s[i+1]):
			i += 2
		default:
			return i
		}
	}
	return i
}

func isDecimal(c byte) bool { return c >= '0' && c <= '9' }

// number consumes an integer or a float.
func (l *lexer) number(rest string) {
	afterDot := l.pos > 0 && l.src[l.pos-1] == '.'
	whole := digitRun(rest, isDecimal)
	if n := floatEnd(rest, whole); n > 0 && !afterDot {
		l.emit(tFloat, strings.ReplaceAll(rest[:n], "_", ""))
		l.advance(n)
		return
	}
	n := whole
	if rest[0] == '0' {
		n = digitRun(rest, func(c byte) bool { return c == '0' })
		if len(rest) > 2 {
			if m := prefixedRun(rest); m > 0 {
				n = m
			}
		}
	}
	l.emit(tInteger, strings.ReplaceAll(rest[:n], "_", ""))
	l.advance(n)
}

// prefixedRun matches a binary, octal or hexadecimal integer.
func prefixedRun(s string) int {
	var digit func(byte) bool
	switch s[1] | 0x20 {
	case 'b':
		digit = func(c byte) bool { return c == '0' || c == '1' }
	case 'o':
		digit = func(c byte) bool { return c >= '0' && c <= '7' }
	case 'x':
		digit = func(c byte) bool { return isDecimal(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
	default:
		return 0
	}
	i := 2
	if s[i] == '_' {
		i++
	}
	n := digitRun(s[i:], digit)
	if n == 0 {
		return 0
	}
	return i + n
}

// floatEnd returns the length of the float that begins with so many digits, 0
// if it is none.
func floatEnd(s string, whole int) int {
	end := whole
	if end < len(s) && s[end] == '.' {
		if n := digitRun(s[end+1:], isDecimal); n > 0 {
			end += 1 + n
		}
	}
	if end < len(s) && s[end]|0x20 == 'e' {
		i := end + 1
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if n := digitRun(s[i:], isDecimal); n > 0 {
			return i + n
		}
	}
	if end > whole {
		return end
	}
	return 0
}

func (l *lexer) quoted(rest string) error {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case rest[0]:
			text, err := unescape(rest[1:i])
			if err != "" {
				return syntaxError(l.line, "%s", err)
			}
			l.emit(tString, text)
			l.advance(i + 1)
			return nil
		}
	}
	return syntaxError(l.line, "unexpected char %s at %d", pyRepr(rest[:1]), utf8.RuneCountInString(l.src[:l.pos]))
}

// unescape decodes Python's string escapes; fault is the message of a failure.
func unescape(s string) (text, fault string) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if at := strings.IndexByte("abfnrtv\\'\"", c); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
			continue
		}
		switch {
		case c == '\n': // a line that goes on
		case c >= '0' && c <= '7':
			n := 1
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				n++
			}
			r, _ := strconv.ParseUint(s[i:i+n], 8, 32)
			b.WriteRune(rune(r))
			i += n - 1
		case c == 'x' || c == 'u' || c == 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+1+n > len(s) {
				return "", "truncated \\" + string(c) + " escape"
			}
			r, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32)
			if err != nil {
				return "", "truncated \\" + string(c) + " escape"
			}
			if r > unicode.MaxRune || r >= 0xD800 && r < 0xE000 {
				return "", "illegal Unicode character"
			}
			b.WriteRune(rune(r))
			i += n
		case c == 'N':
			return "", "character names (\\N{…}) are not read; write \\u…"
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}
