package kvwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo/obs"
)

// DeliveryKind says what a Delivery is.
type DeliveryKind uint8

// The kinds of delivery.
const (
	// DeliverReset says to forget all that is known of the source.
	DeliverReset DeliveryKind = iota
	// DeliverBatch is one batch. Those after a Reset come in order of Seq, without
	// holes.
	DeliverBatch
)

// Reason says why a Reset is delivered.
type Reason uint8

// The reasons.
const (
	Joined  Reason = iota // first contact, or another one that could not be joined to the last
	Restart               // the engine has begun anew
	Gap                   // messages were missed and can no longer be had
	Corrupt               // a message could not be read
)

// String returns the reason's name, as metrics and logs have it.
func (r Reason) String() string {
	switch r {
	case Joined:
		return "joined"
	case Restart:
		return "restart"
	case Gap:
		return "gap"
	case Corrupt:
		return "corrupt"
	}
	return "reason(" + strconv.Itoa(int(r)) + ")"
}

// Delivery is what a subscriber gets. What it points to is valid until the next.
type Delivery struct {
	Kind DeliveryKind
	// Seq and Payload are the message's, Batch what it says (DeliverBatch).
	Seq     uint64
	Payload []byte
	Batch   *Batch
	// Partial says that what follows does not begin with an empty cache, so that
	// blocks will be missing from the view (DeliverReset).
	Partial bool
	Reason  Reason
}

// replayEnd is the number that ends a replay.
const replayEnd = math.MaxUint64

// Subscribe delivers what an engine publishes until ctx ends, in the caller's
// goroutine; the last pair holds the cause, or what is wrong with the arguments.
// The first delivery is a Reset. A consumer that is slow holds the engine's
// messages up in the connection; what the engine drops then is replayed.
//
// With a replay endpoint the stream begins with number 0, if that can be had, and
// goes on after a lost connection where it was, if the engine's life is the same:
// the newest message is replayed and compared. Without one, each connection begins
// anew.
func Subscribe(ctx context.Context, src Source, c Config) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		s := &subscription{ctx: ctx, src: src, config: c, yield: yield, log: obs.For(c.Logger, "kvwire").With(obs.KeyAddress, src.Endpoint)}
		err := c.Validate()
		if err == nil {
			err = s.resolve()
		}
		if err != nil {
			yield(Delivery{}, err)
			return
		}
		s.run()
	}
}

// errStopped ends everything: the consumer wants no more.
var errStopped = errors.New("the consumer wants no more")

// errAgain asks for another replay: something was missing, or all begins anew.
var errAgain = errors.New("the replay must be asked for again")

// errReborn ends a connection: it is to an earlier life of the engine than the one
// that answers replays, and what is still in it must not be taken for the new one's.
var errReborn = lost("an engine has begun anew while the connection to its events lasted", nil)

// subscription is one call of Subscribe; it belongs to the goroutine that iterates.
type subscription struct {
	ctx    context.Context
	src    Source
	config Config
	yield  func(Delivery, error) bool
	log    *slog.Logger

	live, replay dialed
	decoder      Decoder

	// next is the number that the view needs next, if known.
	next  uint64
	known bool
	// print is of the message before next, if has.
	print uint64
	has   bool
	// restarted says that the view was found to be of an earlier life, and that the
	// consumer has yet to be told.
	restarted bool
	// newest is the highest number of the live connection, if heard.
	newest uint64
	heard  bool
}

// dialed is an endpoint in a dialer's words.
type dialed struct{ network, addr string }

func (s *subscription) resolve() error {
	var err error
	if s.live.network, s.live.addr, err = address(s.src.Endpoint); err != nil {
		return err
	}
	if s.src.ReplayEndpoint != "" {
		if s.replay.network, s.replay.addr, err = address(s.src.ReplayEndpoint); err != nil {
			return err
		}
	}
	if len(s.src.Topic) > maxTopicBytes {
		return invalid("the topic of an engine's events is longer than 1024 bytes")
	}
	return nil
}

func (s *subscription) run() {
	jitter := rand.New(rand.NewPCG(xxh3.HashString(s.src.Endpoint), 0))
	pause, told := s.config.RetryMin, ""
	for {
		up, err := s.connection()
		if errors.Is(err, errStopped) {
			return
		}
		if s.ctx.Err() != nil {
			s.yield(Delivery{}, context.Cause(s.ctx))
			return
		}
		if s.config.Changed != nil {
			s.config.Changed(false, err)
		}
		if up {
			pause, told = s.config.RetryMin, ""
		}
		if err.Error() != told {
			told = err.Error() // each failure once
			s.log.Warn("no connection to an engine's events; it is tried again", obs.KeyError, err)
		}
		s.sleep(pause/2 + time.Duration(jitter.Int64N(int64(pause/2)+1)))
		pause = min(2*pause, s.config.RetryMax)
	}
}

// sleep waits for d or the end of the subscription.
func (s *subscription) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}

// dial connects to d; the connection is closed by the returned function or by the
// end of the subscription.
func (s *subscription) dial(d dialed, socket string) (z *conn, hangUp func(), err error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.HandshakeTimeout)
	defer cancel()
	dial := s.config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	c, err := dial(ctx, d.network, d.addr)
	if err != nil {
		return nil, nil, lost("connecting to the event socket of an engine at "+d.addr, err)
	}
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() }) // the reader sees it
	hangUp = func() {
		stop()
		_ = c.Close() // nothing to do about it
	}
	if z, err = handshake(c, socket, s.config.HandshakeTimeout); err != nil {
		hangUp()
		return nil, nil, lost("greeting the event socket of an engine at "+d.addr, err)
	}
	return z, hangUp, nil
}

// connection is one connection to the live socket, until it fails; up says that it
// was made.
func (s *subscription) connection() (up bool, err error) {
	z, hangUp, err := s.dial(s.live, socketSub)
	if err != nil {
		return false, err
	}
	defer hangUp()
	if err := z.send(s.config.HandshakeTimeout, append([]byte{1}, s.src.Topic...)); err != nil {
		return false, lost("subscribing to the events of an engine", err)
	}
	if s.config.Changed != nil {
		s.config.Changed(true, nil)
	}
	s.heard = false
	if err := s.join(); err != nil {
		return true, err
	}
	silent := s.src.ReplayEndpoint == "" // there is nobody to ask
	checked := silent                    // nothing was missed since the last message
	for {
		wait := s.config.PingEvery
		if !checked {
			wait = min(wait, s.config.CheckAfter)
		}
		if err := z.c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return true, lost("reading the events of an engine", err)
		}
		frames, err := z.message(s.config.HandshakeTimeout)
		switch {
		case err == nil:
			checked = silent
			err = s.message(frames)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			err = lost("reading the events of an engine", err)
		case !checked:
			checked = true
			if err = s.catchUp(false); err != nil && !s.over(err) {
				s.log.Debug("the replay socket of an engine does not answer", obs.KeyError, err)
				err, silent = nil, true
			}
		case z.ponged && time.Since(z.heard) > s.config.DeadAfter:
			err = lost("the event socket of an engine has been silent for too long", nil)
		default:
			err = z.ping(s.config.HandshakeTimeout)
		}
		if err != nil {
			return true, err
		}
	}
}

// over says that err ends the connection or the subscription.
func (s *subscription) over(err error) bool {
	return errors.Is(err, errStopped) || errors.Is(err, errReborn) || s.ctx.Err() != nil
}

// join finds out what was missed before the connection.
func (s *subscription) join() error {
	if s.src.ReplayEndpoint == "" {
		return s.reset(Joined, true)
	}
	err := s.catchUp(true)
	if err == nil || s.over(err) {
		return err
	}
	s.log.Warn("what an engine published before cannot be had; blocks stored before are not known", obs.KeyError, err)
	return s.reset(Joined, true)
}

// message takes a message of the live socket. Those that are not of the form of
// events are passed over: other things may be published there.
func (s *subscription) message(frames [][]byte) error {
	if len(frames) != 3 || len(frames[1]) != 8 || !bytes.HasPrefix(frames[0], []byte(s.src.Topic)) {
		return nil
	}
	seq, payload := binary.BigEndian.Uint64(frames[1]), frames[2]
	if s.heard && seq <= s.newest {
		if err := s.reset(Restart, seq > 0); err != nil {
			return err
		}
		s.next, s.known = 0, true
	}
	s.newest, s.heard = seq, true
	if !s.known {
		s.next, s.known = seq, true
		if seq == 0 { // the view is whole after all
			if err := s.reset(Joined, false); err != nil {
				return err
			}
			s.known = true
		}
	}
	if seq > s.next {
		s.config.Metrics.gap()
		if s.src.ReplayEndpoint != "" {
			if err := s.catchUp(false); err != nil && s.over(err) {
				return err
			}
		}
		if !s.known || seq > s.next {
			if err := s.reset(Gap, true); err != nil {
				return err
			}
			s.next, s.known = seq, true
		}
	}
	if seq < s.next {
		return nil // it was replayed
	}
	return s.deliver(seq, payload)
}

// forget notes that the view is of an earlier life of the engine; a reset has to
// follow.
func (s *subscription) forget() {
	s.next, s.known, s.has, s.restarted = 0, false, false, true
}

// reset delivers a Reset; nothing is known then.
func (s *subscription) reset(r Reason, partial bool) error {
	if s.restarted {
		r = Restart
	}
	s.next, s.known, s.has, s.restarted = 0, false, false, false
	s.config.Metrics.reset(r)
	if !s.yield(Delivery{Kind: DeliverReset, Reason: r, Partial: partial}, nil) {
		return errStopped
	}
	return nil
}

// deliver delivers the message that is next.
func (s *subscription) deliver(seq uint64, payload []byte) error {
	b, err := s.decoder.Decode(payload)
	if err != nil {
		s.log.Warn("a batch of an engine's events cannot be read; what is known of its cache is forgotten", obs.KeyError, err)
		if err := s.reset(Corrupt, true); err != nil {
			return err
		}
	}
	s.next, s.known = seq+1, true
	s.print, s.has = xxh3.Hash(payload), true
	if err != nil {
		return nil
	}
	s.config.Metrics.batch()
	if !s.yield(Delivery{Kind: DeliverBatch, Seq: seq, Payload: payload, Batch: b}, nil) {
		return errStopped
	}
	return nil
}
