package kvbm

// handle names a block in one period of its life: the generation the block was in, and
// below it, in 32 bits, the block's number plus one. It is one word so that it is stored
// and loaded whole: a load of what two stores have just written waits for both.
type handle uint64

func newHandle(n int32, gen uint32) handle { return handle(gen)<<32 | handle(n+1) }

// ID is the block's index, 0 to Blocks-1.
func (h handle) ID() int32 { return int32(uint32(h)) - 1 }

func (h handle) gen() uint32 { return uint32(h >> 32) }

// Partial is a block being filled by its one owner.
type Partial struct{ handle }

// Complete is a full block whose content is named.
type Complete struct{ handle }

// Held is one hold on an immutable block. The zero Held is no block.
type Held struct{ handle }

// IsZero reports whether h is no block.
func (h Held) IsZero() bool { return h.handle == 0 }

// Loading is the target of a copy that is under way.
type Loading struct{ handle }

// state is where a block is in its life.
type state uint8

const (
	stateFree state = iota
	statePartial
	stateComplete // also: unregistered or duplicate, with one holder
	stateHeld     // registered, holders > 0
	stateIdle     // registered, no holder
	stateLoading
	numStates
)

var stateNames = [numStates]string{"free", "partial", "complete", "held", "idle", "loading"}
