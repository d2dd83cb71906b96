package node

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Memory is what this process may still use.
type Memory struct {
	// AvailableBytes is the least of what the machine and the control groups
	// leave; math.MaxInt64 where nothing says.
	AvailableBytes int64
	// TotalBytes is the machine's memory or the control group's limit.
	TotalBytes int64
	// Limit names what bounds AvailableBytes: "machine" or "control group".
	Limit string
}

// AvailableMemory asks the kernel. It fails nowhere: where nothing is known
// (other systems than Linux) nothing is refused.
func AvailableMemory() Memory { return memoryFrom("/") }

func memoryFrom(root string) Memory {
	m := Memory{AvailableBytes: math.MaxInt64, Limit: "machine"}
	info, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err == nil {
		m.TotalBytes = meminfo(info, "MemTotal:")
		if n := meminfo(info, "MemAvailable:"); n > 0 {
			m.AvailableBytes = n
		}
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(groups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[1] == "": // version 2
			m.bound(root, "sys/fs/cgroup", f[2], "memory.max", "memory.current", "inactive_file")
		case strings.Contains(","+f[1]+",", ",memory,"):
			m.bound(root, "sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
		}
	}
	return m
}

// bound lowers m to what a control group and its parents leave. Inside a
// container the group's path may not exist; its own files are then at the top.
func (m *Memory) bound(root, mount, group, limit, usage, reclaimable string) {
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		base := filepath.Join(root, mount, dir)
		most, ok1 := readNumber(filepath.Join(base, limit))
		used, ok2 := readNumber(filepath.Join(base, usage))
		if ok1 && ok2 && most < 1<<60 {
			stat, err := os.ReadFile(filepath.Join(base, "memory.stat"))
			if err == nil {
				used -= memStat(stat, reclaimable)
			}
			if left := max(most-max(used, 0), 0); left < m.AvailableBytes {
				m.AvailableBytes, m.TotalBytes, m.Limit = left, most, "control group"
			}
		}
		if dir == "/" {
			return
		}
	}
}

func readNumber(name string) (int64, bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// meminfo returns a field of /proc/meminfo in bytes.
func meminfo(info []byte, field string) int64 {
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// memStat returns a field of a control group's memory.stat.
func memStat(stat []byte, field string) int64 {
	for line := range strings.Lines(string(stat)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// autoContexts is how many full contexts the KV cache holds at most unless its
// size is given.
const autoContexts = 16

// kvBlocks decides how many KV blocks to have: what the user asked for, or a
// quarter of what the weights leave free, at least one context and at most
// autoContexts. It refuses what does not fit, with both numbers.
func kvBlocks(mem Memory, weights, perBlock, want int64, contextBlocks int) (int, error) {
	if perBlock <= 0 || contextBlocks <= 0 {
		return 0, fmt.Errorf("a KV block of %d bytes and contexts of %d blocks make no cache", perBlock, contextBlocks)
	}
	if weights > mem.AvailableBytes {
		return 0, tooLarge(weights, mem)
	}
	left := mem.AvailableBytes - weights
	if want > 0 {
		if want > left {
			return 0, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf(
				"--kv-cache-bytes asks for %s; beside the model's %s only %s of memory are available (%s)", size(want), size(weights), size(left), mem.Limit)}
		}
		if want < perBlock {
			return 0, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--kv-cache-bytes is %s, less than one block of this model (%s)", size(want), size(perBlock))}
		}
		return int(min(want/perBlock, math.MaxInt32)), nil
	}
	blocks := min(left/4/perBlock, int64(autoContexts)*int64(contextBlocks))
	if blocks < int64(contextBlocks) { // a long context on a small machine
		blocks = min(int64(contextBlocks), left/2/perBlock)
	}
	if blocks < 1 {
		return 0, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf(
			"beside the model's %s only %s of memory are available (%s): too little for a KV cache", size(weights), size(left), mem.Limit)}
	}
	return int(min(blocks, math.MaxInt32)), nil
}

// tooLarge refuses a model, with both numbers.
func tooLarge(weights int64, mem Memory) error {
	return &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf(
		"the model needs %s of memory and %s are available (%s); choose a smaller model or a smaller quantization of it", size(weights), size(mem.AvailableBytes), mem.Limit)}
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
