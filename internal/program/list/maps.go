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

// maxLookups bounds how many entries of one map are read. A prog_array of 65 536 entries
// takes 30 ms.
const maxLookups = 1 << 16

// maps lists the maps with these numbers, and all that hold programs. Requires CAP_SYS_ADMIN.
func maps(ctx context.Context, of map[uint32]bool) ([]record.ProgramMap, error) {
	found := []record.ProgramMap{}
	for id := ebpf.MapID(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list maps: %w", err)
		}
		id = next
		m, err := openMap(id, of[uint32(id)])
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since
		case err != nil:
			return nil, fmt.Errorf("read map %d: %w", id, err)
		case m != nil:
			found = append(found, *m)
		}
	}
}

// openMap reads a map by its number; nil for one that is neither wanted nor holds programs.
func openMap(id ebpf.MapID, wanted bool) (*record.ProgramMap, error) {
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
		m.Programs, err = heldPrograms(handle)
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

// heldPrograms reads which programs the entries of a map hold. The kernel gives the number
// of a program on lookup.
func heldPrograms(m *ebpf.Map) (found []record.HeldProgram, err error) {
	value := make([]byte, m.ValueSize())
	read := func(key uint32) error {
		err := m.Lookup(key, value)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("its entries cannot be read: %w", err)
		}
		if id := binary.NativeEndian.Uint32(value[len(value)-4:]); id != 0 {
			found = append(found, record.HeldProgram{Key: key, Program: id})
		}
		return nil
	}
	if m.Type() != ebpf.DevMapHash { // an array
		for key := range min(m.MaxEntries(), maxLookups) {
			if err := read(key); err != nil {
				return found, err
			}
		}
		if m.MaxEntries() > maxLookups {
			return found, fmt.Errorf("only its first %d entries were read", maxLookups)
		}
		return found, nil
	}
	keys, err := hashKeys(m)
	for _, key := range keys {
		if err := read(key); err != nil {
			return found, err
		}
	}
	slices.SortFunc(found, func(a, b record.HeldProgram) int { return cmp.Compare(a.Key, b.Key) })
	return found, err
}

// hashKeys are the keys of a hash, as far as they stay the same while they are read.
func hashKeys(m *ebpf.Map) (keys []uint32, err error) {
	var key uint32
	next := func() error { return m.NextKey(nil, &key) }
	for range min(m.MaxEntries(), maxLookups) {
		err := next()
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return keys, nil
		}
		if err != nil {
			return keys, fmt.Errorf("its keys cannot be read: %w", err)
		}
		keys = append(keys, key)
		next = func() error { return m.NextKey(key, &key) }
	}
	if m.MaxEntries() > maxLookups {
		return keys, fmt.Errorf("only %d of its entries were read", maxLookups)
	}
	return keys, nil
}
