// Package driver reads from a driver's module what the driver does for a
// redirected packet: how it maps memory, how it transmits, how it gives frames
// back, how many indirect branches are on the way. It is the plan of 2018 against
// the cost of retpolines, as a list of who has done what.
//
// All of it is read from code: which functions of the kernel the module needs, and
// from how many places they are called in the functions that the driver's NAPI polls
// and its ndo_xdp_xmit reach by direct calls. A place may run more than once a
// packet, or for some packets only; a call by pointer within the driver is not
// followed.
package driver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ktext"
)

// ErrNotXDP is returned for a module that runs no XDP programs.
var ErrNotXDP = errors.New("it runs no XDP programs")

// Inspect reads one driver's module. types are those of its kernel, nil when
// unknown: its functions are then told by their names. A module without native XDP
// is an [ErrNotXDP]. When ctx ends Inspect returns the error of ctx.
func Inspect(ctx context.Context, img *ktext.Image, types *btf.Spec) (*record.DriverRow, error) {
	arch, err := kernel.ArchOf(img)
	if err != nil {
		return nil, err
	}
	d := &reader{kernel: kernel.New(img, img.Table, types), functions: make(map[uint64]*function)}
	d.kernel.Arch = arch
	if !d.uses(functions.XDPOnly) {
		return nil, ErrNotXDP
	}
	roots, err := xdppath.DriverRoots(d.kernel, img.Name)
	if err != nil {
		return nil, err
	}
	row := &record.DriverRow{
		Name: img.Name, Release: img.Release, Return: "own",
		PagePool: d.uses(functions.MakesPool),
		DMA: slices.ContainsFunc(functions.Table(), func(f functions.Function) bool {
			return f.DMA != "" && d.imports(f)
		}),
	}
	switch {
	case d.uses(functions.ReturnsBulk):
		row.Return = "bulk"
	case d.uses(functions.ReturnsOne):
		row.Return = "each"
	}
	poll, xmit := make(map[uint64]bool), make(map[uint64]bool)
	for _, r := range roots {
		switch s, _, ok := d.kernel.Symbols.Find(r.Addr); {
		case !ok || s.Module == "" || strings.HasPrefix(r.Function, "__pfx_"):
		case r.Stage == functions.StageTransmit && r.Per == functions.PerBulk:
			row.Xmit = r.Function
			d.reach(ctx, r.Addr, xmit)
		case r.Per == functions.PerPoll:
			row.Polls = append(row.Polls, r.Function)
			d.reach(ctx, r.Addr, poll)
		}
	}
	slices.Sort(row.Polls)
	row.Polls = slices.Compact(row.Polls)
	// What a poll reaches is receive, XDP_TX and the completion of transmissions:
	// what ndo_xdp_xmit reaches too, or a function that completes, is not receive.
	completion, receive := make(map[uint64]bool), make(map[uint64]bool)
	for addr := range poll {
		if s, _, ok := d.kernel.Symbols.Find(addr); ok && xdppath.StageOf(s.Name) == functions.StageCompletion {
			d.reach(ctx, addr, completion)
		}
	}
	for addr := range poll {
		if !xmit[addr] && !completion[addr] {
			receive[addr] = true
			row.MapsPool = row.MapsPool || d.functions[addr].mapsPool()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	row.Poll, row.Receive, row.Transmit = d.calls(poll), d.calls(receive), d.calls(xmit)
	row.Partial = d.partial
	slices.Sort(row.Partial)
	row.Partial = slices.Compact(row.Partial)
	own(row)
	return row, nil
}

// own gives a row texts of its own: those of symbols are parts of all names of the module.
func own(row *record.DriverRow) {
	for _, text := range []*string{&row.Name, &row.Release, &row.Xmit} {
		*text = strings.Clone(*text)
	}
	for _, list := range [][]string{row.Polls, row.Partial} {
		for i := range list {
			list[i] = strings.Clone(list[i])
		}
	}
}

// uses tells whether the module needs a function of the kernel that has a role.
func (d *reader) uses(role functions.Role) bool {
	return slices.ContainsFunc(functions.With(role), func(f functions.Function) bool { return d.imports(f) })
}

// imports tells whether the module needs a function of the kernel, by any of its names.
func (d *reader) imports(f functions.Function) bool {
	return slices.ContainsFunc(f.Names(), func(n functions.Name) bool {
		s, ok := d.kernel.Symbols.Lookup(n.Name)
		return ok && s.Module == ""
	})
}

// reader reads the functions of one module.
type reader struct {
	kernel    *kernel.Kernel // the module alone, with the types of its kernel
	functions map[uint64]*function
	partial   []string
}

// function is what one function does.
type function struct {
	own      []uint64 // functions of the module it calls or jumps to
	kernel   []string // those of the kernel, one entry a place
	indirect int
}

// mapsPool tells whether a function maps what it takes from a page pool: one that keeps
// pages mapped (PP_FLAG_DMA_MAP) leaves nothing to map.
func (f *function) mapsPool() bool {
	takes := slices.ContainsFunc(f.kernel, func(name string) bool { return functions.Has(name, functions.TakesPage) })
	maps := slices.ContainsFunc(f.kernel, func(name string) bool { return functions.DMAOf(name) == functions.DMAMap })
	return takes && maps
}

// reach adds the functions that the one at addr calls directly, itself included, until ctx
// ends.
func (d *reader) reach(ctx context.Context, addr uint64, into map[uint64]bool) {
	for todo := []uint64{addr}; len(todo) > 0 && ctx.Err() == nil; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if into[at] {
			continue
		}
		if f := d.read(at); f != nil {
			into[at] = true
			todo = append(todo, f.own...)
		}
	}
}

func (d *reader) read(addr uint64) *function {
	if f, ok := d.functions[addr]; ok {
		return f
	}
	d.functions[addr] = nil
	s, off, ok := d.kernel.Symbols.Find(addr)
	code, err := d.kernel.Code(s)
	if !ok || off != 0 || s.Size == 0 || err != nil {
		d.partial = append(d.partial, cmp.Or(s.Name, "code without a symbol"))
		return nil
	}
	f := new(function)
	d.functions[addr] = f
	for b := range d.kernel.Branches(code, addr) {
		switch {
		case b.Indirect():
			f.indirect++
			continue
		case b.Target == 0 || b.Target >= addr && b.Target < addr+uint64(len(code)) || b.Returns():
			continue
		}
		to, off, ok := d.kernel.Symbols.Find(b.Target)
		switch {
		case !ok || off != 0: // into a cold part of another function
		case to.Module == "":
			f.kernel = append(f.kernel, to.Name)
		case to.Text():
			f.own = append(f.own, to.Addr)
		}
	}
	return f
}

// calls counts what functions of the module do.
func (d *reader) calls(reached map[uint64]bool) (c record.DriverCalls) {
	for addr := range reached {
		f := d.functions[addr]
		c.Functions++
		c.Indirect += f.indirect
		for _, name := range f.kernel {
			switch functions.DMAOf(name) {
			case functions.DMAMap:
				c.Maps++
			case functions.DMAUnmap:
				c.Unmaps++
			case functions.DMAMapList:
				c.Gathers++
			case functions.DMASync:
				c.Syncs++
			}
		}
	}
	return c
}
