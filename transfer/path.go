package transfer

import (
	"context"
	"net"
	"sync"
	"time"
)

// Path is a way bytes go.
type Path uint8

// The paths. Their numbers are part of the metadata.
const (
	PathLocal  Path = iota // within this process
	PathShm                // by mapping the peer's memory
	PathTCP                // over tcp connections
	PathFile               // into files of this process and out of them
	PathObject             // the same with objects of a store
	PathUCX                // by libucp: RDMA, where there is
	pathCount
)

// String names the path, as metrics do.
func (p Path) String() string {
	return [...]string{PathLocal: "local", PathShm: "shm", PathTCP: "tcp", PathFile: "file", PathObject: "object", PathUCX: "ucx"}[p]
}

// backend is one path of an agent: what it tells of itself, and rails to peers.
// An agent's backends are in order of preference, the fastest first.
type backend interface {
	path() Path
	// address is where peers reach this agent on the path; empty: they do not.
	address() string
	// open returns the rail to a peer that tells of an address, or "" if it tells of
	// none; nil if there is none. It does no I/O.
	open(p *Peer, address string) rail
}

// rail is a path to one peer. It connects when it is first needed.
type rail interface {
	// serves reports whether the rail moves bytes between all media of two sets.
	serves(local, remote uint32) bool
	// move moves the bytes of a job and returns when nothing touches local memory
	// any more. An error of KindUnavailable lets the next rail try.
	move(ctx context.Context, j *job) error
	// close ends the rail's connections.
	close(cause error)
}

// inliner is a rail that can move a few bytes at once, without waiting.
type inliner interface {
	// inline reports whether it did, or failed to.
	inline(j *job) (done bool, err error)
}

// beginner is a rail that can send a few bytes within Post, without waiting, and
// ends the transfer by Transfer.settle when the answer comes.
type beginner interface {
	begin(t *Transfer, j *job) bool
}

// carrier is a rail that brings notifications.
type carrier interface {
	// carry sends notes, to be acknowledged by Peer.acknowledged; an error, and any
	// later call of Peer.interrupted, says that some may not have come. With atOnce
	// it does not wait, and reports whether it could.
	carry(ctx context.Context, notes []*note) (sent bool, err error)
}

// atOnce is the context of who does not wait: it has ended.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// receipter is a carrier that has to be asked what the peer has acknowledged.
type receipter interface{ receipts() }

// gatherer is a connection that takes several buffers at once.
type gatherer interface{ gather(net.Buffers) error }

func writeAll(nc net.Conn, bufs net.Buffers) error {
	if g, ok := nc.(gatherer); ok {
		return g.gather(bufs)
	}
	_, err := bufs.WriteTo(nc)
	return err
}

// job is what a rail is to do.
type job struct {
	list     *List
	op       Op
	checksum bool
}

// media returns a set.
func media(ms ...Medium) (set uint32) {
	for _, m := range ms {
		set |= 1 << m
	}
	return set
}

// memories in which bytes are plain memory of a process.
var plain = media(MediumHost, MediumShared)

func subset(of, set uint32) bool { return of&^set == 0 }

// track is a rail with its past. One that has failed comes after the others for
// pathBackoff.
type track struct {
	rail
	path Path

	mu struct {
		sync.Mutex
		rests time.Time // until then others are tried first
	}
}

func (t *track) resting(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Before(t.mu.rests)
}

func (t *track) rest(now time.Time) {
	t.mu.Lock()
	t.mu.rests = now.Add(pathBackoff)
	t.mu.Unlock()
}
