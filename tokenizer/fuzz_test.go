package tokenizer_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// bytesTokenizer has the byte-level alphabet, a few merges and an added token.
func bytesTokenizer(t testing.TB) *tokenizer.Tokenizer {
	return componentNamed(t, "ByteLevel False True")
}

// fallbackTokenizer spells unknown characters by their bytes.
func fallbackTokenizer(t testing.TB) *tokenizer.Tokenizer {
	return componentNamed(t, "normalizer Prepend Replace")
}

func componentNamed(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	for _, c := range readComponents(t) {
		if c.Name == name {
			tok, err := tokenizer.FromJSON(c.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
	}
	t.Fatalf("no component %q", name)
	return nil
}

// FuzzFromJSON wants an error or a tokenizer that works, whatever the file.
func FuzzFromJSON(f *testing.F) {
	for i, c := range readComponents(f) {
		if i%4 == 0 {
			f.Add([]byte(c.Tokenizer), "Hello <s> wörld 12")
		}
	}
	for _, bad := range badFiles {
		f.Add([]byte(bad.file), "x")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := tokenizer.FromJSON(data)
		if err != nil {
			if dynamo.KindOf(err) == dynamo.KindInternal {
				t.Fatalf("error without a kind: %v", err)
			}
			return
		}
		text = text[:min(len(text), 256)]
		ids := tok.Encode(nil, text, tokenizer.EncodeOptions{AddSpecial: true})
		for _, id := range ids {
			tok.Token(id)
			tok.TokenBytes(id)
		}
		checkDecoder(t, tok, ids, false)
	})
}

// FuzzRoundTrip wants text back from its ids where every byte is a token.
func FuzzRoundTrip(f *testing.F) {
	tok := bytesTokenizer(f)
	for _, s := range goldenTexts(f, "qwen3") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		ids := tok.Encode(nil, text, tokenizer.EncodeOptions{PlainSpecial: true})
		for _, s := range []string{"<mask>", "<l>", "<r>", "<sp> ", "<n>", "<w>"} {
			if strings.Contains(text, s) {
				return // these take white space with them
			}
		}
		if got := tok.Decode(ids, false); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

// FuzzDecoder wants whole characters at every step and the same text however it
// is asked for.
func FuzzDecoder(f *testing.F) {
	level, fallback := bytesTokenizer(f), fallbackTokenizer(f)
	f.Add([]byte("\xe2\x82\xac\xe2\x82\xf0\x9f\x98"))
	f.Add([]byte("abc\x80\xff\xed\xa0\x80\xf4\x90"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// As bytes: ids that spell data; as numbers: any ids.
		var spelled, bytes, any []dynamo.TokenID
		for i, c := range data {
			if id, ok := level.ID(string(alphabet[c])); ok {
				spelled = append(spelled, id)
			}
			if id, ok := fallback.ID(byteName(c)); ok {
				bytes = append(bytes, id)
			}
			any = append(any, dynamo.TokenID(int(c)*3+i%2))
		}
		if got, want := level.Decode(spelled, false), strings.ToValidUTF8(string(data), "\uFFFD"); utf8.Valid(data) && got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		for _, skip := range []bool{false, true} {
			for _, ids := range [][]dynamo.TokenID{spelled, bytes, any} {
				checkDecoder(t, level, ids, skip)
				checkDecoder(t, fallback, ids, skip)
			}
		}
	})
}

// checkDecoder compares one Append per id with Decode, and wants every piece to be
// valid UTF-8.
func checkDecoder(t *testing.T, tok *tokenizer.Tokenizer, ids []dynamo.TokenID, skip bool) {
	t.Helper()
	want := tok.Decode(ids, skip)
	d := tok.NewDecoder(skip)
	for range 2 { // Flush leaves it as new
		var got []byte
		for _, id := range ids {
			n := len(got)
			got = d.Append(got, id)
			if !utf8.Valid(got[n:]) {
				t.Fatalf("token %d put out %q", id, got[n:])
			}
		}
		if got = d.Flush(got); string(got) != want {
			t.Fatalf("one by one %q, at once %q", got, want)
		}
	}
}

// alphabet is the byte-level alphabet.
var alphabet = func() (a [256]rune) {
	next := rune(0x100)
	for b := range 256 {
		switch {
		case b >= '!' && b <= '~', b >= 0xA1 && b <= 0xAC, b >= 0xAE:
			a[b] = rune(b)
		default:
			a[b] = next
			next++
		}
	}
	return a
}()

func byteName(c byte) string {
	const hex = "0123456789ABCDEF"
	return "<0x" + string(hex[c>>4]) + string(hex[c&15]) + ">"
}
