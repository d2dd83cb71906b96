package transfer

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel's io_uring.h says.
const (
	uringSendmsgZC   = 48     // IORING_OP_SENDMSG_ZC
	uringReportUsage = 1 << 3 // IORING_SEND_ZC_REPORT_USAGE
	uringCQSize      = 1 << 3 // IORING_SETUP_CQSIZE
	uringSingleMmap  = 1 << 0 // IORING_FEAT_SINGLE_MMAP
	uringRingOffset  = 0      // IORING_OFF_SQ_RING
	uringSQEOffset   = 0x10000000
	uringEventfd     = 4       // IORING_REGISTER_EVENTFD
	uringMuted       = 1 << 0  // IORING_CQ_EVENTFD_DISABLED
	uringMore        = 1 << 1  // IORING_CQE_F_MORE
	uringNotif       = 1 << 3  // IORING_CQE_F_NOTIF
	uringCopied      = 1 << 31 // IORING_NOTIF_USAGE_ZC_COPIED
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// uringSQE is struct io_uring_sqe, as far as a send uses it.
type uringSQE struct {
	opcode, _        uint8
	ioprio           uint16
	fd               int32
	_                uint64
	addr             uint64
	length, msgFlags uint32
	user             uint64
	_                [3]uint64
}

// completion is struct io_uring_cqe: how a request went, or that the kernel has given
// back what it was lent for it.
type completion struct {
	user  uint64
	res   int32
	flags uint32
}

// uring is an io_uring that takes one request at a time. Whoever submits is alone in
// that, and whoever takes completions is alone in that; both may be at it at once.
type uring struct {
	fd             int
	event          *os.File // an eventfd that counts completions
	rings, entries []byte   // mapped
	sqTail         *uint32
	cqHead, cqTail *uint32
	cqFlags        *uint32
	sqMask, cqMask uint32
	sqArray        []uint32
	sqes           []uringSQE
	cqes           []completion
}

// newURing makes a ring with room for completions, a power of 2.
func newURing(completions uint32) (_ *uring, err error) {
	p := uringParams{flags: uringCQSize, cqEntries: completions}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	u := &uring{fd: int(fd)}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if p.features&uringSingleMmap == 0 {
		return nil, os.NewSyscallError("io_uring_setup", unix.ENOSYS)
	}
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if u.rings, err = unix.Mmap(u.fd, uringRingOffset, int(size), prot, flags); err != nil {
		return nil, fmt.Errorf("map an io_uring: %w", err)
	}
	if u.entries, err = unix.Mmap(u.fd, uringSQEOffset, int(p.sqEntries)*int(unsafe.Sizeof(uringSQE{})), prot, flags); err != nil {
		return nil, fmt.Errorf("map the requests of an io_uring: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[offset])) }
	u.sqTail, u.sqMask, u.sqArray = at(p.sq.tail), *at(p.sq.mask), unsafe.Slice(at(p.sq.array), p.sqEntries)
	u.cqHead, u.cqTail, u.cqMask, u.cqFlags = at(p.cq.head), at(p.cq.tail), *at(p.cq.mask), at(p.cq.flags)
	u.sqes = unsafe.Slice((*uringSQE)(unsafe.Pointer(unsafe.SliceData(u.entries))), p.sqEntries)
	u.cqes = unsafe.Slice((*completion)(unsafe.Pointer(at(p.cq.cqes))), p.cqEntries)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	u.event = os.NewFile(uintptr(event), "io_uring")
	n := int32(event)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, uringEventfd, uintptr(unsafe.Pointer(&n)), 1, 0, 0); errno != 0 {
		return nil, os.NewSyscallError("io_uring_register", errno)
	}
	return u, nil
}

// close gives the ring back. Nothing is on its way, and nobody uses it.
func (u *uring) close() {
	for _, b := range [][]byte{u.rings, u.entries} {
		if b != nil {
			_ = unix.Munmap(b) // fails for a bug only
		}
	}
	if u.event != nil {
		_ = u.event.Close() // likewise
	}
	_ = unix.Close(u.fd) // likewise
}

// send submits one sendmsg of memory that the kernel may read until the notification of
// user. m is not on a stack. It has been read when send returns, and the result has come,
// because the send does not wait; an error says that nothing was submitted.
func (u *uring) send(fd int, m *unix.Msghdr, user uint64) error {
	tail := *u.sqTail // which nobody else writes
	i := tail & u.sqMask
	u.sqes[i] = uringSQE{opcode: uringSendmsgZC, ioprio: uringReportUsage, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(m))), length: 1,
		msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: user}
	u.sqArray[i] = i
	atomic.StoreUint32(u.sqTail, tail+1)
	defer runtime.KeepAlive(m)
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 0, 0, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == 0 && n == 1:
			return nil
		case errno == 0:
			errno = unix.ENOBUFS
		}
		atomic.StoreUint32(u.sqTail, tail) // the kernel looks only within the call
		return errno
	}
}

// next takes a completion, if there is one.
func (u *uring) next() (c completion, ok bool) {
	head := *u.cqHead // which nobody else writes
	if head == atomic.LoadUint32(u.cqTail) {
		return c, false
	}
	c = u.cqes[head&u.cqMask]
	atomic.StoreUint32(u.cqHead, head+1)
	return c, true
}

// mute has completions that come from here on not wake the reader of event.
func (u *uring) mute(is bool) {
	var flags uint32
	if is {
		flags = uringMuted
	}
	atomic.StoreUint32(u.cqFlags, flags)
}

// ring wakes the reader of event.
func (u *uring) ring() { kick(u.event) }
