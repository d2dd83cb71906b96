package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/plane/event"
)

// hosted is an engine that is loaded and not yet running, with what surrounds it.
type hosted struct {
	engine engine.Engine
	card   engine.Card
	meta   *metadata
	ready  Ready
	// run is the engine's loop; nil for an engine without one.
	run func(context.Context) error
	// close releases the model's memory after run has returned.
	close func() error
	stats func() loop.Stats
	// late is the time by which a mocker is behind; nil for other engines.
	late func() time.Duration
	// load is what the engine says of its fill; nil if it does not.
	load func() engine.Load
	// handOver has the engine give up requests with their KV; nil if it cannot.
	handOver func()
	// adapters are those the engine has by now; nil if they do not change.
	adapters func() []string
	// kv answers operators about the KV tiers; nil if there are none.
	kv func(ctx context.Context, command []byte) ([]byte, error)
	// kvBlocks is the size of the KV cache; 0 without one. ranks is the number of
	// data-parallel engines that it belongs to; 0 is one. stepTokens is the most tokens
	// that one of those computes in a step; 0 is unknown.
	kvBlocks, ranks, stepTokens int
	// vocabulary is the digest of what the ids stand for, where it is asked for.
	vocabulary string
}

// host loads the model and builds the engine the configuration asks for. kv, if it
// is not nil, is told what the engine's KV cache stores and removes; seed tells
// engines apart that draw what happens to them.
func (n *Node) host(ctx context.Context, kv *event.KVSource, seed uint64) (*hosted, error) {
	if n.cfg.Engine != EngineNative {
		meta, err := n.metadata()
		if err != nil {
			return nil, err
		}
		switch n.cfg.Engine {
		case EngineMocker:
			return n.hostMocker(ctx, meta, kv, seed)
		case EngineVLLM:
			return n.hostVLLM(ctx, meta, kv)
		case EngineOpenAI:
			return n.hostOpenAI(ctx, meta)
		}
		return n.hostEcho(meta)
	}
	return n.hostComputed(ctx, kv)
}

// hostComputed loads the weights and the metadata for the embedded engine.
func (n *Node) hostComputed(ctx context.Context, kv *event.KVSource) (*hosted, error) {
	var meta *metadata
	var m *model.Model
	var size kvSize
	// The vocabulary and the weights come from different bytes and take about as
	// long. Whatever is wrong with the weights is told first, so that the same
	// files always give the same error.
	var metaErr, modelErr error
	var reading sync.WaitGroup
	began := time.Now()
	reading.Go(func() {
		meta, metaErr = readMetadata(n.cfg.ModelPath, n.cfg.ChatTemplate)
		n.log.Debug("metadata read", obs.KeyDuration, time.Since(began))
	})
	m, size, modelErr = n.loadModel(ctx)
	n.log.Debug("weights loaded", obs.KeyDuration, time.Since(began))
	reading.Wait()
	if modelErr != nil {
		return nil, modelErr
	}
	if metaErr != nil {
		return nil, errors.Join(metaErr, m.Close())
	}
	h, err := n.hostNative(meta, m, size, kv)
	if err != nil {
		return nil, errors.Join(err, n.tiers.close(), m.Close())
	}
	return h, nil
}

// kvSize is the size of the KV cache.
type kvSize struct {
	blocks int
	bytes  int64
}

// modelOptions translates the configuration.
func (n *Node) modelOptions() (model.Options, error) {
	o := model.DefaultOptions()
	var err error
	if o.Precision, err = model.ParsePrecision(n.cfg.Precision); err != nil {
		return o, err
	}
	if o.Level, err = kernelLevel(n.cfg.KernelLevel); err != nil {
		return o, err
	}
	if n.cfg.Threads > 0 {
		o.Threads = n.cfg.Threads
	}
	if n.cfg.Progress != nil {
		o.Progress = func(done, total int64) { n.cfg.Progress("loading", done, total) }
	}
	return o, nil
}

// loadModel loads the weights if they and a KV cache fit into memory, and
// decides how large that cache is.
func (n *Node) loadModel(ctx context.Context) (*model.Model, kvSize, error) {
	o, err := n.modelOptions()
	if err != nil {
		return nil, kvSize{}, err
	}
	weights, perBlock, err := model.EstimateBytes(n.cfg.ModelPath, o)
	if err != nil {
		return nil, kvSize{}, err
	}
	mem := AvailableMemory()
	if weights > mem.AvailableBytes {
		return nil, kvSize{}, tooLarge(weights, mem)
	}
	m, err := model.Load(ctx, n.cfg.ModelPath, o)
	if err != nil {
		return nil, kvSize{}, err
	}
	length := m.Config().ContextLength
	if n.cfg.ContextLength > 0 {
		length = min(length, n.cfg.ContextLength)
	}
	blocks, err := kvBlocks(mem, weights, perBlock, n.cfg.KVCacheBytes, (length+model.BlockSize-1)/model.BlockSize)
	if err != nil {
		return nil, kvSize{}, errors.Join(err, m.Close())
	}
	return m, kvSize{blocks, int64(blocks) * perBlock}, nil
}

func (n *Node) hostNative(meta *metadata, m *model.Model, kv kvSize, source *event.KVSource) (*hosted, error) {
	mc := m.Config()
	if v := meta.tokenizer.VocabSize(); v > mc.Vocab {
		// Ids the model has no row for would be refused one request at a time.
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the tokenizer has %d tokens and the model %d; they do not belong together", v, mc.Vocab)}
	}
	c := native.DefaultConfig()
	c.Name, c.ContextLength, c.Blocks = n.cfg.ModelName, n.cfg.ContextLength, kv.blocks
	c.MaxRunning, c.StepTokens, c.PrefixCaching = n.cfg.MaxRunning, n.cfg.StepTokens, n.cfg.PrefixCaching
	c.MaxQueue = n.localQueue()
	if len(meta.eos) > 0 {
		c.EOS = meta.eos
	}
	c.Logger = obs.For(n.cfg.Logger, "engine/native")
	if source != nil {
		c.Events = source.Sink(dynamo.TierDevice, 0)
	}
	var err error
	if c.Tiers, err = n.openTiers(m, source); err != nil {
		return nil, err
	}
	x, err := n.newExchange(m)
	if err != nil {
		return nil, err
	}
	if c.Role = n.cfg.Worker.Role; x != nil {
		c.Exchange = &x.Exchange
	}
	e, err := native.New(c, m)
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	o, err := n.modelOptions()
	if err != nil {
		return nil, err
	}
	card := e.Card()
	h := &hosted{
		engine: e, card: card, meta: meta, kvBlocks: kv.blocks, stepTokens: c.StepTokens, run: e.Run, close: m.Close, stats: e.Stats, load: e.Load,
		ready: Ready{Card: card, WeightBytes: m.SizeBytes(), KVBytes: kv.bytes, Threads: min(o.Threads, runtime.NumCPU()), Level: o.Level.String()},
	}
	if x != nil {
		h.run, h.handOver = x.around(e.Run), e.HandOver
		if c.PrefixCaching { // or nobody finds what another has brought
			h.engine = engine.BringOnce(e)
		}
	}
	if c.Tiers != nil {
		h.run, h.kv = n.tiers.around(n.log, h.run), c.Tiers.ServeJSON
		h.close = func() error { return errors.Join(n.tiers.close(), m.Close()) }
	}
	return h, nil
}

// localQueue is how many requests an engine of this process keeps waiting. A
// worker is sent single choices up to its own limit. Where frontend and engine
// share the process, MaxRunning requests are admitted, and none of their choices
// may meet a full queue.
func (n *Node) localQueue() int {
	if n.cfg.Role == RoleWorker {
		return n.cfg.MaxRunning + n.cfg.MaxQueue
	}
	return min(n.cfg.MaxRunning*openai.MaxAnswers, 1<<20)
}

// sumStats adds up the counts of several engines.
func sumStats(all []*hosted) loop.Stats {
	var sum loop.Stats
	for _, h := range all {
		s := h.stats()
		sum.Add(&s)
	}
	return sum
}

// hostEcho builds the engine that needs no weights.
func (n *Node) hostEcho(meta *metadata) (*hosted, error) {
	c := echo.DefaultConfig()
	c.Model, c.ITL, c.VocabSize, c.EOS = n.cfg.ModelName, n.cfg.EchoITL, meta.tokenizer.VocabSize(), slices.Clone(meta.eos)
	if meta.contextLength > 0 {
		c.ContextLength = meta.contextLength
	}
	if n.cfg.ContextLength > 0 {
		c.ContextLength = n.cfg.ContextLength
	}
	e, err := echo.New(c)
	if err != nil {
		return nil, err
	}
	return &hosted{engine: e, card: e.Card(), meta: meta, ready: Ready{Card: e.Card()}}, nil
}
