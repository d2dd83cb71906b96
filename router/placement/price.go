package placement

import (
	"math"
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// price makes the cost of kv for a request that is computed and answered at one place
// out of features of it. All are milliseconds, but for behind and delayed, which are
// numbers of requests.
type price struct {
	since       int64   // when the first prompt that is pending was begun
	head        float32 // of first, that the passing of time takes away
	first       float32 // to the first token, whatever the request
	token, pair float32 // of the prompt, of itself
	beside      float32 // of a token, for those that run
	places      float32 // to the first token, of each of the answer's
	idle        float32 // a step of an idle machine
	behind      float32 // twice those that come after the prompt
	delayed     float32 // those that a prompt delays
	evict       float32 // of a token, for what has to be given up
	answer      float32 // of each of the answer's tokens, beyond the first token
	length      float32 // the same, of each that it attends to
	room        float32 // tokens; a request that needs more is priced by Terms
}

// price works out what Terms says of every request.
func (c *Candidate) price(m *perfmodel.ClosedForm, load int, at time.Time, now int64) (price, detail) {
	b := c.batch(m, load, at)
	wait, head, since := c.wait(m, &b, at)
	var x detail
	if c.Prefills == 0 {
		x.step = float32(b.mixed * 1e3)
		wait += b.mixed
	}
	p := price{
		since: now - int64(at.Sub(since)), head: float32(head * 1e3), first: float32(wait * 1e3), room: math.MaxFloat32,
		token: float32(1e3 * b.own(m, 1, 0)), pair: float32(1e3 * m.PrefillSecondsPerPair),
		beside: float32(1e3 * (b.mixed - m.PrefillFixedSeconds) / b.stepTokens), places: float32(1e3 * c.places(load) * b.step),
		idle: float32(1e3 * m.PrefillFixedSeconds), behind: float32(2 * b.behind), delayed: float32(b.running + b.behind),
	}
	answer := m.DecodeFixedSeconds + b.shared/2 + (1+b.running/2)*m.DecodeSecondsPerSequence
	if c.KVCapacity > 0 {
		evict := c.evict(m, b.kv)
		p.evict, answer = float32(1e3*evict), answer+evict
		p.room = float32(float64(c.KVCapacity) - b.kv)
	}
	p.answer = float32(1e3 * answer)
	p.length = float32(1e3 * (1 + b.running/2) * m.DecodeSecondsPerKVToken)
	x.others = float32(1e3 * b.running / 2 * m.DecodeSecondsPerSequence)
	x.othersLength = float32(1e3 * b.running / 2 * m.DecodeSecondsPerKVToken)
	return p, x
}

// features are what a price is multiplied with: the tokens to be computed and the pairs
// with what they attend to, the tokens of the answer, those times the length of the
// sequence, and what whoever holds most of the prompt has to compute; and the KV that the
// request may need. Code that costs blocks of prices knows where each of them is.
type features struct{ tokens, pairs, answer, length, least, leastPairs, need float32 }

// of is the cost in milliseconds; +Inf if the price does not say. Products are rounded
// before they are added, which keeps compilers from fusing the two: costBlocks says the
// same to the bit.
func (p *price) of(f *features, now int64) float32 {
	if f.need > p.room {
		return float32(math.Inf(1))
	}
	own := p.own(f)
	first := p.first + own + float32(p.beside*f.tokens) + float32(p.places*f.answer) - p.done(now)
	return first + p.late(f, first, own) + float32(p.delayed*own) + float32(p.evict*f.tokens) + float32(p.answer*f.answer) + float32(p.length*f.length)
}

// own is what computing the prompt takes of itself.
func (p *price) own(f *features) float32 {
	return float32(p.token*f.tokens) + float32(p.pair*f.pairs)
}

// done is what of head is over by now.
func (p *price) done(now int64) float32 {
	if p.head <= 0 {
		return 0
	}
	return max(min(float32(now-p.since)*1e-6, p.head), 0)
}

// late is the term Late.
func (p *price) late(f *features, first, own float32) float32 {
	ideal := max(p.idle+float32(p.token*f.least)+float32(p.pair*f.leastPairs), leastIdleSeconds*1e3)
	return first * (first + float32(p.behind*own)) / ideal
}

// terms takes the cost apart again, as Terms does, but for Decode, which is the rest.
func (p *price) terms(x *detail, f *features, now int64) (wait, prefill, slowdown, late float32) {
	own, done := p.own(f), p.done(now)
	beside, places := float32(p.beside*f.tokens), float32(p.places*f.answer)
	late = p.late(f, p.first+own+beside+places-done, own)
	return p.first - x.step + places - done, own + beside + x.step, float32(p.delayed*own) + float32(x.others*f.answer) + float32(x.othersLength*f.length), late
}
