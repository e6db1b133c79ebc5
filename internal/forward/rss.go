package forward

import (
	"errors"

	"github.com/unthunk/unthunk/xsk"
)

// spread has an input give all flows to its queues that are used, if that is asked for, in place of what it was
// asked before. The calling thread must be in the devices' network namespace.
func (f *afxdp) spread(i int) error {
	if !f.config.RSS || !f.input(i) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.closeRSS(i); err != nil {
		return err
	}
	r, err := xsk.SetRSS(f.devices[i].Index, f.devices[i].now)
	if err == nil {
		f.rss[i] = r
	}
	return err
}

// closeRSS gives a device the table back that it had. f.mu is held.
func (f *afxdp) closeRSS(i int) (err error) {
	if r := f.rss[i]; r != nil {
		err = r.Close()
		delete(f.rss, i)
	}
	return err
}

// closeDevice is closeSockets, and gives back what the device had.
func (f *afxdp) closeDevice(i int) error {
	err := f.closeSockets(i)
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(err, f.closeRSS(i))
}
