package forward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	f.reloading.Lock()
	defer f.reloading.Unlock()
	// The verifier may take seconds, in which all else goes on.
	file, objects, err := f.loadObjects(ctx)
	defer func() { err = errors.Join(err, closeAll(slices.Collect(maps.Values(objects)))) }()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	beforeClaim, beforeFile := f.claim, f.file
	f.claim, f.file = claim, file
	var undo []func() error
	for i := range f.devices {
		if !f.input(i) || f.programs[i] == nil || f.lost[i] {
			continue // one that is away gets them when it is back
		}
		back, errRenew := f.renew(i, beforeClaim, objects)
		if errors.Is(errRenew, unix.ENOLINK) {
			continue // it is gone, and nobody saw it yet
		}
		if errRenew != nil {
			err = fmt.Errorf("reload the program of %s: %w", f.devices[i].Name, errRenew)
			break
		}
		undo = append(undo, back)
	}
	if err == nil {
		f.reloads++
		return nil
	}
	f.claim, f.file = beforeClaim, beforeFile
	for _, back := range undo {
		err = errors.Join(err, back())
	}
	return err
}

// loadObjects reads the file of Config.Object and loads its program for each input. Without one there
// is nothing to load. On an error the objects that were loaded are returned too.
func (f *afxdp) loadObjects(ctx context.Context) (file *objectFile, objects map[int]*object, err error) {
	if f.config.Object == "" {
		return nil, nil, nil
	}
	if file, err = readObject(ctx, f.config.Object); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	loaded := memoryOf(maps.Values(f.objects))
	f.mu.Unlock()
	objects = make(map[int]*object)
	for _, d := range f.config.directions() {
		o, err := file.load(ctx, loaded+memoryOf(maps.Values(objects)))
		if err != nil {
			return nil, objects, fmt.Errorf("reload the program of %s: %w", d.In, err)
		}
		objects[f.numbers[d.In]] = o
	}
	return file, objects, nil
}

func closeAll(objects []*object) (err error) {
	for _, o := range objects {
		err = errors.Join(err, o.Close())
	}
	return err
}

// renew puts another program in the place of an input's: that with f.claim, or that of objects, which
// gets the former object in exchange. undo puts the former, with the claim before, back. f.mu is held.
func (f *afxdp) renew(i int, before asm.Instructions, objects map[int]*object) (undo func() error, err error) {
	p := f.programs[i]
	if objects == nil {
		return func() error { return p.Replace(before) }, p.Replace(f.claim)
	}
	exchange := func() error {
		o := objects[i]
		m, err := o.mapOf(ebpf.XSKMap)
		if err != nil {
			return err
		}
		if err := p.ReplaceProgram(o.program, m, f.openSocketsOf(i)); err != nil {
			return err
		}
		f.objects[i], objects[i] = o, f.objects[i]
		return nil
	}
	return exchange, exchange()
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

func (f *inKernel) reload(ctx context.Context, claim asm.Instructions) (err error) {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	// The verifier may take seconds, in which all else goes on.
	var others []*object
	defer func() { err = errors.Join(err, closeAll(others)) }()
	for i := range f.directions {
		o, err := f.load(ctx, uint32(i), claim, memoryOf(slices.Values(f.objects))+memoryOf(slices.Values(others)))
		if err != nil {
			return fmt.Errorf("reload programs: %w", err)
		}
		others = append(others, o)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("reload programs: %w", xsk.ErrClosed)
	}
	for i := range others {
		err := f.direct(i, others[i])
		if err == nil {
			err = f.update(i, others[i].program)
		}
		if err != nil {
			err = fmt.Errorf("reload the program of %s: %w", f.directions[i].In, unprivileged(err))
			for k := range i {
				err = errors.Join(err, f.update(k, f.objects[k].program))
			}
			return err
		}
	}
	f.objects, others = others, f.objects
	return nil
}

// direct has the user's object send frames to the output of a direction, if that is there.
func (f *inKernel) direct(direction int, o *object) error {
	if f.config.Object == "" {
		return nil
	}
	var out uint32
	err := f.ports.Lookup(uint32(direction), &out)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil // connect does so when it is back
	}
	if err != nil {
		return fmt.Errorf("read devmap: %w", err)
	}
	return o.redirectTo(int(out))
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
