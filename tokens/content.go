package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"

	"github.com/dynamo-go/dynamo"
)

// Content is everything but the tokens that the bytes of a KV block depend on.
type Content struct {
	// Revision is the model's revision (engine.Card), Adapter the LoRA adapter's
	// name and revision or empty.
	Revision, Adapter string
	// Layout and DType say how the bytes are arranged and encoded, Shard which
	// part of the model's heads and layers they hold.
	Layout, DType, Shard string
	// Salt is the request's namespace, or empty.
	Salt string
}

// Keyer derives the content keys of one Content. It is not safe for concurrent
// use.
type Keyer struct {
	mac hash.Hash
	buf []byte
}

// contentLabel begins the message that keys are derived from. Namespace messages
// begin with a length, which no label of eight or more letters can be, so the two
// uses of the cluster key never meet.
const contentLabel = "dynamo content key 1"

// NewKeyer derives, from the cluster key, the key under which blocks of c are
// named: HMAC-SHA-256(clusterKey, label, fields of c in order, each preceded by
// its length).
func NewKeyer(clusterKey []byte, c Content) *Keyer {
	mac := hmac.New(sha256.New, clusterKey)
	buf := []byte(contentLabel)
	for _, part := range []string{c.Revision, c.Adapter, c.Layout, c.DType, c.Shard, c.Salt} {
		buf = appendPart(buf, part)
	}
	mac.Write(buf)
	return &Keyer{mac: hmac.New(sha256.New, mac.Sum(nil))}
}

// First names the first block of a sequence.
func (k *Keyer) First(block []dynamo.TokenID) dynamo.ContentKey {
	return k.key(append(k.buf[:0], 0), block)
}

// Next names a block behind the one named parent.
func (k *Keyer) Next(parent dynamo.ContentKey, block []dynamo.TokenID) dynamo.ContentKey {
	return k.key(append(append(k.buf[:0], 1), parent[:]...), block)
}

// key is HMAC-SHA-256 over the message and the block's ids as little-endian
// 32-bit words, truncated to 128 bits.
func (k *Keyer) key(msg []byte, block []dynamo.TokenID) (key dynamo.ContentKey) {
	msg = appendLE(msg, block)
	k.mac.Reset()
	k.mac.Write(msg)
	k.buf = k.mac.Sum(msg[:0])
	copy(key[:], k.buf)
	return key
}
