package router

import (
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// journal keeps the last decisions, as placement's records, with what became of
// them. Its memory is a ring of fixed size that is made once; Router.mu guards it.
type journal struct {
	ring []entry
	next uint64 // number of the next decision; the ring has the last ones before it
}

// entry is one decision.
type entry struct {
	number  uint64 // of the decision, from 1; 0: none
	request dynamo.RequestID
	group   dynamo.RequestID
	attempt int
	bytes   int // of record
	record  [placement.MaxRecordBytes]byte
	decided time.Time
	waited  time.Duration
	first   time.Duration // from decided to the first token; 0: none came
	total   time.Duration // to the end of the attempt; 0: it has not ended
	prompt  int           // tokens
	held    int           // tokens of it that the winner was thought to hold
	cached  int           // and says it held; -1: it has not said
	outcome outcome
	code    string
	epoch   uint64
	split   placement.Split
	fetch   *FetchExplanation // nil: nothing was to be fetched
}

// keep notes a decision and returns its number.
func (j *journal) keep(d *placement.Decision, c *call) uint64 {
	if j.ring == nil {
		j.ring = make([]entry, JournalSize)
	}
	j.next++
	e := &j.ring[j.next%JournalSize]
	*e = entry{number: j.next, request: c.q.ID, group: c.q.Group, attempt: c.attempts + 1, decided: d.Request.Now, waited: d.Request.Now.Sub(c.arrived), prompt: d.Request.Tokens, cached: -1}
	if c.split != nil {
		e.split = *c.split
	}
	e.bytes = len(d.AppendRecord(e.record[:0], e.waited))
	if d.Winner != placement.None {
		e.epoch = d.Candidates[d.Winner].Epoch
	}
	return j.next
}

// at returns a decision, or nil if it is too long ago.
func (j *journal) at(number uint64) *entry {
	if j.ring == nil {
		return nil
	}
	if e := &j.ring[number%JournalSize]; e.number == number && number > 0 {
		return e
	}
	return nil
}

// of lists the decisions for a request, oldest first; copies, for the ring goes on.
// The choices of a request and the stages of it bear its id with more behind it.
func (j *journal) of(id dynamo.RequestID) (all []entry) {
	for i := range j.ring {
		e := &j.ring[(j.next+1+uint64(i))%JournalSize]
		rest, ok := strings.CutPrefix(string(e.request), string(id))
		if e.number > 0 && (ok && (rest == "" || rest[0] == '-' || rest[0] == '/') || id != "" && e.group == id) {
			all = append(all, *e)
		}
	}
	return all
}

// last returns copies of the newest n decisions, newest first.
func (j *journal) last(n int) (all []entry) {
	for i := range uint64(min(n, len(j.ring))) {
		e := j.at(j.next - i)
		if e == nil {
			break
		}
		all = append(all, *e)
	}
	return all
}

// parse reads the record of an entry. What does not parse is a bug.
func (e *entry) parse() placement.Record {
	r, err := placement.ParseRecord(e.record[:e.bytes])
	if err != nil {
		panic("BUG: router: a record of its own cannot be read: " + err.Error())
	}
	return r
}
