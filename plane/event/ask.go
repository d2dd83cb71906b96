package event

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// AskMethod is what questions to a publisher are asked by, over the connection to its
// worker whatever carries the events. The request of the stream is
//
//	offset  bytes  what
//	0       1      format, 1
//	1       8      worker, little-endian
//	9       8      epoch, little-endian
//	17      1      n
//	18      n      topic
//	        …      the question, which is the topic's
//
// and the answer is in the messages of the stream.
const AskMethod = "event.ask"

const askHeader = 18

// Asker asks the publisher of a source and hands the messages of its answer to take,
// which keeps nothing of them. AskRPC bound to a peer is one.
type Asker func(ctx context.Context, src Source, question []byte, take func([]byte) error) error

// AskRPC asks over a connection to the source's worker. A publisher that has no
// answers, or a worker that knows of no questions, is KindNotFound or KindInvalid.
func AskRPC(ctx context.Context, peer *rpc.Peer, src Source, question []byte, take func([]byte) error) error {
	b := append(make([]byte, 0, askHeader+len(src.Topic)+len(question)), wireFormat)
	b = binary.LittleEndian.AppendUint64(b, uint64(src.Worker))
	b = binary.LittleEndian.AppendUint64(b, src.Epoch)
	b = append(b, byte(len(src.Topic)))
	b = append(append(b, src.Topic...), question...)
	s, err := peer.Open(ctx, rpc.Call{Method: AskMethod, Request: b})
	if err != nil {
		return err
	}
	defer s.Cancel(errStopped) // says nothing to a stream that has ended
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(m); err != nil {
			return err
		}
	}
}

// parseAsk takes a question apart.
func parseAsk(b []byte) (src Source, question []byte, err error) {
	if len(b) < askHeader || len(b) < askHeader+int(b[askHeader-1]) {
		return src, nil, invalid("a question about events is cut short")
	}
	if b[0] != wireFormat {
		return src, nil, invalid("questions about events of format " + strconv.Itoa(int(b[0])) + " are not understood; this worker speaks format 1")
	}
	n := askHeader + int(b[askHeader-1])
	src = Source{
		Topic:  string(b[askHeader:n]),
		Worker: dynamo.WorkerID(binary.LittleEndian.Uint64(b[1:])),
		Epoch:  binary.LittleEndian.Uint64(b[9:]),
	}
	if !validTopic(src.Topic) {
		return src, nil, invalid("a question about events names no valid topic")
	}
	return src, b[n:], nil
}

// answer is one question.
func (b *RPC) answer(ctx context.Context, s *rpc.Stream) error {
	src, question, err := parseAsk(s.Request())
	if err != nil {
		return err
	}
	a, err := b.enter(src)
	if err != nil {
		return err
	}
	defer b.leave(a)
	defer context.AfterFunc(a.ctx, func() { s.Cancel(context.Cause(a.ctx)) })()
	return a.p.Answer(question, s.Send)
}

// A question about KV caches is
//
//	1      what: 0 a sketch, 1 blocks
//	1      tier
//	1-3    data-parallel rank, varint
//	8      seed, little-endian (sketch)
//	1-3    cells, varint, a multiple of 3 (sketch)
//	n×8    hashes, little-endian, to the end (blocks)
//
// and is answered by one message, the Sketch of what the tier of the rank holds; or by
// any number, payloads that store those of the blocks that it holds. Either is of the
// moment of the answer, which is later than any event that the asker has seen.
const (
	askSketch = 0
	askBlocks = 1
)

// AskSketch returns the sketch of what a tier of a rank of the source's worker holds.
func (a Asker) AskSketch(ctx context.Context, src Source, t dynamo.Tier, rank int, seed uint64, cells int) (*Sketch, error) {
	s := NewSketch(seed, cells)
	q := binary.AppendUvarint([]byte{askSketch, byte(t)}, uint64(rank))
	q = binary.LittleEndian.AppendUint64(q, seed)
	q = binary.AppendUvarint(q, uint64(len(s.cells)))
	answered := false
	err := a(ctx, src, q, func(m []byte) error {
		answered = true
		return s.parse(m)
	})
	if err == nil && !answered {
		err = corrupt("a question about KV blocks has no answer")
	}
	return s, err
}

// AskBlocks hands take the payloads, for KVBatch.Parse, that store those of the blocks
// that a tier of a rank of the source's worker holds.
func (a Asker) AskBlocks(ctx context.Context, src Source, t dynamo.Tier, rank int, hashes []dynamo.BlockHash, take func(payload []byte) error) error {
	q := binary.AppendUvarint([]byte{askBlocks, byte(t)}, uint64(rank))
	for _, h := range hashes {
		q = binary.LittleEndian.AppendUint64(q, uint64(h))
	}
	return a(ctx, src, q, take)
}

// answer answers a question about the caches.
func (s *KVSource) answer(q []byte, send func([]byte) error) error {
	if len(q) < 3 || dynamo.Tier(q[1]) >= tiers {
		return invalid("a question about KV blocks is cut short, or of no possible tier")
	}
	what, t := q[0], dynamo.Tier(q[1])
	rank, n := binary.Uvarint(q[2:])
	if n <= 0 || rank > MaxKVRank {
		return invalid("a question about KV blocks names no valid rank")
	}
	defer s.change() // whoever asks wants to know whether all is well then
	switch q = q[2+n:]; what {
	case askSketch:
		return s.answerSketch(t, int(rank), q, send)
	case askBlocks:
		return s.answerBlocks(t, int(rank), q, send)
	}
	return invalid("a question about KV blocks is not understood")
}

func (s *KVSource) answerSketch(t dynamo.Tier, rank int, q []byte, send func([]byte) error) error {
	if len(q) < 8 {
		return invalid("a question about KV blocks is cut short")
	}
	seed := binary.LittleEndian.Uint64(q)
	cells, n := binary.Uvarint(q[8:])
	if n <= 0 || cells < 3 || cells > MaxSketchCells || cells%3 != 0 {
		return invalid("a sketch of KV blocks has 3 to " + strconv.Itoa(MaxSketchCells) + " cells, a multiple of 3")
	}
	sketch := NewSketch(seed, int(cells))
	for _, h := range s.hashes(t, rank) { // the engine does not wait for this
		sketch.Put(h, 1)
	}
	return send(sketch.append(nil))
}

// hashes lists what a cache holds.
func (s *KVSource) hashes(t dynamo.Tier, rank int) []dynamo.BlockHash {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.knownLocked(t, rank)
	if c == nil {
		return nil
	}
	all := make([]dynamo.BlockHash, len(c.entries))
	for i := range c.entries {
		all[i] = c.entries[i].block.Hash
	}
	return all
}

func (s *KVSource) answerBlocks(t dynamo.Tier, rank int, q []byte, send func([]byte) error) error {
	if len(q)%8 != 0 || len(q)/8 > maxAskedBlocks {
		return invalid("a question about KV blocks names too many of them, or is cut short")
	}
	some := kvCache{tier: t, rank: rank, more: map[dynamo.BlockHash][]uint64{}}
	s.mu.Lock()
	c := s.knownLocked(t, rank)
	for ; c != nil && len(q) > 0; q = q[8:] {
		h := dynamo.BlockHash(binary.LittleEndian.Uint64(q))
		if i, held := c.index[h]; held {
			some.entries = append(some.entries, c.entries[i])
			if ids := c.more[h]; len(ids) > 0 {
				some.more[h] = append([]uint64(nil), ids...)
			}
		}
	}
	s.mu.Unlock()
	for _, part := range some.parts(nil, s.config.BlockSize, false) {
		if err := send(part); err != nil {
			return err
		}
	}
	return nil
}
