package placement

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// A record is a decision in bytes: a header of 64, and 32 for each of the best
// candidates, the winner's first. Numbers are little endian.
//
//	 0  1  version, 1               32  8  seed
//	 1  1  policy                   40  8  XXH3-64 of the request's id
//	 2  1  flags                    48  4  lowest cost, of a draw (float32)
//	 3  1  candidates that follow   52  4  highest cost, of a draw
//	 4  1  outcome, a Verdict       56  4  temperature, of a draw
//	 5  1  0                        60  4  lowest cost of those that are left out and
//	 6  2  candidates                      as good as the winner otherwise; +Inf: none
//	 8  2  fit ones
//	10  2  block size               a candidate:
//	12  4  tokens of the prompt      0  8  worker
//	16  4  expected of the answer    8  4  cost (float32)
//	20  4  milliseconds waited      12  4  key that tells equal costs apart
//	24  8  nanoseconds since 1970   16  2  rank    18  1  flags    19  1  age of its report
//	                                20  2  blocks held on the device   22  2  in slower tiers
//	                                24  8  five terms of 12 bits and 8, or load and booked tokens
//
// Ages and terms are short floats, see short. Counts that do not
// fit are the largest that do.
const (
	recordVersion = 2
	headerBytes   = 64
	entryBytes    = 32
	// MaxRecordBytes is the size of the largest record.
	MaxRecordBytes = headerBytes + recordEntries*entryBytes
)

// Flags of a record, and of its candidates.
const (
	flagWinner = 1 << iota
	flagGroup
	flagDraws
	flagTerms
)

const (
	flagDoubted = 1 << iota
	flagAside
	flagServesGroup
	flagModel
	flagPreferred
)

// AppendRecord appends the decision's record to dst. waited is how long the request
// was queued. It does not allocate where dst has room for MaxRecordBytes.
func (d *Decision) AppendRecord(dst []byte, waited time.Duration) []byte {
	r := &d.Request
	top, n, bound := d.listed()
	at, size := len(dst), headerBytes+n*entryBytes
	dst = slices.Grow(dst, size)[:at+size]
	clear(dst[at:])
	h := dst[at:]
	h[0], h[1], h[3], h[4] = recordVersion, byte(d.Params.Policy), byte(n), byte(d.Outcome())
	rule := d.rule()
	h[2] = flag(d.Winner != None, flagWinner) | flag(d.Sticky, flagGroup) | flag(rule.draws, flagDraws) | flag(d.inMilliseconds(), flagTerms)
	le := binary.LittleEndian
	le.PutUint16(h[6:], saturate16(len(d.Candidates)))
	le.PutUint16(h[8:], saturate16(d.fit))
	le.PutUint16(h[10:], saturate16(r.BlockSize))
	le.PutUint32(h[12:], uint32(r.size()))
	le.PutUint32(h[16:], uint32(r.output()))
	le.PutUint32(h[20:], uint32(clamp(int(waited.Milliseconds()), 0, math.MaxUint32)))
	le.PutUint64(h[24:], uint64(r.Now.UnixNano()))
	le.PutUint64(h[32:], r.Seed)
	le.PutUint64(h[40:], xxh3.HashString(string(r.ID)))
	le.PutUint32(h[48:], math.Float32bits(rule.low))
	le.PutUint32(h[52:], math.Float32bits(rule.high))
	le.PutUint32(h[56:], math.Float32bits(rule.temperature))
	le.PutUint32(h[60:], math.Float32bits(bound))
	for k, i := range top[:n] {
		d.putEntry(dst[at+headerBytes+k*entryBytes:][:entryBytes], int(i))
	}
	return dst
}

// inMilliseconds says that costs are made of Terms.
func (d *Decision) inMilliseconds() bool {
	return d.Params.Policy == KV || d.Params.Policy == Sticky
}

// listed are the candidates of the record, the winner first, and the lowest cost of
// those left out that nothing but cost, or a draw, keeps from being among them.
func (d *Decision) listed() (list [recordEntries]int32, n int, bound float32) {
	if d.Winner != None {
		list[0], n = int32(d.Winner), 1
	}
	for _, i := range d.top[:d.tops] {
		if n < recordEntries && int(i) != d.Winner {
			list[n] = i
			n++
		}
	}
	bound = float32(math.Inf(1))
	if d.fit == n {
		return list, n, bound
	}
	if w := &d.Scores[d.Winner]; !d.Sticky && !d.rule().draws {
		// They are sorted: the next one bounds all after it that are on its level.
		next := &d.Scores[d.top[n]]
		if next.Doubted == w.Doubted && next.Aside == w.Aside {
			bound = next.Cost
		}
		return list, n, bound
	}
	for i := range d.Scores {
		s, w := &d.Scores[i], &d.Scores[d.Winner]
		if s.Verdict == Fit && s.Cost < bound && s.Doubted == w.Doubted && s.Aside == w.Aside && !slices.Contains(list[:n], int32(i)) {
			bound = s.Cost
		}
	}
	return list, n, bound
}

// putEntry puts the record of one candidate into e, which is zero.
func (d *Decision) putEntry(e []byte, i int) {
	s, x, le := &d.Scores[i], d.contender(i), binary.LittleEndian
	le.PutUint64(e[0:], x.id)
	le.PutUint32(e[8:], math.Float32bits(x.cost))
	le.PutUint32(e[12:], x.tie)
	le.PutUint16(e[16:], x.rank)
	var key Key
	var known bool
	if d.table != nil {
		about := &d.table.details[i]
		key, known = about.key, about.known
		e[19] = encodeAge(d.now-about.reported, about.reported != never)
	} else {
		c := &d.Candidates[i]
		key, known = c.Key, c.known()
		e[19] = encodeAge(int64(d.Request.Now.Sub(c.Report.At)), !c.Report.At.IsZero())
	}
	e[18] = flag(x.doubted, flagDoubted) | flag(x.aside, flagAside) | flag(d.Request.Sticky == key && key != (Key{}), flagServesGroup) |
		flag(known, flagModel) | flag(len(d.Request.Preferred) > 0, flagPreferred)
	if s.overlap > 0 {
		blocks := &d.Request.Overlaps[s.overlap-1].Blocks
		le.PutUint16(e[20:], saturate16(int(blocks[0])))
		le.PutUint16(e[22:], saturate16(int(max(blocks[3], blocks[0])-blocks[0])))
	}
	if d.inMilliseconds() {
		terms := d.recorded(i)
		le.PutUint64(e[24:], encodeTerms(&terms))
		return
	}
	le.PutUint32(e[24:], uint32(s.Load))
	le.PutUint32(e[28:], x.second)
}

// recorded are the terms that a record has: wait, prefill, slowdown, what a block more
// saves, load and late.
func (d *Decision) recorded(i int) [6]float32 {
	held, ok := d.ofPrice(i)
	if !ok {
		t := d.Terms(i)
		return [6]float32{float32(t.Wait), float32(t.Prefill), float32(t.Slowdown), float32(d.perBlock(i, false)), float32(t.Load), float32(t.Late)}
	}
	f := d.whole
	f.hold(d.Request.size(), held)
	wait, prefill, slowdown, late := d.table.prices[i].terms(&d.table.details[i], &f, d.now)
	return [6]float32{wait, prefill, slowdown, float32(d.perBlock(i, true)), 0, late}
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// perBlock is by how much the cost falls with each block more that the candidate holds on
// the device, on average over as many as make up for what it costs more than the winner:
// lateness, which is square, makes the first of them save most, and what a token attends to
// makes the last. 0 is where they do not, or other things than cost made it lose, or it holds
// some in slower tiers: there the next block saves less than those after it. Its cost is, or
// is not, of its price.
func (d *Decision) perBlock(i int, ofPrice bool) float64 {
	if d.Winner == None || d.Sticky {
		return 0
	}
	s, w := &d.Scores[i], &d.Scores[d.Winner]
	r, gap := &d.Request, float64(s.Cost)-float64(w.Cost)
	held, all := d.onDevice(i)
	block := min(r.BlockSize, r.size()-held-1)
	if !(gap > 0) || s.Doubted != w.Doubted || s.Aside != w.Aside || !all || block <= 0 {
		return 0
	}
	blocks := min((d.mostHeld()-held)/block+2, (r.size()-held-1)/block)
	before := float64(s.Cost)
	if len(r.Preferred) > 0 { // which lowers it
		before = d.costHolding(i, held, ofPrice)
	}
	if ofPrice {
		blocks = min(blocks, d.table.prices[i].enough(gap, held, block))
	}
	each := (before - d.costHolding(i, held+blocks*block, ofPrice)) / float64(blocks)
	for k := 0; k < 2 && !ofPrice && each > 0 && gap < each*float64(blocks-1); k++ {
		blocks = int(gap/each) + 1
		each = (before - d.costHolding(i, held+blocks*block, ofPrice)) / float64(blocks)
	}
	// What is said is tried: by so many blocks, made of what the record will have.
	for tries := 0; tries < 3 && gap < each*float64(blocks); tries++ {
		each = long(short(float32(each), termMantissa), termMantissa)
		n := blocksFor(gap, each)
		cost := d.costHolding(i, held+n*block, ofPrice)
		if d.wins(i, held+n*block, cost, ofPrice) {
			return each
		}
		less := (before - cost) / float64(n)
		if !(less < each) {
			break
		}
		each, blocks = less, (r.size()-held-1)/block
	}
	return 0
}

// enough is by how many blocks more of a prompt of which so much is held the cost falls by
// gap: without lateness each saves this at least.
func (p *price) enough(gap float64, held, block int) int {
	least := float64(p.token*(1+p.delayed)+p.beside+p.evict) + float64(p.pair*(1+p.delayed))*(float64(held)+float64(block)/2)
	return int(min(gap/(least*float64(block)), maxBlocks)) + 1
}

// wins reports whether a candidate would win that held so much and cost so much then. As
// far as that is more than anybody holds, all others are later by that.
func (d *Decision) wins(i, held int, cost float64, ofPrice bool) bool {
	most := min(held, d.Request.size()-1)
	if most <= d.mostHeld() {
		return len(d.Request.Preferred) > 0 || float32(cost) < d.Scores[d.Winner].Cost
	}
	before, whole, size := d.most, d.whole, d.Request.size()
	d.most, d.whole.least, d.whole.leastPairs = most+1, float32(size-most), float32(pairs(size-most, most))
	winner := 0.0
	if n, ok := d.ofPrice(d.Winner); ok {
		winner = d.costHolding(d.Winner, n, true)
	} else {
		winner = d.costOf(d.Winner, d.held(d.Winner))
	}
	wins := d.costHolding(i, held, ofPrice) < winner
	d.most, d.whole = before, whole
	return wins
}

// ofPrice says how much a candidate holds of the prompt, if its cost is what its price
// says.
func (d *Decision) ofPrice(i int) (held int, ok bool) {
	if d.table == nil || !d.byPrice || d.whole.need > d.table.prices[i].room || !(d.Scores[i].Cost < maxCost) {
		return 0, false
	}
	return d.onDevice(i)
}

// blocksFor is how many blocks make up for what a candidate costs more than the winner;
// a few too many rather than too few.
func blocksFor(gap, each float64) int { return int(math.Ceil(gap*1.005/each)) + 1 }

// costHolding is the cost in milliseconds of a candidate that holds so much, all on the
// device. Its cost is, or is not, of its price.
func (d *Decision) costHolding(i, held int, ofPrice bool) float64 {
	if ofPrice {
		f := d.whole
		f.hold(d.Request.size(), held)
		return float64(d.table.prices[i].of(&f, d.now))
	}
	return d.costOf(i, [4]int{held})
}

// costOf is the same by its terms.
func (d *Decision) costOf(i int, held [4]int) float64 {
	c := &d.Candidates[i]
	m := d.Params.model(c)
	b := c.batch(m, int(d.Scores[i].Load), d.Request.Now)
	t := d.termsOf(i, m, &b, held)
	if d.Params.Policy == Sticky {
		return t.first()
	}
	return t.total()
}

// Record is what a decision's record says.
type Record struct {
	Policy Policy
	// At is when it was decided, and Waited how long the request had been queued then.
	At     time.Time
	Waited time.Duration
	// Request is the hash of the request's id, and Seed what told equal costs apart.
	Request, Seed uint64
	// Tokens is the length of the prompt in blocks of BlockSize, and Expected that of
	// the answer.
	Tokens, BlockSize, Expected int
	// Candidates is how many there were, Fit how many could have won.
	Candidates, Fit int
	// Outcome is that of the decision, and Group says that the winner serves the
	// request's group.
	Outcome Verdict
	Group   bool
	// Best are the best candidates, the winner first if there is one.
	Best []Entry
	// Bound is the lowest cost of fit ones that are not among Best; +Inf: there is none.
	Bound float64

	won   bool
	terms bool
	rule  rule
}

// Entry is a candidate of a Record.
type Entry struct {
	Worker dynamo.WorkerID
	Rank   int
	// Cost is in milliseconds where the record has Terms.
	Cost float64
	// Doubted and Aside are those of its Score; Group says that it serves the request's
	// group, and Known that its model was its own.
	Doubted, Aside, Group, Known bool
	// Held and Slower are the blocks that it held on the device and in slower tiers.
	Held, Slower int
	// ReportAge is the age of its last report; negative if there was none.
	ReportAge time.Duration
	// Terms are those of its cost, to 0.4 %, Decode with Evict in it.
	Terms Terms
	// PerBlock is by how much the cost falls with each block more, on average over as many
	// as would make it the winner; 0 if there are none, or that is not known.
	PerBlock float64
	// Load is the requests it held, where there are no Terms.
	Load int

	contender contender
}

// ParseRecord reads what AppendRecord wrote.
func ParseRecord(b []byte) (Record, error) {
	if len(b) < headerBytes {
		return Record{}, corrupt("has %d bytes; a header has %d", len(b), headerBytes)
	}
	if b[0] != recordVersion {
		return Record{}, corrupt("is of version %d; this program knows %d", b[0], recordVersion)
	}
	n, le := int(b[3]), binary.LittleEndian
	if n > recordEntries || len(b) != headerBytes+n*entryBytes {
		return Record{}, corrupt("has %d bytes for %d candidates", len(b), n)
	}
	if int(b[1]) >= len(policies) || int(b[4]) >= len(verdicts) {
		return Record{}, corrupt("has the policy %d and the outcome %d; there are no such", b[1], b[4])
	}
	f32 := func(at int) float32 { return math.Float32frombits(le.Uint32(b[at:])) }
	r := Record{
		Policy: Policy(b[1]), At: time.Unix(0, int64(le.Uint64(b[24:]))), Waited: time.Duration(le.Uint32(b[20:])) * time.Millisecond,
		Request: le.Uint64(b[40:]), Seed: le.Uint64(b[32:]),
		Tokens: int(le.Uint32(b[12:])), BlockSize: int(le.Uint16(b[10:])), Expected: int(le.Uint32(b[16:])),
		Candidates: int(le.Uint16(b[6:])), Fit: int(le.Uint16(b[8:])), Outcome: Verdict(b[4]), Group: b[2]&flagGroup != 0,
		Bound: float64(f32(60)), won: b[2]&flagWinner != 0, terms: b[2]&flagTerms != 0,
		rule: rule{draws: b[2]&flagDraws != 0, low: f32(48), high: f32(52), temperature: f32(56)},
	}
	if r.won && n == 0 || r.won != (r.Outcome == Fit) {
		return Record{}, corrupt("has %d candidates, the outcome %v, and says otherwise of its winner", n, r.Outcome)
	}
	for k := range n {
		e, err := r.parseEntry(b[headerBytes+k*entryBytes:][:entryBytes])
		if err != nil {
			return Record{}, err
		}
		r.Best = append(r.Best, e)
	}
	return r, nil
}

func (r *Record) parseEntry(b []byte) (Entry, error) {
	le := binary.LittleEndian
	x := contender{
		id: le.Uint64(b), rank: le.Uint16(b[16:]), cost: math.Float32frombits(le.Uint32(b[8:])), tie: le.Uint32(b[12:]),
		doubted: b[18]&flagDoubted != 0, aside: b[18]&flagAside != 0,
	}
	if x.cost != x.cost {
		return Entry{}, corrupt("has a cost that is no number")
	}
	e := Entry{
		Worker: dynamo.WorkerID(x.id), Rank: int(x.rank), Cost: float64(x.cost), Doubted: x.doubted, Aside: x.aside,
		Group: b[18]&flagServesGroup != 0, Known: b[18]&flagModel != 0,
		Held: int(le.Uint16(b[20:])), Slower: int(le.Uint16(b[22:])), ReportAge: decodeAge(b[19]),
	}
	if r.terms {
		t := decodeTerms(le.Uint64(b[24:]))
		e.Terms, e.PerBlock = Terms{Wait: t[0], Prefill: t[1], Slowdown: t[2], Load: t[4], Late: t[5]}, t[3]
		if r.Policy == KV && b[18]&flagPreferred == 0 {
			e.Terms.Decode = max(e.Cost-e.Terms.total(), 0)
		}
	} else {
		e.Load, x.second = int(le.Uint32(b[24:])), le.Uint32(b[28:])
	}
	e.contender = x
	return e, nil
}

// Again makes the last step of the decision once more, among the candidates of the
// record, and returns the winner's index in Best, which is 0; None if there is none.
func (r *Record) Again() int {
	if !r.won {
		return None
	}
	winner := None
	for i := range r.Best {
		e := &r.Best[i]
		if r.Group && (!e.Group || e.Doubted) {
			continue
		}
		if winner == None || r.rule.compare(e.contender, r.Best[winner].contender) < 0 {
			winner = i
		}
	}
	return winner
}

func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the record of a decision " + fmt.Sprintf(format, args...)}
}

func saturate16(n int) uint16 { return uint16(clamp(n, 0, math.MaxUint16)) }

// A term of 12 bits is 0, or a number of 5 bits of exponent and 7 of mantissa: 2^-6 to
// 2^25 milliseconds, to 0.4 %. An age of 8 bits is one of 5 and 3.
const (
	termBits     = 12
	termMantissa = 7
	ageMantissa  = 3
	termFloor    = 7 // is added to the exponent; a sum below 1 is 0
)

// short rounds a number to 5 bits of exponent and so many of mantissa.
func short(v float32, mantissa int) uint64 {
	bits := int64(math.Float32bits(v)) + 1<<(22-mantissa)
	n := bits>>(23-mantissa) - (127-termFloor)<<mantissa
	if !(v > 0) || n < 1<<mantissa {
		return 0
	}
	return uint64(min(n, 1<<(mantissa+5)-1))
}

// long is the number that short has rounded.
func long(n uint64, mantissa int) float64 {
	if n == 0 {
		return 0
	}
	return float64(math.Float32frombits(uint32(n+(127-termFloor)<<mantissa) << (23 - mantissa)))
}

// encodeTerms packs four terms of 12 bits and two of 8, which are a few percent coarse.
func encodeTerms(terms *[6]float32) (bits uint64) {
	for i, v := range terms[:4] {
		bits |= short(v, termMantissa) << (i * termBits)
	}
	for i, v := range terms[4:] {
		bits |= short(v, ageMantissa) << (4*termBits + i*8)
	}
	return bits
}

func decodeTerms(bits uint64) (terms [6]float64) {
	for i := range terms[:4] {
		terms[i] = long(bits>>(i*termBits)&(1<<termBits-1), termMantissa)
	}
	for i := range terms[4:] {
		terms[4+i] = long(bits>>(4*termBits+i*8)&0xff, ageMantissa)
	}
	return terms
}

// encodeAge is 0 for no report; the age of one, in nanoseconds, has a millisecond added.
func encodeAge(age int64, reported bool) byte {
	if !reported {
		return 0
	}
	return byte(short(float32(max(age, 0))/1e6+1, ageMantissa))
}

func decodeAge(b byte) time.Duration {
	if b == 0 {
		return -1
	}
	return max(time.Duration((long(uint64(b), ageMantissa)-1)*1e6), 0)
}
