package progcode

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
)

const (
	// maxEntries bounds how many entries of a table for tail calls are read, maxPrograms
	// how many programs of it are named.
	maxEntries  = 4096
	maxPrograms = 16
)

// insnArray is a map of instructions that a program jumps to (BPF_MAP_TYPE_INSN_ARRAY, Linux 6.19).
const insnArray = ebpf.MapType(34)

// typeName is the name of the map's type.
func (m *Map) typeName() string {
	if m.Type == insnArray {
		return "InsnArray"
	}
	return m.Type.String()
}

// readMaps reads what the program's maps are. One that is gone meanwhile has no name.
func (c *Code) readMaps(info *ebpf.ProgramInfo) error {
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := readMap(id)
		if err != nil {
			return err
		}
		c.Maps = append(c.Maps, m)
	}
	return nil
}

func readMap(id ebpf.MapID) (Map, error) {
	out := Map{ID: id}
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("read map %d: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return out, fmt.Errorf("read map %d: %w", id, err)
	}
	out.Name, out.Type, out.MaxEntries = info.Name, info.Type, info.MaxEntries
	if info.Type == ebpf.ProgramArray {
		out.readPrograms(m)
	}
	return out, nil
}

// readPrograms reads which programs a table for tail calls has.
func (m *Map) readPrograms(table *ebpf.Map) {
	names := make(map[ebpf.ProgramID]string)
	m.entries = make(map[int64]string)
	for i := range min(m.MaxEntries, maxEntries) {
		var id ebpf.ProgramID
		if err := table.Lookup(i, &id); err != nil {
			continue // it is empty
		}
		m.Filled++
		if names[id] == "" {
			names[id] = loadedName(id, len(names) < maxPrograms)
			m.targets = append(m.targets, id)
		}
		m.entries[int64(i)] = names[id]
		if !slices.Contains(m.Programs, names[id]) && len(m.Programs) < maxPrograms {
			m.Programs = append(m.Programs, names[id])
		}
	}
}

// loadedName is the name of a loaded program, or its id: for one that has none, and where it
// is not to be asked for.
func loadedName(id ebpf.ProgramID, ask bool) string {
	if ask {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			defer p.Close()
			if about, err := kernel.AboutProgram(p); err == nil && about.Name != "" {
				return about.Name
			}
		}
	}
	return fmt.Sprintf("id %d", id)
}
