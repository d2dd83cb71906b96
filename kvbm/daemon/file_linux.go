package daemon

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes f for this process alone, or fails at once.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// receive reads bytes and the files that came with them.
func receive(conn *net.UnixConn, b []byte) (n int, files []*os.File, err error) {
	var oob [256]byte
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob[:])
	n = max(n, 0)
	if oobn == 0 {
		return n, nil, err
	}
	msgs, bad := unix.ParseSocketControlMessage(oob[:oobn])
	if bad != nil {
		return n, nil, bad
	}
	for i := range msgs {
		fds, bad := unix.ParseUnixRights(&msgs[i])
		if bad != nil {
			continue // something else than files
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "memory of a client"))
		}
	}
	return n, files, err
}

// mapFile maps a client's memory, and closes its file. Its length must be sealed: a
// client that shortened it would kill who reads it.
func mapFile(f *os.File, bytes uint64) ([]byte, error) {
	defer f.Close() // the mapping stays
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the client's memory: %w", err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, invalid("the memory is no file of memfd_create that is sealed against shrinking (F_SEAL_SHRINK)")
	}
	if bytes == 0 || uint64(info.Size()) < bytes {
		return nil, invalid("the memory has %d bytes, not %d", info.Size(), bytes)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the client's memory of %d bytes: %w", bytes, err)
	}
	return b, nil
}

// unmap gives up a mapping of mapFile.
func unmap(b []byte) { _ = unix.Munmap(b) } // it fails for a bug only

// rights is the control message that hands a file over.
func rights(f *os.File) []byte { return unix.UnixRights(int(f.Fd())) }
