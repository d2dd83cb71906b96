package native

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// ahead takes the memory of a cache from the system a little before blocks are used for
// the first time: in the middle of a hand-over the first touch of a page costs more than
// its copy. Blocks are used for the first time in the order of their numbers, so it stays
// populateBytes in front of the highest, and a cache that is larger than what is ever used
// takes no more than that beyond it.
type ahead struct {
	log    *slog.Logger
	shared *transfer.Shared
	block  int64 // bytes
	taken  int64 // bytes from the beginning on; the loop's

	busy    atomic.Bool
	over    atomic.Bool
	working sync.WaitGroup
}

// reach says that so many blocks, the first ones, are used or will be at once. It is
// called in the loop's goroutine, or before it runs.
func (a *ahead) reach(blocks int) {
	used, size := int64(blocks)*a.block, int64(len(a.shared.Bytes()))
	if a.taken == size || a.taken-used > populateBytes/2 || a.busy.Load() {
		return
	}
	from, to := max(a.taken, min(used, size)), min(used+populateBytes, size)
	a.taken = max(a.taken, to)
	if from >= to {
		return
	}
	a.busy.Store(true)
	a.working.Go(func() { // ends with the bytes, or the cache
		defer a.busy.Store(false)
		for ; from < to && !a.over.Load(); from += populatePiece {
			if err := a.shared.Populate(transfer.Range{Offset: from, Length: min(populatePiece, to-from)}); err != nil {
				a.log.Debug("memory of the KV cache is taken when it is used", obs.KeyError, err)
				return
			}
		}
	})
}

// close ends it; the memory may go after that.
func (a *ahead) close() {
	a.over.Store(true)
	a.working.Wait()
}
