package native

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/transfer"
)

// arrival is blocks on their way to a task, group of layers after group of layers, while a
// step may wait for them as it goes.
type arrival struct {
	await func(layer int) bool // waits for a layer; made once
	note  func(waited time.Duration)

	layers atomic.Int32  // that are here and checked
	moved  chan struct{} // one place: there are more of them
	done   chan struct{} // closed when nobody reads or writes the blocks
	until  time.Time     // a step waits; the loop's
	waited time.Duration // it has; the loop's
	late   bool          // it has given up; the loop's
}

// pace decides whether a step begins before all it needs is there.
type pace struct {
	// step is how long a step of answers takes, in nanoseconds; 0 is unknown.
	step atomic.Int64
	// inTime is onTime.
	inTime func(took time.Duration, here, groups int) bool
}

func newPace() *pace {
	p := &pace{}
	p.inTime = p.onTime
	return p
}

// fetch is blocks on their way to a task from another engine, each group of layers in
// parts. What has come of one part is checked while the next ones come,
// and a step may begin when the first group is there and go on as the others come.
type fetch struct {
	f      *fetcher
	t      *loop.Task
	s      *source
	first  int // block of the sequence
	blocks []int32
	began  time.Time
	arrival

	given atomic.Bool // up
	ok    bool        // all is here; read when the fetch has ended
	mu    struct {
		sync.Mutex
		posted    []*transfer.Transfer
		cancelled bool
	}
}

// part is one group of layers of some blocks of a fetch, from its block first on.
type part struct {
	group, first int
	blocks       []int32
}

func newFetch(f *fetcher, t *loop.Task, a *sched.Action, now time.Time) *fetch {
	x := &fetch{
		f: f, t: t, s: t.State.(*query).source, first: a.Start / model.BlockSize, blocks: a.Blocks, began: now,
	}
	x.start(f.x.Metrics.overlap)
	return x
}

// start makes a ready; note hears how long a step has waited for it.
func (a *arrival) start(note func(waited time.Duration)) {
	a.await, a.note = a.wait, note
	a.moved, a.done = make(chan struct{}, 1), make(chan struct{})
}

// bring brings a fetch. What of it has come is told at once; when it has ended,
// everything is over first, so that whoever waits for the last layer finds it ended.
func (f *fetcher) bring(x *fetch) {
	defer close(x.done)
	err := f.receive(x)
	if err != nil {
		x.cancel()
	}
	for _, tr := range x.mu.posted { // this goroutine alone appends
		<-tr.Done()
	}
	f.over(x, err)
	if err == nil {
		x.advance(f.x.cache.Depth())
	}
}

// receive brings the parts in order.
func (f *fetcher) receive(x *fetch) error {
	if x.s.asked {
		return errors.New("it was asked for before")
	}
	x.s.asked = true
	parts, groups := f.parts(x), f.x.groups()
	posted, told := 0, false
	if err := f.postFrom(x, parts, &posted, 0); err != nil {
		return err
	}
	for i := range parts {
		p, tr := &parts[i], x.mu.posted[i]
		<-tr.Done()
		if _, err := tr.Poll(); err != nil {
			return err
		}
		if err := f.postFrom(x, parts, &posted, i+1); err != nil {
			return err
		}
		if err := f.check(x, p); err != nil {
			return err
		}
		if i+1 < len(parts) && parts[i+1].group > p.group {
			_, layers := f.x.group(p.group)
			x.advance(layers)
			if !told && f.inTime(time.Since(x.began), p.group+1, groups) {
				told = true
				f.mu.Lock()
				f.mu.arriving = append(f.mu.arriving, x)
				f.mu.Unlock()
				f.wake()
			}
		}
	}
	return nil
}

// postFrom sees to it that part i and what may go with it are on their way. Parts that go
// together share the path, so those of different groups do not: each would come later.
func (f *fetcher) postFrom(x *fetch, parts []part, posted *int, i int) error {
	for *posted < min(i+partWindow, len(parts)) && parts[*posted].group == parts[i].group {
		if err := f.post(x, &parts[*posted]); err != nil {
			return err
		}
		*posted++
	}
	return nil
}

// parts are what a fetch consists of, in order.
func (f *fetcher) parts(x *fetch) (all []part) {
	for g := range f.x.groups() {
		from, to := f.x.group(g)
		each := max(partBytes/((to-from)*f.x.cache.LayerBytes()), 1)
		for at := 0; at < len(x.blocks); at += each {
			all = append(all, part{g, x.first + at, x.blocks[at:min(at+each, len(x.blocks))]})
		}
	}
	return all
}

// post begins to read a part.
func (f *fetcher) post(x *fetch, p *part) error {
	from, to := f.x.group(p.group)
	block, layer := int64(f.x.cache.BlockBytes()), int64(f.x.cache.LayerBytes())
	begin, length := int64(from)*layer, int64(to-from)*layer
	local, remote := make([]transfer.Descriptor, len(p.blocks)), make([]transfer.Descriptor, len(p.blocks))
	for i, b := range p.blocks {
		there := x.s.place(p.first + i)
		local[i] = f.x.memory.At(int64(b)*block+begin, length)
		remote[i] = transfer.Descriptor{Memory: x.s.Memory, Offset: int64(there.block)*block + begin, Length: length, Token: there.token}
	}
	list, err := f.x.Agent.Prepare(x.s.peer, local, remote)
	if err != nil {
		return err
	}
	patience := f.x.Timeout + time.Duration(float64(len(x.blocks))*float64(block)/minBandwidth*float64(time.Second))
	tr, err := f.x.Agent.Post(list, transfer.Read, transfer.Options{Deadline: x.began.Add(patience)})
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.mu.posted = append(x.mu.posted, tr)
	cancelled := x.mu.cancelled
	x.mu.Unlock()
	if cancelled {
		tr.Cancel()
	}
	return nil
}

// check compares a part that has come with what was lent.
func (f *fetcher) check(x *fetch, p *part) error {
	for i, block := range p.blocks {
		if x.given.Load() {
			return context.Canceled
		}
		sum := fingerprint(x.s.identity, f.x.sum(block, p.group), p.first+i, p.group)
		if sum != x.s.place(p.first + i).fingerprints[p.group] {
			return errCorrupt
		}
	}
	return nil
}

// onTime reports whether the rest, after here of groups have come in a time, is likely to
// come as fast as a step that begins at once uses it. A step that waits holds up the others
// that are computed with it.
func (p *pace) onTime(took time.Duration, here, groups int) bool {
	each, share := took/time.Duration(here), time.Duration(p.step.Load())/time.Duration(groups)
	next, last := time.Duration(here)*share, time.Duration(groups-1)*share
	return each <= next && time.Duration(groups-here)*each <= last
}

// cancel ends the transfers that have not ended.
func (x *fetch) cancel() {
	x.mu.Lock()
	x.mu.cancelled = true
	posted := x.mu.posted
	x.mu.Unlock()
	for _, tr := range posted {
		tr.Cancel()
	}
}

// advance says that so many layers are here; fewer than it was told are no news.
func (a *arrival) advance(layers int) {
	for was := a.layers.Load(); was < int32(layers) && !a.layers.CompareAndSwap(was, int32(layers)); was = a.layers.Load() {
	}
	select {
	case a.moved <- struct{}{}:
	default: // whoever waits will look
	}
}

// wait reports whether a layer is here, and waits for that, but not for long: then the
// step goes on without the request, whose KV comes all the same. It is called in the loop's
// goroutine.
func (a *arrival) wait(layer int) bool {
	if int(a.layers.Load()) > layer {
		return true
	}
	began := time.Now()
	timer := time.NewTimer(a.until.Sub(began))
	defer func() {
		timer.Stop()
		a.waited += time.Since(began)
	}()
	for int(a.layers.Load()) <= layer {
		select {
		case <-a.moved:
		case <-a.done:
			a.late = int(a.layers.Load()) <= layer
			return !a.late
		case <-timer.C:
			a.late = true
			return false
		}
	}
	return true
}

// groupsOf is the number of groups of so many layers.
func groupsOf(depth int) int { return min(depth, layerGroups) }

// groupOf is the layers of a group of so many, from from to to-1.
func groupOf(g, depth int) (from, to int) {
	n := groupsOf(depth)
	return g * depth / n, (g + 1) * depth / n
}
