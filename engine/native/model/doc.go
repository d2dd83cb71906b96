// Package model loads a language model of the Llama family and computes its
// logits: from a GGUF file or a folder in Hugging Face layout (package weights),
// through the kernels of package kernel, over a paged KV cache. The embedded
// engine (engine/native) decides what to compute and samples; this package knows
// neither requests nor text.
//
// It owns the packed weights, the KV storage and the threads of the arithmetic:
// the workers a model starts when it is loaded and stops in Close.
//
// Law: batch-invariant. The logits of a position are bit-identical whatever else
// is in the batch, however the prefill was cut, however many threads run and
// whether the positions before it were computed by this call or earlier. It
// holds because every step is one of three kinds: a row of activations computed
// from that row alone; a product whose outputs each walk K in one order
// (package kernel); attention of one query, which reads keys and values back
// from their stored type, also those written in the same step.
//
// A step is a ragged batch: all tokens of all sequences, prefill chunks and
// decodes alike, are rows of the same matrices. In the last layer only the rows
// whose logits are wanted go on behind the KV cache.
package model
