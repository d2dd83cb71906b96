package transfer

import (
	"net"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// TestZeroCopyBetween: what stays within the host is lent only if that is asked for.
func TestZeroCopyBetween(t *testing.T) {
	const here, there = "192.0.2.1", "192.0.2.2"
	for _, c := range []struct {
		z             ZeroCopy
		local, remote string
		want          bool
	}{
		{ZeroCopyAuto, here, there, true},
		{ZeroCopyAuto, "2001:db8::1", "2001:db8::2", true},
		{ZeroCopyAuto, here, here, false},
		{ZeroCopyAuto, "127.0.0.1", "127.0.0.2", false},
		{ZeroCopyAuto, "::1", "::1", false},
		{ZeroCopyAlways, "127.0.0.1", "127.0.0.1", true},
		{ZeroCopyAlways, here, there, true},
		{ZeroCopyOff, here, there, false},
		{"", here, there, false},
	} {
		local, remote := &net.TCPAddr{IP: net.ParseIP(c.local), Port: 1}, &net.TCPAddr{IP: net.ParseIP(c.remote), Port: 2}
		if got := c.z.between(local, remote); got != c.want {
			t.Errorf("%q from %s to %s: %t, want %t", c.z, c.local, c.remote, got, c.want)
		}
	}
	unix := &net.UnixAddr{Name: "s", Net: "unix"}
	if ZeroCopyAlways.between(unix, unix) {
		t.Error("a Unix socket lends")
	}
	c := DefaultConfig()
	c.Name, c.Key, c.ZeroCopy = "a", testKey, "sometimes"
	if err := c.Validate(); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "sometimes") {
		t.Errorf("%v, want it refused", err)
	}
}

// TestWorthLending: small payload is copied, and so is what lies in small pieces.
func TestWorthLending(t *testing.T) {
	pieces := func(n, size int) (bs net.Buffers) {
		for range n {
			bs = append(bs, make([]byte, size))
		}
		return bs
	}
	for _, c := range []struct {
		payload net.Buffers
		want    bool
	}{
		{nil, false},
		{pieces(1, lendBytes-1), false},
		{pieces(1, lendBytes), true},
		{pieces(4, lendSegment), true},
		{pieces(64, 2<<10), false},
		{append(pieces(2, 64<<10), pieces(3, 1<<10)...), true},
	} {
		if got := worthLending(c.payload); got != c.want {
			t.Errorf("%d pieces: %t, want %t", len(c.payload), got, c.want)
		}
	}
}
