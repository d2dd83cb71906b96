package transfer

import (
	"os"
	"sync/atomic"
)

// table holds the words of a memory's fence. For shared memory they lie in a file
// of their own, which peers can map for reading only.
type table struct {
	words  []uint64
	file   *os.File // nil for host memory
	mapped []byte
	shared *Shared
}

// seat is a process that maps a memory of this agent: its hazards, each the packed
// pages that one of its goroutines touches, and the connection that lasts as long
// as the mapping.
type seat struct {
	hazards []uint64
	conn    halfCloser
}

type halfCloser interface{ CloseWrite() error }

// touches reports whether the process has announced pages of s.
func (s *seat) touches(pages span) bool {
	for i := range s.hazards {
		if w := atomic.LoadUint64(&s.hazards[i]); w != 0 && unpack(w).overlaps(pages) {
			return true
		}
	}
	return false
}

// dismiss asks the process to give the mapping up. What proves that it has is the
// end of its side of the connection.
func (s *seat) dismiss() {
	_ = s.conn.CloseWrite() // a closed connection is what is wanted
}
