package transfer_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
)

// TestPopulate takes parts of a memory from the system, those and no others, and refuses
// what is not in it.
func TestPopulate(t *testing.T) {
	const size = 1 << 20
	s, err := transfer.NewShared("populate", size)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		r    transfer.Range
		want int64 // bytes taken, all in all
	}{
		{transfer.Range{Offset: 0, Length: 8192}, 8192},
		{transfer.Range{Offset: 4000, Length: 200}, 8192}, // it has those
		{transfer.Range{Offset: size - 1, Length: 1}, 3 * 4096},
		{transfer.Range{Offset: 0, Length: size}, size},
	} {
		if err := s.Populate(c.r); err != nil {
			t.Errorf("%+v: %v", c.r, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(s.File().Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if got := st.Blocks * 512; got != c.want {
			t.Errorf("after %+v %d bytes are taken, want %d", c.r, got, c.want)
		}
	}
	for _, r := range []transfer.Range{{Offset: -1, Length: 5}, {Offset: 0, Length: size + 1}, {Offset: size, Length: 1}, {Offset: 0, Length: 0}} {
		if err := s.Populate(r); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
