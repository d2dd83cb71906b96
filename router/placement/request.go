package placement

import (
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// Request is what a decision knows of a request.
type Request struct {
	ID dynamo.RequestID
	// Seed makes random choices and tells equal costs apart; see Seed.
	Seed uint64
	// Now is the moment of the decision, against which ages are taken.
	Now time.Time
	// Sticky is the worker that serves the request's group, which wins whatever
	// the costs if it may; zero for none.
	Sticky Key
	// Excluded are workers that may not win.
	Excluded []Key
	// Adapter is what the worker must list; empty asks nothing.
	Adapter string
	// Ranks says how well each kind of worker suits the request, by
	// Candidate.Kind; nil: all alike.
	Ranks []Rank

	// Role is the part of the work that is placed. A worker of a role takes no
	// other; one that is Whole takes any.
	Role Role
	// Pin is the worker that the request names; the zero Pin names none.
	Pin Pin
	// Session is the hash of the session's id; 0 is none. See Hash.
	Session uint64
	// Required are labels that the worker must have.
	Required []string
	// Preferred are labels that make a worker that has them cheaper.
	Preferred []Preference

	// Tokens is the length of the prompt, what is resumed included, and BlockSize how
	// many of them a block holds; 0 is unknown.
	Tokens, BlockSize int
	// Expected is how many tokens the answer is expected to have; 0 is unknown.
	Expected int
	// Overlaps say who holds how much of the prompt, one for each candidate that
	// holds any, in any order.
	Overlaps []Overlap
	// Peer can lend what it holds to the one that is chosen.
	Peer Peer
}

// Overlap says how many leading blocks of the prompt a candidate holds.
type Overlap struct {
	// Candidate is its index.
	Candidate int32
	// Blocks[t] counts those whose every block is in tier t or a faster one.
	Blocks [4]uint32
}

// Pin names a worker, and one of its ranks if HasRank.
type Pin struct {
	ID      dynamo.WorkerID
	Rank    int32
	HasRank bool
}

// Preference is a label, as "key=value", and by which part, in 0…1, it lowers the
// cost of a worker that has it.
type Preference struct {
	Label  string
	Weight float64
}

// Rank says how well a kind of worker suits a request. One of a higher rank wins
// only when none of a lower is left: they are all down, draining, lost or doubted.
// Full ones are waited for.
type Rank uint8

// Unable is the rank of workers that cannot serve the request at all.
const Unable Rank = 255

// Seed returns the seed of one attempt at a request: equal for the same request,
// number of ids it resumes and attempt, unrelated otherwise.
func Seed(id dynamo.RequestID, resumed, attempt int) uint64 {
	return mix(xxh3.HashString(string(id)) ^ mix(uint64(resumed)<<20^uint64(attempt)))
}

// Hash is a session's id as Request.Session has it: never 0 but for an empty id.
func Hash(session string) uint64 {
	if session == "" {
		return 0
	}
	return max(xxh3.HashString(session), 1)
}

// rank is that of a candidate.
func (r *Request) rank(c *Candidate) Rank {
	if r.Ranks == nil {
		return 0
	}
	return r.Ranks[c.Kind]
}

// size is the prompt's length within bounds.
func (r *Request) size() int { return clamp(r.Tokens, 0, maxTokens) }

// output is how long the answer is taken to be.
func (r *Request) output() int {
	if r.Expected <= 0 {
		return assumedOutput
	}
	return min(r.Expected, maxTokens)
}

// onDevice is how much of the prompt an overlap has, if that is all on the device.
func (r *Request) onDevice(o *Overlap) (tokens int, all bool) {
	b := &o.Blocks
	return min(int(min(b[0], maxBlocks))*max(r.BlockSize, 0), r.size()), b[0] >= max(b[1], b[2], b[3])
}

// held returns how many tokens of the prompt lie in each tier and no faster one. It
// never exceeds the prompt, and never falls from a tier to a slower one.
func (r *Request) held(o *Overlap) (tokens [4]int) {
	size, before := r.size(), 0
	for t, blocks := range o.Blocks {
		n := max(min(int(min(blocks, maxBlocks))*max(r.BlockSize, 0), size), before)
		tokens[t], before = n-before, n
	}
	return tokens
}

// mix is the finalizer of SplitMix64: every bit of x reaches every bit of the
// result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
