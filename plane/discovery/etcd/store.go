package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// root is the prefix of all keys.
const root = "/dynamo/instances/"

// Store keeps instances in etcd.
type Store struct {
	client   *clientv3.Client
	where    string // the endpoints, for messages
	ttl      time.Duration
	patience time.Duration // openMax, but in tests
	log      *slog.Logger
	metrics  *discovery.Metrics

	mu struct {
		sync.Mutex
		closed        bool
		registrations map[*registration]struct{}
		watches       map[*context.CancelFunc]struct{}
	}
}

var _ discovery.Store = (*Store)(nil)

// Open reaches the etcd that name names. It fails when none answers within 5 s;
// once open, a store outlives every loss of its etcd.
func Open(name string, c discovery.Config) (*Store, error) {
	t, err := parseName(name)
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Store{where: t.String(), ttl: c.TTL, patience: openMax, log: obs.For(c.Logger, "discovery").With(obs.KeyAddress, t.String()), metrics: c.Metrics}
	s.mu.registrations = map[*registration]struct{}{}
	s.mu.watches = map[*context.CancelFunc]struct{}{}
	if s.client, err = clientv3.New(t.config()); err != nil {
		return nil, s.failure(err)
	}
	err = s.insist(context.Background(), func(ctx context.Context) error {
		_, err := s.client.Get(ctx, root, clientv3.WithCountOnly())
		return err
	})
	if err != nil {
		_ = s.client.Close() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// config is the client's configuration: one that logs nothing and reconnects
// within retryMax.
func (t *target) config() clientv3.Config {
	reconnect := backoff.Config{BaseDelay: retryMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: retryMax}
	return clientv3.Config{
		Endpoints: t.endpoints(), Username: t.user, Password: t.password, TLS: t.tls,
		DialTimeout:          openMax,
		DialKeepAliveTime:    10 * time.Second, // for hosts that vanish; silence is found by probes
		DialKeepAliveTimeout: 3 * time.Second,
		MaxCallRecvMsgSize:   maxResponseBytes,
		MaxUnaryRetries:      unaryRetries, // how a request finds another endpoint and renews its token
		BackoffWaitBetween:   retryMin,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: requestMax})},
		Logger:               zap.NewNop(), // what matters comes back as an error
	}
}

// Close takes all entries of this store's registrations back, ends its watches
// and hangs up.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.mu.closed
	s.mu.closed = true
	var all []*registration
	for r := range s.mu.registrations {
		all = append(all, r)
	}
	for cancel := range s.mu.watches {
		(*cancel)()
	}
	s.mu.Unlock()
	if closed {
		return nil
	}
	var g sync.WaitGroup
	for _, r := range all {
		g.Go(func() { _ = r.Close() }) // it has no error to tell
	}
	g.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("hang up on etcd at %s: %w", s.where, err)
	}
	return nil
}

func (s *Store) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.closed
}

// insist repeats attempt until it succeeds, fails for good, or patience is over.
func (s *Store) insist(ctx context.Context, attempt func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for n := 0; ; n++ {
		err := s.once(limit, attempt)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ended(ctx)
		case s.closed():
			return closedError()
		case !transient(err):
			return s.failure(err)
		}
		if !s.pause(limit, backOff(n, 0)) {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			return s.failure(err)
		}
	}
}

// once makes one attempt, within requestMax.
func (s *Store) once(ctx context.Context, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	return attempt(clientv3.WithRequireLeader(ctx))
}

// failure is what a caller is told of an error of the client library.
func (s *Store) failure(err error) error {
	var known *dynamo.Error
	if errors.As(err, &known) {
		return err
	}
	e := &dynamo.Error{Err: err, Param: "--discovery-backend"}
	switch {
	case transient(err):
		e.Kind = dynamo.KindUnavailable
		e.Message = fmt.Sprintf("etcd at %s cannot be reached; start it, or name another place with --discovery-backend", s.where)
	default:
		e.Kind = dynamo.KindInvalid
		e.Message = fmt.Sprintf("etcd at %s refuses; see what it says, and --discovery-backend etcd://USER:PASSWORD@HOST:PORT", s.where)
	}
	return e
}

// transient reports whether an error may be gone with the next attempt.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return true
	}
	var known rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &known) {
		code = known.Code()
	}
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.FailedPrecondition, codes.ResourceExhausted, codes.Unimplemented:
		return false
	}
	return true
}

// ended is the error of an operation whose context is over.
func ended(ctx context.Context) error {
	return fmt.Errorf("wait for etcd: %w", context.Cause(ctx))
}

// closedError is what a closed store answers.
func closedError() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "this store is closed"}
}

// sleep waits, and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits before another attempt, and no longer than until there is a
// connection again. It reports whether ctx goes on.
func (s *Store) pause(ctx context.Context, d time.Duration) bool {
	conn := s.client.ActiveConnection()
	state := conn.GetState()
	if state == connectivity.Ready {
		return sleep(ctx, d)
	}
	limit, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for state != connectivity.Ready && conn.WaitForStateChange(limit, state) {
		state = conn.GetState()
	}
	return ctx.Err() == nil
}

// backOff is the pause after the n-th failure in a row, from 0. A lot spreads
// those who lost the same etcd, by up to a quarter.
func backOff(n int, lot uint64) time.Duration {
	d := retryMax
	if n < 5 {
		d = min(retryMax, retryMin<<n)
	}
	x := (lot ^ uint64(n)) * 0x9e3779b97f4a7c15
	return d - time.Duration(x>>32)*(d/4)>>32
}

// prefix returns what the keys of p begin with.
func prefix(p discovery.Path) string {
	var b strings.Builder
	b.WriteString(root)
	for _, part := range []string{p.Namespace, p.Component, p.Endpoint} {
		if part == "" {
			break
		}
		b.WriteString(part)
		b.WriteByte('/')
	}
	return b.String()
}

// keyOf returns the key of an instance.
func keyOf(p discovery.Path, id dynamo.WorkerID) string { return prefix(p) + id.String() }
