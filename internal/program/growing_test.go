package program

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Devices, CPUs and maps that are put into a map count against half of the memory when they take some as they come, from a file and
// from a live map.
func TestGrowingPointers(t *testing.T) {
	testutil.Root(t)
	innerSpec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner := newMap(t, innerSpec)
	one := binary.NativeEndian.AppendUint32(nil, 1) // loopback, a queue of one frame
	for _, spec := range []*ebpf.MapSpec{
		{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		{Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		{Type: ebpf.CPUMap, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		{Type: ebpf.HashOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: innerSpec, Flags: unix.BPF_F_NO_PREALLOC},
	} {
		from := newMap(t, spec)
		value := any(one)
		if spec.Type == ebpf.HashOfMaps {
			value = inner
		}
		put(t, from, []byte{0, 0, 0, 0}, value)
		room := newGrowing(from, new(uint64)).each
		if spec.Type == ebpf.HashOfMaps {
			size, err := mapMemory(innerSpec)
			if err != nil {
				t.Fatal(err)
			}
			room += size // its copy
		}
		for _, short := range []uint64{0, 1} {
			there := memory.Limit()/2 - room + short
			to := newMap(t, spec)
			copies := innerMaps{maps: map[ebpf.MapID]*ebpf.Map{}, memory: there}
			n, why, err := copies.copy(t.Context(), spec, from, to)
			copies.Close()
			check(t, spec, "copied", err, short)
			if short == 0 && (n != 1 || why != "" || copies.memory != memory.Limit()/2) {
				t.Errorf("%v: %d entries, %d of %d bytes, %s", spec, n, copies.memory, memory.Limit()/2, why)
			}
			if spec.Type == ebpf.HashOfMaps {
				continue // no file has maps
			}
			f, err := os.Open(dumpOf(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			open := fills{"m": f}
			err = open.fill(t.Context(), &Opened{Maps: map[string]*ebpf.Map{"m": to}}, there)
			open.Close()
			check(t, spec, "filled", err, short)
		}
	}
}

// check wants that the memory is not enough when it is short.
func check(t *testing.T, spec *ebpf.MapSpec, how string, err error, short uint64) {
	t.Helper()
	if (err == nil) != (short == 0) || err != nil && feature.AsMissing(err) == nil {
		t.Errorf("%v, %s, %d bytes too few: %v", spec, how, short, err)
	}
}
