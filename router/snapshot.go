package router

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
)

// A snapshot is what routers know of their workers' KV caches, for the next life of
// their process to begin with. Integers are little-endian, varints as in
// encoding/binary:
//
//	8      "dynkvidx"
//	4      version, 1
//	       frames to the end
//
// and a frame:
//
//	4      n, at most maxFrameBytes
//	4      CRC-32C of the payload
//	n      payload, of which the first byte says what it is
//
// and a payload:
//
//	1      1: a life of a worker begins
//	8      its id
//	8      its epoch
//	       the model that it serves, to the end
//
//	1      2: blocks that the life holds
//	1      tier
//	1-3    data-parallel rank, varint
//	1-3    tokens in a block, varint
//	       a chunk of kvindex.Index.AppendSnapshot, to the end
//
//	1      3: a life ends
//	8      number of the event of its source up to which the blocks are all that it
//	       held; 0: they may be not
//
//	1      4: the snapshot ends, and so does the file
//	8      number of the frames before
//
// Blocks that came or went while a life was written may be in it or not: the events
// behind that number say which of them are there. So a router that has restored a life
// goes on with those, if its worker has them still, and begins it anew if not.
const (
	snapshotMagic   = "dynkvidx"
	snapshotVersion = 1

	frameLife  = 1
	framePart  = 2
	frameWhole = 3
	frameEnd   = 4

	snapshotHead = len(snapshotMagic) + 4
	frameHead    = 8
	lifeHead     = 1 + 8 + 8
	endBytes     = frameHead + 1 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteSnapshot writes what routers know of their workers' KV caches, of at most
// MaxSnapshotBytes; what is beyond is left out. Events and requests wait for no more
// than a chunk at a time. pause is called after each with the time that it took, and
// ends the writing by an error.
func WriteSnapshot(w io.Writer, routers []*Router, pause func(worked time.Duration) error) error {
	s := &snapshotWriter{w: bufio.NewWriterSize(w, snapshotChunk), room: MaxSnapshotBytes - int64(snapshotHead) - endBytes, pause: pause}
	head := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	if _, err := s.w.Write(head); err != nil {
		return err
	}
	for _, r := range routers {
		for _, c := range r.prefixes.known() {
			if err := s.life(r, c); err != nil {
				return err
			}
		}
	}
	if err := s.frame(binary.LittleEndian.AppendUint64([]byte{frameEnd}, s.frames)); err != nil {
		return err
	}
	return s.w.Flush()
}

// known lists the caches of which something is known, by worker.
func (p *prefixes) known() []*cache {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.DeleteFunc(slices.Collect(maps.Values(p.mu.caches)), func(c *cache) bool { return len(c.sources) == 0 && c.at.Seq == 0 })
	slices.SortFunc(all, func(a, b *cache) int { return cmp.Compare(a.m.ID, b.m.ID) })
	return all
}

// snapshotWriter writes the frames of a snapshot.
type snapshotWriter struct {
	w      *bufio.Writer
	room   int64 // for what is left out if there is none
	frames uint64
	lives  int
	buf    []byte
	pause  func(time.Duration) error
}

func (s *snapshotWriter) frame(payload []byte) error {
	var head [frameHead]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(payload, castagnoli))
	if _, err := s.w.Write(head[:]); err != nil {
		return err
	}
	_, err := s.w.Write(payload)
	s.frames++
	s.room -= int64(frameHead + len(payload))
	return err
}

// life writes what is known of one worker.
func (s *snapshotWriter) life(r *Router, c *cache) error {
	p := r.prefixes
	p.mu.Lock()
	at, made, sources, whole := c.at, c.made, slices.Clone(c.sources), c.wholeLocked()
	p.mu.Unlock()
	if s.lives++; s.lives > maxSnapshotLives || s.room < snapshotChunk*2 {
		return nil
	}
	s.buf = append(s.buf[:0], frameLife)
	s.buf = binary.LittleEndian.AppendUint64(s.buf, uint64(c.m.ID))
	s.buf = binary.LittleEndian.AppendUint64(s.buf, c.m.Epoch)
	if err := s.frame(append(s.buf, c.m.Card.Model...)); err != nil {
		return err
	}
	for _, src := range sources {
		for t := range dynamo.TierRemote + 1 {
			complete, err := s.part(p, c, made, src, t)
			if err != nil {
				return err
			}
			whole = whole && complete
		}
	}
	p.mu.Lock()
	whole = whole && p.mu.caches[c.m.key()] == c && c.made == made && c.wholeLocked()
	p.mu.Unlock()
	if !whole {
		at.Seq = 0
	}
	return s.frame(binary.LittleEndian.AppendUint64([]byte{frameWhole}, at.Seq))
}

// wholeLocked reports whether c is all that its worker held at c.at, in a form from
// which one can go on: blocks that are removed by the engine's ids are not in it.
func (c *cache) wholeLocked() bool {
	return c.state == cacheExact && !c.named && c.at.Epoch == c.m.Epoch &&
		!slices.ContainsFunc(c.sources, func(s source) bool { return s.at.index.State(s.id) != kvindex.Exact })
}

// part writes a tier of a source, as long as that is what it was when c was made for
// the made-th time.
func (s *snapshotWriter) part(p *prefixes, c *cache, made int, src source, t dynamo.Tier) (complete bool, err error) {
	var at kvindex.Cursor
	for more := true; more; {
		if s.room < snapshotChunk*2 {
			return false, nil
		}
		began := time.Now()
		s.buf = append(s.buf[:0], framePart, byte(t))
		s.buf = binary.AppendUvarint(s.buf, uint64(src.rank))
		s.buf = binary.AppendUvarint(s.buf, uint64(src.at.blockSize))
		head := len(s.buf)
		p.mu.Lock()
		if p.mu.caches[c.m.key()] != c || c.made != made {
			p.mu.Unlock()
			return false, nil
		}
		s.buf, at, more = src.at.index.AppendSnapshot(s.buf, src.id, t, at, snapshotChunk)
		p.mu.Unlock()
		if len(s.buf) > head+1 { // it holds blocks
			if err := s.frame(s.buf); err != nil {
				return false, err
			}
		}
		if err := s.pause(time.Since(began)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Snapshot is one that was written by an earlier life of the process. Its workers'
// lives wait in it until a router follows them. It is safe for concurrent use.
type Snapshot struct {
	file io.ReaderAt
	mu   struct {
		sync.Mutex
		lives map[placement.Key]savedLife
	}
}

// savedLife is where a life's frames are.
type savedLife struct {
	model    string
	from, to int64
	seq      uint64
}

// OpenSnapshot looks through a snapshot of size bytes and finds the lives in it; file
// must stay as it is until Close. One that is cut short, damaged, of another version
// or otherwise not as WriteSnapshot writes them is of no use, and the error,
// KindCorrupt, says why.
func OpenSnapshot(file io.ReaderAt, size int64) (*Snapshot, error) {
	if size > MaxSnapshotBytes {
		return nil, damaged("has %d bytes, of which %d are possible", size, int64(MaxSnapshotBytes))
	}
	s := &Snapshot{file: file}
	s.mu.lives = map[placement.Key]savedLife{}
	head := make([]byte, snapshotHead)
	switch _, err := io.ReadFull(io.NewSectionReader(file, 0, size), head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, damaged("is cut short after %d bytes", size)
	case err != nil:
		return nil, fmt.Errorf("read the router's snapshot: %w", err)
	case string(head[:len(snapshotMagic)]) != snapshotMagic:
		return nil, damaged("is no snapshot of a router")
	}
	if v := binary.LittleEndian.Uint32(head[len(snapshotMagic):]); v != snapshotVersion {
		return nil, damaged("is of version %d, and this program reads version %d", v, snapshotVersion)
	}
	if err := s.scan(size); err != nil {
		return nil, err
	}
	return s, nil
}

func damaged(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the file " + fmt.Sprintf(format, args...)}
}

// scan finds the lives.
func (s *Snapshot) scan(size int64) error {
	f := newFrames(s.file, int64(snapshotHead), size)
	var key placement.Key
	var life savedLife
	inside := false
	for n := uint64(0); ; n++ {
		start := f.at
		p, err := f.next()
		if err != nil {
			return err
		}
		switch {
		case p[0] == frameLife && !inside && len(p) >= lifeHead && len(s.mu.lives) < maxSnapshotLives:
			key = placement.Key{ID: dynamo.WorkerID(binary.LittleEndian.Uint64(p[1:])), Epoch: binary.LittleEndian.Uint64(p[9:])}
			life, inside = savedLife{model: string(p[lifeHead:]), from: f.at}, true
		case p[0] == framePart && inside:
			if _, err := parsePart(p); err != nil {
				return err
			}
		case p[0] == frameWhole && inside && len(p) == 9:
			life.seq, life.to, inside = binary.LittleEndian.Uint64(p[1:]), start, false
			s.mu.lives[key] = life
		case p[0] == frameEnd && !inside && len(p) == 9 && binary.LittleEndian.Uint64(p[1:]) == n && f.at == size:
			return nil
		default:
			return damaged("holds at byte %d what it cannot hold there", start)
		}
	}
}

// frames reads frames one after another.
type frames struct {
	r   *bufio.Reader
	at  int64
	buf []byte
}

func newFrames(file io.ReaderAt, from, to int64) *frames {
	return &frames{r: bufio.NewReaderSize(io.NewSectionReader(file, from, to-from), snapshotChunk), at: from}
}

// next returns the payload of a frame, which is valid until the next call and not empty.
func (f *frames) next() ([]byte, error) {
	var head [frameHead]byte
	if err := f.read(head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxFrameBytes {
		return nil, damaged("is damaged at byte %d (a length of %d)", f.at, n)
	}
	f.buf = slices.Grow(f.buf[:0], int(n))[:n]
	if err := f.read(f.buf); err != nil {
		return nil, err
	}
	if crc32.Checksum(f.buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, damaged("is damaged at byte %d (a checksum is wrong)", f.at)
	}
	f.at += frameHead + int64(n)
	return f.buf, nil
}

func (f *frames) read(b []byte) error {
	switch _, err := io.ReadFull(f.r, b); {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("is cut short: what begins at byte %d has no end", f.at)
	default:
		return fmt.Errorf("read the router's snapshot: %w", err)
	}
}

// savedPart is blocks of a life.
type savedPart struct {
	tier            dynamo.Tier
	rank, blockSize int
	chunk           []byte
}

func parsePart(p []byte) (savedPart, error) {
	bad := damaged("holds blocks of no possible tier, rank or size")
	if len(p) < 4 || dynamo.Tier(p[1]) > dynamo.TierRemote {
		return savedPart{}, bad
	}
	s := savedPart{tier: dynamo.Tier(p[1])}
	rank, n := binary.Uvarint(p[2:])
	if n <= 0 || rank > event.MaxKVRank {
		return savedPart{}, bad
	}
	p = p[2+n:]
	size, n := binary.Uvarint(p)
	if n <= 0 || size < 1 || size > kvbm.MaxBlockSize {
		return savedPart{}, bad
	}
	s.rank, s.blockSize, s.chunk = int(rank), int(size), p[n:]
	return s, nil
}

// Left is how many lives nobody has followed yet.
func (s *Snapshot) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.lives)
}

// Close drops the lives that are left and returns their number. A nil Snapshot has none.
func (s *Snapshot) Close() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.mu.lives)
	clear(s.mu.lives)
	return n
}

// take hands a life out, once.
func (s *Snapshot) take(k placement.Key) (savedLife, bool) {
	if s == nil {
		return savedLife{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, found := s.mu.lives[k]
	delete(s.mu.lives, k)
	return l, found
}

// restore puts what an earlier life of the process knew of a worker into the index, for
// the time until the worker itself has told, and returns from where to follow its
// events. What cannot be used is told to the log, and forgotten.
func (r *Router) restore(ctx context.Context, k placement.Key) event.Position {
	life, found := r.config.Restored.take(k)
	if !found {
		return event.Position{}
	}
	err := r.restoreLife(ctx, k, life)
	p := r.prefixes
	p.mu.Lock()
	defer p.unlock()
	c := p.mu.caches[k]
	switch {
	case c == nil:
		return event.Position{}
	case ctx.Err() != nil:
		return event.Position{}
	case err != nil:
		c.forgetLocked()
		c.state = cacheNone
		p.warnLocked("what the snapshot of the router says of a worker is not used", slog.String(obs.KeyWorker, k.ID.String()), slog.Any(obs.KeyError, err))
		return event.Position{}
	case life.seq == 0 || slices.ContainsFunc(c.sources, func(s source) bool { return s.at.index.State(s.id) != kvindex.Exact }):
		return event.Position{}
	}
	c.at, c.state = event.Position{Epoch: k.Epoch, Seq: life.seq}, cacheRepairing
	return c.at
}

func (r *Router) restoreLife(ctx context.Context, k placement.Key, life savedLife) error {
	if r.config.Model != "" && life.model != r.config.Model {
		return damaged("says that it serves model %q, which is %q here", life.model, r.config.Model)
	}
	for f := newFrames(r.config.Restored.file, life.from, life.to); f.at < life.to; {
		payload, err := f.next()
		if err != nil {
			return err
		}
		part, err := parsePart(payload)
		if err != nil {
			return err
		}
		if err := r.prefixes.restorePart(k, part); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// restorePart stores blocks of a saved life. Of one that is not known it stores none.
func (p *prefixes) restorePart(k placement.Key, part savedPart) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.mu.caches[k]
	switch {
	case c == nil:
		return nil
	case c.m.Card.BlockSize > 0 && part.blockSize != c.m.Card.BlockSize:
		return damaged("has blocks of %d tokens, and the worker's have %d", part.blockSize, c.m.Card.BlockSize)
	case c.m.Ranks > 0 && part.rank >= c.m.Ranks:
		return damaged("has rank %d, and the worker has %d ranks", part.rank, c.m.Ranks)
	}
	s, err := p.sourceLocked(c, part.blockSize, part.rank)
	if err != nil {
		return err
	}
	c.state, c.heard = cacheRepairing, true
	return s.at.index.Restore(s.id, part.tier, part.chunk)
}
