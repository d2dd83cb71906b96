package kvwire

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"sync"
)

// PublisherConfig says what a Publisher is like.
type PublisherConfig struct {
	Topic string
	// Ring is the number of messages that can be replayed; vLLM's default is 10000.
	Ring int
	// OldReplay answers replays without the topic, as vLLM up to 0.25 and SGLang.
	OldReplay bool
	// LoseEvery is the number of answers to a replay of which one is lost, as by a
	// socket that is read too slowly; 0 loses none.
	LoseEvery int
}

// Publisher is the engine's side of the event sockets, for tests and servers that
// play an engine: a PUB socket, and a ROUTER socket for replays. It owns the
// connections that its listeners accept and one goroutine, or two, for each.
type Publisher struct {
	config PublisherConfig
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		next        uint64
		ring        []published
		listeners   []net.Listener
		conns       map[net.Conn]bool
		subscribers []*subscriber
		closed      bool
	}
}

type published struct {
	seq     uint64
	payload []byte
}

// subscriber is a connection of the PUB socket; its queue is never closed.
type subscriber struct {
	z     *conn
	queue chan published
	mu    struct {
		sync.Mutex
		topics [][]byte
	}
}

// NewPublisher returns a publisher that has published nothing.
func NewPublisher(c PublisherConfig) *Publisher {
	p := &Publisher{config: c}
	p.mu.conns = make(map[net.Conn]bool)
	return p
}

// Publish sends a message, of which it keeps a copy, and returns its number.
func (p *Publisher) Publish(payload []byte) uint64 { return p.publish(payload, true) }

// Drop is Publish when every subscriber is too slow: the message can be replayed.
func (p *Publisher) Drop(payload []byte) uint64 { return p.publish(payload, false) }

func (p *Publisher) publish(payload []byte, live bool) uint64 {
	p.mu.Lock()
	m := published{p.mu.next, bytes.Clone(payload)}
	p.mu.next++
	p.mu.ring = append(p.mu.ring, m)
	if n := len(p.mu.ring) - p.config.Ring; n > 0 {
		p.mu.ring = slices.Delete(p.mu.ring, 0, n)
	}
	subscribers := slices.Clone(p.mu.subscribers)
	p.mu.Unlock()
	for _, s := range subscribers {
		if live && s.wants(p.config.Topic) {
			select {
			case s.queue <- m:
			default: // as an engine does
			}
		}
	}
	return m.seq
}

// Restart begins anew at number 0 with nothing to replay; the connections stay.
func (p *Publisher) Restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.next, p.mu.ring = 0, nil
}

// Subscribers returns how many connections have subscribed to the topic.
func (p *Publisher) Subscribers() int {
	p.mu.Lock()
	subscribers := slices.Clone(p.mu.subscribers)
	p.mu.Unlock()
	n := 0
	for _, s := range subscribers {
		if s.wants(p.config.Topic) {
			n++
		}
	}
	return n
}

// Serve publishes to who connects to l, until Close.
func (p *Publisher) Serve(l net.Listener) error { return p.accept(l, p.serveSubscriber) }

// ServeReplay answers replay requests of who connects to l, until Close.
func (p *Publisher) ServeReplay(l net.Listener) error { return p.accept(l, p.serveReplay) }

// Close closes the listeners and the connections and waits for their goroutines.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	listeners := p.mu.listeners
	conns := make([]net.Conn, 0, len(p.mu.conns))
	for c := range p.mu.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // nothing to do about it
	}
	for _, c := range conns {
		_ = c.Close() // likewise
	}
	p.wg.Wait()
	return nil
}

func (p *Publisher) accept(l net.Listener, serve func(net.Conn)) error {
	p.mu.Lock()
	p.mu.listeners = append(p.mu.listeners, l)
	closed := p.mu.closed
	p.mu.Unlock()
	if closed {
		return l.Close()
	}
	for {
		c, err := l.Accept()
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.mu.closed {
				return nil
			}
			return err
		}
		if !p.enter(c) {
			_ = c.Close() // too late for it
			continue
		}
		go func() {
			defer p.wg.Done()
			serve(c)
			p.mu.Lock()
			delete(p.mu.conns, c)
			p.mu.Unlock()
			_ = c.Close() // may be closed already
		}()
	}
}

func (p *Publisher) enter(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.mu.conns[c] = true
	p.wg.Add(1)
	return true
}

func (p *Publisher) serveSubscriber(c net.Conn) {
	z, err := handshake(c, socketPub, handshakeTime)
	if err != nil {
		return // whoever it is, not a subscriber
	}
	s := &subscriber{z: z, queue: make(chan published, publisherQueue)}
	p.mu.Lock()
	p.mu.subscribers = append(p.mu.subscribers, s)
	p.mu.Unlock()
	stop, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		p.write(s, stop)
	}()
	for {
		frames, err := z.message(handshakeTime)
		if err != nil {
			break
		}
		s.subscribe(frames)
	}
	p.mu.Lock()
	p.mu.subscribers = slices.DeleteFunc(p.mu.subscribers, func(other *subscriber) bool { return other == s })
	p.mu.Unlock()
	close(stop)
	_ = c.Close() // ends a write under way
	<-written
}

// write sends what is in the subscriber's queue, until stop is closed.
func (p *Publisher) write(s *subscriber, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case m := <-s.queue:
			seq := binary.BigEndian.AppendUint64(nil, m.seq)
			if err := s.z.send(deadAfter, []byte(p.config.Topic), seq, m.payload); err != nil {
				_ = s.z.c.Close() // ends the reader, which ends this
				<-stop
				return
			}
		}
	}
}

// subscribe obeys a subscription: 1 and a topic, or 0 and one.
func (s *subscriber) subscribe(frames [][]byte) {
	if len(frames) != 1 || len(frames[0]) == 0 || len(frames[0]) > maxTopicBytes {
		return
	}
	topic := frames[0][1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	if frames[0][0] == 0 {
		s.mu.topics = slices.DeleteFunc(s.mu.topics, func(other []byte) bool { return bytes.Equal(other, topic) })
	} else if len(s.mu.topics) < maxGroups {
		s.mu.topics = append(s.mu.topics, bytes.Clone(topic))
	}
}

func (s *subscriber) wants(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.mu.topics, func(prefix []byte) bool { return bytes.HasPrefix([]byte(topic), prefix) })
}

func (p *Publisher) serveReplay(c net.Conn) {
	z, err := handshake(c, socketRouter, handshakeTime)
	if err != nil {
		return // whoever it is, it asks for nothing
	}
	for {
		frames, err := z.message(handshakeTime)
		if err != nil {
			return
		}
		if len(frames) != 2 || len(frames[0]) != 0 || len(frames[1]) != 8 {
			continue // an engine does not answer this either
		}
		if err := p.answer(z, binary.BigEndian.Uint64(frames[1])); err != nil {
			return
		}
	}
}

// answer sends what the ring holds from start on, and the end mark.
func (p *Publisher) answer(z *conn, start uint64) error {
	p.mu.Lock()
	ring := slices.Clone(p.mu.ring)
	p.mu.Unlock()
	sent := 0
	for _, m := range ring {
		if m.seq < start {
			continue
		}
		if sent++; p.config.LoseEvery > 0 && sent%p.config.LoseEvery == 0 {
			continue
		}
		if err := p.reply(z, []byte(p.config.Topic), m.seq, m.payload); err != nil {
			return err
		}
	}
	return p.reply(z, nil, replayEnd, nil)
}

func (p *Publisher) reply(z *conn, topic []byte, seq uint64, payload []byte) error {
	number := binary.BigEndian.AppendUint64(nil, seq)
	if p.config.OldReplay {
		return z.send(deadAfter, nil, number, payload)
	}
	return z.send(deadAfter, nil, topic, number, payload)
}
