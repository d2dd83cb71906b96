package discovery_test

import (
	"os"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
)

// open opens the store in dir, closed with the test.
func open(t *testing.T, dir string, ttl time.Duration) *discovery.File {
	t.Helper()
	c := discovery.DefaultConfig()
	c.TTL = ttl
	s, err := discovery.Open("file:"+dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some tests take its directory away
	return s.(*discovery.File)
}

// fixture opens two handles to one directory. It breaks by losing the directory
// to a file of its name.
func fixture(t *testing.T, ttl time.Duration, change func(a, b *discovery.File)) discoverytest.Fixture {
	dir := t.TempDir() + "/run"
	a, b := open(t, dir, ttl), open(t, dir, ttl)
	if change != nil {
		change(a, b)
		quick := func(f *os.File, b []byte) error { // what is lost with the machine is not tested
			_, err := f.Write(b)
			return err
		}
		a.SetWrite(quick)
		b.SetWrite(quick)
	}
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	return discoverytest.Fixture{
		Store: a, Second: b, TTL: ttl,
		Abandon: func(r discovery.Registration, _ discovery.Instance) { discovery.Abandon(r) },
		Break: func() {
			check(os.RemoveAll(dir))
			check(os.WriteFile(dir, nil, 0o600))
		},
		Mend: func() { check(os.Remove(dir)) },
	}
}

func TestFile(t *testing.T) {
	discoverytest.Run(t, func(t *testing.T) discoverytest.Fixture { return fixture(t, 10*time.Second, nil) })
}

func TestFileOtherHost(t *testing.T) {
	long(t)
	discoverytest.Run(t, func(t *testing.T) discoverytest.Fixture {
		return fixture(t, 400*time.Millisecond, func(a, b *discovery.File) { a.SetKernel("a"); b.SetKernel("b") })
	})
}

// TestFilePoor is a file system that can do nothing but rename.
func TestFilePoor(t *testing.T) {
	long(t)
	discoverytest.Run(t, func(t *testing.T) discoverytest.Fixture {
		return fixture(t, 400*time.Millisecond, func(a, b *discovery.File) {
			for _, f := range []*discovery.File{a, b} {
				f.SetNoLocks()
				f.SetPolling(20 * time.Millisecond)
			}
		})
	})
}

func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the laws are tested on the common way of File only")
	}
}
