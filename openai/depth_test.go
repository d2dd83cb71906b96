package openai

import (
	"strings"
	"testing"
)

// nested is checkDepth, one byte at a time.
func nested(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > MaxDepth {
				return true
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return false
}

// FuzzDepth wants strings passed over as a whole exactly where they end.
func FuzzDepth(f *testing.F) {
	deep := strings.Repeat("[", MaxDepth)
	for _, s := range []string{
		deep, deep + "[", deep + `"["`, deep + `"\"["`, deep + `"\\"[`, deep + `"\\\"["`, deep + `"a\nb"[`, deep + `"[`, deep + `"\`, deep + `"a\"`, `"]]"` + deep + "[", deep + "]" + `""[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, b := range [][]byte{body, append([]byte(deep), body...)} {
			if got, want := checkDepth(b) != nil, nested(b); got != want {
				t.Errorf("%q: got %v, want %v", b, got, want)
			}
		}
	})
}

func BenchmarkDepth(b *testing.B) {
	body := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat(`word after word \n`, 400) + `"}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := checkDepth(body); err != nil {
			b.Fatal(err)
		}
	}
}
