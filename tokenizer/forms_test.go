package tokenizer

import (
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// FuzzNFC compares with x/text, where that does not break long runs of marks.
func FuzzNFC(f *testing.F) {
	for _, s := range []string{
		"plain", "é", "e\u0301", "ọ\u0302", "o\u0302\u0323", "\u0e01\u0e48\u0e38", "a\u0e48\u0e38b\u0301", "각", "\u1100\u1161\u11a8", "가\u11a8",
		"\u212b", "\u0958", "\u0915\u093c", "\u09a1\u09bc x \u09c7\u09be", "\u0344", "\u0301", "ab\u0301\u0323\u0308cd", "が か\u3099", "\u2adc\u0338", "x\u0334\u0301\u0334",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		marks := 0
		for _, r := range s {
			if r == 0x0ECE || r > 0xFFFF {
				return // younger than the library's tables
			}
			if marks++; forms.of(r) == 0 {
				marks = 0
			}
			if marks > 12 {
				return
			}
		}
		if got, want := nfc(s), norm.NFC.String(s); got != want {
			t.Fatalf("%+q: got %+q, want %+q", s, got, want)
		}
		if got, want := string(appendForm(nil, norm.NFC, s)), norm.NFC.String(s); got != want {
			t.Fatalf("the long way, %+q: got %+q, want %+q", s, got, want)
		}
		if got, want := string(appendForm(nil, norm.NFKD, s)), norm.NFKD.String(s); got != want {
			t.Fatalf("the long way, NFKD, %+q: got %+q, want %+q", s, got, want)
		}
	})
}
