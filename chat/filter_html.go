package chat

import (
	"html"
	"strings"
	"unicode"
)

// isWord is \w of Python's regular expressions.
func isWord(c rune) bool {
	return c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c)
}

func filterStriptags(r *run, in Value, a *args) (Value, error) {
	if err := a.none("striptags"); err != nil {
		return Value{}, err
	}
	s, err := r.text(in)
	if err != nil {
		return Value{}, err
	}
	if err := r.room(len(s)); err != nil {
		return Value{}, err
	}
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '<')
		if at < 0 {
			break
		}
		from, end := at, ">"
		if strings.HasPrefix(s[at:], "<!--") {
			from, end = at+4, "-->"
		}
		n := strings.Index(s[from:], end)
		if n < 0 {
			break
		}
		b.WriteString(s[:at])
		s = s[from+n+len(end):]
	}
	b.WriteString(s)
	return String(html.UnescapeString(strings.Join(splitBlank(b.String(), -1, r.most/24), " "))), nil
}

// quoteURL is urllib's quote with "/" as safe, or for a query string.
func quoteURL(s string, query bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDecimal(c) || strings.IndexByte("_.-~", c) >= 0, c == '/' && !query:
			b.WriteByte(c)
		case c == ' ' && query:
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

func filterUrlencode(r *run, in Value, a *args) (Value, error) {
	if err := a.none("urlencode"); err != nil {
		return Value{}, err
	}
	c, err := r.cursor(in)
	if in.k == kString || err != nil {
		s, err := r.text(in)
		if err == nil {
			err = r.room(3 * len(s))
		}
		return String(quoteURL(s, false)), err
	}
	if in.k == kDict {
		view, _ := viewMethod("items", viewItems)(r, in, &args{})
		c, _ = r.cursor(view)
	}
	var b strings.Builder
	for {
		item, ok, err := c.next(r)
		if err != nil {
			return Value{}, err
		}
		if !ok {
			return String(b.String()), nil
		}
		pair, err := r.unpack(item, 2)
		if err != nil {
			return Value{}, err
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		for i, v := range pair {
			s, err := r.text(v)
			if err != nil {
				return Value{}, err
			}
			if i == 1 {
				b.WriteByte('=')
			}
			b.WriteString(quoteURL(s, true))
		}
		if err := r.room(b.Len()); err != nil {
			return Value{}, err
		}
	}
}

func filterXmlattr(r *run, in Value, a *args) (Value, error) {
	got, err := a.take("xmlattr", 0, "autospace")
	if err != nil {
		return Value{}, err
	}
	if in.k != kDict {
		if in.k == kUndefined {
			return Value{}, r.undefinedError(in)
		}
		return Value{}, fault("'%s' object has no attribute 'items'", in.typeName())
	}
	var b strings.Builder
	for _, e := range in.dict().entries {
		if e.value.k == kNone || e.value.k == kUndefined {
			continue
		}
		if e.key.k != kString {
			return Value{}, fault("expected string or bytes-like object, got '%s'", e.key.typeName())
		}
		if strings.ContainsAny(e.key.str(), " \t\n\r\f\v/>=") {
			return Value{}, fault("Invalid character in attribute name: %s", pyRepr(e.key.str()))
		}
		key, err := r.escape(e.key)
		if err != nil {
			return Value{}, err
		}
		v, err := r.escape(e.value)
		if err != nil {
			return Value{}, err
		}
		if b.Len() > 0 || got[0].k == kMissing || got[0].truth() {
			b.WriteByte(' ')
		}
		b.WriteString(key.str() + `="` + v.str() + `"`)
		if err := r.room(b.Len()); err != nil {
			return Value{}, err
		}
	}
	return String(b.String()), nil
}
