package list

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/record"
)

// Bounds on how many entries are read: of one map, and of all. 65 536 entries take 60 to 90 ms
// on a busy machine.
const (
	maxLookups    = 1 << 16
	maxAllLookups = 4 * maxLookups
)

// mapReader lists maps.
type mapReader struct {
	ctx context.Context
	// left is how many entries may still be read.
	left int
}

// maps lists the maps with these numbers, and all that hold programs. Those with the numbers
// come first, as the entries of all together are bounded. Requires CAP_SYS_ADMIN.
func maps(ctx context.Context, of map[uint32]bool) ([]record.ProgramMap, error) {
	r := mapReader{ctx, maxAllLookups}
	found := []record.ProgramMap{}
	var others []ebpf.MapID
	add := func(id ebpf.MapID, wanted bool) error {
		m, err := r.open(id, wanted)
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since
		case err != nil:
			return fmt.Errorf("read map %d: %w", id, err)
		case m != nil:
			found = append(found, *m)
		}
		return nil
	}
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list maps: %w", err)
		}
		if id = next; !of[uint32(id)] {
			others = append(others, id)
			continue
		}
		if err := cmp.Or(ctx.Err(), add(id, true)); err != nil {
			return nil, err
		}
	}
	for _, id := range others {
		if err := cmp.Or(ctx.Err(), add(id, false)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b record.ProgramMap) int { return cmp.Compare(a.ID, b.ID) })
	return found, nil
}

// open reads a map by its number; nil for one that is neither wanted nor holds programs.
func (r *mapReader) open(id ebpf.MapID, wanted bool) (*record.ProgramMap, error) {
	handle, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	if !wanted && !holdsPrograms(handle) {
		return nil, nil
	}
	info, err := handle.Info()
	if err != nil {
		return nil, err
	}
	m := &record.ProgramMap{
		ID: uint32(id), Name: clean(info.Name), Type: mapType(info.Type),
		KeyBytes: info.KeySize, ValueBytes: info.ValueSize, MaxEntries: info.MaxEntries,
	}
	if holdsPrograms(handle) {
		m.Programs, err = r.held(handle)
		if r.ctx.Err() != nil {
			return nil, r.ctx.Err()
		}
		if err != nil {
			m.Partial = clean(err.Error())
		}
	}
	if !wanted && len(m.Programs) == 0 && m.Partial == "" {
		return nil, nil
	}
	return m, nil
}

// mapType is the kernel's name of a type, as bpftool has it: "lru_percpu_hash".
func mapType(t ebpf.MapType) string {
	names := map[ebpf.MapType]string{
		ebpf.Hash: "hash", ebpf.Array: "array", ebpf.ProgramArray: "prog_array", ebpf.PerfEventArray: "perf_event_array",
		ebpf.PerCPUHash: "percpu_hash", ebpf.PerCPUArray: "percpu_array", ebpf.StackTrace: "stack_trace",
		ebpf.CGroupArray: "cgroup_array", ebpf.LRUHash: "lru_hash", ebpf.LRUCPUHash: "lru_percpu_hash", ebpf.LPMTrie: "lpm_trie",
		ebpf.ArrayOfMaps: "array_of_maps", ebpf.HashOfMaps: "hash_of_maps", ebpf.DevMap: "devmap", ebpf.SockMap: "sockmap",
		ebpf.CPUMap: "cpumap", ebpf.XSKMap: "xskmap", ebpf.SockHash: "sockhash", ebpf.Queue: "queue", ebpf.Stack: "stack",
		ebpf.DevMapHash: "devmap_hash", ebpf.RingBuf: "ringbuf", ebpf.UserRingbuf: "user_ringbuf", ebpf.Arena: "arena",
	}
	return cmp.Or(names[t], t.String())
}

// holdsPrograms tells whether the entries of a map may hold programs: those of a devmap and
// of a cpumap do when their values have room for one (struct bpf_devmap_val and struct
// bpf_cpumap_val in include/uapi/linux/bpf.h, Linux 5.8 and 5.9).
func holdsPrograms(m *ebpf.Map) bool {
	switch m.Type() {
	case ebpf.ProgramArray:
		return m.KeySize() == 4 && m.ValueSize() == 4
	case ebpf.DevMap, ebpf.DevMapHash, ebpf.CPUMap:
		return m.KeySize() == 4 && m.ValueSize() == 8
	}
	return false
}

// held reads which programs the entries of a map hold. The kernel gives the number of a
// program on lookup. It returns an error that says why it did not read all.
func (r *mapReader) held(m *ebpf.Map) (found []record.HeldProgram, err error) {
	most := min(m.MaxEntries(), maxLookups, uint32(r.left))
	keys := func(yield func(uint32) bool) {
		for key := range most {
			if !yield(key) {
				return
			}
		}
	}
	if m.Type() == ebpf.DevMapHash { // the others are arrays
		list, err := hashKeys(m, most)
		if err != nil {
			return nil, err
		}
		keys = slices.Values(list)
	}
	value, read := make([]byte, m.ValueSize()), 0
	for key := range keys {
		if read++; read%4096 == 0 && r.ctx.Err() != nil {
			return found, r.ctx.Err()
		}
		err := m.Lookup(key, value)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return found, fmt.Errorf("its entries cannot be read: %w", err)
		}
		if id := binary.NativeEndian.Uint32(value[len(value)-4:]); id != 0 {
			found = append(found, record.HeldProgram{Key: key, Program: id})
		}
	}
	r.left -= read
	slices.SortFunc(found, func(a, b record.HeldProgram) int { return cmp.Compare(a.Key, b.Key) })
	if most < m.MaxEntries() && uint32(read) == most {
		err = fmt.Errorf("only %d of its entries were read", most)
	}
	return found, err
}

// hashKeys are the keys of a hash, at most most, as far as they stay the same while they are
// read.
func hashKeys(m *ebpf.Map, most uint32) (keys []uint32, err error) {
	var key uint32
	next := func() error { return m.NextKey(nil, &key) }
	for range most {
		err := next()
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("its keys cannot be read: %w", err)
		}
		keys = append(keys, key)
		next = func() error { return m.NextKey(key, &key) }
	}
	return keys, nil
}
