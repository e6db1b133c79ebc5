package list

import (
	"context"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// links are the BPF links that bear on XDP.
type links struct {
	// xdp are those that attach a program to a device.
	xdp []xdpLink
	// onPrograms are those that attach a program to another: freplace, fentry, fexit.
	onPrograms []programLink
	observers  []host.Observer
}

// xdpLink attaches a program to a device.
type xdpLink struct{ id, program, device uint32 }

// programLink attaches a program to a function of another.
type programLink struct {
	program, target uint32
	function        btf.TypeID
}

// readLinks lists the BPF links that bear on XDP. Requires CAP_SYS_ADMIN.
func readLinks(ctx context.Context) (*links, error) {
	found := &links{}
	err := host.Links(ctx, func(info *link.Info) {
		if xdp := info.XDP(); xdp != nil && xdp.Ifindex != 0 { // 0: its device is gone
			found.xdp = append(found.xdp, xdpLink{uint32(info.ID), uint32(info.Program), xdp.Ifindex})
		}
		if tracing := info.Tracing(); tracing != nil {
			found.onPrograms = append(found.onPrograms,
				programLink{uint32(info.Program), tracing.TargetObjectId, btf.TypeID(tracing.TargetBtfId)})
		}
		if o, ok := host.ObserverOf(info); ok {
			found.observers = append(found.observers, o)
		}
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// onDevices are the links to devices; none where links could not be read.
func (l *links) onDevices() []xdpLink {
	if l == nil {
		return nil
	}
	return l.xdp
}

// observing are the programs at tracepoints of XDP; none where links could not be read.
func (l *links) observing() []host.Observer {
	if l == nil {
		return nil
	}
	return l.observers
}

// by are the links that attach a program to devices of one number. They do not say which
// namespace their device is in: where more devices or fewer have the program and the number,
// nobody can tell which is attached by which.
func (l *links) by(program, device uint32) (fit []xdpLink) {
	for _, x := range l.onDevices() {
		if x.program == program && x.device == device {
			fit = append(fit, x)
		}
	}
	return fit
}

// parts notes which extensions are parts of which program, and who runs at its entry or
// exit. The target of a link is a program's number, or that of the BTF of a kernel's module.
func (l *links) parts(programs map[uint32]*program) {
	for _, on := range l.onPrograms {
		target := programs[on.target]
		if target == nil {
			continue
		}
		if part := programs[on.program]; part != nil && part.Type == "extension" {
			part.PartOf, part.Slot = on.target, functionName(target.types, on.function)
			target.Parts = append(target.Parts, on.program)
			continue
		}
		if name, kind := nameOf(on.program); kind == ebpf.Tracing {
			target.Tracers = append(target.Tracers, record.ProgramName{ID: on.program, Name: clean(name)})
		}
	}
	for _, p := range programs {
		slices.SortFunc(p.Parts, func(a, b uint32) int { return compareSlots(programs[a].Slot, programs[b].Slot) })
	}
}

// compareSlots orders "prog2" before "prog10".
func compareSlots(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// nameOf is the name and the type of a loaded program; empty when it is gone.
func nameOf(id uint32) (string, ebpf.ProgramType) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return "", ebpf.UnspecifiedProgram
	}
	defer p.Close()
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return "", ebpf.UnspecifiedProgram
	}
	return about.Name, p.Type()
}
