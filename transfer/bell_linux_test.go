package transfer

import (
	"encoding/binary"
	"testing"
)

func FuzzRing(f *testing.F) {
	n := &note{seq: 1, notify: true, payload: []byte("x"), releases: []release{{1, 7}}}
	f.Add(n.frame(nil, 3))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < frameHead {
			return // hearRecord refuses it
		}
		got, stream, err := readNote(in)
		if err == nil && got.seq != binary.BigEndian.Uint64(in[8:]) {
			t.Errorf("note %d of stream %d was read as another", got.seq, stream)
		}
	})
}
