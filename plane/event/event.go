package event

import (
	"context"
	"iter"
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// The topics in use.
const (
	TopicLoad = "load" // engine.Load, see AppendLoad
	TopicKV   = "kv"   // what a worker's KV cache stores and removes
)

// Source names a stream of events.
type Source struct {
	// Topic is made of a…z, 0…9, - and _.
	Topic  string
	Worker dynamo.WorkerID
	// Epoch is the publisher's life, never 0. In what a subscriber asks for, 0 is
	// whichever life is there.
	Epoch uint64
}

// Position is how far a subscriber has come: everything up to Seq of the life
// Epoch. The zero Position is the beginning: nothing is known.
type Position struct {
	Epoch, Seq uint64
}

// After returns the position of a subscriber at p that has dealt with d. In the
// midst of a snapshot that is the beginning: half a snapshot is none.
func (p Position) After(d Delivery) Position {
	switch {
	case d.Kind == Gap:
		return p
	case d.Kind == Event || d.Last:
		return Position{Epoch: d.Source.Epoch, Seq: d.Seq}
	}
	return Position{}
}

// Kind says what a Delivery is.
type Kind uint8

// The kinds; their numbers travel.
const (
	// Event is one event. Those of one life come in order of Seq, without holes
	// but where a Reset stands.
	Event Kind = iota
	// Snapshot is a part of the state that the events up to Seq led to. It comes
	// after a Reset; Last marks the last part, whose payload may be empty.
	Snapshot
	// Gap says that events up to Seq were missed. What is known of the source is
	// stale until they come after all, or a Reset comes.
	Gap
	// Reset says to forget all that is known of the source: another life of it
	// began, or what is missing can no longer be had. A snapshot follows, unless
	// Last says that there is none and that events go on at Seq+1.
	Reset
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Event:
		return "event"
	case Snapshot:
		return "snapshot"
	case Gap:
		return "gap"
	case Reset:
		return "reset"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Delivery is what a subscriber gets.
type Delivery struct {
	Source Source
	Kind   Kind
	Seq    uint64
	// Payload is valid until the next delivery is asked for.
	Payload []byte
	Last    bool
}

// Bus carries events from publishers to subscribers. *RPC and the one of package
// plane/event/nats implement it; package eventtest holds them to the same laws.
type Bus interface {
	// Attach makes p's events available until detach is called, which ends its
	// subscriptions and waits for what the bus runs for p.
	Attach(p *Publisher) (detach func(), err error)
	// Subscribe yields the deliveries of src that lead on from a position, in the
	// caller's goroutine. It ends with an error when the publisher is lost or
	// ctx ends; the caller goes on from its Position by another Subscribe.
	Subscribe(ctx context.Context, src Source, from Position) iter.Seq2[Delivery, error]
}

// validTopic reports whether s can be a topic.
func validTopic(s string) bool {
	if s == "" || len(s) > MaxTopicBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
