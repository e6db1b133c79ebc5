package privilege

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Withhold keeps from programs that the process starts from now on what it was itself
// started with: files, as [WithholdFiles] does, and no capability is ambient any more.
// What the process itself may do stays.
//
// Requires at least Linux 5.11.
func Withhold() error {
	if err := WithholdFiles(); err != nil {
		return err
	}
	set, err := ambient()
	if err != nil || !set {
		return err
	}
	// A program has them of the thread that starts it, which may be any.
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("clear ambient capabilities: %w", errno)
	}
	return nil
}

// WithholdFiles has open files beyond standard error, as a shell or a supervisor leaves them,
// closed on execve. Files that exec.Cmd names are passed on.
//
// Requires at least Linux 5.11.
func WithholdFiles() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return &feature.Missing{Feature: "close_range with CLOSE_RANGE_CLOEXEC", Since: "5.11", Err: err}
	case err != nil:
		return fmt.Errorf("close files on execve: %w", err)
	}
	return nil
}

// ambient says whether the calling thread has ambient capabilities. All have those that the
// process was started with.
func ambient() (bool, error) {
	for c := uintptr(0); c <= 63; c++ {
		set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, c, 0, 0)
		if errors.Is(err, unix.EINVAL) { // the kernel knows no such capability
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read ambient capabilities: %w", err)
		}
		if set != 0 {
			return true, nil
		}
	}
	return false, nil
}
