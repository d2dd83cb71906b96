package etcd

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// beat is the stream over which a lease is renewed. It stays open from one
// renewal to the next, because with passwords each stream costs the server an
// authentication. The client library's KeepAlive would own goroutines and hide
// losses, and its KeepAliveOnce spins while there is no connection. A beat
// belongs to one goroutine; the zero beat is ready.
type beat struct {
	stream pb.Lease_LeaseKeepAliveClient // nil: none is open
	cancel context.CancelFunc
}

// renew renews the lease once. It returns the seconds that the lease has then;
// 0 says that there is no such lease. An error closes the stream, and the next
// call opens another.
func (b *beat) renew(ctx context.Context, conn *grpc.ClientConn, id clientv3.LeaseID) (left int64, err error) {
	var life context.Context
	if b.stream == nil {
		life, b.cancel = context.WithCancel(context.WithoutCancel(ctx)) // outlives this call
	}
	stop := context.AfterFunc(ctx, b.cancel)
	defer func() {
		if !stop() || err != nil {
			b.close()
		}
	}()
	if b.stream == nil {
		if b.stream, err = pb.NewLeaseClient(conn).LeaseKeepAlive(life, grpc.WaitForReady(true)); err != nil {
			return 0, err
		}
	}
	if err := b.stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, err
	}
	answer, err := b.stream.Recv()
	if err != nil {
		return 0, err
	}
	return max(answer.TTL, 0), nil
}

// close hangs up, if there is a stream.
func (b *beat) close() {
	if b.cancel != nil {
		b.cancel()
	}
	b.stream, b.cancel = nil, nil
}
