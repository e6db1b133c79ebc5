package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// ThreadNAPI moves the NAPI poll of a device with one queue into a kernel thread and pins that thread to cpu. The
// device's name must be unique on the machine: the thread is found by it. Requires at least Linux 5.17, which shows a
// kernel thread's whole name.
func (d Device) ThreadNAPI(ctx context.Context, cpu int) error {
	if err := d.SetAttribute("threaded", "1"); err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = &feature.Missing{Feature: "threaded NAPI", Since: "5.12", Err: err}
		}
		return fmt.Errorf("thread NAPI of %s: %w", d.Name, err)
	}
	// The thread renames itself when it first runs.
	for range 100 {
		pid, err := KernelThread(func(name string) bool { return strings.HasPrefix(name, "napi/"+d.Name+"-") })
		if err != nil {
			return err
		}
		if pid != 0 {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(pid, &set); err != nil {
				return fmt.Errorf("pin NAPI thread of %s to CPU %d: %w", d.Name, cpu, err)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return fmt.Errorf("find NAPI thread of %s: no such kernel thread", d.Name)
}

// SetAttribute writes one of a device's attributes in /sys, as "gro_flush_timeout".
func (d Device) SetAttribute(attribute, value string) error {
	err := d.namespace.Do(func() error { return writeAttribute(d.Name, attribute, value) })
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", attribute, d.Name, err)
	}
	return nil
}

// writeAttribute writes through a sysfs of the calling thread's network namespace that is mounted nowhere.
func writeAttribute(device, attribute, value string) error {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open sysfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create sysfs: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, "class/net/"+device+"/"+attribute, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// KernelThread returns the process id of the thread with a name that fits, 0 when there is none. Kernels before 5.17 show
// 15 bytes of a name.
func KernelThread(fits func(name string) bool) (int, error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, path := range comms {
		b, err := os.ReadFile(path)
		if err == nil && fits(strings.TrimSuffix(string(b), "\n")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, nil
}
