package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/guest/gdb"
)

// Debugger stops and reads a guest from outside, by the gdbstub in QEMU, and has QEMU log
// what it executes. Both ends of the connection are made here and the pipe of the log is
// too: nothing has a name in a file system.
type Debugger struct {
	*gdb.Client
	// Executed are the lines that QEMU logs between [Debugger.Log] and [Debugger.Unlog].
	// Somebody has to read them meanwhile: QEMU waits for that.
	Executed io.Reader

	conn               net.Conn
	theirs, pipe, sink *os.File
	args               []string
	sinkPath           string
}

// LogEnd is the line behind the last that QEMU logs before [Debugger.Unlog].
const LogEnd = "END"

// newDebugger is nil where nobody asks for one. first is how many files QEMU inherits besides.
func (m *Machine) newDebugger(first int) (d *Debugger, err error) {
	if m.Debug == nil {
		return nil, nil
	}
	d = &Debugger{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect with QEMU: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "gdb")
	defer ours.Close()
	d.theirs = os.NewFile(uintptr(pair[1]), "gdb")
	if d.conn, err = net.FileConn(ours); err != nil {
		return nil, fmt.Errorf("connect with QEMU: %w", err)
	}
	d.Client = gdb.New(d.conn)
	if d.pipe, d.sink, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("connect with QEMU: %w", err)
	}
	if c := unprivileged(); c != nil { // QEMU opens the pipe again
		if err := d.sink.Chown(int(c.Uid), int(c.Gid)); err != nil {
			return nil, fmt.Errorf("connect with QEMU: %w", err)
		}
	}
	// As much as everybody may ask for; less only makes QEMU wait more often.
	_, _ = unix.FcntlInt(d.sink.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	d.Executed, d.sinkPath = d.pipe, inherited(first+1)
	d.args = []string{"-S", "-chardev", fmt.Sprintf("socket,id=gdb,fd=%d", 3+first), "-gdb", "chardev:gdb"}
	return d, nil
}

// run runs QEMU with what [Machine.Debug] does meanwhile, which ends with QEMU. Its error
// ends QEMU by stop.
func (d *Debugger) run(qemu *exec.Cmd, debug func(*Debugger) error, stop context.CancelCauseFunc) error {
	if d == nil {
		return qemu.Run()
	}
	defer d.close()
	qemu.ExtraFiles = append(qemu.ExtraFiles, d.theirs, d.sink)
	if err := qemu.Start(); err != nil {
		return err
	}
	d.theirs.Close() // so that the end of QEMU is the end of the connection
	debugged := make(chan error, 1)
	go func() {
		err := debug(d)
		if err != nil && !errors.Is(err, gdb.ErrEnded) {
			stop(err)
		}
		debugged <- err
	}()
	err := qemu.Wait()
	d.sink.Close()
	d.conn.Close()
	if failed := <-debugged; err == nil && failed != nil && !errors.Is(failed, gdb.ErrEnded) {
		return failed
	}
	return err
}

func (d *Debugger) close() {
	for _, f := range []*os.File{d.theirs, d.pipe, d.sink} {
		if f != nil {
			f.Close()
		}
	}
	if d.conn != nil {
		d.conn.Close()
	}
}

// Stop gives the guest up: what waits for it, and for its log, fails.
func (d *Debugger) Stop() {
	d.conn.Close()
	d.pipe.Close()
}

// Log has QEMU translate one instruction at a time and log each that it executes, as a line
// with its address, from the next [gdb.Client.Continue] on. The guest counts the same
// instructions with it and without.
func (d *Debugger) Log() error {
	if err := d.oneByOne("on"); err != nil {
		return err
	}
	for _, command := range []string{"logfile " + d.sinkPath, "log exec,nochain"} {
		if err := d.quietly(command); err != nil {
			return err
		}
	}
	return nil
}

// Unlog ends the log, with a line [LogEnd].
func (d *Debugger) Unlog() error {
	if err := errors.Join(d.quietly("log none"), d.oneByOne("off")); err != nil {
		return err
	}
	// QEMU keeps the log open while the guest stands still, so that nobody sees its end. It
	// has written all of it: each line at once.
	if _, err := io.WriteString(d.sink, LogEnd+"\n"); err != nil {
		return fmt.Errorf("end QEMU's log: %w", err)
	}
	return nil
}

// oneByOne turns translation blocks of one instruction on and off: "one-insn-per-tb" of QEMU
// 8.1 and newer, "singlestep" before.
func (d *Debugger) oneByOne(state string) error {
	out, err := d.Monitor("one-insn-per-tb " + state)
	if err != nil || out == "" {
		return err
	}
	return d.quietly("singlestep " + state)
}

// quietly runs a command that prints nothing when it does what it should.
func (d *Debugger) quietly(command string) error {
	out, err := d.Monitor(command)
	if err == nil && out != "" {
		err = fmt.Errorf("QEMU's monitor says of %s: %.100q", command, strings.TrimSpace(out))
	}
	return err
}
