package tokenizer

import "time"

// Limits on what a tokenizer file may ask for. Each is far above what published
// models use; a file beyond one is refused when it is loaded.
const (
	maxIDs           = 1 << idBits // greatest id + 1
	maxTokenBytes    = 1 << 16     // one token's spelling
	maxAddedTokens   = 1 << 16     // added tokens
	maxAddedLength   = 1 << 9      // one of them: the matcher may look at each so often
	maxAddedBytes    = 1 << 22     // their spellings together
	maxComponents    = 32          // normalizers, pre-tokenizers, decoders, each counted with their parts
	maxNesting       = 16          // sequences within sequences
	maxGrowth        = 512         // how many times longer normalization and splitting may make a text
	maxDecoderGrowth = 16          // how many times longer decoding may make a token
	maxEngineAdded   = 64          // added tokens a normalizer with a regular expression is run over
	maxTemplateIDs   = 64          // ids a post-processor puts around a text
	maxPatternBytes  = 4096        // a regular expression
	maxStripChars    = 1 << 10     // characters a Strip decoder takes off either end
	maxJSONDepth     = 64          // nesting of values that are skipped
	maxArena         = 1<<32 - 1   // bytes of all spellings: offsets are 32 bits wide
)

// Limits on encoding.
const (
	// regexTime bounds one match of a pattern that has no scanner of its own. When
	// it passes, or the match's stack exceeds regexStack entries, the rest of the
	// text is one piece.
	regexTime  = 250 * time.Millisecond
	regexStack = 1 << 20

	// shortWord is the most symbols that are merged by scanning for the best pair;
	// longer words use a heap, which keeps the cost at n log n.
	shortWord = 48

	// wordCacheLines × 64 bytes is the most a tokenizer's word cache takes; small
	// vocabularies take less.
	wordCacheLines = 1 << 16

	// scratchKeep is the most symbols whose buffers are kept between calls.
	scratchKeep = 1 << 16
)

// Limits of the prompt cache.
const (
	// cacheUnit is the least bytes of text remembered as one unit.
	cacheUnit = 1024
	// maxCacheUnit is the most: a text without a place to cut within so many
	// bytes is not remembered from there on.
	maxCacheUnit = 1 << 18
)
