package trace

import "bytes"

// quick reads a line that is made of nothing but known fields, each once, with plain
// numbers, plain ASCII names and a list of hashes: what traces consist of. It reports
// false for any other line, which is then to be read as JSON; what it reads is what
// that would have read.
func (l *line) quick(text []byte) bool {
	text = bytes.TrimSpace(text)
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		return false
	}
	rest, seen := text[1:len(text)-1], uint32(0)
	for {
		var key []byte
		var ok bool
		if key, rest, ok = plainString(rest); !ok || len(rest) == 0 || rest[0] != ':' {
			return false
		}
		i := fieldOf(key)
		if i < 0 || seen>>i&1 != 0 {
			return false
		}
		seen |= 1 << i
		if rest, ok = l.value(i, bytes.TrimLeft(rest[1:], " ")); !ok {
			return false
		}
		if len(rest) == 0 {
			return true
		}
		if rest[0] != ',' {
			return false
		}
		rest = bytes.TrimLeft(rest[1:], " ")
	}
}

// quickFields are the fields that quick knows, the times first, then the counts.
var quickFields = [...]string{
	"timestamp", "delay", "ttft_ms", "e2e_ms",
	"input_length", "output_length", "block_size", "turn", "priority",
	"session_id", "request_id", "model", "finish", "hash_ids",
}

func fieldOf(key []byte) int {
	for i, name := range quickFields {
		if string(key) == name {
			return i
		}
	}
	return -1
}

// value reads the value of field i and returns what follows it.
func (l *line) value(i int, rest []byte) (after []byte, ok bool) {
	switch quickFields[i] {
	case "session_id":
		return l.name(&l.Session, rest)
	case "request_id":
		return l.name(&l.ID, rest)
	case "model":
		return l.name(&l.Model, rest)
	case "finish":
		return l.name(&l.Finish, rest)
	case "hash_ids":
		end := bytes.IndexByte(rest, ']')
		if end < 1 || rest[0] != '[' {
			return nil, false
		}
		list := rest[1:end]
		l.Hashes = make(hashList, 0, 1+bytes.Count(list, comma))
		if len(list) > 0 && !l.Hashes.whole(list) {
			return nil, false
		}
		return bytes.TrimLeft(rest[end+1:], " "), true
	}
	whole, fraction, digits, rest := plainNumber(rest)
	switch {
	case digits == 0:
		return nil, false
	case i < 4:
		l.times[i] = float64(whole) / powers[fraction] // both exact, so rounded once
		*[]**float64{&l.Timestamp, &l.Delay, &l.FirstToken, &l.Total}[i] = &l.times[i]
	case fraction > 0:
		return nil, false
	default:
		l.counts[i-4] = int64(whole)
		*[]**int64{&l.Input, &l.Output, &l.BlockSize, &l.Turn, &l.Priority}[i-4] = &l.counts[i-4]
	}
	return bytes.TrimLeft(rest, " "), true
}

func (l *line) name(to *name, rest []byte) ([]byte, bool) {
	text, rest, ok := plainString(rest)
	if !ok || len(text) > maxName {
		return nil, false
	}
	*to = name(text)
	return rest, true
}

// plainString reads a string of printable ASCII without escapes, and the spaces
// behind it.
func plainString(b []byte) (text, after []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i, c := range b[1:] {
		switch {
		case c == '"':
			return b[1 : 1+i], bytes.TrimLeft(b[2+i:], " "), true
		case c < 0x20 || c >= 0x7f || c == '\\':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// powers are those of ten that a float64 holds exactly, as far as they are used.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// plainNumber reads a number without sign and exponent, of at most 15 digits and
// without a zero in front of others: whole / 10^fraction. No digits: there is no such
// number.
func plainNumber(b []byte) (whole uint64, fraction, digits int, after []byte) {
	point := -1
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9' && digits < 15:
			whole = whole*10 + uint64(c-'0')
			digits++
		case c == '.' && point < 0 && digits > 0:
			point = i
		case c == ',' || c == ' ':
			b, after = b[:i], b[i:]
		default:
			return 0, 0, 0, nil
		}
		if after != nil {
			break
		}
	}
	if digits == 0 {
		return 0, 0, 0, nil
	}
	if point >= 0 {
		if fraction = len(b) - point - 1; fraction == 0 {
			return 0, 0, 0, nil
		}
	}
	if b[0] == '0' && len(b) > 1 && point != 1 {
		return 0, 0, 0, nil
	}
	return whole, fraction, digits, after
}

// whole reads a list of plain numbers of at most 18 digits and reports whether that is
// all there is.
func (l *hashList) whole(list []byte) bool {
	rest := l.digits(list)
	n := uint64(0)
	if len(rest) == 0 || len(rest) > 18 || rest[0] == '0' && len(rest) > 1 {
		return false
	}
	for _, c := range rest {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + uint64(c-'0')
	}
	*l = append(*l, n)
	return true
}
