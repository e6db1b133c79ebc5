package redirect

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/traffic"
)

// maxBulk is the most packets of a system call, as of a batch of live frames.
const maxBulk = traffic.MaxBatch

// message is struct mmsghdr of include/linux/socket.h.
type message struct {
	header unix.Msghdr
	length uint32 // that was sent
	_      uint32
}

// messagesOf are n messages of one frame each.
func messagesOf(frame []byte, n int) []message {
	part := &unix.Iovec{Base: unsafe.SliceData(frame)}
	part.SetLen(len(frame))
	messages := make([]message, n)
	for i := range messages {
		messages[i].header.Iov = part
		messages[i].header.SetIovlen(1)
	}
	return messages
}

// sendMessages is sendmmsg(fd, messages, len(messages), 0). It does not tell Go's scheduler, whose work would be counted
// with the packets'.
func sendMessages(fd int, messages []message) (n int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
		uintptr(len(messages)), 0, 0, 0)
	return int(r), errno
}
