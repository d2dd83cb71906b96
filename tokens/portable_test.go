package tokens

import (
	"testing"

	"github.com/dynamo-go/dynamo"
)

// TestPortable compares the two ways to hash ids, where both apply.
func TestPortable(t *testing.T) {
	if !littleEndian {
		t.Skip("on this machine there is one way only")
	}
	ids := []dynamo.TokenID{0, 1, 0xffffffff, 0x01020304}
	for n := range len(ids) + 1 {
		if got, want := localHashPortable(Seed+9, ids[:n]), LocalHash(9, ids[:n]); got != want {
			t.Errorf("%d ids: %x, want %x", n, got, want)
		}
	}
}
