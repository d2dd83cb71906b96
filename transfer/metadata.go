package transfer

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Metadata, as Export writes it; integers are big-endian, a text is its length in
// two bytes and its bytes:
//
//	 8  magic "dynxmeta"
//	 2  version
//	16  the agent's id, random for each life
//	    texts: name, model, layout
//	 1  number of addresses, each: 1 path, text address
//	 4  number of memories, each: 4 id, 1 medium, 1 access, 8 bytes, 8 page bytes,
//	    8 token of what is not lent, text name
//	32  HMAC-SHA-256 of all before, by a key derived from the cluster key
const (
	metaMagic   = "dynxmeta"
	metaVersion = 1
	metaHead    = len(metaMagic) + 2
	macBytes    = sha256.Size
	memoryBytes = 4 + 1 + 1 + 8 + 8 + 8 + 2
)

// AgentID names one life of an agent.
type AgentID [16]byte

// String returns the id in hexadecimal.
func (id AgentID) String() string { return hex.EncodeToString(id[:]) }

func newAgentID() (id AgentID) {
	rand.Read(id[:])
	return id
}

// MemoryInfo is what a peer tells about one of its memories.
type MemoryInfo struct {
	ID        MemoryID
	Name      string
	Medium    Medium
	Access    Access
	Bytes     int64
	PageBytes int64
	base      uint64
}

// At names a part of the memory that is open without a lease, for a remote list.
func (m MemoryInfo) At(offset, length int64) Descriptor {
	return Descriptor{m.ID, offset, length, m.base}
}

// metadata is what Export tells of an agent.
type metadata struct {
	id        AgentID
	name      string
	content   Content
	addresses map[Path]string
	memories  []MemoryInfo
}

// keys are derived from the cluster key, one for each purpose, so that no proof
// serves another.
type keys struct{ client, server, metadata []byte }

func deriveKeys(cluster []byte) (k keys, err error) {
	for _, d := range []struct {
		to   *[]byte
		info string
	}{{&k.client, "dynamo transfer client"}, {&k.server, "dynamo transfer server"}, {&k.metadata, "dynamo transfer metadata"}} {
		if *d.to, err = hkdf.Key(sha256.New, cluster, nil, d.info, macBytes); err != nil {
			return keys{}, fmt.Errorf("derive keys from the cluster key: %w", err)
		}
	}
	return k, nil
}

func prove(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	return h.Sum(nil)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func (m *metadata) encode(key []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(metaMagic), metaVersion)
	b = append(b, m.id[:]...)
	b = appendText(appendText(appendText(b, m.name), m.content.Model), m.content.Layout)
	b = append(b, byte(len(m.addresses)))
	for p := range pathCount {
		if a, ok := m.addresses[p]; ok {
			b = appendText(append(b, byte(p)), a)
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.memories)))
	for _, s := range m.memories {
		b = binary.BigEndian.AppendUint32(b, uint32(s.ID))
		b = append(b, byte(s.Medium), byte(s.Access))
		b = binary.BigEndian.AppendUint64(b, uint64(s.Bytes))
		b = binary.BigEndian.AppendUint64(b, uint64(s.PageBytes))
		b = binary.BigEndian.AppendUint64(b, s.base)
		b = appendText(b, s.Name)
	}
	return append(b, prove(key, b)...)
}

// cursor reads a bounded message; after its end it yields zeros and is short.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.short = nil, true
		return make([]byte, min(n, 16))
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }

func (c *cursor) text(most int) string {
	n := int(c.u16())
	if n > most || n > len(c.rest) {
		c.rest, c.short = nil, true
		return ""
	}
	return string(c.take(n))
}

// decodeMetadata reads what encode wrote, and nothing else.
func decodeMetadata(b, key []byte) (*metadata, error) {
	if len(b) < metaHead || string(b[:len(metaMagic)]) != metaMagic {
		return nil, invalid("these %d bytes are no metadata of a transfer agent; give what Export returned", len(b))
	}
	if v := binary.BigEndian.Uint16(b[len(metaMagic):]); v != metaVersion {
		return nil, coded(dynamo.KindInvalid, CodeVersion, "the peer's metadata has version %d and this agent reads %d; run the same release of dynamo on both", v, metaVersion)
	}
	if len(b) > MaxMetadataBytes {
		return nil, invalid("metadata of %d bytes; %d are possible", len(b), MaxMetadataBytes)
	}
	body := b[:max(metaHead, len(b)-macBytes)]
	if !hmac.Equal(b[len(body):], prove(key, body)) {
		return nil, coded(dynamo.KindInvalid, CodeKey, "the metadata is damaged, or of an agent with another cluster key; give both sides the same --cluster-key-file")
	}
	c := cursor{rest: body[metaHead:]}
	m := &metadata{addresses: map[Path]string{}}
	copy(m.id[:], c.take(len(m.id)))
	m.name, m.content.Model, m.content.Layout = c.text(maxTextBytes), c.text(maxTextBytes), c.text(maxTextBytes)
	last := -1
	for range c.u8() {
		p := Path(c.u8())
		if int(p) <= last || p >= pathCount {
			return nil, invalid("the metadata of %q names paths that this agent does not know", m.name)
		}
		last = int(p)
		m.addresses[p] = c.text(maxAddressBytes)
	}
	n := int(c.u32())
	if n > MaxMemories || n*memoryBytes > len(c.rest) {
		return nil, invalid("the metadata of %q announces %d memories in %d bytes", m.name, n, len(c.rest))
	}
	for range n {
		s := MemoryInfo{ID: MemoryID(c.u32()), Medium: Medium(c.u8()), Access: Access(c.u8()), Bytes: int64(c.u64()), PageBytes: int64(c.u64()), base: c.u64(), Name: c.text(maxTextBytes)}
		if s.Medium >= mediumCount || s.Access > AccessWrite || s.Bytes < 1 || s.PageBytes < 1 {
			return nil, invalid("the metadata of %q describes memory %q as nothing that can be", m.name, s.Name)
		}
		if k := len(m.memories); k > 0 && m.memories[k-1].ID >= s.ID {
			return nil, invalid("the metadata of %q has its memories out of order", m.name)
		}
		m.memories = append(m.memories, s)
	}
	if c.short || len(c.rest) > 0 {
		return nil, invalid("the metadata of %q ends in the middle, or goes on after its end", m.name)
	}
	return m, nil
}

// Export describes this agent and its memories to peers.
func (a *Agent) Export() []byte {
	m := metadata{id: a.id, name: a.cfg.Name, content: a.cfg.Content, addresses: map[Path]string{}}
	for _, b := range a.backends {
		if addr := b.address(); addr != "" {
			m.addresses[b.path()] = addr
		}
	}
	for _, s := range a.everyMemory() {
		m.memories = append(m.memories, s.info())
	}
	slices.SortFunc(m.memories, func(x, y MemoryInfo) int { return int(x.ID) - int(y.ID) })
	return m.encode(a.keys.metadata)
}

func (m *Memory) info() MemoryInfo {
	access := AccessLent
	switch rights(m.base) & (mayRead | mayWrite) {
	case mayRead:
		access = AccessRead
	case mayRead | mayWrite:
		access = AccessWrite
	}
	return MemoryInfo{ID: m.id, Name: m.name, Medium: m.medium, Access: access, Bytes: m.size, PageBytes: m.pageBytes, base: m.base}
}

// Import makes a peer known, or renews what is known of it. It refuses metadata of
// another cluster, another version or another content.
func (a *Agent) Import(b []byte) (*Peer, error) {
	m, err := decodeMetadata(b, a.keys.metadata)
	if err != nil {
		return nil, err
	}
	if a.cfg.Compatible != nil {
		err = a.cfg.Compatible(a.cfg.Content, m.content)
	} else if m.content != a.cfg.Content {
		err = fmt.Errorf("%s against %s", a.cfg.Content, m.content)
	}
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeContent, Err: err,
			Message: fmt.Sprintf("%q (%s) and %q (%s) do not exchange bytes; run the same model in the same layout on both", a.cfg.Name, a.cfg.Content, m.name, m.content)}
	}
	return a.meet(m)
}
