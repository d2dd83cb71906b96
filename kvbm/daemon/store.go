package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// StoreConfig describes a Store.
type StoreConfig struct {
	// Socket is the daemon's. No default.
	Socket string
	// Name is the client's, for its quota and for people. No default.
	Name string
	// Content says what frames depend on besides their keys. No default.
	Content string
	// FrameBytes and BlockTokens are those of a frame. No defaults.
	FrameBytes, BlockTokens int
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
}

// Store is the daemon as a tier.Store: a remote tier on this host, shared by the
// engines of one content. It connects when it is first used, and again when the daemon
// has been away; while it is away, calls fail at once.
type Store struct {
	config StoreConfig
	log    *slog.Logger
	places chan struct{} // holds one for each call
	mu     struct {
		sync.Mutex
		idle   []*link
		closed bool
		again  time.Time // no attempt to connect before
		wait   time.Duration
		away   error // why it could not be reached
	}
}

var (
	_ tier.Store  = (*Store)(nil)
	_ tier.Finder = (*Store)(nil)
)

// OpenStore returns a client of the daemon, which need not be there yet.
func OpenStore(c StoreConfig) (*Store, error) {
	if c.Socket == "" || len(c.Socket) > maxSocketPath || len(c.Name) > MaxNameBytes || len(c.Content) > MaxContentBytes || c.FrameBytes < 1 || c.FrameBytes > tier.MaxBlockBytes || c.BlockTokens < 1 {
		return nil, invalid("connect to the KV daemon at %q as %q for frames of %d bytes: the path may have %d bytes, the name %d, the content %d", c.Socket, c.Name, c.FrameBytes, maxSocketPath, MaxNameBytes, MaxContentBytes)
	}
	return &Store{config: c, log: obs.For(c.Logger, "daemon"), places: make(chan struct{}, maxIdle)}, nil
}

// Put implements tier.Store.
func (s *Store) Put(ctx context.Context, r tier.Ref, frame []byte) error {
	if len(frame) != s.config.FrameBytes {
		return invalid("a frame has %d bytes, not %d", len(frame), s.config.FrameBytes)
	}
	it := item{block: r.TierBlock}
	return s.call(ctx, opPut, func(l *link) []byte {
		copy(l.memory.Bytes(), frame)
		return it.appendPut(binary.LittleEndian.AppendUint32(nil, 1))
	}, func(_ *link, reply []byte) error {
		if len(reply) != 1 || reply[0] != 1 {
			return &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the KV daemon does not take the block"}
		}
		return nil
	})
}

// Get implements tier.Store.
func (s *Store) Get(ctx context.Context, r tier.Ref, frame []byte) error {
	it := item{block: r.TierBlock}
	return s.call(ctx, opGet, func(*link) []byte {
		return it.appendGet(binary.LittleEndian.AppendUint32(nil, 1))
	}, func(l *link, reply []byte) error {
		if n, err := number(reply); err != nil || n != 1 {
			return errors.Join(err, &dynamo.Error{Kind: dynamo.KindNotFound, Message: "the KV daemon has no such block"})
		}
		if copy(frame, l.memory.Bytes()[:s.config.FrameBytes]) < len(frame) {
			return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("the KV daemon's frames have %d bytes, not %d", s.config.FrameBytes, len(frame))}
		}
		return nil
	})
}

// Delete implements tier.Store.
func (s *Store) Delete(ctx context.Context, r tier.Ref) error {
	return s.call(ctx, opDrop, func(*link) []byte { return appendKeys(nil, []dynamo.ContentKey{r.Key}) }, nil)
}

// Find implements tier.Finder.
func (s *Store) Find(ctx context.Context, keys []dynamo.ContentKey) (found int, err error) {
	for len(keys) > 0 && err == nil {
		piece := keys[:min(len(keys), MaxItems)]
		keys = keys[len(piece):]
		n := 0
		err = s.call(ctx, opFind, func(*link) []byte { return appendKeys(nil, piece) }, func(_ *link, reply []byte) (err error) {
			n, err = number(reply)
			return err
		})
		if n = min(n, len(piece)); n < len(piece) {
			keys = nil
		}
		found += n
	}
	return found, err
}

// List implements tier.Store. It names nothing: what the daemon has is asked for, by
// Find.
func (s *Store) List(context.Context, func(tier.Ref) bool) error { return nil }

// Close implements tier.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	idle := s.mu.idle
	s.mu.idle, s.mu.closed = nil, true
	s.mu.Unlock()
	for _, l := range idle {
		l.close()
	}
	return nil
}

// number reads a reply that is one.
func number(reply []byte) (int, error) {
	if len(reply) != 4 {
		return 0, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the KV daemon's answer cannot be read; do both sides run the same version?"}
	}
	return int(binary.LittleEndian.Uint32(reply)), nil
}

// call asks the daemon something over a connection of its own, and once more if the
// connection was from before and is gone: the daemon may have been started again.
func (s *Store) call(ctx context.Context, op byte, body func(*link) []byte, use func(*link, []byte) error) error {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		l, old, err := s.take(ctx)
		if err != nil {
			return err
		}
		reply, err := l.ask(ctx, op, body(l))
		var refused *dynamo.Error
		switch {
		case err == nil && use != nil:
			err = use(l, reply)
		case err != nil && !errors.As(err, &refused):
			l.close()
			s.drop()
			if old && ctx.Err() == nil {
				continue
			}
			return &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: "the KV daemon at " + s.config.Socket + " does not answer"}
		}
		s.give(l)
		return err
	}
}

// take returns a connection that nobody uses, an old or a new one.
func (s *Store) take(ctx context.Context) (l *link, old bool, err error) {
	s.mu.Lock()
	now := time.Now()
	if last := len(s.mu.idle) - 1; last >= 0 {
		l, s.mu.idle = s.mu.idle[last], s.mu.idle[:last]
	} else if now.Before(s.mu.again) {
		err = s.mu.away
	}
	s.mu.Unlock()
	if l != nil || err != nil {
		return l, true, err
	}
	l, err = s.dial(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if s.mu.away != nil {
			s.log.Info("the KV daemon is there again", obs.KeyAddress, s.config.Socket)
		}
		s.mu.wait, s.mu.away = 0, nil
		return l, false, nil
	}
	if dynamo.KindOf(err) == dynamo.KindInternal {
		err = &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: "the KV daemon is not at " + s.config.Socket}
	}
	if s.mu.away == nil {
		s.log.Warn("the KV daemon is away; its blocks are missed", obs.KeyError, err)
	}
	s.mu.wait = min(max(2*s.mu.wait, redialMin), redialMax)
	s.mu.away, s.mu.again = err, now.Add(s.mu.wait)
	return nil, false, err
}

// give puts a connection back.
func (s *Store) give(l *link) {
	s.mu.Lock()
	closed := s.mu.closed
	if !closed {
		s.mu.idle = append(s.mu.idle, l)
	}
	s.mu.Unlock()
	if closed {
		l.close()
	}
}

// drop closes the connections that nobody uses: where one is gone, all are.
func (s *Store) drop() {
	s.mu.Lock()
	idle := s.mu.idle
	s.mu.idle = nil
	s.mu.Unlock()
	for _, l := range idle {
		l.close()
	}
}

// link is a connection, with memory for one frame.
type link struct {
	conn   *net.UnixConn
	memory *transfer.Shared
	asked  uint64
}

func (l *link) close() {
	_ = l.conn.Close() // nothing is expected of it
	if l.memory != nil {
		_ = l.memory.Close() // as above
	}
}

// dial connects and says hello.
func (s *Store) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	l, err := connect(ctx, s.config.Socket)
	if err != nil {
		return nil, err
	}
	h := hello{lowest: oldest, highest: oldest, blockBytes: s.config.FrameBytes, blockTokens: s.config.BlockTokens, name: s.config.Name, content: s.config.Content}
	reply, err := l.ask(ctx, opHello, h.append(nil))
	if err == nil {
		_, err = parseWelcome(reply)
	}
	if err == nil {
		err = l.share(ctx, int64(s.config.FrameBytes))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func connect(ctx context.Context, socket string) (*link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return &link{conn: conn.(*net.UnixConn)}, nil
}

// share makes memory and hands it to the daemon, which calls it number 0.
func (l *link) share(ctx context.Context, bytes int64) (err error) {
	if l.memory, err = transfer.NewShared("kvbm-client", bytes); err != nil {
		return err
	}
	if l.memory.File() == nil {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "memory cannot be shared with the KV daemon on this system"}
	}
	l.asked++
	body := binary.LittleEndian.AppendUint64(nil, uint64(bytes))
	defer l.until(ctx)()
	if _, _, err := l.conn.WriteMsgUnix(message(opMemory, 0, l.asked, body), rights(l.memory.File()), nil); err != nil {
		return err
	}
	reply, err := l.reply()
	if err == nil {
		_, err = number(reply)
	}
	return err
}

// ask sends a request and returns the body of its reply. A refusal is a *dynamo.Error;
// after any other error the connection is of no use.
func (l *link) ask(ctx context.Context, op byte, body []byte) ([]byte, error) {
	l.asked++
	defer l.until(ctx)()
	if _, err := l.conn.Write(message(op, 0, l.asked, body)); err != nil {
		return nil, err
	}
	return l.reply()
}

// until has reads and writes fail once ctx ends.
func (l *link) until(ctx context.Context) (stop func()) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callTime)
	}
	_ = l.conn.SetDeadline(deadline) // reading and writing say what is wrong
	end := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { end() }
}

// reply reads the reply to the last request.
func (l *link) reply() ([]byte, error) {
	head := make([]byte, headerBytes)
	if _, err := io.ReadFull(l.conn, head); err != nil {
		return nil, err
	}
	h, err := parseHeader(head, MaxBody)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %v", err) // not a refusal
	}
	body := make([]byte, h.length)
	if _, err := io.ReadFull(l.conn, body); err != nil {
		return nil, err
	}
	switch {
	case h.id != l.asked:
		return nil, fmt.Errorf("the answer is to request %d, not %d", h.id, l.asked)
	case h.status == 0:
		return body, nil
	case int(h.status) < len(statuses):
		return nil, &dynamo.Error{Kind: statuses[h.status], Message: string(body)}
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInternal, Message: string(body)}
}

// Ask asks the daemon at a socket as an administrator.
func Ask(ctx context.Context, socket string, c *tier.Command) (r Report, err error) {
	command, err := json.Marshal(c)
	if err != nil {
		return r, fmt.Errorf("write the command: %w", err)
	}
	return AskJSON(ctx, socket, command)
}

// AskJSON asks with a command that is JSON already.
func AskJSON(ctx context.Context, socket string, command []byte) (r Report, err error) {
	l, err := connect(ctx, socket)
	if err != nil {
		return r, &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: "no KV daemon serves " + socket + "; start one with 'dynamo kvbm'"}
	}
	defer l.close()
	b, err := l.ask(ctx, opAdmin, command)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}
