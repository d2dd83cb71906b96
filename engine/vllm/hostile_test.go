package vllm_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/kvbm"
)

// msgpack writes the few things that batches of events are made of.
type msgpack []byte

func (m msgpack) array(n int) msgpack { return append(m, 0x90|byte(n)) }
func (m msgpack) object(n int) msgpack {
	return append(m, 0x80|byte(n))
}
func (m msgpack) text(s string) msgpack { return append(append(m, 0xa0|byte(len(s))), s...) }
func (m msgpack) null() msgpack         { return append(m, 0xc0) }
func (m msgpack) number(n uint64) msgpack {
	return binary.BigEndian.AppendUint64(append(m, 0xcf), n)
}
func (m msgpack) numbers(list ...uint64) msgpack {
	m = append(m, 0xdc, byte(len(list)>>8), byte(len(list)))
	for _, n := range list {
		m = m.number(n)
	}
	return m
}

// batch is a message of a rank with the events given.
func batch(rank uint64, events ...msgpack) []byte {
	m := append(msgpack(nil).array(3), 0xcb, 0x41, 0xda, 0xc0, 0x5a, 0x4d, 0x76, 0x0d, 0x91).array(len(events))
	for _, e := range events {
		m = append(m, e...)
	}
	return m.number(rank)
}

// storedEvent is of one block; parent 0 is none.
func storedEvent(hash, parent, seed uint64) msgpack {
	ids := make([]uint64, fakeBlock)
	for i := range ids {
		ids[i] = (seed + uint64(i)) % fakeVocab
	}
	m := msgpack(nil).object(5).text("type").text("BlockStored").text("block_hashes").numbers(hash).text("parent_block_hash")
	if parent == 0 {
		m = m.null()
	} else {
		m = m.number(parent)
	}
	return m.text("token_ids").numbers(ids...).text("block_size").number(fakeBlock)
}

func removedEvent(hash uint64) msgpack {
	return msgpack(nil).object(2).text("type").text("BlockRemoved").text("block_hashes").numbers(hash)
}

// ranksLedger is what a sink was told of each rank.
type ranksLedger struct {
	sync.Mutex
	held    map[int]int
	cleared map[int]int
}

func newRanksLedger() *ranksLedger {
	return &ranksLedger{held: map[int]int{}, cleared: map[int]int{}}
}

func (l *ranksLedger) take(b *eventBatch) {
	l.Lock()
	defer l.Unlock()
	for _, e := range b.Events {
		switch e.Kind {
		case kvbm.Stored:
			l.held[b.Rank] += len(e.Blocks)
		case kvbm.Removed:
			l.held[b.Rank] -= len(e.Hashes)
		case kvbm.Cleared:
			l.held[b.Rank] = 0
			l.cleared[b.Rank]++
		}
	}
}

func (l *ranksLedger) of(rank int) (held, cleared int) {
	l.Lock()
	defer l.Unlock()
	return l.held[rank], l.cleared[rank]
}

// inARow listens on n ports that follow each other.
func inARow(t *testing.T, n int) []net.Listener {
	t.Helper()
	for range 50 {
		var list []net.Listener
		port := 0
		for i := range n {
			next := 0
			if i > 0 {
				next = port + i
			}
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next))
			if err != nil {
				break
			}
			t.Cleanup(func() { _ = l.Close() })
			list = append(list, l)
			if i == 0 {
				port = l.Addr().(*net.TCPAddr).Port
			}
		}
		if len(list) == n {
			return list
		}
	}
	t.Fatalf("no %d ports in a row are free", n)
	return nil
}

// publisher serves events and replays until the test ends.
func publisher(t *testing.T, live, replay net.Listener) *kvwire.Publisher {
	p := kvwire.NewPublisher(kvwire.PublisherConfig{Topic: "kv-events", Ring: 100})
	go func() { _ = p.Serve(live) }() // both until Close
	go func() { _ = p.ServeReplay(replay) }()
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Each rank has its own ports, and its blocks are told under its number. One that
// says nothing holds up none of the others. The load is that of all.
func TestRanks(t *testing.T) {
	live, replay := inARow(t, 3), inARow(t, 3)
	ranks := []*kvwire.Publisher{publisher(t, live[0], replay[0]), nil, publisher(t, live[2], replay[2])} // the second takes connections and is silent
	f := newFake()
	f.sources = ""
	f.metrics = ""
	for i, n := range []struct{ blocks, running, usage string }{{"40", "4", "1.0"}, {"100", "2", "0.5"}, {"100", "1", "0.25"}} {
		rank := (i + 2) % 3 // in no order
		f.metrics += fmt.Sprintf("vllm:cache_config_info{block_size=\"%d\",enable_prefix_caching=\"True\",engine=\"%d\",num_gpu_blocks=\"%s\"} 1.0\nvllm:num_requests_running{engine=\"%d\"} %s\nvllm:kv_cache_usage_perc{engine=\"%d\"} %s\n",
			fakeBlock, rank, n.blocks, rank, n.running, rank, n.usage)
	}
	l := newRanksLedger()
	c := config(f.start(t).URL)
	c.EventsEndpoint, c.ReplayEndpoint, c.Topic = "tcp://"+live[0].Addr().String(), "tcp://"+replay[0].Addr().String(), "kv-events"
	c.Events, c.PollEvery = l.take, 10*time.Millisecond
	e := open(t, c)
	i := e.Info()
	if i.Ranks != 3 || i.KVBlocks != 240 || len(i.Sources) != 3 {
		t.Fatalf("got %+v", i)
	}
	for rank, s := range i.Sources {
		want := vllm.Source{Rank: rank, Endpoint: "tcp://" + live[rank].Addr().String(), ReplayEndpoint: "tcp://" + replay[rank].Addr().String(), Topic: "kv-events"}
		if s != want {
			t.Errorf("got the source %v, want %v", s, want)
		}
	}
	ranks[0].Publish(batch(0, storedEvent(11, 0, 1), storedEvent(12, 11, 2)))
	ranks[2].Publish(batch(2, storedEvent(11, 0, 1)))
	stop := running(t, e)
	waitFor(t, "the events", func() bool {
		first, _ := l.of(0)
		third, _ := l.of(2)
		return first == 2 && third == 1
	})
	want := engine.Load{Running: 7, KVBlocks: 240, KVUsed: 50 + 25 + 40}
	waitFor(t, "the load", func() bool { return e.Load() == want })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if held, _ := l.of(1); held != 0 {
		t.Errorf("%d blocks of the silent rank", held)
	}
}

// Events of an engine that has begun anew start at number 0: what was known goes,
// whether it publishes at once or not.
func TestEventsAfterRestart(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent=%t", silent), func(t *testing.T) {
			live, replay := inARow(t, 1)[0], inARow(t, 1)[0]
			p := publisher(t, live, replay)
			f := newFake()
			f.sources = ""
			l := newRanksLedger()
			c := config(f.start(t).URL)
			c.EventsEndpoint, c.ReplayEndpoint, c.Topic = "tcp://"+live.Addr().String(), "tcp://"+replay.Addr().String(), "kv-events"
			c.Events = l.take
			e := open(t, c)
			for hash := uint64(1); hash < 6; hash++ {
				p.Publish(batch(0, storedEvent(hash, hash-1, hash)))
			}
			stop := running(t, e)
			waitFor(t, "the first life", func() bool { held, _ := l.of(0); return held == 5 })
			_, before := l.of(0)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			again := func(was net.Listener) net.Listener {
				l, err := net.Listen("tcp", was.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			p = publisher(t, again(live), again(replay))
			want := 0
			if !silent {
				want = 2
				p.Publish(batch(0, storedEvent(7, 0, 7)))
				p.Publish(batch(0, storedEvent(8, 7, 8)))
			}
			waitFor(t, "the second life", func() bool { held, cleared := l.of(0); return held == want && cleared > before })
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Events of blocks that nobody stored, and what is no event, change nothing and end
// nothing.
func TestEventsOfNothing(t *testing.T) {
	live, replay := inARow(t, 1)[0], inARow(t, 1)[0]
	p := publisher(t, live, replay)
	f := newFake()
	f.sources = ""
	l := newRanksLedger()
	c := config(f.start(t).URL)
	// The endpoint has the form that a supervised server is given.
	c.EventsEndpoint, c.ReplayEndpoint, c.Topic = "tcp://[::ffff:127.0.0.1]:"+strconv.Itoa(live.Addr().(*net.TCPAddr).Port), "tcp://"+replay.Addr().String(), "kv-events"
	c.Events = l.take
	e := open(t, c)
	p.Publish(batch(0, removedEvent(99), storedEvent(5, 98, 3), removedEvent(5), removedEvent(5)))
	p.Publish(batch(0, storedEvent(1, 0, 1), storedEvent(1, 0, 1), removedEvent(1), removedEvent(1)))
	p.Publish(batch(0, storedEvent(2, 0, 2)))
	stop := running(t, e)
	waitFor(t, "the block that is there", func() bool { held, _ := l.of(0); return held == 1 })
	waitFor(t, "the subscription", func() bool { return p.Subscribers() > 0 })
	p.Publish([]byte("rubbish"))
	p.Publish(batch(0, storedEvent(3, 0, 3)))
	waitFor(t, "what comes after rubbish", func() bool { held, _ := l.of(0); return held > 0 })
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A server that counts other ids than it sends is said to once, and the ids count.
func TestMiscount(t *testing.T) {
	f := newFake()
	f.mischief = func(w http.ResponseWriter, _ *http.Request, sent int) bool {
		if sent == 0 {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, piece+"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n", "5,6", `"stop"`)
		}
		return sent == 0
	}
	j := &journal{}
	c := config(f.start(t).URL)
	c.Logger = slog.New(j)
	e := open(t, c)
	for range 3 {
		a, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 10, StopTokens: []dynamo.TokenID{6}})
		if err != nil || a.Usage.Completion != 2 || len(a.Tokens) != 2 {
			t.Errorf("got %+v, %v", a, err)
		}
	}
	if n := strings.Count(j.said(), "counts other ids"); n != 1 {
		t.Errorf("said %d times: %s", n, j.said())
	}
}

// Metrics that are too long to be any are not read, and hold nothing up.
func TestHugeMetrics(t *testing.T) {
	f := newFake()
	var huge atomic.Bool
	read := make(chan struct{}, 100)
	f.mischief = func(w http.ResponseWriter, _ *http.Request, sent int) bool {
		if sent >= 0 || !huge.Load() {
			return false
		}
		line := []byte(strings.Repeat("vllm:num_requests_running{engine=\"0\"} 1\n", 1000))
		for n := 0; n < 10<<20; n += len(line) {
			if _, err := w.Write(line); err != nil {
				break
			}
		}
		select {
		case read <- struct{}{}:
		default:
		}
		return true
	}
	c := config(f.start(t).URL)
	c.PollEvery = time.Millisecond
	e := open(t, c)
	huge.Store(true)
	stop := running(t, e)
	<-read
	<-read
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Error(err)
	}
	if l := e.Load(); l.Running > 3 {
		t.Errorf("got %+v", l)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	huge.Store(true)
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "enough"})
	defer cancel()
	if err := e.Ready(ctx); err == nil || !strings.Contains(err.Error(), "/metrics with more than") {
		t.Errorf("got %v", err)
	}
}

// A server that wants a key says so in words an operator can act on.
func TestKeyRefused(t *testing.T) {
	f := newFake()
	e := open(t, config(f.start(t).URL))
	f.mischief = func(w http.ResponseWriter, _ *http.Request, sent int) bool {
		if sent == 0 {
			fault(w, 401, "Unauthorized", "")
		}
		return sent == 0
	}
	_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5})
	if dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "wants an API key") || !strings.Contains(err.Error(), "--engine-api-key") {
		t.Errorf("got %v", err)
	}
}

// A server of an https URL is trusted by the certificates given and by no others.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(newFake())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	c := config(s.URL)
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	c.TLS.RootCAs.AddCert(s.Certificate())
	if _, err := enginetest.Collect(t.Context(), open(t, c), &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Error(err)
	}
	c.TLS, c.ReadyTimeout = nil, 3*time.Second
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ready(t.Context()); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want the certificate refused", err)
	}
}

// A request that ends every engine it meets ends itself: it is asked again as often
// as any, and no more. One that an engine merely fails at is not asked again.
func TestPoisonBounded(t *testing.T) {
	for _, c := range []struct {
		name, message string
		limit, want   int64
	}{
		{"kills", "EngineCore encountered an issue. See stack trace (above) for the root cause.", 2, 3},
		{"fails", "list index out of range", 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.mischief = func(w http.ResponseWriter, _ *http.Request, sent int) bool {
				if sent == 0 {
					fault(w, 500, c.message, "")
				}
				return sent == 0
			}
			e := open(t, config(f.start(t).URL))
			mc := engine.DefaultMigrateConfig()
			mc.Limit, mc.Card = int(c.limit), e.Card()
			m, err := engine.NewMigrate(e, mc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := enginetest.Collect(t.Context(), m, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err == nil {
				t.Error("an answer came")
			}
			if got := f.requests.Load(); got != c.want {
				t.Errorf("asked %d times, want %d", got, c.want)
			}
		})
	}
}

// Endpoints that nobody can connect to are told of, and followed by nobody.
func TestEventsElsewhere(t *testing.T) {
	for endpoint, want := range map[string]bool{"tcp://*:5557": true, "tcp://[::]:5557": true, "ipc:///run/events": true, "tcp://10.0.0.1:5557": false, "inproc://events": false} {
		f := newFake()
		f.sources = fmt.Sprintf(`{"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":%q,"replay_endpoint":"tcp://*:5558"},"-1":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:1"}}`, endpoint)
		i := open(t, config(f.start(t).URL)).Info()
		told := strings.Contains(strings.Join(i.Notes, "\n"), endpoint+", where nobody listens")
		if len(i.Sources) == 1 != want || told == want {
			t.Errorf("%s: got the sources %v and the notes %q", endpoint, i.Sources, i.Notes)
		}
	}
}

// A server that was attached to and has gone is down, and one that comes back is not.
func TestAttachedServerGone(t *testing.T) {
	f := newFake()
	s := httptest.NewServer(f)
	address := s.Listener.Addr().String()
	c := config(s.URL)
	c.PollEvery = 5 * time.Millisecond
	e := open(t, c)
	stop := running(t, e)
	s.Close()
	waitFor(t, "the engine to be down", func() bool { return e.Load().Down })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	again := httptest.NewUnstartedServer(f)
	again.Listener.Close()
	again.Listener = l
	again.Start()
	defer again.Close()
	waitFor(t, "the engine to be back", func() bool { return !e.Load().Down })
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
