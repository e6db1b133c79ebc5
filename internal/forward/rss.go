package forward

import (
	"errors"
	"io"

	"github.com/unthunk/unthunk/xsk"
)

// spreading is what a device was asked for: to give all flows to its first queues.
type spreading struct {
	rss           io.Closer // gives the table back that there was before
	index, queues int
}

// spread has an input give all flows to its queues that are used, if that is asked for, in place of what it was
// asked before. Where that was the same it does nothing. The calling thread must be in the devices' network namespace.
func (f *afxdp) spread(i int) error {
	if !f.config.RSS || !f.input(i) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d, before := &f.devices[i], f.rss[i]
	if before.index == d.Index && before.queues == d.now {
		return nil
	}
	if err := f.closeRSS(i); err != nil {
		return err
	}
	r, err := xsk.SetRSS(d.Index, d.now)
	if err == nil {
		f.rss[i] = spreading{r, d.Index, d.now}
	}
	return err
}

// closeRSS gives a device the table back that it had. After an error that is still to be done: what is there now
// is not what it had. f.mu is held.
func (f *afxdp) closeRSS(i int) error {
	if r := f.rss[i].rss; r != nil {
		if err := r.Close(); err != nil {
			return err
		}
	}
	delete(f.rss, i)
	return nil
}

// closeDevice is closeSockets, and gives back what the device had.
func (f *afxdp) closeDevice(i int) error {
	err := f.closeSockets(i)
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(err, f.closeRSS(i))
}
