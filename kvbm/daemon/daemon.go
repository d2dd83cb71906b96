package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
)

// Daemon keeps the KV blocks of a host. New starts nothing; Run serves.
type Daemon struct {
	config Config
	log    *slog.Logger
	life   uint64
	stages chan *stage // where blocks are converted
	// answer, if set, answers administrators, and there is nothing for others.
	answer func(ctx context.Context, command []byte) ([]byte, error)
	mu     struct {
		sync.Mutex
		shelves  map[shelfKind]*shelf
		sessions map[*session]struct{}
	}
}

// New returns a daemon that serves nobody yet.
func New(c Config) (*Daemon, error) {
	if err := c.Validate(); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "configure the KV daemon: " + err.Error()}
	}
	d := &Daemon{config: c, log: obs.For(c.Logger, "daemon")}
	var b [8]byte
	rand.Read(b[:]) // never fails
	d.life = binary.LittleEndian.Uint64(b[:])
	d.mu.shelves, d.mu.sessions = map[shelfKind]*shelf{}, map[*session]struct{}{}
	d.stages = make(chan *stage, maxConversions)
	for range maxConversions {
		d.stages <- &stage{}
	}
	return d, nil
}

// ServeAdmin answers administrators at a socket until ctx ends, whose cause it returns,
// for a process that keeps KV for itself. answer gets what Ask sends, and returns a
// Report as JSON.
func ServeAdmin(ctx context.Context, socket string, log *slog.Logger, answer func(ctx context.Context, command []byte) ([]byte, error)) error {
	d := &Daemon{config: Config{Socket: socket, Logger: log}, log: obs.For(log, "daemon"), answer: answer}
	d.mu.sessions = map[*session]struct{}{}
	return d.Run(ctx, func() {})
}

// Run takes the socket, calls ready, and serves until ctx ends. It returns the cause of
// ctx, or why it cannot serve.
func (d *Daemon) Run(ctx context.Context, ready func()) (err error) {
	l, lock, err := listen(d.config.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	var sessions sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // which ends Accept
	defer stop()
	ready()
	for {
		conn, fault := l.AcceptUnix()
		if fault != nil {
			if err = context.Cause(ctx); err == nil {
				err = errors.Join(fmt.Errorf("accept a client: %w", fault), l.Close())
			}
			break
		}
		s := d.admit(ctx, conn)
		if s == nil {
			d.log.Warn("a client is refused; there are too many", "clients", maxClients)
			_ = conn.Close() // it is told nothing
			continue
		}
		sessions.Go(func() {
			s.run()
			d.dismiss(s)
		})
	}
	d.mu.Lock()
	for s := range d.mu.sessions {
		s.end(err)
	}
	d.mu.Unlock()
	sessions.Wait()
	for _, s := range d.mu.shelves {
		s.close()
	}
	return err
}

// admit makes a session of a connection; nil if there are too many.
func (d *Daemon) admit(ctx context.Context, conn *net.UnixConn) *session {
	s := newSession(ctx, d, conn)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.sessions) == maxClients {
		s.end(nil)
		return nil
	}
	d.mu.sessions[s] = struct{}{}
	d.config.Metrics.connections(len(d.mu.sessions))
	return s
}

func (d *Daemon) dismiss(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.sessions, s)
	d.config.Metrics.connections(len(d.mu.sessions))
}

// listen takes a socket for this process alone. The lock beside it tells a socket that
// somebody serves from one that a dead process left, which is replaced.
func listen(path string) (*net.UnixListener, *os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the socket: %w", err)
	}
	if err := lockFile(lock); err != nil {
		_ = lock.Close() // nothing was written
		return nil, nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: fmt.Sprintf("another KV daemon serves %s; use that one, or give another --socket", path)}
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, nil, errors.Join(invalid("--socket: %s is there and is no socket", path), lock.Close())
	}
	_ = os.Remove(path) // it is there if a process was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen at the socket: %w", err), lock.Close())
	}
	return l, lock, nil
}

// Report answers an administrator.
type Report struct {
	Contents []ContentReport `json:"contents"`
}

// ContentReport is the part of a Report about one content.
type ContentReport struct {
	Content string `json:"content"`
	// Layout is how its blocks lie, with the shards after one another, if clients say it.
	Layout  string         `json:"layout,omitempty"`
	Clients []ClientReport `json:"clients,omitempty"`
	tier.Answer
}

// ClientReport is what the clients of one name have.
type ClientReport struct {
	Name        string `json:"name"`
	Connections int    `json:"connections"`
	Blocks      int    `json:"blocks"`
}

// administer does a command.
func (d *Daemon) administer(ctx context.Context, command []byte) ([]byte, error) {
	answer := d.onAll
	if d.answer != nil {
		answer = d.answer
	}
	b, err := answer(ctx, command)
	if err == nil && len(b) > MaxBody {
		err = &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the answer is too long; ask for fewer blocks, with --limit"}
	}
	return b, err
}

// onAll does a command on all contents.
func (d *Daemon) onAll(ctx context.Context, command []byte) ([]byte, error) {
	var c tier.Command
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, invalid("the command cannot be read: %v", err)
	}
	if c.Op == tier.OpWarm {
		return nil, invalid("the daemon knows blocks by their names, not by prompts; ask a worker")
	}
	var r Report
	for _, s := range d.inUse(nil) {
		a, err := s.mover.Do(ctx, &c)
		if err != nil {
			d.release(s)
			return nil, err
		}
		c := ContentReport{Content: s.kind.content, Clients: s.ledger.clients(), Answer: *a}
		if s.kind.laid() {
			c.Layout = fmt.Sprintf("%s ranks=%d", s.kind.layout.Form(), s.kind.layout.Ranks)
		}
		r.Contents = append(r.Contents, c)
		d.release(s)
	}
	slices.SortFunc(r.Contents, func(a, b ContentReport) int {
		return cmp.Or(strings.Compare(a.Content, b.Content), strings.Compare(a.Layout, b.Layout))
	})
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	return b, nil
}

// inUse returns the open shelves, or those related to a kind; each is to be released.
func (d *Daemon) inUse(kind *shelfKind) (all []*shelf) {
	d.mu.Lock()
	for _, s := range d.mu.shelves {
		if kind == nil || kind.related(&s.kind) {
			s.users++
			all = append(all, s)
		}
	}
	d.mu.Unlock()
	return slices.DeleteFunc(all, func(s *shelf) bool {
		bad := s.open() != nil
		if bad {
			d.release(s)
		}
		return bad
	})
}
