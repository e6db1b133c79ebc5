package program

import (
	"context"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// checkRun refuses to run a live program that could change what production uses.
func (o *Opened) checkRun(ctx context.Context, t Target, options Options) error {
	if o.Type == ebpf.Extension {
		return fmt.Errorf("%s is a part of a libxdp dispatcher, which the kernel runs only there: give its object file", t)
	}
	changes, err := o.changes(ctx, t)
	switch {
	case err != nil:
		return err
	case len(changes) == 0:
		return nil
	case options.OnLiveMaps:
		o.warnf("%s runs on its live maps, which it can change: %s", t, listed(changes))
		return nil
	}
	return &OptionError{Err: fmt.Errorf(
		"%s would run on its live maps (%s): give its object file with --maps-from %s, or --on-live-maps to change what production uses",
		t, listed(changes), t)}
}

// changes are the maps that a live program, its parts and what they reach by tail calls can change,
// by name.
func (o *Opened) changes(ctx context.Context, t Target) (names []string, err error) {
	s, err := o.reach(ctx, t.text)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for _, m := range s.maps {
		if !changeable(m.m) {
			continue
		}
		name := m.name
		if id, ok := m.info.ID(); ok && (name == "" || slices.Contains(names, name)) {
			name = fmt.Sprintf("%s#%d", name, id)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// reach opens the maps of a live program, of its parts and of what they reach by tail calls, and finds those programs. text
// is for errors.
func (o *Opened) reach(ctx context.Context, text string) (_ *source, err error) {
	s := &source{text: text, programs: map[ebpf.ProgramID]tailCall{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	seen := map[ebpf.MapID]bool{}
	if err := s.addProgram(ctx, o.Program, seen); err != nil {
		return nil, err
	}
	for _, part := range o.Parts {
		if err := s.addID(ctx, part.ID, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// changeable says whether a program can change a map. The verifier lets it only jump through
// tables of programs, and redirect through those of devices, CPUs and AF_XDP sockets (kernel/bpf/
// verifier.c, check_map_func_compatibility).
func changeable(m *ebpf.Map) bool {
	switch m.Type() {
	case ebpf.ProgramArray, ebpf.DevMap, ebpf.DevMapHash, ebpf.CPUMap, ebpf.XSKMap:
		return false
	}
	return m.Flags()&unix.BPF_F_RDONLY_PROG == 0
}
