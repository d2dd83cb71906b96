package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

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
