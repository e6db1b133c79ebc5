package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Init is process 1 of a guest: it mounts what unthunk reads, loads modules, runs the
// commands of the job file, writes each result as one line of JSON to the second
// serial port and powers off. It does not return.
func Init() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	unix.Sync()
	// Without ACPI there is no power to turn off, and the guest would halt; to restart ends it
	// as well, by -no-reboot.
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/sys/firmware/acpi"); err != nil {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(how); err != nil {
		fmt.Fprintln(os.Stderr, "init: power off:", err)
	}
	select {} // the kernel panics when process 1 ends
}

// Guest tells whether this is a guest that was made here.
func Guest() bool {
	_, err := os.Stat(JobFile)
	return err == nil
}

// First tells whether this process is the first one of such a guest.
func First() bool { return os.Getpid() == 1 && Guest() }

func serve() error {
	if err := mounts(); err != nil {
		return err
	}
	b, err := os.ReadFile(JobFile)
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	var job Job
	if err := json.Unmarshal(b, &job); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	port, err := openPort(resultPort())
	if err != nil {
		return err
	}
	defer port.Close()
	for _, path := range job.Modules {
		if err := load(path); err != nil {
			return err
		}
	}
	// Up to Linux 5.10 BPF programs and maps count as locked memory, of which 64 KiB are allowed.
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return fmt.Errorf("allow locked memory: %w", err)
	}
	enc := json.NewEncoder(port)
	for _, c := range job.Commands {
		if err := enc.Encode(execute(c)); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	// TCSBRK with a non-zero argument waits until all is sent.
	if err := unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain %s: %w", port.Name(), err)
	}
	return nil
}

// mounts mounts what unthunk reads. What only some verbs need may be missing: those say so.
func mounts() error {
	var errs []error
	for _, m := range []struct{ kind, dir, option string }{
		{"proc", "/proc", "CONFIG_PROC_FS"},
		{"sysfs", "/sys", "CONFIG_SYSFS"},
		{"devtmpfs", "/dev", "CONFIG_DEVTMPFS"},
		{"tmpfs", "/tmp", "CONFIG_TMPFS"},
		{"tmpfs", "/run", "CONFIG_TMPFS"},
		{"bpf", "/sys/fs/bpf", ""},
		{"debugfs", "/sys/kernel/debug", ""},
		{"tracefs", "/sys/kernel/tracing", ""},
	} {
		// Directories in sysfs exist or cannot be made.
		err := os.MkdirAll(m.dir, 0o755)
		if err == nil {
			err = unix.Mount(m.kind, m.dir, m.kind, 0, "")
		}
		switch {
		case err == nil, errors.Is(err, unix.EBUSY):
		case m.option == "" && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT)):
		case errors.Is(err, unix.ENODEV):
			fmt.Fprintln(os.Stderr, lacksPrefix+m.option+": mount "+m.dir)
			fallthrough
		default:
			errs = append(errs, fmt.Errorf("mount %s: %w", m.dir, err))
		}
	}
	return errors.Join(append(errs, os.Chmod("/tmp", 0o1777))...)
}

// openPort opens a serial port and turns the line discipline off, so that
// bytes arrive as they are.
func openPort(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EIO) {
			fmt.Fprintln(os.Stderr, lacksPrefix+"CONFIG_SERIAL_8250: open "+path)
		}
		return nil, fmt.Errorf("open result port: %w", err)
	}
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("set up %s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		f.Close()
		return nil, fmt.Errorf("set up %s: %w", path, err)
	}
	return f, nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}

func execute(c Command) Result {
	r := Result{Args: c.Args, Exit: -1}
	if len(c.Args) == 0 {
		r.Err = "empty command"
		return r
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	var stdout, stderr bytes.Buffer
	name := c.Args[0]
	if name == Self {
		name = "/init"
	}
	cmd := exec.CommandContext(ctx, name, c.Args[1:]...)
	cmd.Dir = "/tmp"
	cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "TERM=dumb"}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if c.UID != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: c.UID, Gid: c.UID},
		}
	}
	err := cmd.Run()
	r.Stdout, r.Stderr = stdout.Bytes(), stderr.Bytes()
	if cmd.ProcessState != nil {
		r.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Err = fmt.Sprintf("stopped after %v", timeout)
	case err != nil && !errors.As(err, &exit):
		r.Err = err.Error()
	}
	if r.Err != "" || r.Exit != 0 {
		r.Lacks = lacks()
	}
	return r
}
