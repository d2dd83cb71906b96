//go:build dl && linux && (amd64 || arm64)

package transfer

import (
	"fmt"
	"testing"
)

// BenchmarkUCX is BenchmarkTransfer and BenchmarkMessage by libucp, beside a bare
// tcp connection; UCX_TLS says over what.
func BenchmarkUCX(b *testing.B) {
	if err := LoadUCX(); err != nil {
		b.Skip("libucp cannot be loaded here (Debian: libucx0): ", err)
	}
	for _, s := range []struct{ block, count int64 }{{64 << 10, 64}, {64 << 10, 1024}, {1 << 20, 256}} {
		b.Run(fmt.Sprintf("%dKiBx%d", s.block>>10, s.count), func(b *testing.B) { benchBlocks(b, PathUCX, s.block, s.count) })
	}
	b.Run("message", func(b *testing.B) { benchMessage(b, PathUCX) })
}
