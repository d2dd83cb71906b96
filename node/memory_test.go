package node

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// fakeRoot makes a file system with the given files.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestMemory(t *testing.T) {
	const info = "MemTotal:       8000 kB\nMemFree:  10 kB\nMemAvailable:   5000 kB\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  Memory
	}{
		{"nothing is known", nil, Memory{math.MaxInt64, 0, "machine"}},
		{"machine", map[string]string{"proc/meminfo": info}, Memory{5000 << 10, 8000 << 10, "machine"}},
		{"control group version 2", map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "1000\n",
			"sys/fs/cgroup/a/memory.max": "3000000\n", "sys/fs/cgroup/a/memory.current": "1000000\n",
			"sys/fs/cgroup/a/memory.stat": "anon 5\ninactive_file 400000\n",
		}, Memory{2_400_000, 3_000_000, "control group"}},
		{"container sees its group at the top", map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/docker/x\n",
			"sys/fs/cgroup/memory.max": "2000000\n", "sys/fs/cgroup/memory.current": "500000\n",
		}, Memory{1_500_000, 2_000_000, "control group"}},
		{"control group version 1", map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "3:cpu,memory:/x\n1:name=systemd:/\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2000000\n", "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "2500000\n",
		}, Memory{0, 2_000_000, "control group"}},
		{"no limit in version 1", map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "3:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
		}, Memory{5000 << 10, 8000 << 10, "machine"}},
	} {
		if got := memoryFrom(fakeRoot(t, tc.files)); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestKVBlocks(t *testing.T) {
	const mb = 1 << 20
	mem := func(n int64) Memory { return Memory{AvailableBytes: n, Limit: "machine"} }
	for _, tc := range []struct {
		name                            string
		available, weights, block, want int64
		context                         int
		blocks                          int
		say                             string
	}{
		{name: "a quarter of what is left", available: 900 * mb, weights: 100 * mb, block: mb, context: 100, blocks: 200},
		{name: "at most 16 contexts", available: 90000 * mb, weights: 100 * mb, block: mb, context: 100, blocks: 1600},
		{name: "one context takes up to a half", available: 900 * mb, weights: 100 * mb, block: mb, context: 300, blocks: 300},
		{name: "a context that does not fit", available: 900 * mb, weights: 100 * mb, block: mb, context: 9000, blocks: 400},
		{name: "as asked", available: 900 * mb, weights: 100 * mb, block: mb, context: 100, want: 700 * mb, blocks: 700},
		{name: "no limit known", available: math.MaxInt64, weights: 1, block: 1, context: 10, blocks: 160},
		{name: "weights too large", available: 50 * mb, weights: 100 * mb, block: mb, context: 1, say: "needs 100.0 MiB of memory and 50.0 MiB are available"},
		{name: "asked too much", available: 200 * mb, weights: 100 * mb, block: mb, context: 1, want: 150 * mb, say: "asks for 150.0 MiB; beside the model's 100.0 MiB only 100.0 MiB"},
		{name: "asked too little", available: 200 * mb, weights: 100 * mb, block: mb, context: 1, want: 1000, say: "less than one block"},
		{name: "nothing left", available: 100 * mb, weights: 100 * mb, block: mb, context: 1, say: "too little for a KV cache"},
	} {
		got, err := kvBlocks(mem(tc.available), tc.weights, tc.block, tc.want, tc.context)
		if tc.say != "" {
			if err == nil || !strings.Contains(err.Error(), tc.say) || dynamo.KindOf(err) == dynamo.KindInternal {
				t.Errorf("%s: got %v", tc.name, err)
			}
		} else if err != nil || got != tc.blocks {
			t.Errorf("%s: got %d, %v; want %d", tc.name, got, err, tc.blocks)
		}
	}
}
