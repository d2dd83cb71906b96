package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Config says which server to use, and how.
type Config struct {
	// URL is that of the server, or of several with commas between: nats://HOST:PORT,
	// tls://…, with user and password before HOST and an @ if it wants them.
	URL string
	// Namespace keeps clusters apart that share a server.
	Namespace string
	// Heartbeat is how often a publisher without events says that it is there
	// (1 s), Silence how long a subscriber waits before it takes the publisher for
	// lost (3.5 s), Answer how long for an answer (1 s).
	Heartbeat, Silence, Answer time.Duration
	// Dial connects to the server; nil is a net.Dialer.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger
}

// DefaultConfig returns the defaults for a server and a namespace.
func DefaultConfig(url, namespace string) Config {
	return Config{URL: url, Namespace: namespace, Heartbeat: defaultHeartbeat, Silence: defaultSilence, Answer: defaultAnswer}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	for server := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		switch {
		case err != nil: // which shows the password
			bad("--nats-server is no URL; use nats://HOST:PORT")
		case u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			bad("--nats-server %q: use nats://HOST:PORT or tls://HOST:PORT", u.Redacted())
		}
	}
	if c.Namespace == "" || len(c.Namespace) > 256 {
		bad("a namespace must have 1 to 256 bytes")
	}
	if c.Heartbeat <= 0 || c.Silence <= c.Heartbeat || c.Answer <= 0 {
		bad("heartbeats and answers must take some time, and silence longer than a heartbeat")
	}
	return errors.Join(errs...)
}

// servers is the URL without what is secret in it.
func (c Config) servers() string {
	var all []string
	for server := range strings.SplitSeq(c.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(server)); err == nil {
			all = append(all, u.Redacted())
		}
	}
	return strings.Join(all, ",")
}
