// Package tokenizer turns text into a model's token ids and ids back into text.
//
// It reads the two forms in which chat models publish a BPE vocabulary, a
// Hugging Face tokenizer.json (FromJSON) and the tables inside a GGUF file
// (FromGGUF), and gives the same ids as the Hugging Face library. The frontend
// encodes prompts through a Cache and decodes answers through a Decoder; engines
// see ids only.
//
// The package owns vocabularies, normalization, splitting, merging, added
// tokens, decoding and the prompt cache. Its laws:
//
//   - A Tokenizer never changes once it is made and is safe for concurrent use.
//     Its word cache is a pure function of the vocabulary and holds no more than
//     a fixed number of bytes; it is shared by all tenants, so how long Encode
//     takes may tell that a word was seen before, by whom it does not tell.
//   - Nothing here panics on outside bytes or allocates in proportion to a number
//     they merely claim. A component this package does not know is refused by
//     name when the tokenizer is loaded, never skipped.
//   - There is no I/O, clock, goroutine or log. The one exception is not ours: the
//     regular expression engine behind patterns without a scanner keeps time for
//     its limit.
//
// Model types other than BPE (Unigram, WordPiece, WordLevel), SentencePiece
// .model files and tiktoken files are refused with an error that names them.
package tokenizer
