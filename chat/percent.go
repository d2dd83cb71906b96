package chat

import (
	"math"
	"math/big"
	"strings"
	"unicode/utf8"
)

// percent is format % v, printf's formatting.
func (r *run) percent(format, v Value) (Value, error) {
	p := &percenter{r: r, escape: format.markup, items: []Value{v}}
	switch v.k {
	case kTuple:
		p.items = v.items()
	case kDict:
		p.mapping = v.dict()
	}
	if err := p.run(format.str()); err != nil {
		return Value{}, err
	}
	// What can be subscripted counts as a mapping, which need not be used up.
	mapping := v.k == kDict || v.k == kList || v.k == kRange || v.k == kUndefined
	if p.next < len(p.items) && !mapping {
		return Value{}, fault("not all arguments converted during string formatting")
	}
	return sub(format, p.b.String()), r.room(p.b.Len())
}

type percenter struct {
	r       *run
	b       strings.Builder
	items   []Value
	next    int
	mapping *Dict
	escape  bool
}

func (p *percenter) take() (Value, error) {
	if p.next >= len(p.items) {
		return Value{}, fault("not enough arguments for format string")
	}
	p.next++
	return p.items[p.next-1], nil
}

func (p *percenter) run(s string) error {
	for {
		at := strings.IndexByte(s, '%')
		if at < 0 {
			p.b.WriteString(s)
			return nil
		}
		p.b.WriteString(s[:at])
		rest, err := p.directive(s[at+1:])
		if err != nil {
			return err
		}
		if err := p.r.room(p.b.Len()); err != nil {
			return err
		}
		s = rest
	}
}

// directive formats what follows a percent sign and returns what comes behind.
func (p *percenter) directive(s string) (string, error) {
	var v Value
	if strings.HasPrefix(s, "(") {
		end := strings.IndexByte(s, ')')
		if end < 0 {
			return "", fault("incomplete format key")
		}
		if p.mapping == nil {
			return "", fault("format requires a mapping")
		}
		got, ok := p.mapping.Get(s[1:end])
		if !ok {
			return "", fault("%s", pyRepr(s[1:end]))
		}
		v, s = got, s[end+1:]
	}
	sp := spec{fill: " ", precision: -1, align: '>'}
	for s != "" && strings.IndexByte("#0- +", s[0]) >= 0 {
		switch s[0] {
		case '#':
			sp.alternate = true
		case '0':
			sp.zero = true
		case '-':
			sp.align = '<'
		case '+':
			sp.sign = '+'
		case ' ':
			if sp.sign == 0 {
				sp.sign = ' '
			}
		}
		s = s[1:]
	}
	var err error
	if sp.width, s, err = p.size(s); err != nil {
		return "", err
	}
	if sp.width < 0 {
		sp.align, sp.width = '<', -sp.width
	}
	if strings.HasPrefix(s, ".") {
		if sp.precision, s, err = p.size(s[1:]); err != nil {
			return "", err
		}
	}
	s = strings.TrimLeft(s, "hlL")
	if s == "" {
		return "", fault("incomplete format")
	}
	if s[0] == '%' {
		p.b.WriteByte('%')
		return s[1:], nil
	}
	if v.k == kMissing {
		if v, err = p.take(); err != nil {
			return "", err
		}
	}
	sp.verb = s[0]
	text, err := p.convert(v, sp)
	p.b.WriteString(text)
	return s[1:], err
}

// size reads a width or precision, * being the next argument.
func (p *percenter) size(s string) (int, string, error) {
	if !strings.HasPrefix(s, "*") {
		return leadingInt(s)
	}
	v, err := p.take()
	if err != nil {
		return 0, "", err
	}
	if v.k != kInt || v.n > 1<<40 || v.n < -1<<40 {
		return 0, "", fault("* wants int")
	}
	return int(v.n), s[1:], nil
}

func (p *percenter) convert(v Value, sp spec) (string, error) {
	switch sp.verb {
	case 's', 'r', 'a':
		var s string
		var err error
		if sp.verb == 's' {
			s, err = p.r.text(v)
		} else {
			s, err = p.r.repr(v)
		}
		if err == nil && p.escape && !v.markup {
			v, err = p.r.escape(String(s))
			s = v.str()
		}
		if sp.precision >= 0 {
			s = s[:runeOffset(s, sp.precision)]
		}
		if err != nil {
			return "", err
		}
		return p.r.aligned(s, sp, '>')
	case 'c':
		s := ""
		switch {
		case v.k == kInt && v.n >= 0 && v.n <= utf8.MaxRune:
			s = string(rune(v.n))
		case v.k == kString && utf8.RuneCountInString(v.str()) == 1:
			s = v.str()
		default:
			return "", fault("%%c requires int or char")
		}
		return p.r.aligned(s, sp, '>')
	}
	if !v.isNumber() {
		if v.k == kUndefined {
			return "", p.r.undefinedError(v)
		}
		return "", fault("%%%c format: a real number is required, not %s", sp.verb, v.typeName())
	}
	if sp.zero && sp.align == '>' {
		sp.align, sp.fill = '=', "0"
	}
	switch sp.verb {
	case 'd', 'i', 'u':
		sp.verb = 'd'
		return p.integer(v, sp)
	case 'x', 'X', 'o':
		if v.k == kFloat {
			return "", fault("%%%c format: an integer is required, not float", sp.verb)
		}
		return p.integer(v, sp)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		return p.r.formatFloat(v.toFloat(), sp)
	}
	return "", fault("unsupported format character '%c' (0x%x)", sp.verb, sp.verb)
}

func (p *percenter) integer(v Value, sp spec) (string, error) {
	if v.k == kFloat && (math.IsInf(v.float(), 0) || math.IsNaN(v.float())) {
		return "", fault("cannot convert float to integer")
	}
	n := v.toBig()
	if least := sp.precision; least > 0 {
		sp.precision = -1
		digits := new(big.Int).Abs(n).String()
		if sp.verb != 'd' {
			return p.r.formatInt(n, sp)
		}
		digits, err := p.r.pad(digits, "0", least, padRight)
		if err != nil {
			return "", err
		}
		return p.r.number(n.Sign() < 0, "", digits, sp)
	}
	sp.precision = -1
	return p.r.formatInt(n, sp)
}
