package bench

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck is a TCP connection that acknowledges at once. Linux forgets the option
// by itself, so that it is set before each read.
type quickAck struct {
	*net.TCPConn
	raw syscall.RawConn
}

// Read implements net.Conn.
func (q quickAck) Read(b []byte) (int, error) {
	// Without the option the read is only slower.
	_ = q.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	return q.TCPConn.Read(b)
}

// acknowledging returns c so that it acknowledges at once, if it can.
func acknowledging(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	return quickAck{t, raw}
}
