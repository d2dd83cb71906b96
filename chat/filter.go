package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// filterFunc is a filter: what it is applied to, and its arguments.
type filterFunc func(r *run, in Value, a *args) (Value, error)

// filters are jinja2's, without random, urlize and pprint, and with
// transformers' tojson.
var filters map[string]filterFunc

func init() {
	filters = map[string]filterFunc{
		"abs": filterAbs, "attr": filterAttr, "batch": filterBatch, "capitalize": textFilter("capitalize", capitalize),
		"center": filterCenter, "count": filterLength, "d": filterDefault, "default": filterDefault,
		"dictsort": filterDictsort, "e": filterEscape, "escape": filterEscape, "filesizeformat": filterFilesize,
		"first": filterFirst, "float": filterFloat, "forceescape": filterForceEscape, "format": filterFormat,
		"groupby": filterGroupby, "indent": filterIndent, "int": filterInt, "items": filterItems, "join": filterJoin,
		"last": filterLast, "length": filterLength, "list": filterList, "lower": textFilter("lower", lower),
		"map": filterMap, "max": extremeFilter("max", cmpGT), "min": extremeFilter("min", cmpLT),
		"reject": selectFilter(false, false), "rejectattr": selectFilter(false, true), "replace": filterReplace,
		"reverse": filterReverse, "round": filterRound, "safe": filterSafe, "select": selectFilter(true, false),
		"selectattr": selectFilter(true, true), "slice": filterSlice, "sort": filterSort, "string": filterString,
		"striptags": filterStriptags, "sum": filterSum, "title": textFilter("title", titleWords), "tojson": filterJSON,
		"trim": filterTrim, "truncate": filterTruncate, "unique": filterUnique, "upper": textFilter("upper", upper),
		"urlencode": filterUrlencode, "wordcount": filterWordcount, "wordwrap": filterWordwrap, "xmlattr": filterXmlattr,
		"random": refusedFilter("random", "it is random"),
		"urlize": refusedFilter("urlize", "prompts are not HTML"),
		"pprint": refusedFilter("pprint", "use tojson(indent=2)"),
	}
}

func refusedFilter(name, why string) filterFunc {
	return func(*run, Value, *args) (Value, error) {
		return Value{}, fault("the filter %s is not supported: %s", name, why)
	}
}

// soft is markupsafe's soft_str: v itself if it is a string, else str(v).
func (r *run) soft(v Value) (Value, error) {
	if v.k == kString {
		return v, nil
	}
	s, err := r.text(v)
	return String(s), err
}

func textFilter(name string, f func(string) string) filterFunc {
	return func(r *run, in Value, a *args) (Value, error) {
		if err := a.none(name); err != nil {
			return Value{}, err
		}
		s, err := r.soft(in)
		if err != nil {
			return Value{}, err
		}
		if err := r.room(int(s.n)); err != nil {
			return Value{}, err
		}
		return sub(s, f(s.str())), nil
	}
}

func filterString(r *run, in Value, a *args) (Value, error) {
	if err := a.none("string"); err != nil {
		return Value{}, err
	}
	return r.soft(in)
}

func filterTrim(r *run, in Value, a *args) (Value, error) {
	if in.k != kString {
		var err error
		if in, err = r.soft(in); err != nil {
			return Value{}, err
		}
	}
	if len(a.pos) == 0 && len(a.named) == 0 {
		return r.strip(in, true, true)
	}
	got, err := a.take("trim", 0, "chars")
	if err != nil {
		return Value{}, err
	}
	return stripChars(r, in, got[0], "strip", true, true)
}

func filterJSON(r *run, in Value, a *args) (Value, error) {
	start := len(r.out)
	if err := r.appendJSON(in, a); err != nil {
		return Value{}, err
	}
	return String(r.cut(start)), nil
}

func filterLength(r *run, in Value, a *args) (Value, error) {
	if err := a.none("length"); err != nil {
		return Value{}, err
	}
	n, err := r.size(in)
	return Int(int64(n)), err
}

func filterDefault(_ *run, in Value, a *args) (Value, error) {
	got, err := a.take("default", 0, "default_value", "boolean")
	if err != nil {
		return Value{}, err
	}
	if in.k != kUndefined && (in.truth() || !got[1].truth()) {
		return in, nil
	}
	if got[0].k == kMissing {
		return String(""), nil
	}
	return got[0], nil
}

func filterSafe(r *run, in Value, a *args) (Value, error) {
	if err := a.none("safe"); err != nil {
		return Value{}, err
	}
	s, err := r.text(in)
	return markup(s), err
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

// escape is markupsafe's escape.
func (r *run) escape(v Value) (Value, error) {
	if v.markup {
		return v, nil
	}
	s, err := r.text(v)
	if err != nil {
		return Value{}, err
	}
	if err := r.room(len(s)); err != nil {
		return Value{}, err
	}
	s = htmlEscaper.Replace(s)
	return markup(s), r.room(len(s))
}

func filterEscape(r *run, in Value, a *args) (Value, error) {
	if err := a.none("escape"); err != nil {
		return Value{}, err
	}
	return r.escape(in)
}

func filterForceEscape(r *run, in Value, a *args) (Value, error) {
	if err := a.none("forceescape"); err != nil {
		return Value{}, err
	}
	in.markup = false
	return r.escape(in)
}

func filterReplace(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("replace", 2, "old", "new", "count")
	if err != nil {
		return Value{}, err
	}
	count := -1
	if got[2].k != kNone {
		if count, err = wantInt(got[2], -1); err != nil {
			return Value{}, err
		}
	}
	var text [3]string
	for i, v := range []Value{in, got[0], got[1]} {
		if text[i], err = r.text(v); err != nil {
			return Value{}, err
		}
	}
	s, err := r.replace(text[0], text[1], text[2], count)
	return String(s), err
}

func filterIndent(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("indent", 0, "width", "first", "blank")
	if err != nil {
		return Value{}, err
	}
	if in.k != kString {
		if in.k == kUndefined {
			return Value{}, r.undefinedError(in)
		}
		return Value{}, unsupported(opAdd, in, String(""))
	}
	indent := "    "
	if got[0].k == kString {
		indent = got[0].str()
	} else if got[0].k != kMissing {
		n, err := wantInt(got[0], 4)
		if err != nil {
			return Value{}, err
		}
		if n > r.most {
			return Value{}, r.room(-1)
		}
		indent = strings.Repeat(" ", max(n, 0))
	}
	if err := r.room(len(in.str())); err != nil {
		return Value{}, err
	}
	lines := splitLines(in.str()+"\n", false, r.most/24)
	if len(lines) > r.most/24 {
		return Value{}, r.room(-1)
	}
	if err := r.room(len(in.str()) + len(lines)*(1+len(indent))); err != nil {
		return Value{}, err
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == 0 && got[1].truth() || i > 0 && (line != "" || got[2].truth()) {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
	return sub(in, b.String()), nil
}

func filterCenter(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("center", 0, "width")
	if err != nil {
		return Value{}, err
	}
	width, err := wantInt(got[0], 80)
	if err != nil {
		return Value{}, err
	}
	s, err := r.soft(in)
	if err != nil {
		return Value{}, err
	}
	text, err := r.pad(s.str(), " ", width, padCenter)
	return sub(s, text), err
}

// titleWords is jinja2's title: a word begins behind a blank or an opening
// bracket.
func titleWords(s string) string {
	var b strings.Builder
	for s != "" {
		between := func(c rune) bool { return strings.ContainsRune("-({[<", c) || isSpace(c) }
		end := strings.IndexFunc(s, between)
		if end < 0 {
			end = len(s)
		}
		if word := s[:end]; word != "" {
			_, size := utf8.DecodeRuneInString(word)
			b.WriteString(upper(word[:size]))
			b.WriteString(lower(word[size:]))
		}
		s = s[end:]
		rest := strings.TrimLeftFunc(s, between)
		b.WriteString(s[:len(s)-len(rest)])
		s = rest
	}
	return b.String()
}

func filterFormat(r *run, in Value, a *args) (Value, error) {
	s, err := r.soft(in)
	if err != nil {
		return Value{}, err
	}
	if len(a.pos) > 0 && len(a.named) > 0 {
		return Value{}, fault("can't handle positional and keyword arguments at the same time")
	}
	if len(a.named) > 0 {
		d := NewDict(len(a.named))
		for _, n := range a.named {
			d.Set(n.name, n.v)
		}
		return r.percent(s, d.Value())
	}
	return r.percent(s, tuple(a.pos...))
}

func filterTruncate(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("truncate", 0, "length", "killwords", "end", "leeway")
	if err != nil {
		return Value{}, err
	}
	length, err := wantInt(got[0], 255)
	if err != nil {
		return Value{}, err
	}
	leeway := 5
	if got[3].k != kNone {
		if leeway, err = wantInt(got[3], 5); err != nil {
			return Value{}, err
		}
	}
	end := "..."
	if got[2].k != kMissing {
		if end, err = wantString(got[2], "truncate"); err != nil {
			return Value{}, err
		}
	}
	n := utf8.RuneCountInString(end)
	switch {
	case length < n:
		return Value{}, fault("expected length >= %d, got %d", n, length)
	case leeway < 0:
		return Value{}, fault("expected leeway >= 0, got %d", leeway)
	}
	size, err := r.size(in)
	if err != nil || size <= length || size-length <= leeway {
		return in, err
	}
	if in.k != kString {
		return Value{}, fault("'%s' object has no attribute 'rsplit'", in.typeName())
	}
	s := in.str()[:runeOffset(in.str(), length-n)]
	if !got[1].truth() {
		if at := strings.LastIndexByte(s, ' '); at >= 0 {
			s = s[:at]
		}
	}
	return sub(in, s+end), r.room(len(s) + len(end))
}

func filterWordcount(r *run, in Value, a *args) (Value, error) {
	if err := a.none("wordcount"); err != nil {
		return Value{}, err
	}
	s, err := r.soft(in)
	if err != nil {
		return Value{}, err
	}
	n, inside := 0, false
	for _, c := range s.str() {
		word := isWord(c)
		if word && !inside {
			n++
		}
		inside = word
	}
	return Int(int64(n)), r.step(int(s.n) >> 4)
}

func filterInt(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("int", 0, "default", "base")
	if err != nil {
		return Value{}, err
	}
	if got[0].k == kMissing {
		got[0] = Int(0)
	}
	base, err := wantInt(got[1], 10)
	if err != nil {
		return Value{}, err
	}
	switch in.k {
	case kBool, kInt, kBig:
		in.k = max(in.k, kInt)
		return in, nil
	case kUndefined:
		return Value{}, r.undefinedError(in)
	case kFloat:
		return wholeOf(in.float(), got[0], true)
	case kString:
		if err := r.step(int(in.n) >> 4); err != nil {
			return Value{}, err
		}
		if n, ok := parseInt(in.str(), base); ok {
			return n, nil
		}
		if f, ok := parseFloat(in.str()); ok {
			return wholeOf(f, got[0], false)
		}
	}
	return got[0], nil
}

// wholeOf is int(f).
func wholeOf(f float64, absent Value, strict bool) (Value, error) {
	switch {
	case math.IsNaN(f):
		return absent, nil
	case math.IsInf(f, 0) && strict:
		return Value{}, fault("cannot convert float infinity to integer")
	case math.IsInf(f, 0):
		return absent, nil
	}
	return intValue(Float(f).toBig()), nil
}

// asciiDigits puts ASCII digits in place of those of other scripts.
func asciiDigits(s string) string {
	if isASCII(s) {
		return s
	}
	return strings.Map(func(c rune) rune {
		for _, t := range unicode.Nd.R16 {
			if c >= rune(t.Lo) && c <= rune(t.Hi) {
				return '0' + (c-rune(t.Lo))%10
			}
		}
		for _, t := range unicode.Nd.R32 {
			if c >= rune(t.Lo) && c <= rune(t.Hi) {
				return '0' + (c-rune(t.Lo))%10
			}
		}
		return c
	}, s)
}

// parseInt is int(s, base).
func parseInt(s string, base int) (Value, bool) {
	s = asciiDigits(strip(s, true, true))
	if base < 0 || base == 1 || base > 36 || len(s) > maxJSONDigits {
		return Value{}, false
	}
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || digits == "" || digits[0] == '_' && base == 10 {
		return Value{}, false
	}
	if base == 0 && len(digits) > 1 && digits[0] == '0' && isDecimal(digits[1]) && strings.Trim(digits, "0_") != "" {
		return Value{}, false
	}
	if len(digits) > 2 && digits[0] == '0' {
		at := strings.IndexByte("box", digits[1]|0x20)
		if at >= 0 && base == []int{2, 8, 16}[at] {
			digits = digits[2:]
		}
	}
	if strings.Contains(digits, "__") || strings.HasSuffix(digits, "_") {
		return Value{}, false
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(digits, "_", ""), base)
	if !ok || strings.ContainsAny(digits, "+-") {
		return Value{}, false
	}
	if s[0] == '-' {
		n.Neg(n)
	}
	return intValue(n), true
}

// parseFloat is float(s).
func parseFloat(s string) (float64, bool) {
	s = asciiDigits(strip(s, true, true))
	if len(s) > maxJSONDigits || strings.ContainsAny(s, "xXpP") {
		return 0, false
	}
	if strings.Contains(s, "_") {
		for i := range len(s) {
			if s[i] == '_' && (i == 0 || i+1 == len(s) || !isDecimal(s[i-1]) || !isDecimal(s[i+1])) {
				return 0, false
			}
		}
		s = strings.ReplaceAll(s, "_", "")
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || math.IsInf(f, 0) && strings.ContainsAny(s, "0123456789")
}

func filterFloat(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("float", 0, "default")
	if err != nil {
		return Value{}, err
	}
	switch {
	case in.isNumber():
		return Float(in.toFloat()), nil
	case in.k == kUndefined:
		return Value{}, r.undefinedError(in)
	case in.k == kString:
		if err := r.step(int(in.n) >> 4); err != nil {
			return Value{}, err
		}
		if f, ok := parseFloat(in.str()); ok {
			return Float(f), nil
		}
	}
	if got[0].k == kMissing {
		return Float(0), nil
	}
	return got[0], nil
}

func filterAbs(r *run, in Value, a *args) (Value, error) {
	if err := a.none("abs"); err != nil {
		return Value{}, err
	}
	switch in.k {
	case kBool, kInt:
		if in.n < 0 {
			return r.numbers(opSub, Int(0), in)
		}
		return Int(in.n), nil
	case kBig:
		return bigInt(new(big.Int).Abs(in.big())), nil
	case kFloat:
		return Float(math.Abs(in.float())), nil
	}
	return Value{}, fault("bad operand type for abs(): '%s'", in.typeName())
}

func filterRound(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("round", 0, "precision", "method")
	if err != nil {
		return Value{}, err
	}
	how := "common"
	if got[1].k == kString {
		how = got[1].str()
	}
	if how != "common" && how != "ceil" && how != "floor" || got[1].k != kMissing && got[1].k != kString {
		return Value{}, fault("method must be common, ceil or floor")
	}
	precision, err := wantInt(got[0], 0)
	if err != nil {
		return Value{}, err
	}
	if !in.isNumber() {
		if in.k == kUndefined && how != "common" {
			return Value{}, r.undefinedError(in)
		}
		return Value{}, fault("type %s doesn't define __round__ method", in.typeName())
	}
	if precision > 300 || precision < -300 {
		return Value{}, fault("round() to %d digits is not supported", precision)
	}
	if how == "common" {
		return r.roundHalfEven(in, precision)
	}
	f := in.toFloat() * math.Pow(10, float64(precision))
	if how == "ceil" {
		f = math.Ceil(f)
	} else {
		f = math.Floor(f)
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return Value{}, fault("cannot convert float to integer")
	}
	return Float(f / math.Pow(10, float64(precision))), nil
}

// roundHalfEven is round(v, precision), which leaves integers integers.
func (r *run) roundHalfEven(v Value, precision int) (Value, error) {
	if v.k != kFloat {
		if precision >= 0 || v.k == kBig {
			v.k = max(v.k, kInt)
			return v, nil
		}
		if precision < -18 {
			return Int(0), nil
		}
		p := int64(1)
		for range -precision {
			p *= 10
		}
		q, m := v.n/p, v.n%p
		if m < 0 {
			m += p
			q--
		}
		if 2*uint64(m) > uint64(p) || 2*m == p && q&1 == 1 {
			q++
		}
		return r.multiply(q, p)
	}
	f := v.float()
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return v, nil
	}
	if precision >= 0 {
		f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
		return Float(f), nil
	}
	p := math.Pow(10, float64(-precision))
	return Float(math.RoundToEven(f/p) * p), nil
}

func filterFilesize(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("filesizeformat", 0, "binary")
	if err != nil {
		return Value{}, err
	}
	var size float64
	switch {
	case in.isNumber():
		size = in.toFloat()
	case in.k == kString:
		f, ok := parseFloat(in.str())
		if !ok {
			return Value{}, fault("could not convert string to float: %s", pyRepr(in.str()))
		}
		size = f
	default:
		return Value{}, fault("float() argument must be a string or a real number, not '%s'", in.typeName())
	}
	base, units := 1000.0, []string{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	if got[0].truth() {
		base, units = 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
	}
	if size == 1 {
		return String("1 Byte"), nil
	}
	if size < base {
		return String(strconv.FormatFloat(math.Trunc(size), 'f', 0, 64) + " Bytes"), nil
	}
	unit := base
	for i, name := range units {
		unit *= base
		if size < unit || i == len(units)-1 {
			return String(strconv.FormatFloat(base*size/unit, 'f', 1, 64) + " " + name), nil
		}
	}
	return Value{}, nil
}
