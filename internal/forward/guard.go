package forward

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/privilege"
	"github.com/unthunk/unthunk/xsk"
)

// guard is a process that knows the RSS table that a device had, and gives it back when this process is gone, also by SIGKILL.
type guard struct {
	in      io.WriteCloser // whose end it waits for; after a byte it leaves the table alone
	process *os.Process
	killed  atomic.Bool   // by end
	ended   chan struct{} // closed when it has ended
}

// guardTime is how long a guard may take to end that was told to.
const guardTime = time.Second / 2

// maxGuardAnswer is how long the answer of a guard may be, in bytes.
const maxGuardAnswer = 4 << 10

// startGuard starts a guard by a command, the index of a device and to how many queues its flows are to go, and returns when it has
// read the table, or ctx ends before. The calling thread must be locked, and in the device's network namespace: so is the guard
// then. died is called, by another goroutine, when the guard ends that was not told to, before end returns.
func startGuard(ctx context.Context, command []string, ifindex, queues int, died func(error)) (g *guard, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start what gives RSS back after SIGKILL: %w", err)
		}
	}()
	if err := privilege.WithholdFiles(); err != nil {
		return nil, err
	}
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], strconv.Itoa(ifindex), strconv.Itoa(queues))...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the end of a terminal is not its own
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	answer, err := bufio.NewReader(io.LimitReader(out, maxGuardAnswer)).ReadString('\n')
	if answer != guardReady || !stop() {
		in.Close()
		ended := cmd.Wait()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if answer != "" {
			return nil, errors.New(strings.TrimSpace(answer))
		}
		return nil, fmt.Errorf("it ended: %w", cmp.Or(ended, err))
	}
	g = &guard{in: in, process: cmd.Process, ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		if err := cmd.Wait(); err != nil && !g.killed.Load() {
			died(err)
		}
	}()
	return g, nil
}

// end tells the guard that the table was given back, and waits until it has ended. One that stands still is killed.
func (g *guard) end() {
	g.in.Write([]byte{0}) // that it ended before was said
	g.in.Close()
	defer time.AfterFunc(guardTime, func() {
		g.killed.Store(true)
		g.process.Kill()
	}).Stop()
	<-g.ended
}

// guardReady is the answer of a guard that has read the table.
const guardReady = "ready\n"

// Guard is what a process does that a forwarder starts by Config.Guard, in the network namespace of a device: it writes to out
// that it has read the device's RSS table, or why it cannot, and gives the table back when in ends before a byte came, if the
// device then gives all flows to its first queues. Of the signals that a service manager sends to all processes of a service
// SIGKILL alone ends it.
func Guard(ifindex, queues int, in io.Reader, out io.Writer) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGABRT)
	r, err := xsk.OpenRSS(ifindex, queues)
	if err != nil {
		_, err = fmt.Fprintln(out, strings.ReplaceAll(err.Error(), "\n", "; "))
		return err
	}
	if _, err := io.WriteString(out, guardReady); err != nil {
		return errors.Join(err, r.Forget())
	}
	return watch(in, r)
}

// table is what an xsk.RSS does.
type table interface {
	Spread() error
	Close() error
	Forget() error
}

// watch gives a table back when in ends before a byte came.
func watch(in io.Reader, r table) error {
	if n, err := io.ReadFull(in, make([]byte, 1)); n == 1 {
		return r.Forget()
	} else if err != io.EOF {
		return errors.Join(err, r.Forget())
	}
	return r.Close()
}

// guarded is a table with its guard; nil is none.
type guarded struct {
	table
	guard *guard
}

// spreadGuarded has a device give all flows to its first queues, until what it returns is closed, or, with a command of a guard, until
// this process is gone. The calling thread must be locked, and in the device's network namespace.
func spreadGuarded(ctx context.Context, command []string, ifindex, queues int, died func(error)) (g *guarded, err error) {
	r, err := xsk.OpenRSS(ifindex, queues)
	if err != nil {
		return nil, err
	}
	g = &guarded{table: r}
	if len(command) > 0 {
		if g.guard, err = startGuard(ctx, command, ifindex, queues, died); err != nil {
			return nil, errors.Join(err, r.Forget())
		}
	}
	if err := r.Spread(); err != nil {
		g.end()
		return nil, errors.Join(err, r.Forget())
	}
	return g, nil
}

func (g *guarded) end() {
	if g.guard != nil {
		g.guard.end()
		g.guard = nil
	}
}

// Close gives the table back, and ends the guard, unless it has to be tried again.
func (g *guarded) Close() error {
	err := g.table.Close()
	if err == nil || errors.Is(err, xsk.ErrRSSKept) {
		g.end()
	}
	return err
}
