package daemon

import (
	"bytes"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// FuzzMessage gives the decoders any bytes: they refuse them, or what they read says
// the same when it is written again.
func FuzzMessage(f *testing.F) {
	h := hello{1, 1, 8192, 16, "name", "content", "", 0}
	f.Add(h.append(nil))
	h = hello{1, 2, 8192, 16, "name", "content", "layers=1", flagFingerprints}
	f.Add(h.append(nil))
	f.Add(appendKeys(nil, []dynamo.ContentKey{{1}, {2}}))
	var it item
	it.block.Key, it.block.Depth, it.memory, it.offset = dynamo.ContentKey{3}, 7, 1, 1<<40
	f.Add(it.appendPut([]byte{1, 0, 0, 0}))
	f.Add(it.appendGet([]byte{1, 0, 0, 0}))
	f.Add(message(opFind, 0, 9, []byte{0, 0, 0, 0}))
	w := welcome{1, 2, 3, 4, 5, 6}
	f.Add(w.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, got []byte) {
			if !bytes.Equal(got, b) {
				t.Errorf("%s %x becomes %x", what, b, got)
			}
		}
		if h, err := parseHello(b); err == nil {
			same("hello", h.append(nil))
		}
		if items, err := parseKeys(b); err == nil {
			keys := make([]dynamo.ContentKey, len(items))
			for i := range items {
				keys[i] = items[i].block.Key
			}
			same("keys", appendKeys(nil, keys))
		}
		if items, err := parsePuts(b); err == nil {
			out := bytes.Clone(b[:4])
			for i := range items {
				out = items[i].appendPut(out)
			}
			same("puts", out)
		}
		if items, err := parseGets(b); err == nil && len(items) > MaxItems {
			t.Error("too many items")
		}
		if len(b) >= headerBytes {
			if h, err := parseHeader(b, MaxBody); err == nil && (h.length < 0 || h.length > MaxBody) {
				t.Errorf("a body of %d bytes", h.length)
			}
		}
		if w, err := parseWelcome(b); err == nil {
			if got := w.append(nil); !bytes.Equal(got, b[:welcomeBytes]) {
				t.Errorf("welcome %x becomes %x", b, got)
			}
		}
	})
}
