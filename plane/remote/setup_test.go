package remote_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

const workerID, epoch = dynamo.WorkerID(0xabc), uint64(7)

// setup is a worker's server and a client of it.
type setup struct {
	*remote.Engine
	peer      *rpc.Peer
	server    *rpc.Server
	accepted  net.Listener
	network   *testnet.Network // of the hosts "client" and "worker"; nil over real sockets
	down      chan error       // hears of the connection's ends
	requests  atomic.Int64     // in progress on the server
	ended     chan error       // hears of the requests' ends on the server
	stopPeer  context.CancelFunc
	peerEnded sync.WaitGroup
}

// The networks tests run over.
const (
	overMemory = "memory"
	overTCP    = "tcp"
	overUnix   = "unix"
)

// connect serves a service to a remote engine until the test ends.
func connect(t testing.TB, over string, s *remote.Service, change func(*remote.Config)) *setup {
	t.Helper()
	u := &setup{ended: make(chan error, 1000), down: make(chan error, 100)}
	c := rpc.DefaultConfig()
	c.Key = bytes.Repeat([]byte("k"), rpc.MinKeyBytes)
	var err error
	if u.server, err = rpc.NewServer(rpc.ServerConfig{Config: c, Worker: workerID, Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	s.Worker = workerID
	s.Begin = func() error { u.requests.Add(1); return nil }
	s.Ended = func(err error) {
		u.requests.Add(-1)
		select {
		case u.ended <- err:
		default:
		}
	}
	s.Register(u.server)
	address := u.listen(t, over)
	var serving sync.WaitGroup
	serving.Go(func() {
		// A killed host's listener ends by itself.
		if err := u.server.Serve(u.accepted); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	if u.network != nil {
		c.Dial = u.network.Host("client").Dial
	}
	client, err := rpc.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	u.peer = client.Peer(rpc.PeerConfig{Addresses: []string{address}, Worker: workerID, Epoch: epoch, Changed: func(up bool, err error) {
		if !up {
			select {
			case u.down <- err:
			default:
			}
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	u.stopPeer = cancel
	u.peerEnded.Go(func() { _ = u.peer.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		u.peerEnded.Wait()
		if err := u.server.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		serving.Wait()
	})
	if err := u.peer.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	rc := remote.DefaultConfig()
	rc.Worker, rc.Epoch = workerID, epoch
	if change != nil {
		change(&rc)
	}
	u.Engine = remote.New(u.peer, s.Card, rc)
	return u
}

func (u *setup) listen(t testing.TB, over string) (address string) {
	t.Helper()
	var err error
	switch over {
	case overMemory:
		u.network = testnet.New()
		u.accepted, err = u.network.Host("worker").Listen(":0")
	case overUnix:
		path := filepath.Join(t.TempDir(), "s")
		if u.accepted, err = net.Listen("unix", path); err == nil {
			return "unix://" + path
		}
	default:
		u.accepted, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	return "tcp://" + u.accepted.Addr().String()
}

// idle is what enginetest asks: no request is left on the server.
func (u *setup) idle() error {
	if n := u.requests.Load(); n != 0 {
		return fmt.Errorf("%d requests on the worker", n)
	}
	return nil
}

// echoService returns the service of an echo engine.
func echoService(t testing.TB, change func(*echo.Config)) *remote.Service {
	t.Helper()
	c := echo.DefaultConfig()
	c.ContextLength, c.VocabSize, c.EOS = 512, 1000, []dynamo.TokenID{2, 3}
	if change != nil {
		change(&c)
	}
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &remote.Service{Engine: e, Card: e.Card()}
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(10 + (n*7+i*i)%290)
	}
	return ids
}

// scripted is an engine that a test writes.
type scripted func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool)

func (s scripted) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) { s(ctx, r, yield) }
}

// endless yields a token whenever a step is due, for ever.
func endless(step <-chan struct{}) scripted {
	return func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		for {
			select {
			case <-ctx.Done():
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
				return
			case <-step:
			}
			if !yield(dynamo.Chunk{Tokens: r.Tokens[:1]}, nil) {
				return
			}
		}
	}
}

const tinyVocab, tinyContext = 320, 256

// tinyFolder writes a random model of the Llama family in Hugging Face layout.
func tinyFolder(t testing.TB) string {
	t.Helper()
	const hidden, ffn, heads, kvHeads, headDim = 32, 64, 2, 1, 16
	random := rand.New(rand.NewPCG(42, 42))
	header, data := map[string]any{}, []byte{}
	tensor := func(name string, scale float64, rows int, columns ...int) {
		begin, shape := len(data), append([]int{rows}, columns...)
		for _, c := range columns {
			rows *= c
		}
		for range rows {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(random.NormFloat64()*scale)))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(data)}}
	}
	tensor("model.embed_tokens.weight", 1, tinyVocab, hidden)
	tensor("lm_head.weight", 0.3, tinyVocab, hidden)
	tensor("model.norm.weight", 1, hidden)
	tensor("model.layers.0.input_layernorm.weight", 1, hidden)
	tensor("model.layers.0.post_attention_layernorm.weight", 1, hidden)
	for name, shape := range map[string][2]int{
		"self_attn.q_proj": {heads * headDim, hidden}, "self_attn.k_proj": {kvHeads * headDim, hidden}, "self_attn.v_proj": {kvHeads * headDim, hidden},
		"self_attn.o_proj": {hidden, heads * headDim}, "mlp.gate_proj": {ffn, hidden}, "mlp.up_proj": {ffn, hidden}, "mlp.down_proj": {hidden, ffn},
	} {
		tensor("model.layers.0."+name+".weight", 0.2, shape[0], shape[1])
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
		"num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": kvHeads, "head_dim": headDim,
		"max_position_embeddings": tinyContext, "vocab_size": tinyVocab, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
		"hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head, data)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "model.safetensors"), file, 0o644), os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serveNative runs a native engine on a tiny model until the test ends.
func serveNative(t testing.TB, folder string) *native.Engine {
	t.Helper()
	o := model.DefaultOptions()
	o.Threads = 1
	m, err := model.Load(t.Context(), folder, o)
	if err != nil {
		t.Fatal(err)
	}
	c := native.DefaultConfig()
	c.Name, c.Blocks, c.StepTokens = "tiny", 200, 64
	e, err := native.New(c, m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// code is the code of err, if it has one.
func code(err error) string {
	e, _ := errors.AsType[*dynamo.Error](err)
	if e == nil {
		return ""
	}
	return e.Code
}
