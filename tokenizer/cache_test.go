package tokenizer_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// goldenTexts returns the snippets of a vocabulary's committed sample.
func goldenTexts(t testing.TB, name string) []string {
	t.Helper()
	var texts []string
	readGolden(t, filepath.Join("testdata", name+".jsonl.gz"), func(row goldenRow) {
		if row.Text != nil {
			texts = append(texts, *row.Text)
		}
	})
	return texts
}

// TestCacheExact grows a text snippet by snippet and wants the ids of the whole
// each time, whatever was cut where. Snippets hold added tokens, line ends in all
// company, marks and runs of white space.
func TestCacheExact(t *testing.T) {
	for _, name := range vocabularies {
		t.Run(name, func(t *testing.T) {
			tok := loadVocabulary(t, name)
			texts := goldenTexts(t, name)
			for _, glue := range []string{"", "\n", " \n", "\nA", "."} {
				c := tokenizer.NewCache(1 << 20)
				var b strings.Builder
				for i, s := range texts {
					b.WriteString(s)
					b.WriteString(glue)
					if i%7 != 0 {
						continue
					}
					o := tokenizer.EncodeOptions{AddSpecial: i%2 == 0, PlainSpecial: i%3 == 0}
					want := tok.Encode(nil, b.String(), o)
					for range 2 {
						if got := c.Encode(nil, tok, "tenant", b.String(), o); !slices.Equal(got, want) {
							t.Fatalf("glue %q, %d snippets: ids differ at %d", glue, i, mismatch(got, want))
						}
					}
				}
				if units, bytes := c.Len(); bytes > 1<<20 || units == 0 && glue == "\nA" && name != "llama2" && name != "gemma3" {
					t.Errorf("glue %q: cache holds %d units, %d bytes", glue, units, bytes)
				}
			}
		})
	}
}

func mismatch(a, b []dynamo.TokenID) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestCacheReuse checks that the beginning of a conversation is found again, by
// its own tenant only, and that the bound holds.
func TestCacheReuse(t *testing.T) {
	tok := loadVocabulary(t, "smollm2")
	const limit = 72 << 10
	c := tokenizer.NewCache(limit)
	var b strings.Builder
	var before int
	for turn := range 40 {
		fmt.Fprintf(&b, "<|im_start|>user\n%s %d<|im_end|>\n", strings.Repeat("tell me about rivers ", 20), turn)
		c.Encode(nil, tok, "a", b.String(), tokenizer.EncodeOptions{})
		units, bytes := c.Len()
		if units > before+1 && turn > 0 {
			t.Fatalf("turn %d: %d units after %d: the beginning was encoded again", turn, units, before)
		}
		if bytes > limit {
			t.Fatalf("turn %d: %d bytes", turn, bytes)
		}
		before = units
	}
	c.Encode(nil, tok, "b", b.String(), tokenizer.EncodeOptions{})
	if units, _ := c.Len(); units < before+10 {
		t.Errorf("%d units after a second tenant sent the same text, %d before", units, before)
	}
	for tenant := range 20 {
		c.Encode(nil, tok, string(rune('c'+tenant)), b.String(), tokenizer.EncodeOptions{})
		if units, bytes := c.Len(); bytes > limit || bytes < limit/2 {
			t.Fatalf("%d units, %d bytes, limit %d", units, bytes, limit)
		}
	}
	off := tokenizer.NewCache(0)
	off.Encode(nil, tok, "a", b.String(), tokenizer.EncodeOptions{})
	if units, _ := off.Len(); units != 0 {
		t.Errorf("a cache of no bytes holds %d units", units)
	}
}

// TestConcurrent encodes from several goroutines through one tokenizer and one
// cache; with -race it also watches the word cache.
func TestConcurrent(t *testing.T) {
	tok := loadVocabulary(t, "smollm2")
	texts := goldenTexts(t, "smollm2")
	want := make([][]dynamo.TokenID, len(texts))
	for i, s := range texts {
		want[i] = tok.Encode(nil, strings.Repeat(s, 20), tokenizer.EncodeOptions{})
	}
	c := tokenizer.NewCache(1 << 18)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range texts {
				i = (i*7 + g*13) % len(texts)
				if got := c.Encode(nil, tok, "t", strings.Repeat(texts[i], 20), tokenizer.EncodeOptions{}); !slices.Equal(got, want[i]) {
					t.Errorf("snippet %d differs", i)
				}
			}
		})
	}
	wg.Wait()
}
