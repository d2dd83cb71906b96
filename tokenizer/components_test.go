package tokenizer_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"

	"github.com/dynamo-go/dynamo/tokenizer"
)

// component is a small tokenizer made by scripts/tokenizer/components.py, and what
// the library makes of some texts with it.
type component struct {
	Name      string
	Tokenizer json.RawMessage
	Rows      []goldenRow
}

func readComponents(t testing.TB) []component {
	t.Helper()
	f, err := os.Open("testdata/components.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bufio.NewReader(z))
	var header struct{ Tokenizers int }
	if err := dec.Decode(&header); err != nil {
		t.Fatal(err)
	}
	var list []component
	for dec.More() {
		var c component
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	if len(list) != header.Tokenizers || len(list) == 0 {
		t.Fatalf("%d tokenizers, want %d", len(list), header.Tokenizers)
	}
	return list
}

// TestComponents compares every component and flag with the library.
func TestComponents(t *testing.T) {
	for _, c := range readComponents(t) {
		t.Run(c.Name, func(t *testing.T) {
			tok, err := tokenizer.FromJSON(c.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range c.Rows {
				if row.Text != nil {
					checkSnippet(t, tok, row, true)
				} else {
					checkSequence(t, tok, row, true)
				}
			}
		})
	}
}
