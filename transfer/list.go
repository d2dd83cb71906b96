package transfer

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// Op is the direction of a transfer, seen from who posts it.
type Op uint8

// The directions.
const (
	Read  Op = iota // from the peer's memory into this agent's
	Write           // from this agent's memory into the peer's
)

// String names the direction, as metrics do.
func (op Op) String() string {
	if op == Write {
		return "write"
	}
	return "read"
}

// segment is a run of bytes that lies together on both sides.
type segment struct {
	local       *Memory
	localOffset int64
	remote      MemoryID
	offset      int64 // in the remote memory
	pages       span  // of the remote memory
	token       uint64
	length      int64
	first, last int // the descriptors it covers
}

func (s *segment) bytes() []byte { return s.local.bytes[s.localOffset : s.localOffset+s.length] }

// descriptors names what the segment covers, for errors.
func (s *segment) descriptors() string {
	if s.first == s.last {
		return fmt.Sprintf("descriptor %d", s.first)
	}
	return fmt.Sprintf("descriptors %d to %d", s.first, s.last)
}

// List is a pair of prepared lists, to be posted any number of times, at any time,
// in both directions.
type List struct {
	peer        *Peer
	segments    []segment
	chunks      []chunk // of segments, the unit in which work is shared out
	locals      []*Memory
	bytes       int64
	descriptors int
	media       [2]uint32 // the media in it, local and remote, as bits
}

type chunk struct {
	first, n int
	bytes    int64
}

// Bytes is what one transfer of the list moves.
func (l *List) Bytes() int64 { return l.bytes }

// Segments is the number of runs that lie together on both sides.
func (l *List) Segments() int { return len(l.segments) }

// Prepare checks two lists of equal lengths, descriptor by descriptor, and joins
// neighbours. local names parts of this agent's memories, remote of the peer's.
func (a *Agent) Prepare(p *Peer, local, remote []Descriptor) (*List, error) {
	if len(local) != len(remote) || len(local) == 0 || len(local) > MaxDescriptors {
		return nil, invalid("%d local and %d remote descriptors; give equal numbers, 1 to %d", len(local), len(remote), MaxDescriptors)
	}
	if p == nil || p.a != a {
		return nil, invalid("the peer was not imported by this agent")
	}
	l := &List{peer: p, descriptors: len(local), segments: make([]segment, 0, len(local))}
	var lm *Memory
	var rm MemoryInfo
	for i := range local {
		d, r := local[i], remote[i]
		if lm == nil || lm.id != d.Memory {
			if lm = a.memory(d.Memory); lm == nil {
				return nil, coded(dynamo.KindNotFound, CodeMemory, "local descriptor %d: this agent has no memory %d", i, d.Memory)
			}
			l.uses(lm)
		}
		if rm.ID != r.Memory || i == 0 {
			var ok bool
			if rm, ok = p.memory(r.Memory); !ok {
				return nil, coded(dynamo.KindNotFound, CodeMemory, "remote descriptor %d: %q told of no memory %d; import its metadata anew", i, p.Name(), r.Memory)
			}
			l.media[1] |= 1 << rm.Medium
		}
		if d.Length != r.Length || !within(d.Offset, d.Length, lm.size) || !within(r.Offset, r.Length, rm.Bytes) {
			return nil, invalid("descriptor %d: %d bytes at %d of %q (which has %d), and %d at %d of the peer's %q (which has %d): give equal lengths within both",
				i, d.Length, d.Offset, lm.name, lm.size, r.Length, r.Offset, rm.Name, rm.Bytes)
		}
		l.add(lm, d, r, rm.PageBytes, i)
	}
	l.share()
	return l, nil
}

func (l *List) uses(m *Memory) {
	for _, o := range l.locals {
		if o == m {
			return
		}
	}
	l.locals = append(l.locals, m)
	l.media[0] |= 1 << m.medium
}

// add appends a descriptor, to the last segment if it goes on there. What is
// longer than segmentBytes becomes several.
func (l *List) add(m *Memory, d, r Descriptor, pageBytes int64, index int) {
	l.bytes += d.Length
	for done := int64(0); done < d.Length; {
		n := min(d.Length-done, segmentBytes)
		if k := len(l.segments); k > 0 {
			s := &l.segments[k-1]
			if room := segmentBytes - s.length; room > 0 && s.local == m && s.remote == r.Memory && s.token == r.Token && s.localOffset+s.length == d.Offset+done && s.offset+s.length == r.Offset+done {
				n = min(n, room)
				s.length += n
				s.last = index
				s.pages = spanOf(s.offset, s.length, pageBytes)
				done += n
				continue
			}
		}
		l.segments = append(l.segments, segment{local: m, localOffset: d.Offset + done, remote: r.Memory, offset: r.Offset + done,
			pages: spanOf(r.Offset+done, n, pageBytes), token: r.Token, length: n, first: index, last: index})
		done += n
	}
}

// share cuts the segments into chunks.
func (l *List) share() {
	c := chunk{}
	for i := range l.segments {
		n := l.segments[i].length
		if c.n > 0 && (c.bytes+n > chunkBytes || c.n == frameSegments) {
			l.chunks = append(l.chunks, c)
			c = chunk{first: i}
		}
		c.n++
		c.bytes += n
	}
	l.chunks = append(l.chunks, c)
}

func (l *List) chunk(i int) []segment {
	c := l.chunks[i]
	return l.segments[c.first : c.first+c.n]
}
