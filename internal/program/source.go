package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
)

// source is where maps are copied from: a live program's, or those that are pinned in a
// folder. It holds them open, for reading only.
type source struct {
	text string
	maps []*liveMap
	// programs are those of tail-call tables, by id.
	programs map[ebpf.ProgramID]tailCall
	// program is the name of the object's: the maps of a live one of that name are likelier the
	// object's than those of others.
	program string
}

// liveMap is a map in use.
type liveMap struct {
	m    *ebpf.Map
	info *ebpf.MapInfo
	// name is the kernel's, of at most 15 bytes, or the whole one of a pin.
	name  string
	whole bool
	// owner is the name of a program that uses it.
	owner string
}

// tailCall is a program in a tail-call table.
type tailCall struct{ name, tag string }

// Most programs and maps of a source, so that a table of tables ends.
const (
	maxSourceMaps     = 4096
	maxSourcePrograms = 1024
)

// openSource opens the maps of a live program with those of what it calls by tail calls, those
// of the parts of a libxdp dispatcher, or those of a folder of pins.
func openSource(ctx context.Context, text, program string) (_ *source, err error) {
	s := &source{text: text, program: program, programs: map[ebpf.ProgramID]tailCall{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	t, err := Parse(text)
	if err != nil {
		return nil, &OptionError{Err: fmt.Errorf("--maps-from: %w", err)}
	}
	if info, errStat := os.Stat(t.path); t.path != "" && errStat == nil && info.IsDir() {
		return s, s.openPins(ctx, t.path)
	}
	if t.path != "" && !onBPFFS(t.path) {
		if _, err := os.Stat(t.path); err != nil {
			return nil, fmt.Errorf("copy maps from %s: %w", text, errors.Unwrap(err))
		}
		return nil, &OptionError{Err: fmt.Errorf(
			"--maps-from %s: it is no pinned program and no folder: name id:N, dev:DEV or a folder of pinned maps", text)}
	}
	p, err := t.program()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	seen := map[ebpf.MapID]bool{}
	if err := s.addProgram(ctx, p, seen); err != nil {
		return nil, err
	}
	parts, err := partsOf(p)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if err := s.addID(ctx, part.ID, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// addID adds the maps of a program that may end meanwhile.
func (s *source) addID(ctx context.Context, id ebpf.ProgramID, seen map[ebpf.MapID]bool) error {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	return s.addProgram(ctx, p, seen)
}

// addProgram adds the maps of a program, and those of the programs in its tail-call tables.
func (s *source) addProgram(ctx context.Context, p *ebpf.Program, seen map[ebpf.MapID]bool) error {
	about, err := kernel.AboutProgram(p)
	if err != nil {
		return fmt.Errorf("read about a program: %w", err)
	}
	for _, id := range about.Maps {
		if seen[id] {
			continue
		}
		seen[id] = true
		if len(s.maps) == maxSourceMaps {
			return fmt.Errorf("copy maps from %s: more than %d maps", s.text, maxSourceMaps)
		}
		m, err := mapByID(id)
		if err != nil {
			return fmt.Errorf("open map %d: %w", id, err)
		}
		if err := s.add(m, ""); err != nil {
			return err
		}
		s.maps[len(s.maps)-1].owner = fullName(about)
		if m.Type() == ebpf.ProgramArray {
			if err := s.addTable(ctx, m, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// addTable adds the programs of a tail-call table.
func (s *source) addTable(ctx context.Context, table *ebpf.Map, seen map[ebpf.MapID]bool) error {
	return each(ctx, table, func(_, value []byte) error {
		id := ebpf.ProgramID(u32(value))
		if _, ok := s.programs[id]; ok {
			return nil
		}
		if len(s.programs) == maxSourcePrograms {
			return fmt.Errorf("copy maps from %s: more than %d programs", s.text, maxSourcePrograms)
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("open program %d: %w", id, err)
		}
		defer p.Close()
		about, err := kernel.AboutProgram(p)
		if err != nil {
			return fmt.Errorf("read about program %d: %w", id, err)
		}
		s.programs[id] = tailCall{fullName(about), about.Tag}
		return s.addProgram(ctx, p, seen)
	})
}

// openPins opens the maps that are pinned in a folder.
func (s *source) openPins(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("copy maps from %s: %w", dir, errors.Unwrap(err))
	}
	if !onBPFFS(dir) {
		return &OptionError{Err: fmt.Errorf("--maps-from %s: the folder is not on a BPF file system, where maps are pinned", dir)}
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, e.Name()), &ebpf.LoadPinOptions{ReadOnly: true})
		if errors.Is(err, fs.ErrPermission) {
			return feature.Refused(err, unix.CAP_BPF, unix.CAP_DAC_READ_SEARCH)
		}
		if err != nil {
			continue // a program or a link
		}
		if len(s.maps) == maxSourceMaps {
			m.Close()
			return fmt.Errorf("copy maps from %s: more than %d maps", dir, maxSourceMaps)
		}
		if err := s.add(m, e.Name()); err != nil {
			return err
		}
		if m.Type() == ebpf.ProgramArray {
			if err := s.addTable(ctx, m, map[ebpf.MapID]bool{}); err != nil {
				return err
			}
		}
	}
	if len(s.maps) == 0 {
		return fmt.Errorf("copy maps from %s: no map is pinned there", dir)
	}
	return nil
}

// add takes a map over, by the name of its pin or the kernel's.
func (s *source) add(m *ebpf.Map, pin string) error {
	info, err := m.Info()
	if err != nil {
		m.Close()
		return fmt.Errorf("read about a map: %w", err)
	}
	live := &liveMap{m: m, info: info, name: info.Name}
	if pin != "" {
		live.name, live.whole = pin, true
	}
	s.maps = append(s.maps, live)
	return nil
}

// Close closes the maps.
func (s *source) Close() {
	for _, m := range s.maps {
		m.m.Close()
	}
}

// find returns the live map that an object's map stands for, or why there is none.
func (s *source) find(name string, spec *ebpf.MapSpec) (*liveMap, string) {
	var named, fit []*liveMap
	for _, m := range s.maps {
		if !m.named(name) {
			continue
		}
		named = append(named, m)
		if m.differs(spec) == "" {
			fit = append(fit, m)
		}
	}
	switch {
	case len(named) == 0:
		return nil, fmt.Sprintf("%s has no map of this name", s.text)
	case len(fit) == 0:
		return nil, named[0].differs(spec)
	}
	// Names are cut, and parts of a dispatcher may have maps of one name: one that is whole, of
	// the same program, or of the same size, is the likelier.
	for _, likelier := range []func(*liveMap) bool{
		func(m *liveMap) bool { return m.whole && m.name == name },
		func(m *liveMap) bool { return m.owner == s.program },
		func(m *liveMap) bool { return m.info.MaxEntries == spec.MaxEntries },
	} {
		var better []*liveMap
		for _, m := range fit {
			if likelier(m) {
				better = append(better, m)
			}
		}
		if len(better) > 0 {
			fit = better
		}
	}
	if len(fit) > 1 && !sameMap(fit) {
		return nil, fmt.Sprintf("%s has %d maps that this may be: the kernel keeps 15 bytes of a name", s.text, len(fit))
	}
	return fit[0], ""
}

// sameMap says whether all are one map, as when it is pinned twice.
func sameMap(all []*liveMap) bool {
	first, _ := all[0].info.ID()
	for _, m := range all[1:] {
		if id, _ := m.info.ID(); id != first {
			return false
		}
	}
	return true
}

// maxName is how much of a name the kernel keeps (BPF_OBJ_NAME_LEN, with its zero).
const maxName = 15

func cut(name string) string { return name[:min(len(name), maxName)] }

// named says whether the live map may be the object's of that name. libbpf gives sections of
// data the object's name before their own, cut to 8 bytes (internal_map_name in libbpf.c);
// sections with a second dot keep theirs.
func (m *liveMap) named(name string) bool {
	switch {
	case m.whole && m.name == name, !m.whole && m.name == cut(name):
		return true
	case isData(name) && strings.Count(name, ".") == 1:
		return strings.HasSuffix(m.name, name)
	}
	return false
}

// isData says whether a map's name is that of a section of variables.
func isData(name string) bool {
	return name == ".bss" || strings.HasPrefix(name, ".data") || strings.HasPrefix(name, ".rodata")
}

// differs says why a live map's contents are none for an object's map; empty when they are.
func (m *liveMap) differs(spec *ebpf.MapSpec) string {
	key, value := spec.KeySize, spec.ValueSize
	if contents(spec) != nil && m.info.Type == ebpf.Array && m.datasec() != nil {
		return "" // copied by the names of variables
	}
	if spec.Type == ebpf.ArrayOfMaps || spec.Type == ebpf.HashOfMaps || spec.Type == ebpf.PerfEventArray {
		key, value = max(key, 4), 4
	}
	if m.info.Type == spec.Type && m.info.KeySize == key && m.info.ValueSize == value {
		return ""
	}
	return fmt.Sprintf("the live one is a %v with keys of %d and values of %d bytes, the object's a %v with %d and %d",
		m.info.Type, m.info.KeySize, m.info.ValueSize, spec.Type, key, value)
}

// datasec is what BTF says of the variables in a live map; nil when there is no BTF.
func (m *liveMap) datasec() *btf.Datasec {
	id, ok := m.info.BTFID()
	if !ok {
		return nil
	}
	spec, err := kernel.ProgramTypes(id)
	if err != nil {
		return nil
	}
	for t, err := range spec.All() {
		if err != nil {
			return nil
		}
		ds, ok := t.(*btf.Datasec)
		if ok && ds.Size == m.info.ValueSize && strings.HasSuffix(m.name, ds.Name) {
			return ds
		}
	}
	return nil
}
