package kvwire

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
)

// Source names one rank's sockets of an engine.
type Source struct {
	// Endpoint is where the engine publishes, "tcp://host:port" or "ipc://path". A
	// host that means every interface is taken as this machine.
	Endpoint string
	// ReplayEndpoint is where it answers what it published before; empty for none,
	// and then every gap is a Reset.
	ReplayEndpoint string
	// Topic is the prefix of the topics wanted; empty for all.
	Topic string
}

// ForRank returns the source of a data-parallel rank, whose ports are as many above
// those of rank 0.
func (s Source) ForRank(rank int) Source {
	s.Endpoint, s.ReplayEndpoint = addPort(s.Endpoint, rank), addPort(s.ReplayEndpoint, rank)
	return s
}

func addPort(endpoint string, n int) string {
	i := strings.LastIndexByte(endpoint, ':')
	if i < 0 || !strings.HasPrefix(endpoint, "tcp://") {
		return endpoint
	}
	port, err := strconv.Atoi(endpoint[i+1:])
	if err != nil {
		return endpoint
	}
	return endpoint[:i+1] + strconv.Itoa(port+n)
}

// Config says how Subscribe keeps its connections.
type Config struct {
	// Dial connects; nil is a net.Dialer. network is "tcp" or "unix".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// RetryMin and RetryMax bound the pause before the next connection after one
	// that failed; it doubles while none succeeds (50 ms and 2 s).
	RetryMin, RetryMax time.Duration
	// HandshakeTimeout bounds connecting, until the peer has said who it is (5 s).
	HandshakeTimeout time.Duration
	// ReplayTimeout bounds the silence during a replay (5 s).
	ReplayTimeout time.Duration
	// CheckAfter is the silence after which the replay socket is asked, once, whether
	// the newest message was missed (1 s).
	CheckAfter time.Duration
	// PingEvery is the silence after which the peer is asked for a sign of life, and
	// DeadAfter the one after which the connection is given up, if the peer has ever
	// answered such a question (10 s and 30 s).
	PingEvery, DeadAfter time.Duration
	// Changed is told in the iterator's goroutine when the live connection is made,
	// and why it is lost or cannot be made; nil tells nobody.
	Changed func(up bool, err error)
	Logger  *slog.Logger
	Metrics *Metrics
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		RetryMin: retryMin, RetryMax: retryMax, HandshakeTimeout: handshakeTime, ReplayTimeout: replayTime,
		CheckAfter: checkAfter, PingEvery: pingEvery, DeadAfter: deadAfter,
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.RetryMin <= 0 || c.RetryMax < c.RetryMin {
		errs = append(errs, invalid("the pause between connections to an engine's events must be positive, and RetryMax at least RetryMin"))
	}
	if c.HandshakeTimeout <= 0 || c.ReplayTimeout <= 0 || c.CheckAfter <= 0 || c.PingEvery <= 0 || c.DeadAfter <= c.PingEvery {
		errs = append(errs, invalid("the times of an engine's event connection must be positive, and DeadAfter greater than PingEvery"))
	}
	return errors.Join(errs...)
}

// address splits an endpoint into what a dialer wants.
func address(endpoint string) (network, addr string, err error) {
	switch {
	case strings.HasPrefix(endpoint, "ipc://"):
		if path := endpoint[len("ipc://"):]; path != "" {
			return "unix", path, nil
		}
	case strings.HasPrefix(endpoint, "tcp://"):
		host, port, err := net.SplitHostPort(endpoint[len("tcp://"):])
		if n, bad := strconv.Atoi(port); err == nil && bad == nil && n > 0 && n < 1<<16 {
			switch host {
			case "*", "", "0.0.0.0", "::":
				host = "127.0.0.1"
			}
			return "tcp", net.JoinHostPort(host, port), nil
		}
	}
	return "", "", invalid(strconv.Quote(endpoint) + " is no event endpoint; give tcp://HOST:PORT or ipc://PATH")
}
