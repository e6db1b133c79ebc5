package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
)

// subject is what is watched.
type subject struct {
	device device.Device
	mode   string // as of [device.Program]
	// attached is the program on the device. watched is the one that the user named, which a
	// libxdp dispatcher or a tail call may run; they are the same where a device was named.
	attached, watched uint32
	name, tag         string
	size              uint32 // of its machine code, without what it calls by tail calls
	// code are the functions of the watched program, of its parts and of the programs that it
	// may go to by tail calls, in the order of their addresses.
	code []function
	// programs is how many programs these are of.
	programs int
	// roots are the watched program and its parts.
	roots []ebpf.ProgramID
}

// function is one function of a program.
type function struct {
	addr, size uint64
	// name is as in /proc/kallsyms, so that it is known to be a program's.
	name string
}

// find names the function that an address is in.
func (s *subject) find(addr uint64) (name string, start uint64, ok bool) {
	i, found := slices.BinarySearchFunc(s.code, addr, func(f function, addr uint64) int { return cmp.Compare(f.addr, addr) })
	if !found {
		i--
	}
	if i < 0 || addr-s.code[i].addr >= s.code[i].size {
		return "", 0, false
	}
	return s.code[i].name, s.code[i].addr, true
}

// find finds the program of a target and its device, in the calling thread's network namespace.
// Programs are open meanwhile only: who watches holds none of them.
func find(ctx context.Context, t program.Target) (*subject, error) {
	name, part := t.Device()
	if name != "" && part == "" { // on this thread: targets are opened on another
		d, err := device.Named(name)
		if err != nil {
			return nil, err
		}
		on, err := attached(d)
		if errors.Is(err, errDetached) {
			return nil, fmt.Errorf("device %s has no XDP program attached", name)
		}
		if err != nil {
			return nil, err
		}
		t = program.OfID(ebpf.ProgramID(on.ID))
	}
	opened, err := t.Open(ctx, program.Options{})
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	about, err := kernel.AboutProgram(opened.Program)
	if err != nil {
		return nil, fmt.Errorf("read about program %s: %w", t, err)
	}
	s := &subject{watched: uint32(about.ID), name: about.Name, tag: about.Tag, size: about.JitedBytes}
	if name == "" {
		if name, err = deviceOf(ctx, t, s.watched); err != nil {
			return nil, err
		}
	}
	if s.device, err = device.Named(name); err != nil {
		return nil, err
	}
	on, err := attached(s.device)
	if err != nil {
		return nil, err
	}
	s.attached, s.mode = on.ID, on.Mode
	s.roots = []ebpf.ProgramID{about.ID}
	for _, part := range opened.Parts {
		s.roots = append(s.roots, part.ID)
	}
	return s, s.readCode(ctx, s.roots)
}

// title is its name, which it may lack, and its number.
func (s *subject) title() string {
	return strings.TrimSpace(fmt.Sprintf("%s id:%d", s.name, s.watched))
}

// attached is the program that CPUs run for a device: the native one if it has several.
func attached(d device.Device) (device.Program, error) {
	all, err := d.Programs()
	if err != nil {
		return device.Program{}, err
	}
	for _, mode := range []string{"native", "generic"} {
		if i := slices.IndexFunc(all, func(p device.Program) bool { return p.Mode == mode }); i >= 0 {
			return all[i], nil
		}
	}
	if len(all) > 0 {
		return device.Program{}, &feature.Missing{
			Feature: "a CPU that runs the program of " + d.Name, Help: "it is offloaded: the NIC runs it",
		}
	}
	return device.Program{}, errDetached
}

var errDetached = errors.New("no XDP program is attached to it")

// deviceOf is the device that runs a program, or the dispatcher that it is a part of, or a
// program that goes to it by a tail call.
func deviceOf(ctx context.Context, t program.Target, id uint32) (string, error) {
	found, err := list.Read(ctx, list.Options{})
	if err != nil {
		return "", err
	}
	own, err := ownNamespace()
	if err != nil {
		return "", err
	}
	var here, elsewhere []string
	for _, row := range found.Rows {
		if !mayRun(found, &row, id) {
			continue
		}
		for _, a := range row.Attached {
			switch {
			case a.Namespace == own && a.Device != "":
				here = append(here, a.Device)
			case a.Where != "":
				elsewhere = append(elsewhere, cmp.Or(a.Device, "a device")+" in network namespace "+a.Where)
			default:
				elsewhere = append(elsewhere, "a device of another network namespace")
			}
		}
	}
	slices.Sort(here)
	here = slices.Compact(here)
	switch {
	case len(here) == 1:
		return here[0], nil
	case len(here) > 1:
		return "", fmt.Errorf("program %s is at work on %s: name one by dev:DEV", t, strings.Join(here, ", "))
	case len(elsewhere) > 0:
		return "", fmt.Errorf("program %s is at work on %s: watch it there (ip netns exec, nsenter -n)", t, elsewhere[0])
	}
	return "", fmt.Errorf("program %s is not at work: no device runs it (unthunk prog list shows which do)", t)
}

// mayRun tells whether a program is the one of that number, has it as a part, or may go to it by a
// tail call.
func mayRun(found *list.Found, row *record.ProgramRow, id uint32) bool {
	if row.ID == id || slices.Contains(row.Parts, id) {
		return true
	}
	for _, m := range row.MapIDs {
		table := found.Map(m)
		if table != nil && table.Type == "prog_array" &&
			slices.ContainsFunc(table.Programs, func(h record.HeldProgram) bool { return h.Program == id }) {
			return true
		}
	}
	return false
}

// ownNamespace is the inode of the calling thread's network namespace.
func ownNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("find own network namespace: %w", err)
	}
	return st.Ino, nil
}

const (
	// maxPrograms bounds how many programs are followed, maxEntries how many entries of a
	// table for tail calls are read.
	maxPrograms = 1024
	maxEntries  = 4096
)

// readCode reads where the machine code of programs is, and of those that they go to by tail
// calls.
func (s *subject) readCode(ctx context.Context, programs []ebpf.ProgramID) error {
	s.code, s.programs = nil, 0
	programs = slices.Clone(programs)
	seen := make(map[ebpf.ProgramID]bool)
	tables := make(map[ebpf.MapID]bool)
	for len(programs) > 0 && len(seen) < maxPrograms {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := programs[0]
		programs = programs[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		more, err := s.addProgram(id, tables)
		if err != nil {
			return err
		}
		programs = append(programs, more...)
	}
	if len(s.code) == 0 {
		return &feature.Missing{
			Feature: "the addresses of the machine code of " + s.title(),
			Help:    "they take CAP_SYSLOG, kernel.kptr_restrict below 2, and a program that was loaded with the JIT on",
		}
	}
	slices.SortFunc(s.code, func(a, b function) int { return cmp.Compare(a.addr, b.addr) })
	return nil
}

// addProgram adds the functions of a program, and returns the programs of its tables. One that
// is gone adds nothing.
func (s *subject) addProgram(id ebpf.ProgramID, tables map[ebpf.MapID]bool) (more []ebpf.ProgramID, err error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return nil, fmt.Errorf("read about program %d: %w", id, err)
	}
	var names btf.FuncOffsets
	if about.Info != nil {
		names, _ = kernel.FuncInfos(about.Info)
	}
	for i, f := range about.Functions {
		name := about.Name
		if i < len(names) && len(names) == len(about.Functions) {
			name = names[i].Func.Name
		}
		s.code = append(s.code, function{f.Addr, f.Size, "bpf_prog_" + about.Tag + "_" + name})
	}
	if len(about.Functions) > 0 {
		s.programs++
	}
	for _, id := range about.Maps {
		if tables[id] {
			continue
		}
		tables[id] = true
		held, err := programsOf(id)
		if err != nil {
			return nil, err
		}
		more = append(more, held...)
	}
	return more, nil
}

// programsOf are the programs of a table for tail calls; none of another map.
func programsOf(id ebpf.MapID) (all []ebpf.ProgramID, err error) {
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open map %d: %w", id, err)
	}
	defer m.Close()
	if m.Type() != ebpf.ProgramArray || m.ValueSize() != 4 {
		return nil, nil
	}
	for i := range min(m.MaxEntries(), maxEntries) {
		var id ebpf.ProgramID
		if err := m.Lookup(i, &id); err == nil && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all, nil
}
