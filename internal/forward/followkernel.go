package forward

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/device"
)

// up says whether a device is there and has its program.
func (d *kernelDevice) up() bool { return !d.lost && !d.bare }

// detach takes our program off a device, if it has one.
func (d *kernelDevice) detach() error {
	if d.link == nil {
		return nil
	}
	err := d.link.Close()
	d.link = nil
	if err != nil {
		return fmt.Errorf("detach XDP program: %w", err)
	}
	return nil
}

// follow finds devices that went, came back, or have their program no more, and gives them what
// they need. What keeps one from it is said once. Then it looks for frames that nobody counted.
func (f *inKernel) follow(ctx context.Context) {
	for i := range f.devices {
		var notes []note
		err := f.config.Do(func() error { // devices are found by name
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.closed {
				return nil
			}
			return f.followDevice(i, func(n note) { notes = append(notes, n) })
		})
		f.say()
		d := &f.devices[i]
		for _, n := range notes {
			f.events.happen(d.Name, n)
		}
		if err == nil {
			d.complained = ""
		} else if text := err.Error(); text != d.complained && ctx.Err() == nil {
			d.complained = text
			f.config.Warn(fmt.Sprintf("%s cannot be used yet: %v", d.Name, err))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.noteRest()
	}
}

// followDevice looks after one device. f.mu is held.
func (f *inKernel) followDevice(i int, tell func(note)) error {
	d := &f.devices[i]
	now, err := device.Named(d.Name)
	var absent netlink.LinkNotFoundError
	isAbsent := errors.As(err, &absent)
	if err != nil && !isAbsent {
		return err
	}
	if !d.lost && (isAbsent || now.Index != d.Index || f.disconnected(i)) {
		d.lost, d.bare, d.Link = true, false, false
		tell(notef(eventLost, true, "%s is lost: it went away, or to another network namespace", d.Name))
		if err := d.detach(); err != nil {
			return err
		}
	}
	if isAbsent {
		return nil // nothing can be done, and that was said
	}
	d.queues = f.config.queues(d.Name)
	switch {
	case d.lost: // it is told of when it is back
	case d.Link && !now.Link:
		tell(linkDown(d.Name))
	case !d.Link && now.Link:
		tell(linkUp(d.Name))
	}
	d.Link = now.Link && !d.lost
	if d.up() {
		if attached, err := d.attached(); attached || err != nil {
			return err
		}
		d.bare = true
		tell(notef(eventNoProgram, true, "the XDP program of %s was taken off", d.Name))
		if err := d.detach(); err != nil {
			return err
		}
	}
	d.Device = now
	for k, direction := range f.directions {
		other := direction.out
		if other == i {
			other = direction.in
		}
		if direction.in != i && direction.out != i || f.devices[other].lost {
			continue // or until that is back
		}
		if err := f.connect(k); err != nil {
			return err
		}
	}
	if err := f.attach(i); err != nil {
		return errors.Join(err, d.detach())
	}
	if now, err = device.Named(d.Name); err != nil { // many drivers take the link down for a program
		return errors.Join(err, d.detach())
	}
	d.Link = now.Link
	if d.lost {
		tell(back(d.Name, d.Link))
	} else {
		tell(reattached(d.Name, d.Link))
	}
	d.lost, d.bare = false, false
	return nil
}

// disconnected says whether a device is an output and in the devmap no more: the kernel takes out what
// goes or is moved, also when it is back by now.
func (f *inKernel) disconnected(i int) bool {
	for k := range f.directions {
		var out uint32
		if f.directions[k].out == i && errors.Is(f.ports.Lookup(uint32(k), &out), ebpf.ErrKeyNotExist) {
			return true
		}
	}
	return false
}
