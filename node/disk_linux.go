package node

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dynamo-go/dynamo"
)

// roomFor says whether the disk of a folder has room for a tier of so many bytes, of
// which those that are there already count.
func roomFor(dir string, bytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return nil // nothing is known; a full disk is met when it is written to
	}
	if info, err := os.Stat(filepath.Join(dir, "pool")); err == nil {
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			bytes -= s.Blocks * 512
		}
	}
	if free := int64(fs.Bavail) * fs.Bsize; bytes > free {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--kvbm-disk-cache-gb asks for %s more and the disk of %s has %s free; ask for less, or give another --kvbm-disk-dir", size(bytes), dir, size(free))}
	}
	return nil
}
