package tier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Command is what an operator asks of a Mover in another process. It travels as JSON;
// fields that a reader does not know are passed over.
type Command struct {
	// Op is one of the Ops.
	Op string `json:"op"`
	// Tier names the tier of OpList and OpVerify; empty: all.
	Tier string `json:"tier,omitzero"`
	// Limit bounds the blocks that OpList lists of a tier, at most MaxListed.
	Limit int `json:"limit,omitzero"`
	// Keys are the blocks of OpEvict, in hexadecimal; none: all.
	Keys []string `json:"keys,omitempty"`
	// Tokens is the prompt of OpWarm, Adapter and Namespace what separates it from others
	// with the same ids.
	Tokens    []dynamo.TokenID `json:"tokens,omitempty"`
	Adapter   string           `json:"adapter,omitzero"`
	Namespace string           `json:"namespace,omitzero"`
}

// The operations.
const (
	OpStat   = "stat"
	OpList   = "ls"
	OpVerify = "verify"
	OpEvict  = "evict"
	OpWarm   = "warm"
)

// Answer is what a Mover says to a Command: one of its parts, and what the blocks have
// in common.
type Answer struct {
	BlockTokens int    `json:"block_tokens"`
	BlockBytes  int    `json:"block_bytes"`
	FrameBytes  int    `json:"frame_bytes"`
	Revision    string `json:"revision,omitzero"`
	// Tiers answers all but OpEvict and OpWarm.
	Tiers []TierAnswer `json:"tiers,omitempty"`
	Loads *Counts      `json:"loads,omitempty"`
	// Copies answers OpEvict, Blocks and Of OpWarm: so many of the prompt's blocks are in
	// the fastest tier afterwards.
	Copies int `json:"copies,omitzero"`
	Blocks int `json:"blocks,omitzero"`
	Of     int `json:"of,omitzero"`
}

// TierAnswer is the part of an Answer about one tier.
type TierAnswer struct {
	Tier     string          `json:"tier"`
	Stats    *kvbm.TierStats `json:"stats,omitempty"`
	Held     int             `json:"held"`
	Listed   []ListedBlock   `json:"listed,omitempty"`
	Verified *Verified       `json:"verified,omitempty"`
	Seconds  float64         `json:"seconds,omitzero"` // that verifying took
}

// ListedBlock is a block that a tier has.
type ListedBlock struct {
	Key    string `json:"key"`
	Parent string `json:"parent,omitzero"`
	Depth  int    `json:"depth"`
}

// Bad is the number of blocks that were not what they should be.
func (v *Verified) Bad() int { return v.Corrupt + v.Missing + v.Unread }

// ServeJSON does a Command that came as JSON and returns its Answer as JSON.
func (m *Mover) ServeJSON(ctx context.Context, command []byte) ([]byte, error) {
	var c Command
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, invalid("the command cannot be read: %v", err)
	}
	a, err := m.Do(ctx, &c)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	return b, nil
}

// Do does a Command.
func (m *Mover) Do(ctx context.Context, c *Command) (*Answer, error) {
	g := &m.config.Geometry
	a := &Answer{BlockTokens: g.BlockTokens, BlockBytes: g.BlockBytes, FrameBytes: g.FrameBytes(), Revision: g.Content.Revision}
	var err error
	switch c.Op {
	case OpStat, OpList, OpVerify:
		return a, m.answerTiers(ctx, c, a)
	case OpEvict:
		a.Copies, err = m.evictNamed(ctx, c.Keys)
	case OpWarm:
		s := m.Sequence(Scope{Adapter: c.Adapter, Namespace: c.Namespace})
		if s == nil {
			return nil, invalid("the names of adapter and namespace are too long")
		}
		s.Append(c.Tokens...)
		a.Of = s.Blocks()
		a.Blocks, err = m.Warm(ctx, s)
	default:
		err = invalid("%q is no operation of the KV tiers; do both sides run the same version?", c.Op)
	}
	return a, err
}

// answerTiers answers what is asked about tiers.
func (m *Mover) answerTiers(ctx context.Context, c *Command, a *Answer) error {
	known := c.Tier == ""
	stats := m.Stats()
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		if m.stores[t] == nil || c.Tier != "" && c.Tier != t.String() {
			continue
		}
		known = true
		ta := TierAnswer{Tier: t.String(), Held: stats.Tiers[t].Held}
		switch c.Op {
		case OpStat:
			ta.Stats = &stats.Tiers[t]
		case OpList:
			var blocks []kvbm.TierBlock
			blocks, ta.Held = m.List(t, min(max(c.Limit, 0), MaxListed))
			for i := range blocks {
				ta.Listed = append(ta.Listed, listed(&blocks[i]))
			}
		case OpVerify:
			began := time.Now()
			v, err := m.Verify(ctx, t)
			if err != nil {
				return fmt.Errorf("verify the %v tier: %w", t, err)
			}
			ta.Verified, ta.Seconds = &v, time.Since(began).Seconds()
		}
		a.Tiers = append(a.Tiers, ta)
	}
	if c.Op == OpStat {
		a.Loads = &stats.Loads
	}
	if !known {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("there is no %s tier here; 'dynamo kv stat' shows those there are", c.Tier)}
	}
	return nil
}

func listed(b *kvbm.TierBlock) ListedBlock {
	l := ListedBlock{Key: b.Key.String(), Depth: b.Depth}
	if b.Parent != (dynamo.ContentKey{}) {
		l.Parent = b.Parent.String()
	}
	return l
}

// evictNamed gives up blocks by their names.
func (m *Mover) evictNamed(ctx context.Context, names []string) (int, error) {
	if len(names) == 0 {
		return m.Clear(ctx)
	}
	var keys []dynamo.ContentKey
	var faults []error
	for _, name := range names {
		key, err := ParseKey(name)
		keys, faults = append(keys, key), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return 0, err
	}
	return m.Evict(ctx, keys...)
}

// ParseKey reads a content key as it is written.
func ParseKey(name string) (key dynamo.ContentKey, err error) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(key) {
		return key, invalid("%q is no block's name, which has %d hexadecimal digits", name, 2*len(key))
	}
	copy(key[:], b)
	return key, nil
}

// invalid is an error of whoever asked.
func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}
