package forward

import (
	"github.com/unthunk/unthunk/internal/device"
)

// linkState is what was told of the link of a device.
type linkState struct {
	up    bool
	downs uint64 // how often a worker may have found it down of what was told
}

func linkDown(device string) note {
	return notef(eventLinkDown, true, "the link of %s went down", device)
}

func linkUp(device string) note { return notef(eventLinkUp, false, "the link of %s is up", device) }

// back tells that a device is back, which it is before its link is up.
func back(device string, link bool) note {
	if !link {
		return notef(eventBack, false, "%s is back, and its link is down", device)
	}
	return notef(eventBack, false, "%s is back", device)
}

// reattached tells that a device has its program again, for which its driver may have taken the link down.
func reattached(device string, link bool) note {
	if !link {
		return notef(eventReattached, false, "%s has its XDP program again, and its link is down", device)
	}
	return notef(eventReattached, false, "%s has its XDP program again", device)
}

// change notes what a link is now, and returns what is to be told. downs is how often a worker found it down: it sees what
// is shorter than the time between two calls, and no carrier that is missing.
func (l *linkState) change(now device.Device, downs uint64) (notes []note) {
	switch {
	case l.up && !now.Link:
		notes = []note{linkDown(now.Name)}
		if !now.Up {
			l.downs++ // a worker finds that later, or has
		}
	case l.up && downs > l.downs:
		notes = []note{linkDown(now.Name), linkUp(now.Name)}
	case !l.up && now.Link:
		notes = []note{linkUp(now.Name)}
	}
	l.up, l.downs = now.Link, max(l.downs, downs)
	return notes
}

// readLinks notes what the links are when all programs are attached, for which many drivers take them down, and tells
// nothing. The calling thread must be in the devices' network namespace.
func (f *afxdp) readLinks() error {
	for i := range f.devices {
		now, err := device.Named(f.name(i))
		if err != nil {
			return err
		}
		f.links[i].up = now.Link
	}
	return nil
}

// noteLinks tells of links that went down or are up again since the last call. Workers ask that of the first queue of each
// device.
func (f *afxdp) noteLinks() {
	counters := f.path.Counters(nil)
	for i := range f.devices {
		for _, n := range f.noteLink(i, counters[f.portsOf(i)[0]].LinkDowns) {
			f.events.happen(f.name(i), n)
		}
	}
}

func (f *afxdp) noteLink(i int, downs uint64) (notes []note) {
	f.config.Do(func() error { // a device that cannot be asked is lost, or asked again
		now, err := device.Named(f.name(i))
		f.mu.Lock()
		defer f.mu.Unlock()
		if err == nil && now.Index == f.devices[i].Index && !f.gone(i) {
			notes = f.links[i].change(now, downs)
		}
		return nil
	})
	return notes
}

// gone says whether a device is lost, and not back with all it needs. f.mu is held.
func (f *afxdp) gone(i int) bool { return f.lost[i] || f.away[i] && !f.bare[i] }

// linkBack notes what the link of a device is that came back, or has its program again. What its workers found before is
// over. The calling thread must be in the devices' network namespace.
func (f *afxdp) linkBack(i int) (up bool, err error) {
	now, err := device.Named(f.name(i))
	if err != nil {
		return false, err
	}
	downs := f.path.Counters(nil)[f.portsOf(i)[0]].LinkDowns
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[i] = linkState{now.Link, downs}
	return now.Link, nil
}

// linkList are the links of all devices.
func (f *afxdp) linkList() (list []Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, l := range f.links {
		list = append(list, Link{f.devices[i].Name, l.up && !f.gone(i)})
	}
	return list
}
