// Package privilege takes from a process the capabilities that it does not need.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// limited is set in the environment of a process that [Limit] has started anew.
const limited = "UNTHUNK_LIMITED"

// Limit leaves the process those capabilities that are in keep and that it has. The
// others are gone for all its threads and children: they are not in the permitted and
// the bounding set any more, and no program that the process starts can gain rights
// (PR_SET_NO_NEW_PRIVS). A process without capabilities stays as it is.
//
// Capabilities belong to threads, and only execve gives all threads those of one. So
// Limit executes the running program anew, with the same arguments, and does not
// return; in the new program it returns nil. That takes about 10 ms. When it fails it
// returns an error, and the process has all that it had.
func Limit(keep []feature.Capability) error {
	if _, ok := os.LookupEnv(limited); ok {
		return os.Unsetenv(limited)
	}
	permitted, err := permitted()
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if permitted == 0 {
		return nil
	}
	self, err := executable()
	if err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: a thread that was cut ends here
		failed <- execute(self, permitted&set(keep))
	}()
	return <-failed
}

func set(capabilities []feature.Capability) (bits uint64) {
	for _, c := range capabilities {
		bits |= 1 << c
	}
	return bits
}

func permitted() (bits uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err = unix.Capget(&header, &data[0])
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), err
}

// executable is the path of the running program. It is not /proc/self/exe where that can
// be avoided: the process would be called exe.
func executable() (string, error) {
	const self = "/proc/self/exe"
	running, err := os.Stat(self)
	if err != nil {
		return "", err
	}
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err != nil || !os.SameFile(info, running) {
		return self, nil
	}
	return path, nil
}

// execute cuts the calling thread to keep and executes the program at path.
func execute(path string, keep uint64) error {
	if err := cut(keep); err != nil {
		return err
	}
	if err := syscall.Exec(path, os.Args, append(os.Environ(), limited+"=1")); err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	return nil
}

func cut(keep uint64) error {
	// Without CAP_SETPCAP the bounding set stays. What the process executes cannot gain
	// from it: no_new_privs.
	for c := uintptr(0); c <= 63; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) { // no right to; no such capability
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	low, high := uint32(keep), uint32(keep>>32)
	data := [2]unix.CapUserData{
		{Effective: low, Permitted: low, Inheritable: low}, {Effective: high, Permitted: high, Inheritable: high},
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	// Ambient capabilities are what a user other than root keeps when it executes.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := uintptr(0); c <= 63; c++ {
		if os.Geteuid() == 0 || keep&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}
