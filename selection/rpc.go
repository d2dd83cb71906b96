package selection

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// ServeRPC answers the methods over rpc to the connections of l, which have proved that
// they hold the cluster key and need no other, until ctx ends. Then it lets the calls
// in progress end for at most Config.DrainTimeout, and ends all reservations, if Serve
// does not serve still.
func (s *Server) ServeRPC(ctx context.Context, c rpc.ServerConfig, l net.Listener) error {
	c.MaxStreams = min(c.MaxStreams, maxHandlers)
	srv, err := rpc.NewServer(c)
	if err != nil {
		return fmt.Errorf("serve the methods over rpc: %w", err)
	}
	for i := range methods {
		x := &methods[i]
		srv.Handle(rpcPrefix+x.name, rpc.Endpoint{Admit: s.admit, Serve: func(ctx context.Context, stream *rpc.Stream) error {
			return s.overRPC(ctx, x, stream)
		}})
	}
	defer s.serves(ctx)()
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		s.draining.Store(true)
		limit := time.NewTimer(s.config.DrainTimeout)
		defer limit.Stop()
		select {
		case <-s.inside.none():
		case <-limit.C:
			s.log.Warn("drain cuts calls off", obs.KeyDuration, s.config.DrainTimeout)
		}
		ended <- srv.Close()
	})
	err = srv.Serve(l)
	if stop() {
		err = fmt.Errorf("serve rpc: the listener ended: %w", errors.Join(err, srv.Close()))
	} else {
		err = <-ended
	}
	return err
}

// admit refuses a call before its message is read.
func (s *Server) admit() error {
	if s.inside.full() {
		return errCrowded
	}
	return nil
}

// overRPC answers a call: one message, or the error with its kind.
func (s *Server) overRPC(ctx context.Context, x *method, stream *rpc.Stream) error {
	if !s.inside.begin() {
		s.metrics.count(x, overRPC, errCrowded)
		return errCrowded
	}
	defer s.inside.end()
	answer, err := s.invoke(ctx, x, &message{body: stream.Request()})
	s.metrics.count(x, overRPC, err)
	if err != nil {
		return err
	}
	return stream.Send(answer) // where that fails, a lease ends what is reserved
}
