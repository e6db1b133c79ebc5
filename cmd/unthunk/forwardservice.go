package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/unpack"
)

// maxFilter is how large the file of --filter-file may be, in bytes.
const maxFilter = 1 << 20

// claim is what --filter or --filter-file says now; nil without either.
func (f forwardFlags) claim() (asm.Instructions, error) {
	flag, expression := "--filter "+f.filter, f.filter
	if f.filterFile != "" {
		text, err := unpack.ReadFile(f.filterFile, maxFilter)
		if err != nil {
			return nil, err
		}
		flag, expression = "--filter-file "+f.filterFile, strings.TrimSpace(string(text))
		if expression == "" { // as while it is written
			return nil, fmt.Errorf("%s: it is empty; \"greater 0\" matches all frames", flag)
		}
	}
	if expression == "" {
		return nil, nil
	}
	program, err := filter.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	claim, err := filter.Claim(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return claim, nil
}

// reloads says whether there is a file to read again.
func (f forwardFlags) reloads() bool { return f.filterFile != "" || f.object != "" }

// onHangup has SIGHUP given to the channel in place of ending the verb, until stop. It does nothing
// where SIGHUP is ignored, as by nohup.
func onHangup() (hangups <-chan os.Signal, stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return nil, func() {}
	}
	c := make(chan os.Signal, 1)
	signal.Reset(syscall.SIGHUP)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// service tells the service manager of a forwarder (sd_notify), and does what SIGHUP asks for.
// Without a manager it tells nobody.
type service struct {
	forwarder forward.Forwarder
	flags     forwardFlags
	events    *forwardEvents
	polls     []uint64    // of each worker, when the watchdog was last fed
	deaf      atomic.Bool // the manager was told in vain
}

// serve goes on until ctx is done. The manager's watchdog is fed while each worker polls, also while
// programs are reloaded. A SIGHUP in that time is heard after it.
func (v *service) serve(ctx context.Context, hangups <-chan os.Signal) {
	v.tell(daemon.SdNotifyReady)
	defer v.tell(daemon.SdNotifyStopping)
	var feed <-chan time.Time
	switch period, err := daemon.SdWatchdogEnabled(false); {
	case err != nil:
		v.events.warn(fmt.Sprintf("the service manager's watchdog is not fed: %v", err))
	case period > 0:
		ticker := time.NewTicker(period / 2)
		defer ticker.Stop()
		feed = ticker.C
	}
	var reloaded chan struct{} // nil without a reload
	asked := hangups
	for {
		select {
		case <-ctx.Done():
			if reloaded != nil {
				<-reloaded
			}
			return
		case <-feed:
			if v.alive() {
				v.tell(daemon.SdNotifyWatchdog)
			}
		case <-asked:
			asked, reloaded = nil, make(chan struct{})
			go func() {
				defer close(reloaded)
				v.reload(ctx)
			}()
		case <-reloaded:
			asked, reloaded = hangups, nil
		}
	}
}

// alive says whether each worker has polled since it was last asked.
func (v *service) alive() bool {
	before := v.polls
	v.polls = v.forwarder.Polls()
	for i, n := range before {
		if v.polls[i] == n {
			v.events.warn(fmt.Sprintf("worker %d stands still", i))
			return false
		}
	}
	return true
}

// reload reads the files anew. What is wrong with them is a warning, and nothing changes.
func (v *service) reload(ctx context.Context) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		v.events.warn(fmt.Sprintf("read clock: %v", err))
	}
	v.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	claim, err := v.flags.claim()
	if err == nil {
		err = v.forwarder.Reload(ctx, claim)
	}
	v.events.reload(err)
	v.tell(daemon.SdNotifyReady)
}

// tell warns where it begins to tell in vain.
func (v *service) tell(state string) {
	err := notify(state)
	if was := v.deaf.Swap(err != nil); err != nil && !was {
		v.events.warn(fmt.Sprintf("tell the service manager: %v", err))
	}
}

// notifyTime is how long a service manager that does not read what it was told before is waited for.
const notifyTime = 100 * time.Millisecond

// notify sends a state to the socket of NOTIFY_SOCKET, where there is one. [daemon.SdNotify] waits for ever for who reads there.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(notifyTime)); err != nil {
		return err
	}
	_, err = c.Write([]byte(state))
	return err
}

// cpuList is what --cpus says, in its order: worker 0 runs on the first.
func cpuList(text string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	cpus, err := perf.ParseCPUs(text)
	if err != nil {
		return nil, usagef("--cpus %s: %v", text, err)
	}
	return cpus, nil
}
