package forward

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/datapath"
)

// Event is what happened to a device, and how often.
type Event struct {
	Device, Event string
	Times         uint64
}

// Events that are counted for each device.
const (
	eventLinkDown   = "link-down"    // a queue found it down after it had been up
	eventLost       = "device-lost"  // it went, or was moved to another namespace
	eventNoProgram  = "program-gone" // somebody took its XDP program off, or put another in its place
	eventReattached = "program-back" // and it got its program again
)

// happened counts what happens to a device.
type happened struct{ lost, noProgram, reattached uint64 }

// events are what happened to all devices. Links are those of the first queue of each.
func (f *afxdp) events(counters []datapath.Counters) (list []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, d := range f.devices {
		h := f.happened[i]
		list = append(list, Event{d.Name, eventLinkDown, counters[f.portsOf(i)[0]].LinkDowns}, Event{d.Name, eventLost, h.lost},
			Event{d.Name, eventNoProgram, h.noProgram}, Event{d.Name, eventReattached, h.reattached})
	}
	return list
}

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
	name := f.devices[i].Name
	err = f.config.Do(func() error {
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
		f.mu.Lock()
		defer f.mu.Unlock()
		f.happened[i].reattached++
		if !f.lost[i] {
			delete(f.away, i)
		}
		f.config.Warn(fmt.Sprintf("%s has its XDP program again", name))
		return nil
	})
	return err
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
	defer f.mu.Unlock()
	if f.bare[i] {
		return nil
	}
	f.bare[i], f.away[i] = true, true
	f.happened[i].noProgram++
	f.config.Warn(fmt.Sprintf("the XDP program of %s was taken off", f.devices[i].Name))
	return f.dropProgram(i)
}
