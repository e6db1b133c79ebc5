package forward

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/unthunk/unthunk/xsk"
)

// spreading is what a device was asked for: to give all flows to its first queues.
type spreading struct {
	rss           io.Closer // gives the table back that there was before
	index, queues int
}

// spread has an input give all flows to its queues that are used, if that is asked for, in place of what it was
// asked before. Where that was the same it does nothing. It ends with ctx. The calling thread must be in the devices' network
// namespace.
func (f *afxdp) spread(ctx context.Context, i int) error {
	if !f.config.RSS || !f.input(i) {
		return nil
	}
	var kept error
	defer func() { f.warnKept(i, kept) }() // no lock is held: who is warned may ask for the totals
	f.rssMu.Lock()
	defer f.rssMu.Unlock()
	f.mu.Lock()
	d := f.devices[i]
	f.mu.Unlock()
	before := f.rss[i]
	if before.index == d.Index && before.queues == d.now {
		return nil
	}
	if kept = f.closeRSS(i); kept != nil && !errors.Is(kept, xsk.ErrRSSKept) {
		return kept
	}
	g, err := spreadGuarded(ctx, f.config.Guard, d.Index, d.now, f.guardDied(i))
	if err == nil {
		f.rss[i] = spreading{g, d.Index, d.now}
	}
	return err
}

// guardDied returns what warns that the guard of a device has ended.
func (f *afxdp) guardDied(i int) func(error) {
	name := f.name(i)
	return func(err error) {
		f.config.Warn(fmt.Sprintf(
			"%s keeps its RSS table as it is now after SIGKILL: the process that would give it back has ended: %v", name, err))
	}
}

// warnKept warns of a device that keeps another table than it had.
func (f *afxdp) warnKept(i int, err error) {
	if errors.Is(err, xsk.ErrRSSKept) {
		f.config.Warn(fmt.Sprintf("%s: %v", f.name(i), err))
	}
}

// closeRSS gives a device the table back that it had. After an error that is still to be done, as what is there now
// is not what it had, but for xsk.ErrRSSKept. f.rssMu is held, and f.mu is not: it waits for a guard, which may have
// somebody warned.
func (f *afxdp) closeRSS(i int) (err error) {
	if r := f.rss[i].rss; r != nil {
		err = r.Close()
	}
	if err == nil || errors.Is(err, xsk.ErrRSSKept) {
		delete(f.rss, i)
	}
	return err
}

// closeDevice is closeSockets, and gives back what the device had.
func (f *afxdp) closeDevice(i int) error {
	err := f.closeSockets(i)
	f.rssMu.Lock()
	defer f.rssMu.Unlock()
	return errors.Join(err, f.closeRSS(i))
}
