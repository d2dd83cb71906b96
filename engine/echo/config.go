package echo

import (
	"errors"
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Config describes an echo engine.
type Config struct {
	// Model is the served name. Default "echo".
	Model string
	// ContextLength is the longest sequence, prompt and answer, in tokens.
	// Default 8192.
	ContextLength int
	// BlockSize is the KV block size the card states, in tokens; the engine holds
	// no KV. Default 16.
	BlockSize int
	// VocabSize is the number of ids of the tokenizer in front. Default 65536.
	VocabSize int
	// EOS lists the ids that end an answer. Default none.
	EOS []dynamo.TokenID
	// ITL is the time between two tokens of an answer; 0 yields them at once.
	// Default 0.
	ITL time.Duration
	// ChunkTokens is the number of tokens in a chunk while ITL is 0. With 1 the
	// parts above pay per token what they pay with a model that decodes one token
	// per step, which is what echo is there to measure; more shows what they pay
	// per chunk. With an ITL every chunk holds one token. Default 1.
	ChunkTokens int
}

// maxChunkTokens bounds ChunkTokens, and with it the buffer of a request.
const maxChunkTokens = 4096

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Model: "echo", ContextLength: 8192, BlockSize: 16, VocabSize: 1 << 16, ChunkTokens: 1}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.Model == "" {
		faults = append(faults, errors.New("--model-name is empty"))
	}
	if c.ContextLength < 2 {
		faults = append(faults, fmt.Errorf("--context-length is %d; it must be 2 or more", c.ContextLength))
	}
	if c.BlockSize < 1 {
		faults = append(faults, fmt.Errorf("--kv-cache-block-size is %d; it must be 1 or more", c.BlockSize))
	}
	if c.VocabSize < 1 {
		faults = append(faults, fmt.Errorf("the vocabulary has %d ids; it must have one or more", c.VocabSize))
	}
	if c.ITL < 0 {
		faults = append(faults, fmt.Errorf("--echo-itl is %v; it must be 0 (at once) or more", c.ITL))
	}
	if c.ChunkTokens < 1 || c.ChunkTokens > maxChunkTokens {
		faults = append(faults, fmt.Errorf("chunks of %d tokens; they must have 1 to %d", c.ChunkTokens, maxChunkTokens))
	}
	return errors.Join(faults...)
}
