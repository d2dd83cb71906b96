package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dynamo-go/dynamo/plane/rpc"
)

// The shape of BenchmarkStreams and BenchmarkGRPC.
const (
	benchStreams  = 1000
	benchMessages = 200
	benchBytes    = 64
)

var benchPayload = make([]byte, benchBytes)

// listenOn listens on loopback, or on a Unix socket, and returns the address
// for a peer.
func listenOn(tb testing.TB, network string) (net.Listener, string) {
	tb.Helper()
	target := "127.0.0.1:0"
	if network == "unix" {
		target = filepath.Join(tb.TempDir(), "s")
	}
	l, err := net.Listen(network, target)
	if err != nil {
		tb.Fatal(err)
	}
	return l, network + "://" + l.Addr().String()
}

// real connects a client to a server over real sockets.
func real(tb testing.TB, network string, handlers map[string]rpc.Endpoint, change func(server *rpc.ServerConfig, client *rpc.Config)) *rpc.Peer {
	tb.Helper()
	return realOn(tb, network, func(l net.Listener) net.Listener { return l }, handlers, change)
}

// realOn lets the caller wrap the listener.
func realOn(tb testing.TB, network string, wrap func(net.Listener) net.Listener, handlers map[string]rpc.Endpoint, change func(server *rpc.ServerConfig, client *rpc.Config)) *rpc.Peer {
	tb.Helper()
	_, p := realServer(tb, network, wrap, handlers, change)
	return p
}

// realServer returns the server too.
func realServer(tb testing.TB, network string, wrap func(net.Listener) net.Listener, handlers map[string]rpc.Endpoint, change func(server *rpc.ServerConfig, client *rpc.Config)) (*rpc.Server, *rpc.Peer) {
	tb.Helper()
	cfg := rpc.DefaultConfig()
	cfg.Key = testKey
	sc := rpc.ServerConfig{Config: cfg, Worker: 7, Epoch: 3}
	if change != nil {
		change(&sc, &cfg)
	}
	s, err := rpc.NewServer(sc)
	if err != nil {
		tb.Fatal(err)
	}
	for m, h := range handlers {
		s.Handle(m, h)
	}
	l, address := listenOn(tb, network)
	var g sync.WaitGroup
	g.Go(func() {
		if err := s.Serve(wrap(l)); err != nil {
			tb.Error(err)
		}
	})
	c, err := rpc.NewClient(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := c.Peer(rpc.PeerConfig{Addresses: []string{address}, Worker: 7, Epoch: 3, Changed: func(up bool, err error) {
		if !up && ctx.Err() == nil {
			tb.Logf("down: %v", err)
		}
	}})
	g.Go(func() { _ = p.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		g.Wait()
	})
	waiting, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if err := p.Wait(waiting); err != nil {
		tb.Fatal(err)
	}
	return s, p
}

func pump(_ context.Context, s *rpc.Stream) error {
	for range benchMessages {
		if err := s.Send(benchPayload); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkStreams sends 200 messages over each of 1,000 streams of one
// connection, both ends in this process.
func BenchmarkStreams(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			p := real(b, network, map[string]rpc.Endpoint{"pump": {Serve: pump}}, nil)
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				var n atomic.Int64
				var g sync.WaitGroup
				for range benchStreams {
					g.Go(func() {
						s, err := p.Open(b.Context(), rpc.Call{Method: "pump"})
						if err != nil {
							b.Error(err)
							return
						}
						got := int64(0)
						for {
							_, err := s.Recv()
							if errors.Is(err, io.EOF) {
								break
							}
							if err != nil {
								b.Error(err)
								return
							}
							got++
						}
						n.Add(got)
					})
				}
				g.Wait()
				if got, want := n.Load(), int64(benchStreams*benchMessages); got != want {
					b.Fatalf("%d messages, want %d", got, want)
				}
			}
			report(b, began)
		})
	}
}

// raw is gRPC's codec for bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *(v.(*[]byte)), nil }
func (raw) Unmarshal(d []byte, v any) error { *(v.(*[]byte)) = d; return nil }
func (raw) Name() string                    { return "raw" }

// BenchmarkGRPC does with gRPC what BenchmarkStreams does.
func BenchmarkGRPC(b *testing.B) {
	l, _ := listenOn(b, "tcp")
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.MaxConcurrentStreams(1<<20), grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<24), grpc.WriteBufferSize(1<<17), grpc.ReadBufferSize(1<<17))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "t", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{StreamName: "g", ServerStreams: true, Handler: func(_ any, st grpc.ServerStream) error {
		var q []byte
		if err := st.RecvMsg(&q); err != nil {
			return err
		}
		for range benchMessages {
			if err := st.SendMsg(&benchPayload); err != nil {
				return err
			}
		}
		return nil
	}}}}, new(any))
	go func() { _ = s.Serve(l) }() // ends with Stop
	b.Cleanup(s.Stop)
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})), grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<24), grpc.WithReadBufferSize(1<<17))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		var g sync.WaitGroup
		for range benchStreams {
			g.Go(func() {
				st, err := cc.NewStream(b.Context(), &grpc.StreamDesc{ServerStreams: true}, "/t/g")
				if err != nil {
					b.Error(err)
					return
				}
				if err := errors.Join(st.SendMsg(&benchPayload), st.CloseSend()); err != nil {
					b.Error(err)
					return
				}
				for {
					var m []byte
					if err := st.RecvMsg(&m); err != nil {
						return
					}
				}
			})
		}
		g.Wait()
	}
	report(b, began)
}

func echo(_ context.Context, s *rpc.Stream) error { return s.Send(s.Request()) }

// BenchmarkPingPong opens a stream and reads one message and the end.
func BenchmarkPingPong(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) {
			p := real(b, network, map[string]rpc.Endpoint{"echo": {Serve: echo}}, nil)
			b.ReportAllocs()
			var times []time.Duration
			for b.Loop() {
				t := time.Now()
				s, err := p.Open(b.Context(), rpc.Call{Method: "echo", Request: benchPayload})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := s.Recv(); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(t))
				if _, err := s.Recv(); !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1e3, "p99-µs")
		})
	}
}

// cpu returns the CPU time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report adds the rate, and the CPU time of both ends, which depends less on
// what else the machine does.
func report(b *testing.B, began time.Duration) {
	n := float64(benchStreams * benchMessages * b.N)
	b.ReportMetric(n/b.Elapsed().Seconds()/1e6, "Mmsg/s")
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/n, "cpu-ns/msg")
}
