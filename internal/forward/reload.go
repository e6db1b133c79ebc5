package forward

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// Reload puts other programs in the place of those that decide which frames to forward: the
// default program with this Claim, or what is in the file of Config.Object now. Each frame meets the
// old or the new one, and none is lost. On an error all is as before.
func (f *afxdp) Reload(ctx context.Context, claim asm.Instructions) (err error) {
	if f.config.Object != "" && claim != nil {
		return errFilterAndObject
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before, file := f.claim, f.file
	if file != nil {
		if f.file, err = readObject(ctx, file.path); err != nil {
			f.file = file
			return err
		}
	}
	f.claim = claim
	var undo []func() error
	for i := range f.devices {
		if !f.input(i) || f.programs[i] == nil || f.lost[i] {
			continue // one that is away gets them when it is back
		}
		back, errRenew := f.renew(ctx, i, before)
		if errors.Is(errRenew, unix.ENOLINK) {
			continue // it is gone, and nobody saw it yet
		}
		if err = errRenew; err != nil {
			err = fmt.Errorf("reload the program of %s: %w", f.devices[i].Name, err)
			break
		}
		undo = append(undo, back)
	}
	if err == nil {
		f.reloads++
		return f.closeReplaced()
	}
	f.claim, f.file = before, file
	for _, back := range undo {
		err = errors.Join(err, back())
	}
	f.replaced = nil
	return err
}

// renew loads the program of an input anew and puts it in the place of the attached one. undo puts
// the former, with the claim before, back. f.mu is held.
func (f *afxdp) renew(ctx context.Context, i int, before asm.Instructions) (undo func() error, err error) {
	p := f.programs[i]
	if f.file == nil {
		return func() error { return p.Replace(before) }, p.Replace(f.claim)
	}
	o, err := f.file.load(ctx)
	if err != nil {
		return nil, err
	}
	replace := func(o *object) error {
		m, err := o.mapOf(ebpf.XSKMap)
		if err != nil {
			return err
		}
		return p.ReplaceProgram(o.program, m, f.openSocketsOf(i))
	}
	if err := replace(o); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	old := f.objects[i]
	f.objects[i] = o
	f.replaced = append(f.replaced, old)
	return func() error {
		err := replace(old)
		f.objects[i] = old
		return errors.Join(err, o.Close())
	}, nil
}

// closeReplaced closes the objects that others took the place of. f.mu is held.
func (f *afxdp) closeReplaced() (err error) {
	for _, o := range f.replaced {
		err = errors.Join(err, o.Close())
	}
	f.replaced = nil
	return err
}

// openSocketsOf are the sockets of a device's queues. f.mu is held.
func (f *afxdp) openSocketsOf(i int) (sockets []*xsk.Socket) {
	for _, port := range f.portsOf(i) {
		if s := f.sockets[port]; s != nil {
			sockets = append(sockets, s)
		}
	}
	return sockets
}

// Reload is that of the engine in user space. A device that is gone has no program to replace.
func (f *inKernel) Reload(ctx context.Context, claim asm.Instructions) error {
	if f.config.Object != "" && claim != nil {
		return errFilterAndObject
	}
	// A devmap takes devices of the calling thread's network namespace.
	return f.config.Do(func() error { return f.reload(ctx, claim) })
}

func (f *inKernel) reload(ctx context.Context, claim asm.Instructions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("reload programs: %w", xsk.ErrClosed)
	}
	before := f.config.Claim
	f.config.Claim = claim
	type loaded struct {
		program *ebpf.Program
		object  *object
	}
	var next []loaded
	drop := func(all []loaded) (err error) {
		for _, l := range all {
			if l.object != nil {
				err = errors.Join(err, l.object.Close())
			} else {
				err = errors.Join(err, l.program.Close())
			}
		}
		return err
	}
	for i := range f.directions {
		p, o, err := f.load(ctx, uint32(i))
		if err != nil {
			f.config.Claim = before
			return errors.Join(fmt.Errorf("reload programs: %w", err), drop(next))
		}
		next = append(next, loaded{p, o})
	}
	for i := range next {
		if err := f.update(i, next[i].program); err != nil {
			f.config.Claim = before
			err = fmt.Errorf("reload the program of %s: %w", f.directions[i].In, privilege(err))
			for k := range i {
				err = errors.Join(err, f.update(k, f.programOf(k)))
			}
			return errors.Join(err, drop(next))
		}
	}
	var old []loaded
	for i, l := range next {
		if l.object != nil {
			old = append(old, loaded{nil, f.objects[i]})
			f.objects[i] = l.object
		} else {
			old = append(old, loaded{f.programs[i], nil})
			f.programs[i] = l.program
		}
	}
	return drop(old)
}

// update puts a program in the place of a direction's, if its device is there: one that comes back
// gets the program that there is then.
func (f *inKernel) update(direction int, p *ebpf.Program) error {
	d := &f.devices[f.directions[direction].in]
	if d.link == nil {
		return nil
	}
	err := d.link.Update(p)
	if errors.Is(err, unix.ENOLINK) {
		return nil
	}
	return errors.Join(err, d.noteProgram())
}

// programOf is the program of a direction.
func (f *inKernel) programOf(direction int) *ebpf.Program {
	if f.config.Object != "" {
		return f.objects[direction].program
	}
	return f.programs[direction]
}
