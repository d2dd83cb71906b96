package node

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
)

func TestClusterKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "dynamo")
	keys := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := ClusterKey(dir)
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
	path := filepath.Join(dir, clusterKeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ClusterKey(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ClusterKey(dir); err == nil || dynamo.KindOf(err) != dynamo.KindCorrupt {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestListen(t *testing.T) {
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if _, err := Listen("127.0.0.1", port); err == nil || !strings.Contains(err.Error(), "--http-port") || dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("a port in use: %v", err)
	}
	if _, err := Listen("192.0.2.1", 0); err == nil || !strings.Contains(err.Error(), "--http-host") {
		t.Errorf("an address of another machine: %v", err)
	}
	path := filepath.Join(t.TempDir(), "addr")
	if err := writeAddrFile(path, "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "127.0.0.1:1\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestConfigFaults(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	c = Config{Engine: "x", Precision: "x", KernelLevel: "x", Threads: -1, KVCacheBytes: -1, ContextLength: -1, MaxQueue: -1, EchoITL: -1, DrainTimeout: -1, ChatTemplate: "/nowhere/t", APIKeysFile: "/nowhere/k"}
	err := c.Validate()
	for _, flag := range []string{"--engine", "--precision", "--kernel-level", "--threads", "--kv-cache-bytes", "--context-length", "--step-tokens", "--max-running", "--max-queue", "--body-limit", "--echo-itl", "--drain-timeout", "--chat-template", "--api-keys"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("the error does not name %s: %v", flag, err)
		}
	}
}
