package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

func TestExchange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{
			"count": {Serve: count(3)}, "mirror": {Serve: mirror},
			"request": {Serve: func(_ context.Context, s *rpc.Stream) error { return s.Send(fmt.Append(nil, len(s.Request()))) }},
		}, options{})
		got, err := all(open(t, p.peer, "count", "ab"))
		if strings.Join(got, ",") != "ab,ab,ab" || !errors.Is(err, io.EOF) {
			t.Fatalf("got %q, %v; want ab three times and EOF", got, err)
		}
		if got, _ := all(open(t, p.peer, "count", "")); len(got) != 3 || got[0] != "" {
			t.Fatalf("got %q, want three empty messages", got)
		}
		for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, 1 << 20} {
			if got, err := all(open(t, p.peer, "request", strings.Repeat("x", n))); len(got) != 1 || got[0] != fmt.Sprint(n) {
				t.Fatalf("request of %d bytes: got %q, %v", n, got, err)
			}
		}
		s := open(t, p.peer, "mirror", "")
		for _, n := range []int{0, 1, 65, 16<<10 - 1, 16 << 10, 64 << 10, 3 << 20} {
			want := bytes.Repeat([]byte{byte(n), 'z'}, n/2)
			sent := make(chan error, 1)
			go func() { sent <- s.Send(want) }()
			got, err := s.Recv()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("message of %d bytes: %d came back, %v", n, len(got), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		// Half closed, the stream goes on in the other direction until the end.
		if err := errors.Join(s.Send([]byte("last")), s.CloseSend(), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if got, err := all(s); len(got) != 1 || got[0] != "last" || !errors.Is(err, io.EOF) {
			t.Fatalf("after CloseSend: got %q, %v", got, err)
		}
		<-s.Done()
		if s.Send([]byte("x")) == nil {
			t.Fatal("a message could be sent after CloseSend")
		}
	})
}

func TestErrorsTravel(t *testing.T) {
	want := &dynamo.Error{Kind: dynamo.KindExhausted, Message: "full", Param: "n", Code: "queue_full", RetryAfter: 1500 * time.Millisecond, Err: errors.New("beneath")}
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{
			"typed":    {Serve: func(_ context.Context, s *rpc.Stream) error { return errors.Join(s.Send([]byte("one")), want) }},
			"plain":    {Serve: func(context.Context, *rpc.Stream) error { return errors.New("disk on fire") }},
			"long":     {Serve: func(context.Context, *rpc.Stream) error { return &dynamo.Error{Message: strings.Repeat("é", 40_000)} }},
			"refusing": {Serve: hold, Admit: func() error { return want }},
		}, options{})
		for _, method := range []string{"typed", "refusing"} {
			messages, err := all(open(t, p.peer, method, ""))
			got := *asError(t, err)
			if got.Err == nil || got.Err.Error() != "beneath" {
				t.Errorf("%s: the cause is %v", method, got.Err)
			}
			got.Err = want.Err
			if got != *want {
				t.Errorf("%s: got %+v, want %+v", method, got, *want)
			}
			if (method == "typed") != (len(messages) == 1) {
				t.Errorf("%s: %d messages came before the error", method, len(messages))
			}
		}
		_, err := all(open(t, p.peer, "plain", ""))
		if e := asError(t, err); e.Kind != dynamo.KindInternal || e.Message == "" || !strings.Contains(err.Error(), "disk on fire") {
			t.Errorf("an error without kind became %v %q", e.Kind, err)
		}
		_, err = all(open(t, p.peer, "long", ""))
		if n := len(asError(t, err).Message); n < 1000 || n > 4096 {
			t.Errorf("a message of 80000 bytes became one of %d", n)
		}
		_, err = all(open(t, p.peer, "nowhere", strings.Repeat("x", 1000)))
		if e := asError(t, err); e.Kind != dynamo.KindNotFound || !strings.Contains(e.Message, "long, plain, refusing, typed") {
			t.Errorf("unknown endpoint: %v", err)
		}
		// A refusal reaches an Open that waits for credit.
		if _, err := p.peer.Open(t.Context(), rpc.Call{Method: "nowhere", Request: make([]byte, 4<<20)}); dynamo.KindOf(err) != dynamo.KindNotFound {
			t.Errorf("large request to an unknown endpoint: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		p := connect(t, map[string]rpc.Endpoint{"unread": {Serve: hold}, "hold": {Serve: func(ctx context.Context, s *rpc.Stream) error {
			err := hold(ctx, s)
			if obs.Trace(ctx) != "00-1-2-03" {
				t.Errorf("trace context %q", obs.Trace(ctx))
			}
			time.Sleep(time.Minute) // whatever the handler has to clear up
			causes <- err
			return err
		}}}, options{})
		ctx, cancel := context.WithCancelCause(obs.WithTrace(t.Context(), "00-1-2-03"))
		defer cancel(nil)
		for name, give := range map[string]struct {
			up   func(*rpc.Stream)
			kind dynamo.Kind
		}{
			"cancel":  {func(s *rpc.Stream) { s.Cancel(errors.New("enough")); s.Cancel(errors.New("again")) }, dynamo.KindCancelled},
			"context": {func(*rpc.Stream) { cancel(&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "enough"}) }, dynamo.KindUnavailable},
		} {
			s, err := p.peer.Open(ctx, rpc.Call{Method: "hold"})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			began := time.Now()
			go give.up(s)
			if _, err := s.Recv(); dynamo.KindOf(err) != give.kind || !strings.Contains(err.Error(), "enough") {
				t.Fatalf("%s: Recv returned %v", name, err)
			}
			if err := s.Send([]byte("x")); dynamo.KindOf(err) != give.kind {
				t.Fatalf("%s: Send returned %v", name, err)
			}
			elapsed(t, began, 0, time.Second)
			<-s.Done()
			elapsed(t, began, time.Minute, time.Minute+time.Second)
			if err := <-causes; asError(t, err).Kind != give.kind || !strings.Contains(err.Error(), "enough") {
				t.Fatalf("%s: the handler was told %v", name, err)
			}
			ctx, cancel = context.WithCancelCause(obs.WithTrace(t.Context(), "00-1-2-03"))
			defer cancel(nil)
		}
		// A stream that was given up frees a sender that waits for credit, on both sides.
		s := open(t, p.peer, "unread", "")
		go func() { time.Sleep(time.Second); s.Cancel(nil) }()
		for err := error(nil); err == nil; {
			if err = s.Send(make([]byte, 60<<10)); err != nil {
				wantCode(t, err, dynamo.KindCancelled, "")
			}
		}
	})
}

func TestDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 2)
		p := connect(t, map[string]rpc.Endpoint{
			"hold": {Serve: func(ctx context.Context, s *rpc.Stream) error {
				err := hold(ctx, s)
				causes <- err
				return err
			}},
			"flood": {Serve: func(_ context.Context, s *rpc.Stream) error {
				for {
					if err := s.Send(make([]byte, 1000)); err != nil {
						causes <- err
						return err
					}
				}
			}},
		}, options{})
		for _, method := range []string{"hold", "flood"} {
			began := time.Now()
			s, err := p.peer.Open(t.Context(), rpc.Call{Method: method, Deadline: began.Add(3 * time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			<-s.Done()
			elapsed(t, began, 3*time.Second, 3*time.Second+time.Millisecond)
			wantCode(t, <-causes, dynamo.KindDeadline, "")
			if _, err := all(s); dynamo.KindOf(err) != dynamo.KindDeadline {
				t.Fatalf("%s: Recv returned %v", method, err)
			}
		}
		if _, err := p.peer.Open(t.Context(), rpc.Call{Method: "hold", Deadline: time.Now()}); dynamo.KindOf(err) != dynamo.KindDeadline {
			t.Fatalf("Open past its deadline: %v", err)
		}
		// The client's side does not need the server for it.
		s, err := p.peer.Open(t.Context(), rpc.Call{Method: "hold", Deadline: time.Now().Add(time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.net.PartitionBoth("front", "work")
		began := time.Now()
		if _, err := s.Recv(); dynamo.KindOf(err) != dynamo.KindDeadline {
			t.Fatal(err)
		}
		elapsed(t, began, time.Second, time.Second+time.Millisecond)
		p.net.HealAll()
	})
}

// TestSlowReader leaves one stream unread while another carries many times its
// window.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		sent := 0
		p := connect(t, map[string]rpc.Endpoint{
			"count": {Serve: count(5000)},
			"flood": {Serve: func(_ context.Context, s *rpc.Stream) error {
				for range 5000 {
					if err := s.Send(s.Request()); err != nil {
						return err
					}
					mu.Lock()
					sent++
					mu.Unlock()
				}
				return nil
			}},
		}, options{client: func(c *rpc.Config) { c.WindowBytes = 32 << 10 }})
		slow := open(t, p.peer, "flood", strings.Repeat("s", 1000))
		synctest.Wait()
		mu.Lock()
		if sent < 25 || sent > 33 {
			t.Errorf("%d messages of 1000 bytes were sent into a window of 32 KiB", sent)
		}
		mu.Unlock()
		if got, err := all(open(t, p.peer, "count", strings.Repeat("f", 1000))); len(got) != 5000 || !errors.Is(err, io.EOF) {
			t.Fatalf("beside an unread stream: %d messages, %v", len(got), err)
		}
		time.Sleep(time.Hour) // pings go on
		if got, err := all(slow); len(got) != 5000 || !errors.Is(err, io.EOF) {
			t.Fatalf("the slow stream: %d messages, %v", len(got), err)
		}
		if got := p.changes(); len(got) != 1 {
			t.Fatalf("the connection changed: %q", got)
		}
	})
}

func TestLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"hold": {Serve: hold}, "mirror": {Serve: mirror}, "count": {Serve: count(1)}}, options{
			server: func(c *rpc.ServerConfig) { c.MaxStreams, c.MaxMessageBytes = 3, 1000 },
			client: func(c *rpc.Config) { c.MaxMessageBytes = 500 },
		})
		var held []*rpc.Stream
		for range 3 {
			held = append(held, open(t, p.peer, "hold", ""))
		}
		_, err := p.peer.Open(t.Context(), rpc.Call{Method: "hold"})
		wantCode(t, err, dynamo.KindExhausted, engine.CodeRefused)
		held[1].Cancel(nil)
		<-held[1].Done()
		s := open(t, p.peer, "mirror", "")
		if err := s.Send(make([]byte, 1001)); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Fatalf("a message above the receiver's limit: %v", err)
		}
		// What the server sends is bounded by what the client takes.
		if err := s.Send(make([]byte, 501)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Fatalf("an answer above the client's limit: %v", err)
		}
		<-s.Done()
		if _, err := p.peer.Open(t.Context(), rpc.Call{Method: "count", Request: make([]byte, 1001)}); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Fatalf("a request above the limit: %v", err)
		}
		for _, m := range []string{"", strings.Repeat("m", 129)} {
			if _, err := p.peer.Open(t.Context(), rpc.Call{Method: m}); dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Fatalf("method of %d bytes: %v", len(m), err)
			}
		}
		// Slots are used again and again.
		for range 10_000 {
			if got, err := all(open(t, p.peer, "count", "x")); len(got) != 1 || !errors.Is(err, io.EOF) {
				t.Fatal(got, err)
			}
		}
	})
}

// TestMany has many streams open, cancel and end at once over a few connections.
func TestMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"count": {Serve: count(50)}, "hold": {Serve: hold}, "mirror": {Serve: mirror}}, options{
			client: func(c *rpc.Config) { c.Connections, c.WindowBytes = 3, 4<<10 },
		})
		var g sync.WaitGroup
		for i := range 300 {
			g.Go(func() {
				switch i % 3 {
				case 0:
					if got, err := all(open(t, p.peer, "count", fmt.Sprint(i))); len(got) != 50 || got[49] != fmt.Sprint(i) {
						t.Errorf("stream %d: %d messages, %v", i, len(got), err)
					}
				case 1:
					s := open(t, p.peer, "hold", "")
					s.Cancel(nil)
					<-s.Done()
				case 2:
					s := open(t, p.peer, "mirror", "")
					for n := range 40 {
						if err := s.Send(make([]byte, n*i)); err != nil {
							t.Error(err)
						}
						if m, err := s.Recv(); err != nil || len(m) != n*i {
							t.Errorf("stream %d: %d bytes of %d, %v", i, len(m), n*i, err)
						}
					}
					if err := s.CloseSend(); err != nil {
						t.Error(err)
					}
					if _, err := s.Recv(); !errors.Is(err, io.EOF) {
						t.Error(err)
					}
				}
			})
		}
		g.Wait()
	})
}

// TestAllocations: a message costs no allocation on either side.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	p := real(t, "tcp", map[string]rpc.Endpoint{"mirror": {Serve: mirror}}, nil)
	s := open(t, p, "mirror", "")
	message := make([]byte, 64)
	trip := func() {
		if err := s.Send(message); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		trip()
	}
	if got := testing.AllocsPerRun(2000, trip); got >= 1 {
		t.Errorf("a message there and back allocates %v times, want 0", got)
	}
}
