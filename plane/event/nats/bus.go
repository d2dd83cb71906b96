package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
)

// Bus is a connection to a NATS server.
type Bus struct {
	config Config
	logger *slog.Logger
	conn   *nats.Conn

	mu struct {
		sync.Mutex
		closed   bool
		attached map[string]*attachment // by topic and worker
	}
}

var _ event.Bus = (*Bus)(nil)

// Open connects to the server, which must be there; later the connection mends
// itself. Close ends it.
func Open(c Config) (*Bus, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &Bus{config: c, logger: obs.For(c.Logger, "event")}
	b.mu.attached = map[string]*attachment{}
	var err error
	if b.conn, err = nats.Connect(c.URL, b.options()...); err != nil {
		return nil, &dynamo.Error{
			Kind: dynamo.KindUnavailable, Err: err,
			Message: "no connection to the NATS server at " + c.servers() + "; start it, or name another by --nats-server, or use --event-plane rpc, which needs none",
		}
	}
	return b, nil
}

func (b *Bus) options() []nats.Option {
	options := []nats.Option{
		nats.Name("dynamo"),
		nats.Timeout(connectMax), nats.FlusherTimeout(writeMax),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(pingsUnanswered),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), // the rings keep what it misses
		nats.IgnoreAuthErrorAbort(), // a server may come back before its users do
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			return min(reconnectMin<<min(attempts, 10), reconnectMax)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil is a Close
				b.logger.Warn("the NATS server is lost; events wait in their publishers' rings until it is back",
					obs.KeyAddress, b.config.servers(), obs.KeyError, err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			b.logger.Info("the NATS server is back", obs.KeyAddress, b.config.servers())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrSlowConsumer) { // its subscription asks for what it missed
				b.logger.Warn("the NATS server reports an error", obs.KeyError, err)
			}
		}),
	}
	if b.config.Dial != nil {
		options = append(options, nats.SetCustomDialer(dialer(b.config.Dial)))
	}
	return options
}

// dialer is a Config.Dial as the client wants it.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectMax)
	defer cancel()
	return d(ctx, network, address)
}

// Close detaches what is attached, ends subscriptions and the connection.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.mu.closed = true
	var all []*attachment
	for _, a := range b.mu.attached {
		all = append(all, a)
	}
	b.mu.Unlock()
	for _, a := range all {
		b.detach(a)
	}
	b.conn.Close()
	return nil
}

// batchBytes is the size of a batch that the server takes.
func (b *Bus) batchBytes() int {
	if limit := b.conn.MaxPayload(); limit > 0 {
		return int(min(limit, batchBytes))
	}
	return batchBytes
}

// anyLife stands for the epoch in a question to whichever life is there.
const anyLife = "any"

// subject names what is said or asked about a source.
func (b *Bus) subject(what string, src event.Source, epoch string) string {
	return "dynamo." + token(b.config.Namespace) + "." + what + "." + src.Topic + "." + src.Worker.String() + "." + epoch
}

func life(epoch uint64) string { return strconv.FormatUint(epoch, 16) }

// token makes a name a part of a subject.
func token(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
