package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func init() {
	strMethods = map[string]method{
		"strip":        stripMethod("strip", true, true),
		"lstrip":       stripMethod("lstrip", true, false),
		"rstrip":       stripMethod("rstrip", false, true),
		"upper":        mapMethod("upper", upper),
		"lower":        mapMethod("lower", lower),
		"casefold":     mapMethod("casefold", casefold),
		"title":        mapMethod("title", title),
		"capitalize":   mapMethod("capitalize", capitalize),
		"swapcase":     mapMethod("swapcase", swapcase),
		"split":        strSplit,
		"rsplit":       strRsplit,
		"splitlines":   strSplitlines,
		"partition":    strPartition,
		"rpartition":   strRpartition,
		"join":         strJoin,
		"replace":      strReplace,
		"startswith":   affixMethod("startswith", strings.HasPrefix),
		"endswith":     affixMethod("endswith", strings.HasSuffix),
		"removeprefix": cutMethod("removeprefix", strings.TrimPrefix),
		"removesuffix": cutMethod("removesuffix", strings.TrimSuffix),
		"find":         findMethod("find", strings.Index, false),
		"rfind":        findMethod("rfind", strings.LastIndex, false),
		"index":        findMethod("index", strings.Index, true),
		"rindex":       findMethod("rindex", strings.LastIndex, true),
		"count":        strCount,
		"center":       padMethod("center", padCenter),
		"ljust":        padMethod("ljust", padLeft),
		"rjust":        padMethod("rjust", padRight),
		"zfill":        strZfill,
		"expandtabs":   strExpandtabs,
		"format":       strFormat,
		"format_map":   strFormatMap,
		"isalpha":      classMethod("isalpha", unicode.IsLetter),
		"isdigit":      classMethod("isdigit", isDigit),
		"isdecimal":    classMethod("isdecimal", unicode.IsDigit),
		"isnumeric":    classMethod("isnumeric", unicode.IsNumber),
		"isalnum":      classMethod("isalnum", func(c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) }),
		"isspace":      classMethod("isspace", isSpace),
		"isprintable":  strIsprintable,
		"isascii":      strIsascii,
		"isupper":      caseMethod("isupper", isUpper),
		"islower":      caseMethod("islower", isLower),
		"istitle":      caseMethod("istitle", isTitle),
		"isidentifier": caseMethod("isidentifier", isIdentifier),
		"encode":       unsupportedMethod("encode"),
		"translate":    unsupportedMethod("translate"),
		"maketrans":    unsupportedMethod("maketrans"),
	}
}

// wantString returns the text of an argument.
func wantString(v Value, fn string) (string, error) {
	if v.k != kString {
		return "", fault("%s() argument must be str, not %s", fn, v.typeName())
	}
	return v.str(), nil
}

// wantInt returns an integer argument, absent if it is not passed.
func wantInt(v Value, absent int) (int, error) {
	switch v.k {
	case kMissing:
		return absent, nil
	case kInt, kBool:
		return int(v.n), nil
	case kBig:
		return 0, fault("Python int too large to convert to C ssize_t")
	}
	return 0, fault("'%s' object cannot be interpreted as an integer", v.typeName())
}

func stripMethod(fn string, left, right bool) method {
	return func(r *run, self Value, a *args) (Value, error) {
		if len(a.pos) == 0 && len(a.named) == 0 {
			return r.strip(self, left, right)
		}
		got, err := a.take(fn, 0, "/chars")
		if err != nil {
			return Value{}, err
		}
		return stripChars(r, self, got[0], fn, left, right)
	}
}

// strip takes blanks off the ends.
func (r *run) strip(self Value, left, right bool) (Value, error) {
	s := strip(self.str(), left, right)
	return sub(self, s), r.step((int(self.n) - len(s)) >> 4)
}

func strip(s string, left, right bool) string {
	if left {
		s = trimLeftSpace(s)
	}
	if right {
		s = trimRightSpace(s)
	}
	return s
}

func stripChars(r *run, self, chars Value, fn string, left, right bool) (Value, error) {
	if chars.k == kMissing || chars.k == kNone {
		return r.strip(self, left, right)
	}
	if chars.k != kString {
		return Value{}, fault("%s arg must be None or str", fn)
	}
	set, s := chars.str(), self.str()
	if set == "" {
		return self, nil
	}
	if left {
		s = strings.TrimLeft(s, set)
	}
	if right {
		s = strings.TrimRight(s, set)
	}
	// A set beyond ASCII is searched for every character.
	return sub(self, s), r.step((len(self.str()) - len(s)) * (1 + len(set)) >> 4)
}

func mapMethod(fn string, f func(string) string) method {
	return func(r *run, self Value, a *args) (Value, error) {
		if err := a.none(fn); err != nil {
			return Value{}, err
		}
		if err := r.room(int(self.n)); err != nil {
			return Value{}, err
		}
		return sub(self, f(self.str())), nil
	}
}

func upper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func lower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Lower(language.Und).String(s)
}

func casefold(s string) string { return cases.Fold().String(s) }

func swapcase(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case unicode.IsUpper(c):
			b.WriteString(lower(string(c)))
		case unicode.IsLower(c):
			b.WriteString(upper(string(c)))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// titleRune is the title case of one character, which may be several.
func titleRune(c rune) string {
	if t := unicode.ToTitle(c); t != c {
		return string(t)
	}
	if up := upper(string(c)); up != string(c) {
		// A special case such as ß, whose title case is Ss.
		_, size := utf8.DecodeRuneInString(up)
		return up[:size] + lower(up[size:])
	}
	return string(c)
}

func capitalize(s string) string {
	if s == "" {
		return ""
	}
	c, size := utf8.DecodeRuneInString(s)
	return titleRune(c) + lower(s[size:])
}

func isCased(c rune) bool {
	return unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c) || unicode.Is(unicode.Other_Lowercase, c) || unicode.Is(unicode.Other_Uppercase, c)
}

func title(s string) string {
	var b strings.Builder
	inWord := false
	start := 0
	for i, c := range s {
		cased := isCased(c)
		if cased && !inWord {
			b.WriteString(s[start:i])
			b.WriteString(titleRune(c))
			start = i + utf8.RuneLen(c)
		} else if !cased && inWord {
			b.WriteString(lower(s[start:i]))
			start = i
		}
		inWord = cased
	}
	if inWord {
		b.WriteString(lower(s[start:]))
	} else {
		b.WriteString(s[start:])
	}
	return b.String()
}

// list makes a list of the parts of a string.
func (r *run) parts(self Value, parts []string) (Value, error) {
	if err := r.room(24 * len(parts)); err != nil {
		return Value{}, err
	}
	items := make([]Value, len(parts))
	for i, p := range parts {
		items[i] = sub(self, p)
	}
	return List(items...), nil
}

// splitArgs takes the arguments of split and rsplit; blank says that they split
// at blanks. A limit below zero is none.
func splitArgs(r *run, self Value, a *args, fn string) (sep string, limit int, blank bool, err error) {
	got, err := a.take(fn, 0, "sep", "maxsplit")
	if err != nil {
		return "", 0, false, err
	}
	if err := r.step(int(self.n) >> 4); err != nil {
		return "", 0, false, err
	}
	if limit, err = wantInt(got[1], -1); err != nil {
		return "", 0, false, err
	}
	if got[0].k == kMissing || got[0].k == kNone {
		return "", limit, true, nil
	}
	if got[0].k != kString {
		return "", 0, false, fault("must be str or None, not %s", got[0].typeName())
	}
	if sep = got[0].str(); sep == "" {
		return "", 0, false, fault("empty separator")
	}
	return sep, limit, false, nil
}

func strSplit(r *run, self Value, a *args) (Value, error) {
	sep, limit, blank, err := splitArgs(r, self, a, "split")
	if err != nil {
		return Value{}, err
	}
	s := self.str()
	if blank {
		return r.parts(self, splitBlank(s, limit, r.most/24))
	}
	if limit < 0 {
		if n := strings.Count(s, sep) + 1; 24*n > r.most {
			return Value{}, r.room(-1)
		}
		limit = -2
	}
	return r.parts(self, strings.SplitN(s, sep, limit+1))
}

// splitBlank splits at runs of blanks; it stops with more than most parts.
func splitBlank(s string, limit, most int) []string {
	var parts []string
	for len(parts) <= most {
		s = trimLeftSpace(s)
		if s == "" {
			return parts
		}
		if limit >= 0 && len(parts) == limit {
			// The rest keeps the blanks at its end, as in Python.
			return append(parts, s)
		}
		end := strings.IndexFunc(s, isSpace)
		if end < 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:end])
		s = s[end:]
	}
	return parts
}

func strRsplit(r *run, self Value, a *args) (Value, error) {
	sep, limit, blank, err := splitArgs(r, self, a, "rsplit")
	if err != nil {
		return Value{}, err
	}
	s := self.str()
	var parts []string
	for len(parts) <= r.most/24 {
		if blank {
			if s = trimRightSpace(s); s == "" {
				break
			}
		}
		if limit >= 0 && len(parts) == limit {
			parts = append(parts, s)
			break
		}
		at, size := 0, len(sep)
		if blank {
			if at = strings.LastIndexFunc(s, isSpace); at >= 0 {
				_, size = utf8.DecodeRuneInString(s[at:])
			}
		} else {
			at = strings.LastIndex(s, sep)
		}
		if at < 0 {
			parts = append(parts, s)
			break
		}
		parts = append(parts, s[at+size:])
		s = s[:at]
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return r.parts(self, parts)
}

func strSplitlines(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("splitlines", 0, "keepends")
	if err != nil {
		return Value{}, err
	}
	if err := r.step(int(self.n) >> 4); err != nil {
		return Value{}, err
	}
	return r.parts(self, splitLines(self.str(), got[0].truth(), r.most/24))
}

// splitLines splits at every line break Python knows; it stops with more than
// most lines.
func splitLines(s string, keep bool, most int) (lines []string) {
	start := 0
	for i := 0; i < len(s) && len(lines) <= most; {
		c, size := utf8.DecodeRuneInString(s[i:])
		if !isLineBreak(c) {
			i += size
			continue
		}
		end := i
		i += size
		if c == '\r' && i < len(s) && s[i] == '\n' {
			i++
		}
		if keep {
			end = i
		}
		lines = append(lines, s[start:end])
		start = i
	}
	if start < len(s) {
		lines = append(lines, s[start:])
	}
	return lines
}

func isLineBreak(c rune) bool {
	return c >= '\n' && c <= '\r' || c >= 0x1c && c <= 0x1e || c == 0x85 || c == 0x2028 || c == 0x2029
}

func partitionArg(a *args, fn string) (string, error) {
	got, err := a.take(fn, 1, "/sep")
	if err != nil {
		return "", err
	}
	if got[0].k != kString {
		return "", fault("must be str, not %s", got[0].typeName())
	}
	if got[0].n == 0 {
		return "", fault("empty separator")
	}
	return got[0].str(), nil
}

func strPartition(r *run, self Value, a *args) (Value, error) {
	sep, err := partitionArg(a, "partition")
	if err != nil {
		return Value{}, err
	}
	s := self.str()
	if at := strings.Index(s, sep); at >= 0 {
		return tuple(sub(self, s[:at]), sub(self, sep), sub(self, s[at+len(sep):])), r.step(len(s) >> 4)
	}
	return tuple(self, sub(self, ""), sub(self, "")), r.step(len(s) >> 4)
}

func strRpartition(r *run, self Value, a *args) (Value, error) {
	sep, err := partitionArg(a, "rpartition")
	if err != nil {
		return Value{}, err
	}
	s := self.str()
	if at := strings.LastIndex(s, sep); at >= 0 {
		return tuple(sub(self, s[:at]), sub(self, sep), sub(self, s[at+len(sep):])), r.step(len(s) >> 4)
	}
	return tuple(sub(self, ""), sub(self, ""), self), r.step(len(s) >> 4)
}

func strJoin(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("join", 1, "/iterable")
	if err != nil {
		return Value{}, err
	}
	list, err := r.listOf(got[0])
	if err != nil {
		return Value{}, fault("can only join an iterable")
	}
	start := len(r.out)
	for i, item := range list {
		if item.k != kString && !self.markup {
			return Value{}, fault("sequence item %d: expected str instance, %s found", i, item.typeName())
		}
		if self.markup {
			if item, err = r.escape(item); err != nil {
				return Value{}, err
			}
		}
		if i > 0 {
			r.out = append(r.out, self.str()...)
		}
		r.out = append(r.out, item.str()...)
		if err := r.emitted(len(item.str()) + int(self.n)); err != nil {
			return Value{}, err
		}
	}
	return sub(self, r.cut(start)), r.step(len(list))
}

func strReplace(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("replace", 2, "/old", "/new", "/count")
	if err != nil {
		return Value{}, err
	}
	if got[0].k != kString || got[1].k != kString {
		bad := got[0]
		if bad.k == kString {
			bad = got[1]
		}
		return Value{}, fault("replace() argument must be str, not %s", bad.typeName())
	}
	count, err := wantInt(got[2], -1)
	if err != nil {
		return Value{}, err
	}
	fresh := got[1]
	if self.markup {
		if fresh, err = r.escape(fresh); err != nil {
			return Value{}, err
		}
	}
	s, err := r.replace(self.str(), got[0].str(), fresh.str(), count)
	return sub(self, s), err
}

// replace is str.replace.
func (r *run) replace(s, old, fresh string, count int) (string, error) {
	if err := r.step(1 + len(s)>>4); err != nil {
		return "", err
	}
	if len(fresh) > len(old) {
		n := strings.Count(s, old)
		if count >= 0 {
			n = min(n, count)
		}
		if err := r.room(len(s) + n*(len(fresh)-len(old))); err != nil {
			return "", err
		}
	}
	return strings.Replace(s, old, fresh, count), nil
}

func affixMethod(fn string, has func(s, affix string) bool) method {
	return func(r *run, self Value, a *args) (Value, error) {
		got, err := a.take(fn, 1, "/affix", "/start", "/end")
		if err != nil {
			return Value{}, err
		}
		s, ok := self.str(), true
		if got[1].k != kMissing {
			if err := r.step(int(self.n) >> 4); err != nil {
				return Value{}, err
			}
			if _, s, ok, err = window(self, got[1], got[2]); err != nil {
				return Value{}, err
			}
		}
		if got[0].k == kString {
			return Bool(ok && has(s, got[0].str())), nil
		}
		if got[0].k != kTuple {
			return Value{}, fault("%s first arg must be str or a tuple of str, not %s", fn, got[0].typeName())
		}
		for _, item := range got[0].items() {
			if item.k != kString {
				return Value{}, fault("tuple for %s must only contain str, not %s", fn, item.typeName())
			}
			if ok && has(s, item.str()) {
				return Bool(true), nil
			}
		}
		return Bool(false), r.step(len(got[0].items()))
	}
}

func cutMethod(fn string, cut func(s, affix string) string) method {
	return func(_ *run, self Value, a *args) (Value, error) {
		got, err := a.take(fn, 1, "/affix")
		if err != nil {
			return Value{}, err
		}
		affix, err := wantString(got[0], fn)
		return sub(self, cut(self.str(), affix)), err
	}
}

// window is s[start:end] and the byte it begins at; ok is false where start
// lies beyond the end.
func window(self, start, end Value) (offset int, s string, ok bool, err error) {
	s = self.str()
	n := utf8.RuneCountInString(s)
	if start.k == kMissing {
		start = None()
	}
	if end.k == kMissing {
		end = None()
	}
	if start.k == kInt && start.n > int64(n) {
		return 0, "", false, nil
	}
	from, to, _, err := sliceBounds(n, start, end, None())
	if err != nil || from > to {
		return 0, "", false, err
	}
	offset = runeOffset(s, from)
	return offset, s[offset : offset+runeOffset(s[offset:], to-from)], true, nil
}

func findMethod(fn string, find func(s, sub string) int, must bool) method {
	return func(r *run, self Value, a *args) (Value, error) {
		got, err := a.take(fn, 1, "/sub", "/start", "/end")
		if err != nil {
			return Value{}, err
		}
		what, err := wantString(got[0], fn)
		if err != nil {
			return Value{}, err
		}
		if err := r.step(1 + int(self.n)>>4); err != nil {
			return Value{}, err
		}
		offset, s, ok, err := window(self, got[1], got[2])
		at := -1
		if ok {
			at = find(s, what)
		}
		if at >= 0 {
			return Int(int64(utf8.RuneCountInString(self.str()[:offset+at]))), err
		}
		if must && err == nil {
			err = fault("substring not found")
		}
		return Int(-1), err
	}
}

func strCount(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("count", 1, "/sub", "/start", "/end")
	if err != nil {
		return Value{}, err
	}
	what, err := wantString(got[0], "count")
	if err != nil {
		return Value{}, err
	}
	_, s, ok, err := window(self, got[1], got[2])
	if !ok || err != nil {
		return Int(0), err
	}
	return Int(int64(strings.Count(s, what))), r.step(1 + int(self.n)>>4)
}

func padMethod(fn string, pad func(width, length int) (left, right int)) method {
	return func(r *run, self Value, a *args) (Value, error) {
		got, err := a.take(fn, 1, "/width", "/fillchar")
		if err != nil {
			return Value{}, err
		}
		width, err := wantInt(got[0], 0)
		if err != nil {
			return Value{}, err
		}
		fill := " "
		if got[1].k != kMissing {
			if fill, err = wantString(got[1], fn); err != nil {
				return Value{}, err
			}
			if utf8.RuneCountInString(fill) != 1 {
				return Value{}, fault("The fill character must be exactly one character long")
			}
		}
		s, err := r.pad(self.str(), fill, width, pad)
		return sub(self, s), err
	}
}

// pad fills s up to width characters.
func (r *run) pad(s, fill string, width int, pad func(width, length int) (left, right int)) (string, error) {
	n := utf8.RuneCountInString(s)
	if err := r.step(len(s) >> 4); err != nil || width <= n {
		return s, err
	}
	if width > r.most {
		return "", r.room(-1)
	}
	if err := r.room(len(s) + (width-n)*len(fill)); err != nil {
		return "", err
	}
	left, right := pad(width, n)
	return strings.Repeat(fill, left) + s + strings.Repeat(fill, right), nil
}

func padLeft(width, n int) (left, right int)  { return 0, width - n }
func padRight(width, n int) (left, right int) { return width - n, 0 }

// padCenter puts an odd space where CPython puts it.
func padCenter(width, n int) (left, right int) {
	all := width - n
	left = all/2 + all&width&1
	return left, all - left
}

func strZfill(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("zfill", 1, "/width")
	if err != nil {
		return Value{}, err
	}
	width, err := wantInt(got[0], 0)
	if err != nil {
		return Value{}, err
	}
	s, sign := self.str(), ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		s, sign, width = s[1:], s[:1], width-1
	}
	s, err = r.pad(s, "0", width, padRight)
	return sub(self, sign+s), err
}

func strExpandtabs(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("expandtabs", 0, "tabsize")
	if err != nil {
		return Value{}, err
	}
	size, err := wantInt(got[0], 8)
	if err != nil {
		return Value{}, err
	}
	if size > r.most {
		return Value{}, r.room(-1)
	}
	if err := r.room(len(self.str()) + strings.Count(self.str(), "\t")*max(size, 0)); err != nil {
		return Value{}, err
	}
	var b strings.Builder
	column := 0
	for _, c := range self.str() {
		switch {
		case c == '\t' && size > 0:
			n := size - column%size
			b.WriteString(strings.Repeat(" ", n))
			column += n
			continue
		case c == '\t':
			continue
		case c == '\n' || c == '\r':
			column = -1
		}
		b.WriteRune(c)
		column++
	}
	return sub(self, b.String()), nil
}

func init() {
	listMethods = map[string]method{"count": listCount, "index": listIndex, "copy": listCopy}
	dictMethods = map[string]method{
		"get":   dictGet,
		"items": viewMethod("items", viewItems), "keys": viewMethod("keys", viewKeys), "values": viewMethod("values", viewValues),
		"copy":     func(_ *run, self Value, a *args) (Value, error) { return self, a.none("copy") },
		"fromkeys": dictFromkeys,
	}
}

func viewMethod(fn string, what viewKind) method {
	return func(_ *run, self Value, a *args) (Value, error) {
		return Value{k: kView, p: unsafe.Pointer(&dictView{self.dict(), what})}, a.none("dict." + fn)
	}
}

func dictGet(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("get", 1, "/key", "/default")
	if err != nil {
		return Value{}, err
	}
	i, err := r.lookup(self.dict(), got[0])
	if err != nil || i < 0 {
		return orNone(got[1]), err
	}
	return self.dict().entries[i].value, nil
}

func listCopy(_ *run, self Value, a *args) (Value, error) { return self, a.none("copy") }

func listCount(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("count", 1, "/value")
	if err != nil {
		return Value{}, err
	}
	n := 0
	for _, item := range self.items() {
		same, err := r.equal(item, got[0])
		if err != nil {
			return Value{}, err
		}
		if same {
			n++
		}
	}
	return Int(int64(n)), r.step(len(self.items()))
}

func listIndex(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("index", 1, "/value", "/start", "/stop")
	if err != nil {
		return Value{}, err
	}
	items := self.items()
	from, to, _, err := sliceBounds(len(items), orNone(got[1]), orNone(got[2]), None())
	if err != nil {
		return Value{}, err
	}
	for i := from; i < to; i++ {
		same, err := r.equal(items[i], got[0])
		if err != nil {
			return Value{}, err
		}
		if same {
			return Int(int64(i)), r.step(i - from)
		}
	}
	repr, err := r.repr(got[0])
	if err == nil {
		err = fault("%s is not in %s", repr, self.typeName())
	}
	return Value{}, err
}
