package layout

import (
	"fmt"
	"strconv"
	"strings"
)

// String is the text of the layout, such as
//
//	layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd rank=0/2
//
// with the size of an element behind the dtype, and the number of ranks behind the rank.
func (l *Layout) String() string { return l.Form() + fmt.Sprintf(" rank=%d/%d", l.Rank, l.Ranks) }

// Form is the text without the rank: what the shards of an engine have in common but for
// their number.
func (l *Layout) Form() string {
	return fmt.Sprintf("layers=%d kv=%d heads=%d dim=%d tokens=%d dtype=%s:%d order=%s", l.Layers, l.KV, l.Heads, l.HeadDim, l.Tokens, l.DType, l.ElementBytes, l.Order)
}

// MarshalText implements encoding.TextMarshaler.
func (l Layout) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Layout) UnmarshalText(b []byte) (err error) {
	*l, err = Parse(string(b))
	return err
}

// Parse reads the text of a layout, and validates it.
func Parse(text string) (l Layout, err error) {
	if len(text) > MaxTextBytes {
		return l, invalid("the text of a layout has %d bytes; it may have %d", len(text), MaxTextBytes)
	}
	number := func(s string, to *int) bool {
		n, err := strconv.Atoi(s)
		*to = n
		return err == nil && strconv.Itoa(n) == s
	}
	fields := [...]struct {
		name string
		read func(value string) bool
	}{
		{"layers", func(v string) bool { return number(v, &l.Layers) }},
		{"kv", func(v string) bool { return number(v, &l.KV) }},
		{"heads", func(v string) bool { return number(v, &l.Heads) }},
		{"dim", func(v string) bool { return number(v, &l.HeadDim) }},
		{"tokens", func(v string) bool { return number(v, &l.Tokens) }},
		{"dtype", func(v string) bool {
			name, bytes, _ := strings.Cut(v, ":")
			l.DType = name
			return number(bytes, &l.ElementBytes)
		}},
		{"order", func(v string) bool { l.Order = v; return true }},
		{"rank", func(v string) bool {
			rank, ranks, _ := strings.Cut(v, "/")
			return number(rank, &l.Rank) && number(ranks, &l.Ranks)
		}},
	}
	words := strings.Split(text, " ")
	for i, f := range fields {
		if i >= len(words) {
			return Layout{}, invalid("the layout %q ends before %s=", text, f.name)
		}
		if v, ok := strings.CutPrefix(words[i], f.name+"="); !ok || !f.read(v) {
			return Layout{}, invalid("the layout %q has %q where %s=… belongs; write it like %q", text, words[i], f.name, example)
		}
	}
	if len(words) > len(fields) {
		return Layout{}, invalid("the layout %q goes on behind its rank", text)
	}
	if err := l.Validate(); err != nil {
		return Layout{}, err
	}
	return l, nil
}

const example = "layers=32 kv=2 heads=8 dim=128 tokens=16 dtype=bf16:2 order=l/kthd rank=0/2"
