package testutil

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Refuse runs f on a thread to which, and to whose children, the kernel says errno for
// each of these system calls (of the unix.SYS_ constants): a seccomp filter as that of a
// container. The thread ends with f.
func Refuse(t testing.TB, f func() error, errno unix.Errno, calls ...uint32) error {
	t.Helper()
	// The number of the call is the first field of what the filter is given.
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for _, call := range calls {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	return onThread(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
		filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
		runtime.KeepAlive(program)
		if err != nil {
			return fmt.Errorf("set seccomp filter: %w", err)
		}
		return f()
	})
}

// ReadOnly runs f on a thread that has, as its children have, a mount namespace of its own
// in which dir is read-only, as /proc/sys in a container. It needs root. The thread ends
// with f.
func ReadOnly(t testing.TB, dir string, f func() error) error {
	t.Helper()
	Root(t)
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare mount namespace: %w", err)
		}
		const readOnly = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
		for _, flags := range []uintptr{unix.MS_REC | unix.MS_PRIVATE, unix.MS_BIND, readOnly} {
			source, target := dir, dir
			if flags&unix.MS_PRIVATE != 0 {
				source, target = "", "/"
			}
			if err := unix.Mount(source, target, "", flags, ""); err != nil {
				return fmt.Errorf("mount %s read-only: %w", dir, err)
			}
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		defer close(result)    // f may end in t.FailNow
		runtime.LockOSThread() // and never unlocked: the runtime ends the thread
		result <- f()
	}()
	return <-result
}
