package xsk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func setsockopt[T any](fd, level, option int, value *T) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(value)), unsafe.Sizeof(*value), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func getsockopt[T any](fd, option int, value *T) error {
	size := uint32(unsafe.Sizeof(*value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option),
		uintptr(unsafe.Pointer(value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func address(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }

// send is sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0). It does not tell the
// scheduler: that made 11 to 20 thousand context switches a second in a call
// that never sleeps.
func send(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// state is recvfrom(fd, NULL, 0, 0, NULL, NULL), which never waits: it is ENXIO where the device is gone, ENETDOWN where the
// administrator has it down, and else ENOBUFS or EOPNOTSUPP, and calls no driver (__xsk_recvmsg in net/xdp/xsk.c).
func state(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 0, 0, 0, 0)
	return errno
}

// receive is recvfrom(fd, NULL, 0, MSG_DONTWAIT, NULL, NULL).
func receive(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}
