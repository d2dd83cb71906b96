package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/layout"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// shelf is the blocks of one content.
type shelf struct {
	kind   shelfKind
	users  int // connections, under the daemon's lock
	ledger *ledger
	mover  *tier.Mover
	open   func() error // once
	stop   context.CancelFunc
	ended  chan struct{}
}

// shelfKind is what the blocks of a shelf have in common.
type shelfKind struct {
	content                 string
	blockBytes, blockTokens int
	// layout is the packed one of shard 0; the zero one where the clients say none.
	layout layout.Layout
}

// laid reports whether the layout of the blocks is known.
func (k *shelfKind) laid() bool { return k.layout != layout.Layout{} }

// related reports whether blocks of other may become those of k, or the other way round:
// it has the same content in another layout.
func (k *shelfKind) related(other *shelfKind) bool {
	return k.laid() && other.laid() && k.content == other.content && *k != *other
}

// shelf returns the shelf for a client, which uses it until release.
func (d *Daemon) shelf(kind shelfKind) (*shelf, error) {
	s, idle, err := d.place(kind)
	if idle != nil {
		idle.close()
	}
	if err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		d.release(s)
		d.mu.Lock()
		if d.mu.shelves[kind] == s {
			delete(d.mu.shelves, kind)
		}
		d.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// place finds the shelf of a kind or makes room for it, if need be in place of an idle
// one.
func (d *Daemon) place(kind shelfKind) (s, idle *shelf, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s = d.mu.shelves[kind]; s != nil {
		s.users++
		return s, nil, nil
	}
	for k, other := range d.mu.shelves {
		if other.users == 0 || !k.related(&kind) {
			continue
		}
		if err := layout.Differ(&k.layout, &kind.layout); err != nil {
			return nil, nil, fmt.Errorf("other clients use %q: %w", kind.content, err)
		}
	}
	if len(d.mu.shelves) >= d.config.Contents {
		for _, other := range d.mu.shelves {
			if other.users == 0 {
				idle = other
			}
		}
		if idle == nil {
			return nil, nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("the daemon keeps blocks of %d contents (of which each layout of KV is one), and others are in use; give it more with --models, or start another with its own --socket", d.config.Contents)}
		}
		delete(d.mu.shelves, idle.kind)
	}
	s = &shelf{kind: kind, users: 1}
	s.open = sync.OnceValue(func() error { return d.openShelf(s) })
	d.mu.shelves[kind] = s
	return s, idle, nil
}

// release ends a connection's use of a shelf, which stays.
func (d *Daemon) release(s *shelf) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.users--
}

// openShelf opens the tiers of a shelf and runs them until close.
func (d *Daemon) openShelf(s *shelf) error {
	c := tier.DefaultConfig()
	c.Geometry = tier.Geometry{
		BlockTokens: s.kind.blockTokens, BlockBytes: s.kind.blockBytes,
		Content: tokens.Content{Revision: s.kind.content, Layout: "daemon 1"},
	}
	if l := &s.kind.layout; s.kind.laid() { // the shard is part of the keys
		c.Geometry.Content.Layout, c.Geometry.Content.DType = fmt.Sprintf("daemon 2, %s ranks=%d", l.Form(), l.Ranks), l.DType
	}
	if s.kind.blockBytes < 1 || s.kind.blockBytes > tier.MaxBlockBytes || s.kind.blockTokens < 1 {
		return invalid("blocks of %d bytes for %d tokens cannot be kept", s.kind.blockBytes, s.kind.blockTokens)
	}
	frame := int64(c.Geometry.FrameBytes())
	c.Named, c.ClusterKey, c.Tiers = true, d.config.ClusterKey, d.config.Tiers
	if d.config.HostBlocks > 0 {
		c.Tiers.Host.Bytes = int64(d.config.HostBlocks) * frame
	}
	if d.config.DiskBlocks > 0 {
		c.Tiers.Disk.Bytes = int64(d.config.DiskBlocks) * frame
	}
	quota := 0
	if d.config.ClientQuota > 0 {
		quota = int(max(d.config.ClientQuota/frame, 1))
	}
	s.ledger = newLedger(quota)
	c.Events, c.Metrics, c.Logger = s.ledger.changed, d.config.TierMetrics, d.config.Logger
	if c.Tiers.Disk.Bytes > 0 {
		name := fmt.Sprintf("{content:%s blockBytes:%d blockTokens:%d}", s.kind.content, s.kind.blockBytes, s.kind.blockTokens)
		if s.kind.laid() {
			name += c.Geometry.Content.Layout
		}
		sum := xxh3.HashString128(name).Bytes()
		c.DiskDir = filepath.Join(d.config.DiskDir, "kvbm-"+hex.EncodeToString(sum[:6]))
	}
	if d.config.Remote != nil {
		if err := d.config.Remote(&c); err != nil {
			return err
		}
	}
	m, err := tier.New(c)
	if err != nil {
		if c.Remote != nil {
			err = errors.Join(err, c.Remote.Close())
		}
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.mover, s.stop, s.ended = m, stop, make(chan struct{})
	go func() { // ends with close
		defer close(s.ended)
		if err := m.Run(ctx); ctx.Err() == nil {
			d.log.Error("the KV tiers ended; their blocks are missed from here on", obs.KeyError, err)
		}
	}()
	select {
	case <-m.Ready():
	case <-s.ended:
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the KV tiers do not start; see the daemon's log"}
	}
	d.log.Info("KV blocks are kept", "content", s.kind.content, "block", s.kind.blockBytes)
	return nil
}

// close ends a shelf that nobody uses.
func (s *shelf) close() {
	if s.open() == nil {
		s.stop()
		<-s.ended
	}
}
