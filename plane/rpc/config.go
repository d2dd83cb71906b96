package rpc

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

// Config is what both sides of the plane share. DefaultConfig returns the
// defaults; zero means zero, except where it says otherwise.
type Config struct {
	// Key is the cluster key, MinKeyBytes or more. Both sides prove that they
	// have it, and never send it. No default.
	Key []byte
	// TLS wraps connections: as tls.Server takes it on a server, as tls.Client on
	// a client (which fills in ServerName from the address when it is empty).
	// Unix sockets do not leave the host and are never wrapped. Default nil: none.
	TLS *tls.Config
	// Dial reaches an address; network is "tcp" or "unix". Nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Connections is the number of connections a Peer keeps; its streams are
	// spread over them. Default 1.
	Connections int
	// WindowBytes is the credit of a stream at its beginning: how much its
	// receiver takes in before it is read. Default 256 KiB.
	WindowBytes int
	// MaxMessageBytes bounds one message; a larger one is refused by the sender
	// and resets the stream at the receiver. Default 64 MiB.
	MaxMessageBytes int
	// MaxStreams bounds the streams of one connection; more are refused with
	// KindExhausted. Default 16384.
	MaxStreams int
	// PingEvery is the longest a connection sends nothing, and DeadAfter the
	// silence after which the peer is taken for dead; it must be more than twice
	// the PingEvery of the peer. It is also how long a server holds what it keeps for a
	// client that has fallen silent: every frame, whatever stream it is of, renews all of
	// that at once. Defaults 400 ms and 1.6 s.
	PingEvery, DeadAfter time.Duration
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
}

// DefaultConfig returns the defaults. Key has none.
func DefaultConfig() Config {
	return Config{
		Connections: 1, WindowBytes: 256 << 10, MaxMessageBytes: 64 << 20, MaxStreams: 16384,
		PingEvery: 400 * time.Millisecond, DeadAfter: 1600 * time.Millisecond,
	}
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
	for _, r := range []struct {
		name          string
		got, low, top int
	}{
		{"connections of a peer (--rpc-connections)", c.Connections, 1, MaxConnections},
		{"window bytes of a stream", c.WindowBytes, MinWindowBytes, MaxWindowBytes},
		{"bytes of a message", c.MaxMessageBytes, 1, MaxMessageBytes},
		{"streams of a connection", c.MaxStreams, 1, MaxStreams},
	} {
		if r.got < r.low || r.got > r.top {
			fault("%s: %d given; %d to %d are possible", r.name, r.got, r.low, r.top)
		}
	}
	if c.PingEvery <= 0 || c.DeadAfter < 2*c.PingEvery {
		fault("pings every %v and death after %v: give a ping interval above 0 and at least twice that until death", c.PingEvery, c.DeadAfter)
	}
	return errors.Join(faults...)
}

// ServerConfig configures a Server.
type ServerConfig struct {
	Config
	// Worker and Epoch say who answers here. A client that expects somebody else
	// is refused and told.
	Worker dynamo.WorkerID
	Epoch  uint64
}

// PeerConfig says whom a Peer connects to.
type PeerConfig struct {
	// Addresses are tried in order: "tcp://host:port" or "unix:///path".
	Addresses []string
	// Worker and Epoch are who must answer there; a zero Worker takes anybody.
	Worker dynamo.WorkerID
	Epoch  uint64
	// Changed hears of the peer coming (nil) and going or staying away (the
	// reason; a reason is told again only when it changes). It is called from
	// Run's goroutines, never concurrently, and always before the streams of a
	// lost connection fail. It must not call Run or wait for a stream. May be nil.
	Changed func(up bool, err error)
}
