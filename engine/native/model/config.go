package model

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// Precision chooses the arithmetic.
type Precision uint8

// The precisions.
const (
	// Int8 quantizes activations to 8 bits per 32 values, weights to 8 bits
	// where the file holds more, and stores keys and values as binary16.
	Int8 Precision = iota
	// F32 keeps activations, keys and values in float32 and the weights exact.
	F32
)

// String returns the precision's name, which is also the numeric class: "int8"
// or "f32".
func (p Precision) String() string {
	switch p {
	case Int8:
		return "int8"
	case F32:
		return "f32"
	}
	return fmt.Sprintf("precision(%d)", uint8(p))
}

// ParsePrecision is the inverse of String.
func ParsePrecision(s string) (Precision, error) {
	switch s {
	case "int8":
		return Int8, nil
	case "f32":
		return F32, nil
	}
	return 0, invalid("precision %q is unknown: choose int8 or f32", s)
}

// Options says how to load a model.
type Options struct {
	// Precision chooses the arithmetic. Default Int8.
	Precision Precision
	// Level is the instruction level of the kernels. Default the best this
	// machine has; it does not change results.
	Level kernel.Level
	// Threads is the number of threads that compute, the caller's included.
	// Default one for each CPU Go may use; it does not change results.
	Threads int
	// Progress, unless nil, is called from the caller's goroutine now and then
	// while weights are packed, with the bytes done of the total.
	Progress func(done, total int64)
}

// DefaultOptions returns the defaults.
func DefaultOptions() Options {
	return Options{Precision: Int8, Level: kernel.Best(), Threads: min(runtime.GOMAXPROCS(0), maxThreads)}
}

// Validate reports all faults of the options at once.
func (o Options) Validate() error {
	var errs []error
	if o.Precision > F32 {
		errs = append(errs, invalid("--precision: %s is unknown: choose int8 or f32", o.Precision))
	}
	if o.Threads < 1 || o.Threads > maxThreads {
		errs = append(errs, invalid("--threads: %d is out of range: choose 1 to %d", o.Threads, maxThreads))
	}
	if _, err := kernel.New(o.Level); err != nil {
		errs = append(errs, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "choose another instruction level", Err: err})
	}
	return errors.Join(errs...)
}

// Config describes a loaded model.
type Config struct {
	// Architecture is "llama", "mistral", "qwen2" or "qwen3".
	Architecture string
	// Layers counts the transformer layers, Hidden the values of the residual
	// stream, FFN those inside the feed-forward part.
	Layers, Hidden, FFN int
	// Heads and KVHeads count query heads and key-value heads, HeadDim the values
	// of one.
	Heads, KVHeads, HeadDim int
	// Vocab is the number of ids, ContextLength the longest sequence in tokens.
	Vocab, ContextLength int
	// NormEps is added to the mean square in every normalisation.
	NormEps float32
	// RopeTheta is the base of the rotary embedding's frequencies, RopeScaling
	// how they are stretched.
	RopeTheta   float64
	RopeScaling RopeScaling
	// Tied says that the output head is the embedding matrix.
	Tied bool
	// EOS lists the ids that end an answer. BOS begins a text where HasBOS.
	EOS    []dynamo.TokenID
	BOS    dynamo.TokenID
	HasBOS bool
	// Revision is the SHA-256, in hexadecimal, of the weights' identity: their
	// size, their tables and a sample of their bytes.
	Revision string
	// NumericClass names the arithmetic: "int8" or "f32".
	NumericClass string
}

// architectures maps what files call an architecture to what it is here.
var architectures = map[string]string{
	"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3",
	"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3",
}

// architecture returns the architecture a file names, or an error that lists the
// supported ones.
func architecture(path, name string) (string, error) {
	if a, ok := architectures[name]; ok {
		return a, nil
	}
	return "", invalid("%s is of architecture %q, which is not supported: use a model of %s", path, name,
		"Llama 2/3 (llama, also SmolLM2), Mistral (mistral), Qwen2/2.5 (qwen2) or Qwen3 (qwen3)")
}

// qkNorm reports whether queries and keys are normalised head by head.
func (c *Config) qkNorm() bool { return c.Architecture == "qwen3" }

// check reports numbers that no model of the family has.
func (c *Config) check(path string) error {
	var bad []string
	in := func(name string, n, most int) {
		if n < 1 || n > most {
			bad = append(bad, fmt.Sprintf("%s %d is not within 1 to %d", name, n, most))
		}
	}
	in("layer count", c.Layers, maxLayers)
	in("hidden size", c.Hidden, maxHidden)
	in("feed-forward size", c.FFN, maxFFN)
	in("head count", c.Heads, maxHeads)
	in("key-value head count", c.KVHeads, maxHeads)
	in("head size", c.HeadDim, maxHeadDim)
	in("vocabulary size", c.Vocab, maxVocab)
	in("context length", c.ContextLength, maxContext)
	in("number of end tokens + 1", len(c.EOS)+1, maxEOS)
	if c.KVHeads > 0 && c.Heads%c.KVHeads != 0 {
		bad = append(bad, fmt.Sprintf("%d query heads cannot share %d key-value heads evenly", c.Heads, c.KVHeads))
	}
	if c.HeadDim%16 != 0 {
		bad = append(bad, fmt.Sprintf("head size %d is not a multiple of 16", c.HeadDim))
	}
	if !(c.RopeTheta >= 1 && c.RopeTheta < 1e15) {
		bad = append(bad, fmt.Sprintf("rope base %g is out of range", c.RopeTheta))
	}
	if !(c.NormEps > 0 && c.NormEps < 1) {
		bad = append(bad, fmt.Sprintf("norm epsilon %g is out of range", c.NormEps))
	}
	if len(bad) > 0 {
		return invalid("the configuration of %s cannot be computed: %s; use another model or download it again", path, strings.Join(bad, ", "))
	}
	return nil
}
