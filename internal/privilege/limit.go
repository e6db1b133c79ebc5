// Package privilege takes from a process the capabilities that it does not need, and from
// what it starts the files and capabilities that it was started with.
package privilege

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// limited is set in the environment of a process that [Limit] has started anew. It only
// ends what would go on for ever: whoever else sets it keeps no right by it.
const limited = "UNTHUNK_LIMITED"

// Limit leaves the process those capabilities that are in keep and that it has;
// CAP_SYS_ADMIN where it stands for CAP_BPF or CAP_PERFMON. The others are gone for all its
// threads and children: they are not in the permitted set any more, nor in the bounding set
// of a process that has CAP_SETPCAP, and no program that the process starts can gain rights
// (PR_SET_NO_NEW_PRIVS). A process without capabilities stays as it is.
//
// Capabilities belong to threads, and only execve gives all threads those of one. So
// Limit executes the running program anew, with the same arguments, and does not
// return; in the new program it returns nil. That takes about 10 ms. When it fails it
// returns an error, and the process has all that it had.
func Limit(keep []feature.Capability) error {
	_, again := os.LookupEnv(limited)
	if err := os.Unsetenv(limited); err != nil {
		return err
	}
	has, err := permitted()
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	noNewPrivs, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read no_new_privs: %w", err)
	}
	kept := keptOf(has, set(keep))
	if has == 0 || has == kept && noNewPrivs == 1 {
		rename()
		return nil
	}
	// With no_new_privs execve gives nothing that was not there: it has never come to this.
	if again && noNewPrivs == 1 {
		return errors.New("they came back when the program was executed anew")
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: a thread that was cut ends here
		failed <- execute(kept)
	}()
	return <-failed
}

// keptOf are the capabilities of has that keep names. CAP_SYS_ADMIN includes CAP_BPF and
// CAP_PERFMON, and stays where one of these is to be kept and is not there by itself.
func keptOf(has, keep uint64) uint64 {
	const admin, part = 1 << unix.CAP_SYS_ADMIN, 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON
	if keep&part&^has != 0 {
		keep |= admin
	}
	return has & keep
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

// self is the running program, whatever has its name by now.
const self = "/proc/self/exe"

// execute cuts the calling thread to keep and executes the running program.
func execute(keep uint64) error {
	if err := cut(keep); err != nil {
		return err
	}
	release, err := takeSignals()
	if err != nil {
		return err
	}
	defer release()
	if err := syscall.Exec(self, os.Args, append(os.Environ(), limited+"=1")); err != nil {
		return fmt.Errorf("execute %s: %w", self, err)
	}
	return nil
}

// takeSignals lets no thread but the calling one take a signal that ends the process, until
// release is called: execve ends the other threads, and what one of them took is lost with it,
// while a signal that waits is the new program's. In a build with cgo it does nothing.
func takeSignals() (release func(), err error) {
	var ends, old unix.Sigset_t
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM} {
		ends.Val[0] |= 1 << (s - 1)
	}
	all := func(how uintptr) syscall.Errno {
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&ends)), 0, 8, 0, 0)
		return errno
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &old); err != nil {
		return nil, fmt.Errorf("read the signal mask: %w", err)
	}
	ends.Val[0] &^= old.Val[0] // blocked by whoever started the process: they stay so
	switch errno := all(unix.SIG_BLOCK); {
	case errno == syscall.ENOTSUP:
		return func() {}, nil
	case errno != 0:
		return nil, fmt.Errorf("block signals: %w", errno)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		return nil, fmt.Errorf("restore the signal mask: %w", err)
	}
	return func() { all(unix.SIG_UNBLOCK) }, nil
}

// rename gives the process the name of the program, which is exe after [execute]. Where
// /proc cannot be written the name stays.
func rename() {
	if name, err := os.ReadFile("/proc/self/comm"); err == nil && string(name) == "exe\n" {
		_ = os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte(filepath.Base(os.Args[0])), 0)
	}
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
