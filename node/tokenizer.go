package node

import (
	"fmt"
	"path/filepath"

	"github.com/dynamo-go/dynamo/tokenizer"
)

// OpenTokenizer reads the tokenizer of a model folder, a .gguf file or a
// tokenizer.json.
func OpenTokenizer(path string) (*tokenizer.Tokenizer, error) {
	if filepath.Ext(path) == ".json" {
		data, err := readBounded(path, maxTokenizerBytes)
		if err != nil {
			return nil, err
		}
		t, err := tokenizer.FromJSON(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return t, nil
	}
	m, err := readMetadata(path, "")
	if err != nil {
		return nil, err
	}
	return m.tokenizer, nil
}
