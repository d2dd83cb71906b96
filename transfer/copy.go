package transfer

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// reach gives a peer's memory, mapped in this process, to plain copies.
type reach interface {
	// enter announces an access to the remote side of a segment and returns its
	// bytes; leave takes the announcement back.
	enter(s *segment, op Op) (b []byte, g grip, err error)
	leave(g grip)
}

// grip is an announcement that has to be taken back.
type grip struct {
	m      *Memory // of this process
	ticket uint64
	window *window // of another
	hazard int
}

// copying is a transfer by plain copies. Goroutines take its chunks in turn.
type copying struct {
	job   *job
	reach reach
	ctx   func() error // of the transfer
	next  atomic.Int64
	mu    struct {
		sync.Mutex
		err error
	}
	broken atomic.Bool
}

// copyAll copies the bytes of a job, by this goroutine and as many others as are
// worth while and free.
func (a *Agent) copyAll(ctx context.Context, j *job, r reach) error {
	c := &copying{job: j, reach: r, ctx: ctx.Err}
	var others sync.WaitGroup
	for range min(int(j.list.bytes/laneBytes), len(j.list.chunks)) - 1 {
		if !a.copiers.take() {
			break
		}
		others.Go(func() {
			defer a.copiers.give()
			c.lane()
		})
	}
	c.lane()
	others.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == nil && ctx.Err() != nil {
		return ended(ctx)
	}
	return c.mu.err
}

func (c *copying) lane() {
	for !c.broken.Load() && c.ctx() == nil {
		i := int(c.next.Add(1)) - 1
		if i >= len(c.job.list.chunks) {
			return
		}
		segments := c.job.list.chunk(i)
		for k := range segments {
			if err := copySegment(c.reach, &segments[k], c.job.op, c.job.checksum); err != nil {
				c.fail(err)
				return
			}
		}
	}
}

func (c *copying) fail(err error) {
	c.broken.Store(true)
	c.mu.Lock()
	if c.mu.err == nil {
		c.mu.err = err
	}
	c.mu.Unlock()
}

// copySegment copies one segment under its announcement.
func copySegment(r reach, s *segment, op Op, checksum bool) error {
	remote, g, err := r.enter(s, op)
	if err != nil {
		return err
	}
	defer r.leave(g)
	to, from := s.bytes(), remote
	if op == Write {
		to, from = from, to
	}
	if !checksum {
		copy(to, from)
		return nil
	}
	return copyChecked(s, to, from)
}

// copyChecked copies in pieces, and compares each while both of it are in the
// cache: where both ends are mapped that is exact, and cheaper than sums of both.
func copyChecked(s *segment, to, from []byte) error {
	for len(from) > 0 {
		n := min(len(from), copyBytes)
		copy(to, from[:n])
		if !bytes.Equal(to[:n], from[:n]) {
			return corrupt(s)
		}
		to, from = to[n:], from[n:]
	}
	return nil
}

// sum is the XXH3-64 of b, piece by piece, each with the sum so far as its seed.
func sum(b []byte) uint64 {
	n := min(len(b), pieceBytes)
	h := xxh3.Hash(b[:n])
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), pieceBytes)
		h = xxh3.HashSeed(b[:n], h)
	}
	return h
}

func corrupt(s *segment) error {
	return coded(dynamo.KindCorrupt, CodeChecksum, "%s: the %d bytes that arrived are not those that were sent; discard them and compute or fetch them again", s.descriptors(), s.length)
}

// tokens bounds how many do something at once.
type tokens chan struct{}

func (t tokens) take() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t tokens) give() { <-t }
