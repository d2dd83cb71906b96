package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Content says what the bytes of an agent mean. Two agents whose contents differ
// do not exchange bytes, unless Config.Compatible lets them.
type Content struct {
	// Model is the model with its revision.
	Model string
	// Layout describes how a block lies in memory: order, dtype, shard.
	Layout string
}

// String names both parts.
func (c Content) String() string { return fmt.Sprintf("model %q, layout %q", c.Model, c.Layout) }

// Config configures an Agent. DefaultConfig returns the defaults; zero means
// zero, except where it says otherwise.
type Config struct {
	// Name is what errors and logs of both sides call this agent.
	Name string
	// Content is what this agent's bytes are.
	Content Content
	// Compatible refuses a peer's content with an error. Nil: it must be equal.
	Compatible func(own, peer Content) error
	// Key is the cluster key, MinKeyBytes or more. Both sides prove that they have
	// it, and metadata is signed with it. No default.
	Key []byte
	// TLS wraps tcp connections of both roles; a client without a ServerName fills
	// it in from the address. Default nil: none.
	TLS *tls.Config
	// Listener takes connections of the path tcp. Run closes it. Default nil: this
	// agent reaches others by tcp and is not reached so.
	Listener net.Listener
	// Advertise is the address at which peers reach Listener. Empty: what the
	// listener says.
	Advertise string
	// Dial reaches an address of the path tcp. Nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// SocketDir is a directory that all agents of this host share; in it lie the
	// sockets of the path shm. Empty: no such path.
	SocketDir string
	// UCX has the path ucx, if this binary was built with the tag dl and the host has
	// libucp; otherwise that is logged, and there is none. It listens where libucp
	// does (UCX_NET_DEVICES), and what UCX_TLS names moves the bytes. Not with TLS:
	// libucp does not encrypt. Default false.
	UCX bool
	// Process joins the agents of one process, which copy directly. Default nil:
	// none but the agent itself.
	Process *Process
	// Connections is the number of tcp connections to a peer. Default 2.
	Connections int
	// ZeroCopy says when the path tcp has the kernel send from the memories themselves.
	// A Listener of Multipath TCP, which net.Listen makes by default, accepts connections
	// that cannot (net.ListenConfig.SetMultipathTCP). Default ZeroCopyAuto.
	ZeroCopy ZeroCopy
	// CopyWorkers bounds the goroutines that copy between mappings at one moment,
	// beside one for each active transfer; so does the number of processors.
	// Default 4.
	CopyWorkers int
	// MaxActive bounds the transfers in progress, and MaxQueued those that wait for
	// their turn; further ones are refused. Defaults 64 and 4096.
	MaxActive, MaxQueued int
	// Timeout is the deadline of a transfer that brings none. Default 30 s.
	Timeout time.Duration
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
}

// DefaultConfig returns the defaults. Name, Content and Key have none.
func DefaultConfig() Config {
	return Config{Connections: 2, ZeroCopy: ZeroCopyAuto, CopyWorkers: 4, MaxActive: 64, MaxQueued: 4096, Timeout: 30 * time.Second}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	if len(c.Key) < MinKeyBytes {
		fault("the cluster key has %d bytes; it needs at least %d (--cluster-key-file)", len(c.Key), MinKeyBytes)
	}
	for _, s := range []struct{ what, text string }{{"name", c.Name}, {"model", c.Content.Model}, {"layout", c.Content.Layout}, {"advertised address", c.Advertise}} {
		if len(s.text) > maxTextBytes {
			fault("the agent's %s has %d bytes; %d are possible", s.what, len(s.text), maxTextBytes)
		}
	}
	if c.Name == "" {
		fault("the agent has no name; give it one that an operator recognises")
	}
	for _, r := range []struct {
		name     string
		got, top int
	}{
		{"connections of a peer", c.Connections, MaxConnections},
		{"copy workers", c.CopyWorkers, MaxCopyWorkers},
		{"active transfers", c.MaxActive, MaxActiveTransfers},
		{"queued transfers", c.MaxQueued, MaxQueuedTransfers},
	} {
		if r.got < 1 || r.got > r.top {
			fault("%s: %d given; 1 to %d are possible", r.name, r.got, r.top)
		}
	}
	if !c.ZeroCopy.known() {
		fault("zero-copy sending is %q; it is one of %s, %s, %s", c.ZeroCopy, ZeroCopyAuto, ZeroCopyOff, ZeroCopyAlways)
	}
	if c.UCX && c.TLS != nil {
		fault("the path ucx beside TLS: libucp does not encrypt; give one of them")
	}
	if c.Timeout <= 0 {
		fault("a transfer's timeout of %v: give one above 0", c.Timeout)
	}
	return errors.Join(faults...)
}
