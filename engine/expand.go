package engine

import (
	"context"
	"iter"
	"strconv"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Expand returns an engine that serves N choices by asking e for one at a time:
// a request with N > 1 becomes N requests with Choice 0…N-1, IDs of their own
// ("<id>/<choice>") and one Group, which run concurrently and are merged into
// one sequence. Other requests go to e as they are.
//
// Choice 0 goes ahead until its first chunk: by then e holds the prompt's KV, and
// the siblings find it instead of computing it N times. The first error of any
// choice ends all of them and is the error of the whole. Chunks of one choice keep
// their order; between choices there is none.
func Expand(e Engine) Engine { return expander{e} }

type expander struct{ next Engine }

var _ Engine = expander{}

// Generate implements Engine.
func (x expander) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	if r.N <= 1 {
		return x.next.Generate(ctx, r)
	}
	return func(yield func(dynamo.Chunk, error) bool) {
		if r.N > MaxChoices {
			yield(dynamo.Chunk{}, invalid("n", "n is %d; at most %d choices can be asked for at once", r.N, MaxChoices))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		f := &fan{next: x.next, r: tokens.Share(r), pieces: make(chan piece), quit: make(chan struct{})}
		// The order matters: engines are told to stop and producers to stop
		// handing over before they are waited for.
		defer f.running.Wait()
		defer close(f.quit)
		defer cancel()
		f.merge(ctx, yield)
	}
}

// fan is the state of one expanded request. One goroutine per choice (owner: the
// Generate call, which waits for all of them before it returns) ranges over that
// choice's sequence and hands each pair over by rendezvous: it asks for the next
// chunk only after the caller is done with the last, which keeps the chunk's
// slices valid without a copy and bounds what is held to one chunk per choice.
type fan struct {
	next    Engine
	r       *dynamo.Request
	pieces  chan piece
	quit    chan struct{} // closed when nobody receives any more
	running sync.WaitGroup
}

// piece is what a choice hands over: a pair of its sequence, or its end.
type piece struct {
	chunk dynamo.Chunk
	err   error
	end   bool
	panic any           // what the engine panicked with, to go on in the caller's goroutine
	taken chan struct{} // receives one value when the caller is done with the piece
}

func (f *fan) merge(ctx context.Context, yield func(dynamo.Chunk, error) bool) {
	f.start(ctx, 0)
	for open, ahead := 1, true; open > 0; {
		p := <-f.pieces
		if p.panic != nil {
			panic(p.panic)
		}
		if ahead && p.err == nil {
			ahead = false
			for choice := 1; choice < f.r.N; choice++ {
				f.start(ctx, choice)
			}
			open += f.r.N - 1
		}
		if p.end {
			open--
			continue
		}
		if !yield(p.chunk, p.err) || p.err != nil {
			return
		}
		p.taken <- struct{}{}
	}
}

func (f *fan) start(ctx context.Context, choice int) {
	r := *f.r
	r.N, r.Choice = 1, choice
	r.ID = f.r.ID + "/" + dynamo.RequestID(strconv.Itoa(choice))
	if r.Group == "" {
		r.Group = f.r.ID
	}
	f.running.Go(func() { f.produce(ctx, &r) })
}

func (f *fan) produce(ctx context.Context, r *dynamo.Request) {
	taken := make(chan struct{}, 1)
	defer func() {
		f.hand(piece{end: true, panic: recover()})
	}()
	for chunk, err := range f.next.Generate(ctx, r) {
		chunk.Choice = r.Choice
		if !f.hand(piece{chunk: chunk, err: err, taken: taken}) || err != nil {
			return
		}
		select {
		case <-taken:
		case <-f.quit:
			return
		}
	}
}

// hand reports whether p was received.
func (f *fan) hand(p piece) bool {
	select {
	case f.pieces <- p:
		return true
	case <-f.quit:
		return false
	}
}
