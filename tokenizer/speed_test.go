package tokenizer_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// scripts/tokenizer/bench.sh runs TestSpeed beside the peers.
var (
	corporaDir = flag.String("corpora", "", "folder of corpora (scripts/tokenizer/corpora.py); TestSpeed runs if it is set")
	speedVocab = flag.String("vocabularies", "qwen3,llama3_1,smollm2", "vocabularies TestSpeed measures")
)

// pieces cuts text into parts of at most 4 KiB, between characters.
func pieces(text string) []string {
	var out []string
	for len(text) > 0 {
		n := min(4096, len(text))
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

// TestSpeed prints a JSON line per vocabulary and corpus: MB/s (10⁶ bytes, of
// processor time) of the first pass of a fresh tokenizer, of the second half after the first half (its
// words known, its text new) and of text seen before, and how many pieces differ
// from the ids in <corpora>/ids.
func TestSpeed(t *testing.T) {
	if *corporaDir == "" {
		t.Skip("no -corpora")
	}
	for _, name := range strings.Split(*speedVocab, ",") {
		for _, corpus := range []string{"prose", "code", "multi"} {
			data, err := os.ReadFile(filepath.Join(*corporaDir, corpus+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			list := pieces(string(data))
			row := map[string]any{"impl": "dynamo", "vocab": name, "corpus": corpus, "pieces": len(list)}
			tok := freshVocabulary(t, name)
			row["cold"] = throughput(tok, list)
			var again []float64
			for range 5 {
				again = append(again, throughput(tok, list))
			}
			row["again"] = median(again)
			var fresh []float64
			for range 3 {
				tok = freshVocabulary(t, name)
				throughput(tok, list[:len(list)/2])
				fresh = append(fresh, throughput(tok, list[len(list)/2:]))
			}
			row["new"] = median(fresh)
			row["differ"] = differing(t, tok, list, filepath.Join(*corporaDir, "ids", name+"-"+corpus+".json"))
			line, err := json.Marshal(row)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(string(line))
		}
		decodeSpeed(t, name)
	}
}

func throughput(tok *tokenizer.Tokenizer, list []string) float64 {
	var ids []dynamo.TokenID
	n := 0
	start := cpuSeconds()
	for _, s := range list {
		ids = tok.Encode(ids[:0], s, tokenizer.EncodeOptions{})
		n += len(s)
	}
	return round(float64(n) / (cpuSeconds() - start) / 1e6)
}

// cpuSeconds returns the processor time this process has used: a busy machine
// distorts it less than the time of day.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func round(v float64) float64 { return float64(int(v*100)) / 100 }

// differing counts pieces whose ids are not those in the file; -1 without a file.
func differing(t *testing.T, tok *tokenizer.Tokenizer, list []string, path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	var want [][]dynamo.TokenID
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, s := range list {
		if got := tok.Encode(nil, s, tokenizer.EncodeOptions{}); i >= len(want) || !slices.Equal(got, want[i]) {
			n++
		}
	}
	return n
}

// decodeSpeed prints tokens per second through a Decoder, one id at a time.
func decodeSpeed(t *testing.T, name string) {
	tok := freshVocabulary(t, name)
	for _, corpus := range []string{"prose", "multi"} {
		data, err := os.ReadFile(filepath.Join(*corporaDir, corpus+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		ids := tok.Encode(nil, strings.ToValidUTF8(string(data[:200_000]), ""), tokenizer.EncodeOptions{})
		d := tok.NewDecoder(false)
		buf := make([]byte, 0, 1<<10)
		var rates []float64
		for range 5 {
			start := cpuSeconds()
			for range 20 {
				for _, id := range ids {
					buf = d.Append(buf[:0], id)
				}
				buf = d.Flush(buf[:0])
			}
			rates = append(rates, float64(20*len(ids))/(cpuSeconds()-start)/1e6)
		}
		fmt.Printf("{\"impl\":\"dynamo\",\"vocab\":%q,\"corpus\":%q,\"decode_mtok_s\":%.1f}\n", name, corpus, median(rates))
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, name := range vocabularies[1:] {
		b.Run(name, func(b *testing.B) {
			data := readVocabulary(b, name)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tokenizer.FromJSON(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
func BenchmarkEncode(b *testing.B) {
	if *corporaDir == "" {
		b.Skip("no -corpora")
	}
	for _, corpus := range []string{"prose", "code", "multi"} {
		data, err := os.ReadFile(filepath.Join(*corporaDir, corpus+".txt"))
		if err != nil {
			b.Fatal(err)
		}
		list := pieces(string(data))
		b.Run(corpus, func(b *testing.B) {
			var ids []dynamo.TokenID
			n := 0
			for b.Loop() {
				b.StopTimer()
				tok := freshVocabulary(b, *speedVocab)
				for _, s := range list[:len(list)/2] {
					ids = tok.Encode(ids[:0], s, tokenizer.EncodeOptions{})
				}
				b.StartTimer()
				n = 0
				for _, s := range list[len(list)/2:] {
					ids = tok.Encode(ids[:0], s, tokenizer.EncodeOptions{})
					n += len(s)
				}
			}
			b.SetBytes(int64(n))
		})
	}
}
