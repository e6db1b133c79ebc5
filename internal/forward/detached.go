package forward

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// reattach attaches the programs again that somebody took off their devices. While another's is there it
// says so once, and tries again each time that it is called. said is what it said, by device.
func (f *afxdp) reattach(ctx context.Context, said map[int]string) {
	for i := range f.devices {
		if !f.recovering[i].TryLock() {
			continue // it was lost
		}
		err := f.reattachDevice(ctx, i)
		f.recovering[i].Unlock()
		if err == nil {
			delete(said, i)
		} else if text := err.Error(); text != said[i] && ctx.Err() == nil {
			f.config.Warn(text)
			said[i] = text
		}
	}
}

func (f *afxdp) reattachDevice(ctx context.Context, i int) error {
	gone, err := f.programGone(i)
	if !gone || err != nil {
		return err
	}
	name := f.name(i)
	return f.config.Do(func() error {
		var absent netlink.LinkNotFoundError
		if _, err := netlink.LinkByIndex(f.devices[i].Index); errors.As(err, &absent) {
			return nil // with its program: the datapath finds that it is lost
		}
		if err := f.noteGone(i); err != nil {
			return err
		}
		if err := f.attach(ctx, i); err != nil {
			return fmt.Errorf("%s has no program of ours: %w", name, err)
		}
		link, err := f.linkBack(i) // many drivers take the link down for a program
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			return errors.Join(err, f.dropProgram(i)) // it is attached again by the next call
		}
		f.notAway(i)
		f.events.happen(name, reattached(name, link))
		return nil
	})
}

// notAway notes that a device has all it needs, unless it was lost.
func (f *afxdp) notAway(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.lost[i] {
		delete(f.away, i)
	}
}

// programGone says whether a device that should have a program has none.
func (f *afxdp) programGone(i int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.programs[i]
	if f.lost[i] || p == nil {
		return f.bare[i] && !f.lost[i], nil
	}
	f.bare[i] = false
	attached, err := p.Attached()
	return !attached && err == nil, err
}

// noteGone closes what is left of a program that was taken off, and counts that, once.
func (f *afxdp) noteGone(i int) error {
	f.mu.Lock()
	if f.bare[i] {
		f.mu.Unlock()
		return nil
	}
	f.bare[i], f.away[i] = true, true
	err := f.dropProgram(i)
	f.mu.Unlock()
	f.events.happen(f.name(i), notef(eventNoProgram, true, "the XDP program of %s was taken off", f.name(i)))
	return err
}
