package kvwire_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/dynamo-go/dynamo/engine/kvwire"
)

var fixtures = []string{"vllm-kv-events.bin", "vllm-kv-events-bytes.bin"}

// capture returns the payloads of a fixture; testdata/README.md has its format.
func capture(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for len(b) > 0 {
		frames := binary.BigEndian.Uint32(b)
		b = b[4:]
		for i := range frames {
			n := binary.BigEndian.Uint32(b)
			if i == 2 {
				out = append(out, b[4:4+n])
			}
			b = b[4+n:]
		}
	}
	return out
}

// decode returns what a payload says.
func decode(t testing.TB, d *kvwire.Decoder, payload []byte) *kvwire.Batch {
	t.Helper()
	b, err := d.Decode(payload)
	if err != nil {
		t.Fatalf("payload %x: %v", payload[:min(len(payload), 64)], err)
	}
	return b
}
