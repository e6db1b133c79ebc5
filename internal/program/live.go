package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
)

// openLive opens a program that is loaded already.
func (t Target) openLive(ctx context.Context, o Options) (_ *Opened, err error) {
	if err := refuseForLive(t, o); err != nil {
		return nil, err
	}
	p, err := t.program()
	if err != nil {
		return nil, err
	}
	opened := &Opened{Program: p, Live: true, Type: p.Type(), Maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			_ = opened.Close()
		}
	}()
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return nil, fmt.Errorf("read about program %s: %w", t, err)
	}
	opened.Name = about.Name
	if p.Type() != ebpf.XDP && p.Type() != ebpf.Extension {
		return nil, fmt.Errorf("%s is no XDP program: %s is of type %v", t, about.Name, p.Type())
	}
	for _, id := range about.Maps {
		m, err := mapByID(id)
		if err != nil {
			return nil, fmt.Errorf("open map %d of program %s: %w", id, t, err)
		}
		opened.addMap(m, id)
	}
	if opened.Parts, err = partsOf(p); err != nil {
		opened.warnf("the parts of this dispatcher cannot be listed: %v", err)
		err = nil
	}
	if o.Run {
		err = opened.checkRun(ctx, t, o)
	}
	return opened, err
}

// addMap gives a map its name among the others.
func (o *Opened) addMap(m *ebpf.Map, id ebpf.MapID) {
	name := fmt.Sprintf("#%d", id)
	if info, err := m.Info(); err == nil && info.Name != "" {
		name = info.Name
		if o.Maps[name] != nil {
			name = fmt.Sprintf("%s#%d", name, id)
		}
	}
	o.Maps[name] = m
}

// refuseForLive refuses what only an object can be given.
func refuseForLive(t Target, o Options) error {
	for _, option := range []struct {
		given bool
		name  string
	}{{len(o.Set) > 0, "--set"}, {o.MapsFrom != "", "--maps-from"}, {len(o.Maps) > 0, "--map"}, {len(o.Sizes) > 0, "--map-size"},
		{len(o.TailCalls) > 0, "--tail-call"}} {
		if option.given {
			return &OptionError{Err: fmt.Errorf("%s is for an object file: %s is loaded already, with maps of its own", option.name, t)}
		}
	}
	return nil
}

// program opens the program of a live target.
func (t Target) program() (*ebpf.Program, error) {
	switch {
	case t.id != 0:
		return programByID(t.id, t.text)
	case t.device != "":
		return t.attached()
	}
	if info, err := os.Stat(t.path); err == nil && info.IsDir() {
		return nil, &OptionError{Err: fmt.Errorf("%s is a folder, and no pinned program: name one in it", t.path)}
	}
	p, err := ebpf.LoadPinnedProgram(t.path, nil)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, feature.Refused(err, unix.CAP_BPF, unix.CAP_DAC_READ_SEARCH)
	}
	l, errLink := link.LoadPinnedLink(t.path, nil)
	if errLink != nil {
		return nil, fmt.Errorf("%s is neither a pinned program nor a pinned link: %w", t, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("read about link %s: %w", t, err)
	}
	return programByID(info.Program, t.text)
}

func programByID(id ebpf.ProgramID, text string) (*ebpf.Program, error) {
	p, err := ebpf.NewProgramFromID(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: there is no program with id %d", text, id)
	case errors.Is(err, fs.ErrPermission):
		return nil, feature.Refused(err, unix.CAP_SYS_ADMIN)
	case err != nil:
		return nil, fmt.Errorf("open program %s: %w", text, err)
	}
	return p, nil
}

// attached opens the program of a device, or one part of the dispatcher there.
func (t Target) attached() (*ebpf.Program, error) {
	l, err := netlink.LinkByName(t.device)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return nil, fmt.Errorf("there is no device %s in this network namespace", t.device)
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", t.device, err)
	}
	xdp := l.Attrs().Xdp
	switch {
	case xdp == nil || !xdp.Attached:
		return nil, fmt.Errorf("device %s has no XDP program attached", t.device)
	case xdp.ProgId == 0: // one offloaded and one not: IFLA_XDP_PROG_ID is of a single one
		return nil, fmt.Errorf("device %s has several XDP programs attached: name one by id:N, as `unthunk prog list` shows", t.device)
	}
	p, err := programByID(ebpf.ProgramID(xdp.ProgId), t.text)
	if err != nil || t.part == "" {
		return p, err
	}
	defer p.Close()
	parts, err := partsOf(p)
	if err != nil {
		return nil, fmt.Errorf("list the parts of the dispatcher on %s: %w", t.device, err)
	}
	var names []string
	for _, part := range parts {
		if part.Name == t.part || part.Slot == t.part {
			return programByID(part.ID, t.text)
		}
		names = append(names, part.Name)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("what is attached to %s is no libxdp dispatcher with parts", t.device)
	}
	return nil, &OptionError{Name: t.part, Known: names,
		Err: fmt.Errorf("the dispatcher on %s has no part %s: it has %s", t.device, t.part, listed(names))}
}

// Part is a program that a libxdp dispatcher calls: it takes the place of a function of the
// dispatcher's (freplace).
type Part struct {
	// Slot is that function: prog0 runs first.
	Slot string
	ID   ebpf.ProgramID
	Name string
}

// dispatcherName is the function of libxdp's dispatcher (lib/libxdp/xdp-dispatcher.c.in).
const dispatcherName = "xdp_dispatcher"

// partsOf lists the parts of a libxdp dispatcher, in its order; none when p is another program.
// The links that hold them are read, which needs CAP_SYS_ADMIN. Requires at least Linux 5.10.
func partsOf(p *ebpf.Program) ([]Part, error) {
	about, err := kernel.AboutProgram(p)
	if err != nil || about.Name != dispatcherName {
		return nil, err
	}
	slots := slotNames(about.Types)
	parts := map[string]Part{}
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		l, err := it.Link.Info()
		if err != nil {
			continue // it has just been detached
		}
		tracing := l.Tracing()
		if tracing == nil || tracing.TargetObjectId != uint32(about.ID) {
			continue
		}
		slot := slots[btf.TypeID(tracing.TargetBtfId)]
		if slot == "" {
			slot = fmt.Sprintf("function %d", tracing.TargetBtfId)
		}
		part := Part{Slot: slot, ID: l.Program}
		if program, err := ebpf.NewProgramFromID(l.Program); err == nil {
			if about, err := kernel.AboutProgram(program); err == nil {
				part.Name = fullName(about)
			}
			program.Close()
		}
		parts[slot] = part
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list BPF links: %w", err)
	}
	var sorted []Part
	for _, slot := range slices.SortedFunc(maps.Keys(parts), func(a, b string) int {
		if len(a) != len(b) { // prog9 is before prog10
			return len(a) - len(b)
		}
		return slices.Compare([]byte(a), []byte(b))
	}) {
		sorted = append(sorted, parts[slot])
	}
	return sorted, nil
}

// slotNames are the functions of a program by their types in its BTF.
func slotNames(id btf.ID) map[btf.TypeID]string {
	names := map[btf.TypeID]string{}
	spec, err := kernel.ProgramTypes(id)
	if err != nil {
		return names
	}
	for t, err := range spec.All() {
		if err != nil {
			return names
		}
		if f, ok := t.(*btf.Func); ok {
			if id, err := spec.TypeID(f); err == nil {
				names[id] = f.Name
			}
		}
	}
	return names
}

// fullName is the name of a program's function: the kernel cuts that of the program at 15
// bytes, and BTF has all of it.
func fullName(about *kernel.About) string {
	if about.Info != nil {
		if funcs, err := kernel.FuncInfos(about.Info); err == nil && len(funcs) > 0 && funcs[0].Func != nil {
			return funcs[0].Func.Name
		}
	}
	return about.Name
}
