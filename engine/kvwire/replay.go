package kvwire

import (
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/zeebo/xxh3"
)

// catchUp delivers what the replay socket has of what is next. fresh says that the
// live connection is new, so that the engine may be another life of it, and that
// it must be found out what the view is.
//
// A replay may have holes, because the socket drops what is not read fast enough;
// it is asked again from there. It gives up when nothing comes of that: at once
// when the live stream waits, and when the socket is silent.
func (s *subscription) catchUp(fresh bool) error {
	pause, attempts := s.config.RetryMin, 1
	if fresh {
		attempts = replayAttempts
	}
	for failed := 0; ; {
		before, known := s.next, s.known
		err := s.replayOnce(fresh)
		if err == nil || s.over(err) {
			return err
		}
		if s.next != before || s.known != known {
			failed = 0
			continue
		}
		if failed++; failed >= attempts || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if !errors.Is(err, errAgain) {
			s.sleep(pause)
			pause *= 2
		}
	}
}

// replayOnce asks once. It asks for the newest message that is known, too, to see
// that it is the same.
func (s *subscription) replayOnce(fresh bool) error {
	z, hangUp, err := s.dial(s.replay, socketDealer)
	if err != nil {
		return err
	}
	defer hangUp()
	from := uint64(0)
	if s.known {
		from = s.next
		if s.has {
			from--
		}
	}
	if err := z.send(s.config.ReplayTimeout, nil, binary.BigEndian.AppendUint64(nil, from)); err != nil {
		return lost("asking an engine for earlier events", err)
	}
	for first := true; ; first = false {
		seq, payload, err := s.answer(z)
		switch {
		case err != nil:
			return err
		case seq == replayEnd && first:
			return s.nothing(fresh)
		case seq == replayEnd:
			return nil
		case first:
			err = s.first(from, seq, payload, fresh)
		case seq > s.next:
			return errAgain
		case seq == s.next:
			err = s.deliver(seq, payload)
		}
		if err != nil {
			return err
		}
	}
}

// answer reads one answer: [empty, number, payload], or [empty, topic, number,
// payload] of later versions.
func (s *subscription) answer(z *conn) (seq uint64, payload []byte, err error) {
	if err := z.c.SetReadDeadline(time.Now().Add(s.config.ReplayTimeout)); err != nil {
		return 0, nil, lost("reading earlier events of an engine", err)
	}
	frames, err := z.message(s.config.HandshakeTimeout)
	if err != nil {
		return 0, nil, lost("reading earlier events of an engine", err)
	}
	n := len(frames)
	if n != 3 && n != 4 || len(frames[0]) != 0 || len(frames[n-2]) != 8 {
		return 0, nil, corrupt("the answer of an engine's replay socket is of no known form")
	}
	return binary.BigEndian.Uint64(frames[n-2]), frames[n-1], nil
}

// nothing is the end of a replay that had no message, not even the newest known.
func (s *subscription) nothing(fresh bool) error {
	switch {
	case !fresh:
		return nil // the engine is the same; its ring is too short
	case s.has:
		s.forget()
		if !fresh {
			return errReborn
		}
		return errAgain
	case !s.known:
		if err := s.reset(Joined, false); err != nil {
			return err
		}
		s.known = true
	}
	return nil
}

// first takes the first answer to a request from a number on.
func (s *subscription) first(from, seq uint64, payload []byte, fresh bool) error {
	same := s.has && seq == from && xxh3.Hash(payload) == s.print
	switch {
	case seq < from:
		return corrupt("an engine's replay socket answers with events before those it was asked for")
	case same:
		return nil // it is the message before next
	case s.has && seq == from:
		s.forget()
		if !fresh {
			return errReborn
		}
		return errAgain
	case s.known && !fresh && seq == s.next:
		return s.deliver(seq, payload)
	case s.known && !fresh:
		if err := s.reset(Gap, true); err != nil {
			return err
		}
	default:
		if err := s.reset(Joined, seq != 0); err != nil {
			return err
		}
	}
	return s.deliver(seq, payload)
}
