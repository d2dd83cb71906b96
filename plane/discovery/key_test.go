package discovery_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

func TestKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "dynamo")
	keys := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := discovery.MakeKey(dir)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != 32 || !bytes.Equal(k, keys[0]) {
			t.Fatalf("keys differ: %x", keys)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	path := filepath.Join(dir, "cluster.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, c := range []struct {
		text string
		mode os.FileMode
		kind dynamo.Kind
		say  string
	}{
		{string(bytes.Repeat([]byte("ab"), 32)), 0o644, dynamo.KindInvalid, "chmod 600"},
		{string(bytes.Repeat([]byte("ab"), 32)), 0o640, dynamo.KindInvalid, "chmod 600"},
		{"short", 0o600, dynamo.KindCorrupt, "hexadecimal"},
		{strings.Repeat("a", 10000), 0o600, dynamo.KindCorrupt, "hexadecimal"},
		{"", 0o600, dynamo.KindCorrupt, "hexadecimal"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		for _, read := range []func() ([]byte, error){
			func() ([]byte, error) { return discovery.MakeKey(dir) },
			func() ([]byte, error) { return discovery.ReadKey(path) },
		} {
			if _, err := read(); err == nil || dynamo.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), path) {
				t.Errorf("%.10q of mode %o: %v", c.text, c.mode, err)
			}
		}
	}
	if _, err := discovery.ReadKey(dir); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("a directory: %v", err)
	}
	if _, err := discovery.ReadKey(path + ".none"); err == nil || !strings.Contains(err.Error(), "--cluster-key-file") {
		t.Errorf("no file: %v", err)
	}
}

func TestHostID(t *testing.T) {
	id := discovery.HostID()
	if name, err := os.Hostname(); err != nil || !strings.HasPrefix(id, name+"-") || len(id) != len(name)+13 || id != discovery.HostID() {
		t.Errorf("got %q", id)
	}
}
