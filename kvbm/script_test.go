package kvbm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

// user is a sequence with its blocks, as a scheduler keeps them.
type user struct {
	chain   *tokens.Chain
	held    []kvbm.Held
	loading []kvbm.Loading
	open    []kvbm.Partial
}

func (u *user) last() kvbm.Held {
	if len(u.held) == 0 {
		return kvbm.Held{}
	}
	return u.held[len(u.held)-1]
}

func (u *user) content(i int) kvbm.Content {
	return kvbm.Content{Root: u.chain.Root(), Block: u.chain.Blocks()[i], Tokens: u.chain.Block(i)}
}

func (u *user) release(p *kvbm.Pool) {
	for i := len(u.open) - 1; i >= 0; i-- {
		p.Abort(u.open[i])
	}
	for i := len(u.loading) - 1; i >= 0; i-- {
		p.Failed(u.loading[i])
	}
	for i := len(u.held) - 1; i >= 0; i-- {
		p.Release(u.held[i])
	}
}

// script is the state of one script file. Tokens are letters; a block is named by
// its letters and those before it, so "ab|cd" is block cd behind block ab.
type script struct {
	pool  *kvbm.Pool
	size  int
	users map[string]*user
	names map[dynamo.BlockHash]string
}

// TestScript runs the files of testdata/script. See one for the commands.
func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := &script{users: map[string]*user{}, names: map[dynamo.BlockHash]string{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := s.run(t, d)
			for _, e := range s.pool.Events() {
				out += s.event(e) + "\n"
			}
			if err := s.pool.Check(); err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			st := s.pool.Stats()
			var states []string
			for _, c := range []struct {
				name string
				n    int
			}{{"free", st.Free}, {"partial", st.Partial}, {"complete", st.Complete}, {"held", st.Held}, {"idle", st.Idle}, {"loading", st.Loading}} {
				if c.n > 0 {
					states = append(states, fmt.Sprintf("%s=%d", c.name, c.n))
				}
			}
			return out + strings.Join(states, " ") + "\n"
		})
	})
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var name string
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	u := s.users[name]
	switch d.Cmd {
	case "pool":
		c := kvbm.DefaultConfig()
		c.Events = true
		d.ScanArgs(t, "blocks", &c.Blocks)
		d.ScanArgs(t, "size", &c.BlockSize)
		c.PrefixCaching = !d.HasArg("no-prefix-caching")
		p, err := kvbm.New(c)
		if err != nil {
			t.Fatal(err)
		}
		s.pool, s.size = p, c.BlockSize
		return ""
	case "take":
		return s.take(t, d, name)
	case "seal":
		return s.seal(t, d, u)
	case "arrived":
		var b strings.Builder
		for _, l := range u.loading {
			id := l.ID()
			h, o := s.pool.Arrived(l, u.content(len(u.held)), u.last())
			u.held = append(u.held, h)
			fmt.Fprintf(&b, "block %d %s\n", id, outcome(o))
		}
		u.loading = nil
		return b.String()
	case "release":
		u.release(s.pool)
		delete(s.users, name)
	case "lease":
		var id, until int
		d.ScanArgs(t, "id", &id)
		d.ScanArgs(t, "until", &until)
		s.pool.Lease(kvbm.LeaseID(id), u.held, u.open, at(until))
		delete(s.users, name)
	case "end-lease":
		var id int
		d.ScanArgs(t, "id", &id)
		return fmt.Sprintln(s.pool.EndLease(kvbm.LeaseID(id)))
	case "expire":
		var now int
		d.ScanArgs(t, "now", &now)
		out := fmt.Sprintln("expired", s.pool.ExpireLeases(nil, at(now)))
		if next, ok := s.pool.NextExpiry(); ok {
			out += fmt.Sprintln("next", next.Unix())
		}
		return out
	case "clear":
		s.pool.Clear()
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	return ""
}

func at(seconds int) time.Time { return time.Unix(int64(seconds), 0) }

// take finds what it can of the letters' blocks and takes new ones for the rest.
func (s *script) take(t *testing.T, d *datadriven.TestData, name string) string {
	u := &user{}
	var root, load int
	d.MaybeScanArgs(t, "root", &root)
	d.MaybeScanArgs(t, "load", &load)
	u.chain = tokens.NewChain(dynamo.CacheRoot(root), s.size)
	text := d.CmdArgs[1].Key
	for _, r := range text {
		u.chain.Append(dynamo.TokenID(r))
	}
	if d.HasArg("same-hash") {
		// Every first block gets the hash of "ab": a collision made by hand.
		u.chain.Blocks()[0].Hash = tokens.FirstHash(tokens.LocalHash(0, []dynamo.TokenID{'a', 'b'}))
	}
	for i, b := range u.chain.Blocks() {
		if _, ok := s.names[b.Hash]; !ok {
			s.names[b.Hash] = text[:(i+1)*s.size]
		}
	}
	q := kvbm.Query{Root: u.chain.Root(), Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()}
	found, idle := s.pool.Peek(q)
	u.held = s.pool.Match(nil, q)
	if found != len(u.held) {
		t.Fatalf("%s: Peek says %d, Match %d", d.Pos, found, len(u.held))
	}
	out := fmt.Sprintf("found %d (%d idle):", found, idle)
	for _, h := range u.held {
		out += fmt.Sprint(" ", h.ID())
	}
	out += "; new:"
	for i := found; i < (len(text)+s.size-1)/s.size; i++ {
		if i < load {
			l, ok := s.pool.Load()
			if !ok {
				break
			}
			u.loading = append(u.loading, l)
			out += fmt.Sprint(" ", l.ID(), "?")
			continue
		}
		b, ok := s.pool.Allocate()
		if !ok {
			u.release(s.pool)
			return out + " none left\n"
		}
		u.open = append(u.open, b)
		out += fmt.Sprint(" ", b.ID())
	}
	s.users[name] = u
	return out + "\n"
}

// seal completes and registers the full blocks of a user.
func (s *script) seal(t *testing.T, d *datadriven.TestData, u *user) string {
	n := u.chain.Len()/s.size - len(u.held)
	d.MaybeScanArgs(t, "blocks", &n)
	var b strings.Builder
	for range n {
		c := s.pool.Complete(u.open[0], u.content(len(u.held)))
		h, o := s.pool.Register(c, u.last())
		u.open, u.held = u.open[1:], append(u.held, h)
		fmt.Fprintf(&b, "block %d %s\n", h.ID(), outcome(o))
	}
	return b.String()
}

func outcome(o kvbm.Outcome) string {
	return [...]string{kvbm.Registered: "registered", kvbm.Duplicate: "duplicate", kvbm.Refused: "refused"}[o]
}

func (s *script) event(e kvbm.Event) string {
	out := fmt.Sprintf("event %d %s", e.Seq, e.Kind)
	if e.HasParent {
		out += " behind " + s.names[e.Parent]
	}
	for _, b := range e.Blocks {
		out += " " + s.names[b.Hash]
		for _, id := range b.Tokens {
			if !strings.ContainsRune(s.names[b.Hash], rune(id)) {
				out += " with other tokens"
			}
		}
	}
	for _, h := range e.Hashes {
		out += " " + s.names[h]
	}
	return out
}
