package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// MockerConfig describes a mocker engine, beside what every engine has.
type MockerConfig struct {
	// PerfModel says how long steps take: the name of a preset, a file, or a folder
	// of the reference's profiler. Empty: the reference mocker's polynomial.
	// (--perf-model)
	PerfModel string
	// BlockSize is the number of tokens in a KV block, Blocks the number of blocks
	// of a rank; 0 is that of the preset, or else 16384. Defaults 64 and 0.
	// (--block-size, --num-gpu-blocks-override)
	BlockSize, Blocks int
	// Ranks is the number of data-parallel engines. Default 1. (--data-parallel-size)
	Ranks int
	// ChunkedPrefill computes long prompts in several steps. Default true.
	// (--chunked-prefill)
	ChunkedPrefill bool
	// Speedup divides all times; 0 lets none pass. DecodeSpeedup divides those of
	// steps without prompts again. Defaults 1. (--speedup-ratio,
	// --decode-speedup-ratio)
	Speedup, DecodeSpeedup float64
	// PreemptFirst takes KV blocks from the oldest request when there are none left,
	// instead of the newest. Default false. (--preemption-mode)
	PreemptFirst bool
	// KVBytesPerToken is the size of a token's KV; 0 is that of the preset, or else
	// Llama 3 8B's. TransferBandwidth is what KV from prefill workers comes at, in bytes
	// per second and for each rank; 0: in no time. TransferTiming says which tokens a
	// transfer takes time for. Defaults 0, 64e9 and mocker.TimeWhole.
	// (--kv-bytes-per-token, --kv-transfer-bandwidth, --kv-transfer-timing-mode)
	KVBytesPerToken   int
	TransferBandwidth float64
	TransferTiming    string
	// Lends has the engine lend the KV it holds to other workers. Default false. (--kv-lend)
	Lends bool
	// Startup is how long the engine takes to start. Default 0. (--startup-time)
	Startup time.Duration
	// OutputTokens is the mean length of answers; 0: as long as requests allow.
	// Default 0. (--mock-output-tokens)
	OutputTokens int
	// Shape is ShapeWords, ShapeReasoning or ShapeTool. Default words.
	// (--mock-shape)
	Shape string
	// Reasoning, unless it is nil, makes answers begin with its tokens, as the
	// reference's mocker does; it goes before Shape. Default nil. (--reasoning)
	Reasoning *MockReasoning
	// Faults are what goes wrong, with so many workers of this process; FaultyWorkers 0
	// is all of them. Default nothing. (--fault, --fault-workers)
	Faults        mocker.Faults
	FaultyWorkers int
	// Built hears of the engine before it runs; nil is nobody. For simulators.
	Built func(*mocker.Engine)

	// Model replaces PerfModel in simulators. It is what PerfModel says once that is
	// read, and kvTokens what fits into its machine's KV cache, kvBytes the size of one;
	// 0 if it does not say.
	Model             perfmodel.Model
	kvTokens, kvBytes int
}

// MockReasoning says which token begins and which ends the reasoning of a mocked
// answer, and which share of the answer it is. The names are the reference's.
type MockReasoning struct {
	Start dynamo.TokenID `json:"start_thinking_token_id"`
	End   dynamo.TokenID `json:"end_thinking_token_id"`
	Ratio float64        `json:"thinking_ratio"`
}

// The shapes of a mocker's answers.
const (
	ShapeWords     = "words"
	ShapeReasoning = "reasoning" // <think>…</think> and words
	ShapeTool      = "tool"      // one tool call
)

// DefaultMockerConfig returns the defaults.
func DefaultMockerConfig() MockerConfig {
	c := mocker.DefaultConfig()
	return MockerConfig{
		BlockSize: c.BlockSize, Ranks: c.Ranks, ChunkedPrefill: c.ChunkedPrefill, Speedup: c.Speedup, DecodeSpeedup: c.DecodeSpeedup,
		Shape: ShapeWords, Faults: c.Faults, TransferBandwidth: c.TransferBandwidth, TransferTiming: c.TransferTiming,
	}
}

// validate finds the faults that the engine does not find itself, or not as early.
func (c *MockerConfig) validate() error {
	if !slices.Contains([]string{ShapeWords, ShapeReasoning, ShapeTool}, c.Shape) {
		return fmt.Errorf("--mock-shape: %q is none of %s, %s, %s", c.Shape, ShapeWords, ShapeReasoning, ShapeTool)
	}
	if c.FaultyWorkers < 0 {
		return fmt.Errorf("--fault-workers is %d; it must be 0 (all) or more", c.FaultyWorkers)
	}
	return c.Faults.Validate()
}

// mockerContext is the context of a mocked model that does not say its own.
const mockerContext = 1 << 17

// hostMocker builds a mocker engine and waits until it has started up.
func (n *Node) hostMocker(ctx context.Context, meta *metadata, kv *event.KVSource, seed uint64) (*hosted, error) {
	m := &n.cfg.Mocker
	c := mocker.DefaultConfig()
	c.Name, c.VocabSize, c.EOS, c.ContextLength = n.cfg.ModelName, meta.tokenizer.VocabSize(), slices.Clone(meta.eos), mockerContext
	if meta.contextLength > 0 {
		c.ContextLength = meta.contextLength
	}
	if n.cfg.ContextLength > 0 {
		c.ContextLength = n.cfg.ContextLength
	}
	c.StepTokens, c.MaxRunning, c.MaxQueue, c.PrefixCaching = n.cfg.StepTokens, n.cfg.MaxRunning, n.localQueue(), n.cfg.PrefixCaching
	c.BlockSize, c.Ranks, c.ChunkedPrefill, c.Startup = m.BlockSize, m.Ranks, m.ChunkedPrefill, m.Startup
	c.Speedup, c.DecodeSpeedup, c.OutputTokens, c.Faults, c.Seed = m.Speedup, m.DecodeSpeedup, m.OutputTokens, m.Faults, seed
	c.Role, c.PreemptFirst, c.TransferBandwidth, c.TransferTiming, c.Lends = n.cfg.Worker.Role, m.PreemptFirst, m.TransferBandwidth, m.TransferTiming, m.Lends
	if err := m.timing(&c); err != nil {
		return nil, err
	}
	c.Words, c.Shape = meta.words, m.shape(meta.tokenizer)
	if kv != nil {
		me := kv.Publisher().Source()
		c.Worker, c.Epoch = me.Worker, me.Epoch
		var sinks []func([]kvbm.Event)
		for rank := range m.Ranks {
			sinks = append(sinks, kv.Sink(dynamo.TierDevice, rank))
		}
		c.Events = func(rank int, events []kvbm.Event) { sinks[rank](events) }
	}
	c.Logger = obs.For(n.cfg.Logger, "engine/mocker")
	e, err := mocker.New(c)
	if err != nil {
		return nil, err
	}
	if m.Built != nil {
		m.Built(e)
	}
	if err := e.Ready(ctx); err != nil {
		return nil, err
	}
	card, served := e.Card(), engine.Engine(e)
	if c.PrefixCaching {
		served = engine.BringOnce(e)
	}
	return &hosted{
		engine: served, card: card, meta: meta, run: e.Run, stats: e.Stats, load: e.Load, late: e.Late, handOver: e.HandOver,
		kvBlocks: c.Blocks * m.Ranks, ranks: m.Ranks, stepTokens: c.StepTokens, ready: Ready{Card: card},
	}, nil
}

// timing sets the model of time and the size of the KV cache.
func (m *MockerConfig) timing(c *mocker.Config) error {
	if err := m.load(); err != nil {
		return err
	}
	c.Model = m.Model
	c.KVBytesPerToken = cmp.Or(m.KVBytesPerToken, m.kvBytes, c.KVBytesPerToken)
	switch {
	case m.Blocks > 0:
		c.Blocks = m.Blocks
	case m.kvTokens > 0:
		c.Blocks = max(1, m.kvTokens/max(c.BlockSize, 1))
	}
	return nil
}

// load reads the model of time, once.
func (m *MockerConfig) load() (err error) {
	if m.PerfModel == "" || m.Model != nil {
		return nil
	}
	preset, machine, presetErr := perfmodel.Preset(m.PerfModel)
	if presetErr == nil {
		m.Model, m.kvTokens = preset, machine.KVBlocks*machine.BlockTokens
		m.kvBytes = machine.KVBytesPerToken
		return nil
	}
	m.Model, err = readPerfModel(m.PerfModel)
	if errors.Is(err, fs.ErrNotExist) {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--perf-model: there is no file %s, and %v", m.PerfModel, presetErr)}
	}
	if err != nil {
		return fmt.Errorf("--perf-model %s: %w", m.PerfModel, err)
	}
	return nil
}

// profileFiles are where the reference's profiler leaves its results in a folder.
var profileFiles = []string{"selected_prefill_interpolation/raw_data.npz", "selected_decode_interpolation/raw_data.npz"}

// readPerfModel reads a model of time from a file, or from a folder of the
// reference's profiler.
func readPerfModel(path string) (perfmodel.Model, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		data, err := readBounded(path, perfmodel.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		return perfmodel.Parse(data)
	}
	var parts [][]byte
	for _, name := range profileFiles {
		data, err := readBounded(filepath.Join(path, name), perfmodel.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		parts = append(parts, data)
	}
	return perfmodel.ParseProfile(parts...)
}

// mockWords are the ids that mocked answers are made of: words after a space where
// the vocabulary has enough of them, or else whatever is printable. Each is a whole
// piece of text, so that every id of an answer shows at once.
func mockWords(meta *metadata) []dynamo.TokenID {
	var words, printable []dynamo.TokenID
	t := meta.tokenizer
	for id := range dynamo.TokenID(t.VocabSize()) {
		if len(words) == maxMockWords {
			break
		}
		b := t.TokenBytes(id)
		if len(b) == 0 || t.Special(id) || slices.Contains(meta.eos, id) || slices.ContainsFunc(b, func(c byte) bool { return c < ' ' || c > '~' }) {
			continue
		}
		if len(printable) < maxMockWords {
			printable = append(printable, id)
		}
		letters := func(c byte) bool { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') }
		if b[0] == ' ' && len(b) > 2 && !slices.ContainsFunc(b[1:], letters) {
			words = append(words, id)
		}
	}
	if len(words) >= minMockWords {
		return words
	}
	return printable
}

// shape spells the shape of answers.
func (m *MockerConfig) shape(t *tokenizer.Tokenizer) (s mocker.Shape) {
	ids := func(text string) []dynamo.TokenID {
		return t.Encode(nil, text, tokenizer.EncodeOptions{})
	}
	switch {
	case m.Reasoning != nil:
		s.Open, s.Close, s.Ratio = []dynamo.TokenID{m.Reasoning.Start}, []dynamo.TokenID{m.Reasoning.End}, m.Reasoning.Ratio
	case m.Shape == ShapeReasoning:
		s.Open, s.Close, s.Ratio = ids("<think>\n"), ids("\n</think>\n\n"), 0.6
	case m.Shape == ShapeTool:
		call := []string{"<tool_call>", `{"name": "get_weather", "arguments": {"city": "Paris"}}`, "</tool_call>"}
		s.Open, s.Only = ids(strings.Join(call, "\n")), true
	}
	return s
}
