package native

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/transfer"
)

// Exchange is what an engine needs to give KV to other engines and to take theirs.
type Exchange struct {
	// Agent moves it. Its content is Content of the model, and it runs from before the
	// engine does until after; whoever made it runs it. The engine registers its KV cache
	// with it.
	Agent *transfer.Agent
	// Lease is how long KV is kept for an engine that does not come for it, or has stopped
	// reading it, while whoever asked for it waits. Default 30 s.
	Lease time.Duration
	// Timeout is how long bringing it may take, beside the time for its size; then it is
	// computed. Default 2 s.
	Timeout time.Duration
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
}

// DefaultExchange returns the defaults. Agent has none.
func DefaultExchange() Exchange { return Exchange{Lease: 30 * time.Second, Timeout: 2 * time.Second} }

// Content is what the KV of m is: that of another is of no use to an engine of m.
func Content(m *model.Model) transfer.Content {
	g := Geometry(m)
	return transfer.Content{
		Model:  g.Content.Revision,
		Layout: fmt.Sprintf("%s, %s, shard %s, blocks of %d tokens", g.Content.Layout, g.Content.DType, g.Content.Shard, g.BlockTokens),
	}
}

// handover is what an engine says of KV that it keeps for another
// (dynamo.Chunk.Handover): a JSON object. Blocks has for each block, little endian: 4 bytes
// its number in the memory, 8 the token that opens it, and 8 a fingerprint for each group of
// layers.
type handover struct {
	Engine  string `json:"engine"`
	Version int    `json:"version"`
	// Agent is the metadata of the agent that has it, and Memory the number of the cache
	// there.
	Agent  []byte            `json:"agent"`
	Memory transfer.MemoryID `json:"memory"`
	// Tokens is the number of leading ids whose KV there is; the last block may not be
	// full.
	Tokens int    `json:"tokens"`
	Groups int    `json:"groups"` // of layers
	Blocks []byte `json:"blocks"`
}

const (
	engineName      = "native"
	handoverVersion = 2
)

// perBlock is the number of bytes that Blocks has for each.
func (h *handover) perBlock() int { return 4 + 8 + 8*h.Groups }

// readHandover reads what write wrote, and nothing else.
func readHandover(b []byte) (*handover, error) {
	var h handover
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	switch {
	case h.Engine != engineName:
		return nil, fmt.Errorf("it is of an engine %.20q, and this one is %s", h.Engine, engineName)
	case h.Version != handoverVersion:
		return nil, fmt.Errorf("it has version %d and this engine reads %d; run the same release of dynamo on both", h.Version, handoverVersion)
	case h.Tokens < 1 || h.Groups < 1 || h.Groups > layerGroups || blocksOf(h.Tokens) > maxHandoverBlocks || len(h.Blocks) != blocksOf(h.Tokens)*h.perBlock():
		return nil, fmt.Errorf("it tells of %d tokens in %d bytes of blocks", h.Tokens, len(h.Blocks))
	}
	return &h, nil
}

func (h *handover) write() []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic("BUG: native: a handover cannot be written: " + err.Error())
	}
	return b
}

// place is one block of a handover.
type place struct {
	block        int32
	token        uint64
	fingerprints sums
}

// sums are hashes of the groups of layers of a block.
type sums [layerGroups]uint64

func (h *handover) add(p place) {
	h.Blocks = binary.LittleEndian.AppendUint32(h.Blocks, uint32(p.block))
	h.Blocks = binary.LittleEndian.AppendUint64(h.Blocks, p.token)
	for _, f := range p.fingerprints[:h.Groups] {
		h.Blocks = binary.LittleEndian.AppendUint64(h.Blocks, f)
	}
}

func (h *handover) place(i int) place {
	b := h.Blocks[i*h.perBlock():]
	p := place{block: int32(binary.LittleEndian.Uint32(b)), token: binary.LittleEndian.Uint64(b[4:])}
	for g := range h.Groups {
		p.fingerprints[g] = binary.LittleEndian.Uint64(b[12+8*g:])
	}
	return p
}

func blocksOf(tokens int) int { return (tokens + model.BlockSize - 1) / model.BlockSize }

// identity is a hash of all that the bytes of a sequence's blocks depend on: what KV of
// this model is, and the ids.
func identity(c transfer.Content, root dynamo.CacheRoot, parts ...[]dynamo.TokenID) uint64 {
	n := 0
	for _, ids := range parts {
		n += len(ids)
	}
	b := make([]byte, 0, len(c.Model)+len(c.Layout)+2+8+4*n)
	b = append(append(append(append(b, c.Model...), 0), c.Layout...), 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(root))
	for _, ids := range parts {
		for _, id := range ids {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
	}
	return xxh3.Hash(b)
}

// fingerprint is that of a group of layers of block i of a sequence, of whose bytes sum is
// the hash.
func fingerprint(identity, sum uint64, i, group int) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], identity)
	binary.LittleEndian.PutUint64(b[8:], sum)
	binary.LittleEndian.PutUint32(b[16:], uint32(i))
	binary.LittleEndian.PutUint32(b[20:], uint32(group))
	return xxh3.Hash(b[:])
}

// exchange is an engine's side of the KV that it gives and takes: its cache, in memory
// that others may map.
type exchange struct {
	Exchange
	log     *slog.Logger
	content transfer.Content
	shared  *transfer.Shared
	memory  *transfer.Memory
	cache   *model.Cache
	lender  *lender
	fetcher *fetcher
	ahead   *ahead
}

// newExchange makes the cache of an engine that exchanges KV.
func newExchange(c *Config, m *model.Model) (x *exchange, err error) {
	x = &exchange{Exchange: *c.Exchange, log: c.Logger, content: Content(m)}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	size := int64(c.Blocks) * int64(m.BlockBytes())
	if x.shared, err = transfer.NewShared("dynamo-kv", size); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("a kv cache of %d bytes does not fit into this machine's memory: choose a smaller --kv-cache-bytes", size), Err: err}
	}
	if x.cache, err = m.NewCacheIn(x.shared.Bytes()); err == nil {
		x.memory, err = x.Agent.Register(transfer.Section{Name: "kv " + c.Name, Shared: x.shared, PageBytes: int64(m.BlockBytes())})
	}
	if err != nil {
		_ = x.shared.Close() // the error that matters is the other
		return nil, err
	}
	x.lender, x.fetcher = newLender(x), newFetcher(x)
	x.ahead = &ahead{log: x.log, shared: x.shared, block: int64(m.BlockBytes())}
	return x, nil
}

// wakes says how the loop is told that there is something to take.
func (x *exchange) wakes(wake func()) { x.lender.wake, x.fetcher.wake = wake, wake }

// close takes the memory back. Where a peer may be reading it still, it stays mapped.
func (x *exchange) close() error {
	x.fetcher.close()
	x.lender.close()
	x.ahead.close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := x.Agent.Deregister(ctx, x.memory); err != nil {
		return fmt.Errorf("take the KV cache back: %w", err)
	}
	return x.shared.Close()
}

// groups is the number of groups of layers.
func (x *exchange) groups() int { return groupsOf(x.cache.Depth()) }

// group is the layers of a group, from from to to-1.
func (x *exchange) group(g int) (from, to int) { return groupOf(g, x.cache.Depth()) }

// sum is the hash of a group of layers of a block.
func (x *exchange) sum(block int32, g int) uint64 {
	from, to := x.group(g)
	return xxh3.Hash(x.cache.Layers(int(block), from, to))
}

// sums are those of all groups of a block.
func (x *exchange) sums(block int32) (s sums) {
	for g := range x.groups() {
		s[g] = x.sum(block, g)
	}
	return s
}
