package native

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo/engine/native/model"
)

// TestAhead has an engine take memory for its cache before it is used, but not much of a
// cache that is larger than what is used.
func TestAhead(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	const blocks = 40_000
	x := startExchanging(t, m, "local", func(c *Config) { c.Blocks = blocks })
	taken := func() int64 {
		t.Helper()
		if err := x.Check(); err != nil { // it runs
			t.Fatal(err)
		}
		x.moves.ahead.working.Wait()
		var st unix.Stat_t
		if err := unix.Fstat(int(x.moves.shared.File().Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if size := int64(m.BlockBytes()) * blocks; size < 2*populateBytes {
		t.Fatalf("the cache has %d bytes; the test wants more", size)
	}
	if got := taken(); got != populateBytes {
		t.Errorf("%d bytes are taken at first, want %d", got, populateBytes)
	}
	x.moves.ahead.reach(10)
	if got := taken(); got != populateBytes {
		t.Errorf("%d bytes are taken when few blocks are used, want %d", got, populateBytes)
	}
	half := populateBytes/m.BlockBytes()/2 + 1
	x.moves.ahead.reach(half)
	if got, want := taken(), int64(half*m.BlockBytes())+populateBytes; got < want || got > want+4096 {
		t.Errorf("%d bytes are taken when %d blocks are used, want %d", got, half, want)
	}
	x.moves.ahead.reach(blocks)
	taken() // the end of the memory is no fault
}
