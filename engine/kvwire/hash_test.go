package kvwire_test

import (
	"encoding/hex"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
)

// TestVLLMHashes computes every block hash of the captures anew.
func TestVLLMHashes(t *testing.T) {
	h, blocks, salted := kvwire.NewHasher(kvwire.SHA256), 0, 0
	none := h.None("")
	if got, want := hex.EncodeToString(none[:]), "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198"; got != want {
		t.Errorf("None(\"\") = %s, want %s", got, want)
	}
	for _, name := range fixtures {
		known := map[kvwire.EngineHash]kvwire.Digest{}
		var d kvwire.Decoder
		for _, p := range capture(t, name) {
			for _, e := range decode(t, &d, p).Events {
				if e.Kind != kvwire.Stored {
					continue
				}
				parent := none
				if e.HasParent {
					var ok bool
					if parent, ok = known[e.Parent]; !ok {
						t.Fatalf("%s: parent %x is not known", name, e.Parent)
					}
				}
				for i, want := range e.Hashes {
					var keys []kvwire.HashKey
					for _, k := range e.Extra {
						if k.Block == i {
							keys = kvwire.HashKeys("", "", k.Names[0])
							salted++
						}
					}
					parent = h.Block(parent, e.Tokens[i*e.BlockSize:(i+1)*e.BlockSize], keys)
					known[want] = parent
					blocks++
					if got := parent.EngineHash(); got != want {
						t.Errorf("%s: block %d: got %x, want %x", name, i, got, want)
					}
				}
			}
		}
	}
	if blocks != 331 || salted == 0 {
		t.Errorf("got %d blocks, %d of them salted; want 331 and some", blocks, salted)
	}
}

// TestCBORHashes has values computed by another implementation.
func TestCBORHashes(t *testing.T) {
	h := kvwire.NewHasher(kvwire.SHA256CBOR)
	for _, c := range []struct {
		seed, none string
		blocks     [][]dynamo.TokenID
		want       []kvwire.EngineHash
		keys       []kvwire.HashKey
	}{
		{"0", "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e",
			[][]dynamo.TokenID{{1, 2, 3, 4}, {5, 6, 300, 70000}}, []kvwire.EngineHash{2164874634404590027, 8677887276444426176}, nil},
		{"0", "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e",
			[][]dynamo.TokenID{{1, 2, 3, 4}}, []kvwire.EngineHash{4389037518321002470}, []kvwire.HashKey{{"my-lora"}, {"salt"}}},
		{"0", "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e",
			[][]dynamo.TokenID{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}, []kvwire.EngineHash{12687895063098490012}, nil},
		{"42", "9fa6eb003f14425eb9c8e6baacfbcaab26257357b829c7bfa74ffcc4f31c1780",
			[][]dynamo.TokenID{{1, 2, 3, 4}}, []kvwire.EngineHash{5988051177307384287}, nil},
	} {
		parent := h.None(c.seed)
		if got := hex.EncodeToString(parent[:]); got != c.none {
			t.Errorf("None(%q) = %s, want %s", c.seed, got, c.none)
		}
		for i, ids := range c.blocks {
			parent = h.Block(parent, ids, c.keys)
			if got := parent.EngineHash(); got != c.want[i] {
				t.Errorf("seed %q: block %v: got %d, want %d", c.seed, ids, got, c.want[i])
			}
		}
	}
}

// TestPickleForms has values of Python's pickle for what the captures do not hold.
func TestPickleForms(t *testing.T) {
	h := kvwire.NewHasher(kvwire.SHA256)
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'x'
	}
	for _, c := range []struct {
		ids  []dynamo.TokenID
		keys []kvwire.HashKey
		want string
	}{
		{[]dynamo.TokenID{1}, nil, "10e5c943946eb35f6a25b6b1faf9cd8beec4790d8eb2b79c6aca0e6a57e8dd6a"},
		{[]dynamo.TokenID{1, 256}, nil, "5e42a63029f9209e6a0c83684ff4d2d343d6e852b22f8dd2bb08bcf77060a3c4"},
		{[]dynamo.TokenID{255, 65535, 65536}, nil, "f2e39687bd1f3d182343a9836032a6a43552146fbae1029ac725f82661cf9a17"},
		{[]dynamo.TokenID{2147483647, 2147483648, 4294967295, 0}, nil, "c7be81813f1a8575c61f2842cc16e6d6d1347b2cbb909b04927bf6633c59da58"},
		{[]dynamo.TokenID{}, nil, "be96d1f8aece531f6f4fac066de2a416e0f3fde2f0b057793a5bfbb1d926db55"},
		{[]dynamo.TokenID{1, 2, 3, 4}, []kvwire.HashKey{{string(long)}}, "87f8f8d73a6d73b2bd0453bf4631052a2afa4d00648053493593b8b86f12387d"},
		{[]dynamo.TokenID{1, 2, 3, 4}, []kvwire.HashKey{{"lora"}, {"cache_salt", "é"}}, "c3df7413a8cd4b0c0ebe5c6c235446256bb77491523fc1be7ee61d1429938036"},
		{[]dynamo.TokenID{1, 2, 3, 4}, []kvwire.HashKey{{"a"}, {"b"}, {"c"}, {"d"}}, "0dc9c98bde7f3ff5a6bc537a2ccbb51cfbd1c872b21279a7ab709d394dbbab97"},
		{[]dynamo.TokenID{1, 2, 3, 4}, kvwire.HashKeys("ada", "/a", "s"), "69df401c605e9272f909469481146639830ee94e09ca1f2615f8825d98d33e96"},
	} {
		got := h.Block(kvwire.Digest{}, c.ids, c.keys)
		if hex.EncodeToString(got[:]) != c.want {
			t.Errorf("block %v, keys %v: got %x, want %s", c.ids, c.keys, got, c.want)
		}
	}
}
