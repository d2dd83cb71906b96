package chat

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// spec is a format specification: [[fill]align][sign][z][#][0][width][group][.prec][type].
type spec struct {
	fill      string
	align     byte // 0: the type's own
	sign      byte
	alternate bool
	zero      bool
	width     int
	group     byte
	precision int // -1: not given
	verb      byte
}

func parseSpec(s string) (p spec, err error) {
	p = spec{fill: " ", precision: -1}
	if c, size := utf8.DecodeRuneInString(s); len(s) > size && strings.IndexByte("<>=^", s[size]) >= 0 {
		p.fill, p.align, s = string(c), s[size], s[size+1:]
	} else if s != "" && strings.IndexByte("<>=^", s[0]) >= 0 {
		p.align, s = s[0], s[1:]
	}
	if s != "" && strings.IndexByte("+- ", s[0]) >= 0 {
		p.sign, s = s[0], s[1:]
	}
	if s != "" && s[0] == '#' {
		p.alternate, s = true, s[1:]
	}
	if s != "" && s[0] == '0' {
		p.zero, s = true, s[1:]
		if p.align == 0 {
			p.fill = "0"
		}
	}
	if p.width, s, err = leadingInt(s); err != nil {
		return p, err
	}
	if s != "" && (s[0] == ',' || s[0] == '_') {
		p.group, s = s[0], s[1:]
	}
	if s != "" && s[0] == '.' {
		s = s[1:]
		if s == "" || !isDecimal(s[0]) {
			return p, fault("Format specifier missing precision")
		}
		if p.precision, s, err = leadingInt(s); err != nil {
			return p, err
		}
	}
	if len(s) > 1 {
		return p, fault("Invalid format specifier")
	}
	if s != "" {
		p.verb = s[0]
	}
	return p, nil
}

func leadingInt(s string) (n int, rest string, err error) {
	i := 0
	for i < len(s) && isDecimal(s[i]) {
		i++
	}
	if i == 0 {
		return 0, s, nil
	}
	n, err = strconv.Atoi(s[:i])
	if err != nil || n > 1<<40 {
		return 0, s, fault("Too many decimal digits in format string")
	}
	return n, s[i:], nil
}

// format is format(v, text).
func (r *run) format(v Value, text string) (string, error) {
	if text == "" {
		return r.text(v)
	}
	p, err := parseSpec(text)
	if err != nil {
		return "", err
	}
	if p.precision > r.most {
		return "", r.room(-1)
	}
	switch v.k {
	case kString:
		return r.formatString(v.str(), p)
	case kBool, kInt, kBig:
		return r.formatInt(v.toBig(), p)
	case kFloat:
		return r.formatFloat(v.float(), p)
	case kUndefined:
		return r.formatString("", p)
	}
	return "", fault("unsupported format string passed to %s.__format__", v.typeName())
}

func (r *run) formatString(s string, p spec) (string, error) {
	switch {
	case p.verb != 0 && p.verb != 's':
		return "", fault("Unknown format code '%c' for object of type 'str'", p.verb)
	case p.sign != 0:
		return "", fault("Sign not allowed in string format specifier")
	case p.alternate:
		return "", fault("Alternate form (#) not allowed in string format specifier")
	case p.group != 0:
		return "", fault("Cannot specify '%c' with 's'.", p.group)
	case p.align == '=':
		return "", fault("'=' alignment not allowed in string format specifier")
	}
	if p.precision >= 0 {
		s = s[:runeOffset(s, p.precision)]
	}
	return r.aligned(s, p, '<')
}

func (r *run) aligned(s string, p spec, own byte) (string, error) {
	if p.align != 0 {
		own = p.align
	}
	switch own {
	case '>':
		return r.pad(s, p.fill, p.width, padRight)
	case '^':
		return r.pad(s, p.fill, p.width, func(width, n int) (int, int) {
			return (width - n) / 2, width - n - (width-n)/2
		})
	}
	return r.pad(s, p.fill, p.width, padLeft)
}

// number aligns digits behind their sign and prefix.
func (r *run) number(negative bool, prefix, digits string, p spec) (string, error) {
	sign := ""
	switch {
	case negative:
		sign = "-"
	case p.sign == '+' || p.sign == ' ':
		sign = string(p.sign)
	}
	sign += prefix
	whole := leadingDigits(digits)
	if p.group != 0 {
		every := 3
		if p.verb == 'x' || p.verb == 'X' || p.verb == 'b' || p.verb == 'o' {
			every = 4
		}
		digits = grouped(digits[:whole], p.group, every) + digits[whole:]
	}
	if p.align == '=' || p.align == 0 && p.zero {
		width := p.width - len(sign)
		if p.group != 0 && p.fill == "0" {
			// Zeros that fill up are grouped too.
			for utf8.RuneCountInString(digits) < width && width < 1<<12 {
				n := leadingDigits(strings.ReplaceAll(digits, string(p.group), ""))
				plain := strings.ReplaceAll(digits, string(p.group), "")
				digits = grouped("0"+plain[:n], p.group, 3) + plain[n:]
			}
		}
		s, err := r.pad(digits, p.fill, width, padRight)
		return sign + s, err
	}
	return r.aligned(sign+digits, p, '>')
}

// leadingDigits is the length of the part before the point or the exponent.
func leadingDigits(s string) int {
	if i := strings.IndexAny(s, ".e%"); i >= 0 && !strings.Contains(s, "inf") {
		return i
	}
	return len(s)
}

func grouped(s string, sep byte, every int) string {
	if len(s) <= every {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if i > 0 && (len(s)-i)%every == 0 {
			b.WriteByte(sep)
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (r *run) formatInt(n *big.Int, p spec) (string, error) {
	base, prefix := 10, ""
	switch p.verb {
	case 0, 'd', 'n':
	case 'b':
		base, prefix = 2, "0b"
	case 'o':
		base, prefix = 8, "0o"
	case 'x', 'X':
		base, prefix = 16, "0"+string(p.verb)
	case 'c':
		return r.aligned(string(rune(n.Int64())), p, '<')
	case 'e', 'E', 'f', 'F', 'g', 'G', '%':
		f, _ := new(big.Float).SetInt(n).Float64()
		return r.formatFloat(f, p)
	default:
		return "", fault("Unknown format code '%c' for object of type 'int'", p.verb)
	}
	if p.precision >= 0 {
		return "", fault("Precision not allowed in integer format specifier")
	}
	if !p.alternate {
		prefix = ""
	}
	digits := new(big.Int).Abs(n).Text(base)
	if p.verb == 'X' {
		digits = strings.ToUpper(digits)
	}
	return r.number(n.Sign() < 0, prefix, digits, p)
}

func (r *run) formatFloat(f float64, p spec) (string, error) {
	negative := math.Signbit(f) && !math.IsNaN(f)
	var digits string
	precision := p.precision
	if precision > 4096 {
		return "", fault("precision too big")
	}
	switch p.verb {
	case 0:
		if precision < 0 {
			digits = string(appendFloat(nil, math.Abs(f)))
			break
		}
		digits = general(math.Abs(f), precision, false)
		if leadingDigits(digits) == len(digits) && !math.IsInf(f, 0) && !math.IsNaN(f) {
			digits += ".0"
		}
	case 'f', 'F', 'e', 'E', 'g', 'G', 'n', '%':
		if precision < 0 {
			precision = 6
		}
		digits = floatDigits(math.Abs(f), p.verb|0x20, precision, p.alternate)
		if p.verb == '%' {
			digits = floatDigits(math.Abs(f)*100, 'f', precision, false) + "%"
		}
		if p.verb >= 'A' && p.verb <= 'Z' {
			digits = strings.ToUpper(digits)
		}
	default:
		return "", fault("Unknown format code '%c' for object of type 'float'", p.verb)
	}
	return r.number(negative, "", digits, p)
}

// floatDigits formats a float that is not negative.
func floatDigits(f float64, verb byte, precision int, alternate bool) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return "inf"
	case verb == 'e' || verb == 'f':
		return strconv.FormatFloat(f, verb, precision, 64)
	}
	return general(f, precision, alternate)
}

// general is the %g of C.
func general(f float64, precision int, alternate bool) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return floatDigits(f, 'f', 0, false)
	}
	precision = max(precision, 1)
	s := strconv.FormatFloat(f, 'e', precision-1, 64)
	at := strings.IndexByte(s, 'e')
	exponent, _ := strconv.Atoi(s[at+1:])
	mantissa, tail := s[:at], s[at:]
	if exponent >= -4 && exponent < precision {
		mantissa, tail = strconv.FormatFloat(f, 'f', precision-1-exponent, 64), ""
	}
	if !alternate && strings.IndexByte(mantissa, '.') >= 0 {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
	}
	return mantissa + tail
}

func strFormat(r *run, self Value, a *args) (Value, error) {
	f := formatter{r: r, args: a, self: self}
	s, err := f.expand(self.str(), 2)
	return sub(self, s), err
}

func strFormatMap(r *run, self Value, a *args) (Value, error) {
	got, err := a.take("format_map", 1, "/mapping")
	if err != nil {
		return Value{}, err
	}
	if got[0].k != kDict {
		return Value{}, fault("'%s' object is not subscriptable", got[0].typeName())
	}
	f := formatter{r: r, args: &args{}, self: self, mapping: got[0].dict()}
	s, err := f.expand(self.str(), 2)
	return sub(self, s), err
}

// formatter expands the braces of str.format.
type formatter struct {
	r       *run
	args    *args
	self    Value
	mapping *Dict
	auto    int // next number of {}; -1 once a number has been given
	manual  bool
}

func (f *formatter) expand(s string, depth int) (string, error) {
	if depth < 0 {
		return "", fault("Max string recursion exceeded")
	}
	var b strings.Builder
	for s != "" {
		at := strings.IndexAny(s, "{}")
		if at < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:at])
		if at+1 < len(s) && s[at+1] == s[at] {
			b.WriteByte(s[at])
			s = s[at+2:]
			continue
		}
		if s[at] == '}' {
			return "", fault("Single '}' encountered in format string")
		}
		end, err := fieldEnd(s[at+1:])
		if err != nil {
			return "", err
		}
		text, err := f.field(s[at+1:at+1+end], depth)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		if err := f.r.room(b.Len()); err != nil {
			return "", err
		}
		s = s[at+2+end:]
	}
	return b.String(), f.r.room(b.Len())
}

// fieldEnd finds the brace that closes a field.
func fieldEnd(s string) (int, error) {
	open := 1
	for i := range len(s) {
		switch s[i] {
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return i, nil
			}
		}
	}
	return 0, fault("expected '}' before end of string")
}

// field formats one replacement field: name[!conversion][:spec].
func (f *formatter) field(s string, depth int) (string, error) {
	name, conversion, text := s, byte(0), ""
	bracket := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case !bracket && c == ':':
			name, text = s[:i], s[i+1:]
		case !bracket && c == '!':
			rest := s[i+1:]
			if rest == "" || len(rest) > 1 && rest[1] != ':' {
				return "", fault("expected ':' after conversion specifier")
			}
			name, conversion = s[:i], rest[0]
			if len(rest) > 1 {
				text = rest[2:]
			}
		default:
			continue
		}
		if len(name) < len(s) {
			break
		}
	}
	v, err := f.lookup(name)
	if err != nil {
		return "", err
	}
	if text, err = f.expand(text, depth-1); err != nil {
		return "", err
	}
	switch conversion {
	case 0:
	case 's':
		s, err := f.r.text(v)
		if err != nil {
			return "", err
		}
		v = String(s)
	case 'r', 'a':
		s, err := f.r.repr(v)
		if err != nil {
			return "", err
		}
		v = String(s)
	default:
		return "", fault("Unknown conversion specifier %c", conversion)
	}
	s, err = f.r.format(v, text)
	if err == nil && f.self.markup {
		v, err = f.r.escape(String(s))
		s = v.str()
	}
	return s, err
}

// lookup finds the value of a field's name with its attributes and subscripts.
func (f *formatter) lookup(name string) (Value, error) {
	end := strings.IndexAny(name, ".[")
	if end < 0 {
		end = len(name)
	}
	v, err := f.first(name[:end])
	rest := name[end:]
	for rest != "" && err == nil {
		if rest[0] == '.' {
			n := strings.IndexAny(rest[1:], ".[")
			if n < 0 {
				n = len(rest) - 1
			}
			if n == 0 {
				return Value{}, fault("Empty attribute in format string")
			}
			v, err = f.r.attr(v, newAttribute(rest[1:1+n]))
			rest = rest[1+n:]
			continue
		}
		n := strings.IndexByte(rest, ']')
		if rest[0] != '[' || n < 2 {
			return Value{}, fault("Missing ']' in format string")
		}
		index := String(rest[1:n])
		if i, err := strconv.ParseInt(rest[1:n], 10, 64); err == nil {
			index = Int(i)
		}
		v, err = f.r.item(v, index)
		rest = rest[n+1:]
	}
	return v, err
}

func (f *formatter) first(name string) (Value, error) {
	n, err := strconv.Atoi(name)
	if name == "" || err == nil && isDecimal(name[0]) {
		switch {
		case name == "" && f.manual:
			return Value{}, fault("cannot switch from manual field specification to automatic field numbering")
		case name == "":
			n = f.auto
			f.auto++
		case f.auto > 0:
			return Value{}, fault("cannot switch from manual field specification to automatic field numbering")
		default:
			f.manual = true
		}
		if n >= len(f.args.pos) {
			return Value{}, fault("Replacement index %d out of range for positional args tuple", n)
		}
		return f.args.pos[n], nil
	}
	if v, ok := f.mapping.Get(name); ok {
		return v, nil
	}
	for _, arg := range f.args.named {
		if arg.name == name {
			return arg.v, f.r.step(len(f.args.named) >> 2)
		}
	}
	return Value{}, fault("%s", pyRepr(name))
}
