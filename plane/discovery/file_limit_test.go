package discovery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
)

// TestFileFlood fills the directory with more names than are read: the watch
// goes on, in bounded memory, and says so.
func TestFileFlood(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes many files")
	}
	s := open(t, t.TempDir(), 10*time.Second)
	for n := range 4*discovery.MaxInstances + 1 {
		f, err := os.Create(filepath.Join(s.Dir(), fmt.Sprintf("x%d", n)))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	from := updates(t, s)
	u := next(t, from, discovery.Snapshot, 10*time.Second)
	if len(u.Problems) != 1024 || !strings.Contains(u.Problems[0].Error(), "only so many are read") {
		t.Errorf("%d problems, first %v", len(u.Problems), u.Problems[:1])
	}
	nothing(t, from, 1500*time.Millisecond)
	register(t, s, discoverytest.Instance(1, 1)) // is not refused
}
