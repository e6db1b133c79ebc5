package program

import (
	"encoding/binary"
	"errors"
	"maps"
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

// Where the kernel has no batches, a map is copied entry by entry, with the values of all CPUs.
func TestCopySlowly(t *testing.T) {
	testutil.Root(t)
	values := make([]uint64, ebpf.MustPossibleCPU())
	for i := range values {
		values[i] = uint64(i) + 7
	}
	for kind, value := range map[ebpf.MapType]any{ebpf.Hash: uint64(7), ebpf.PerCPUHash: values, ebpf.LPMTrie: uint64(7)} {
		spec := &ebpf.MapSpec{Type: kind, KeySize: 8, ValueSize: 8, MaxEntries: 100, Flags: unix.BPF_F_NO_PREALLOC}
		from, to := newMap(t, spec), newMap(t, spec)
		for i := range uint32(100) {
			put(t, from, []uint32{32, i}, value)
		}
		n, err := copySlowly(t.Context(), from, to, newGrowing(to, new(uint64)))
		if n != 100 || err != nil || !maps.Equal(entries(t, from), entries(t, to)) {
			t.Errorf("%v: %d entries, %v: %v of %v", kind, n, err, entries(t, to), entries(t, from))
		}
	}
}

// replacing is a context that, when it is asked whether it has ended, puts another key into a map in the place of the last: no walk
// through the map comes to its end.
type replacing struct {
	*asked
	t    *testing.T
	m    *ebpf.Map
	last uint32
}

func (r *replacing) Err() error {
	put(r.t, r.m, r.last+1, uint32(0))
	if err := r.m.Delete(r.last); err != nil {
		r.t.Error(err)
	}
	r.last++
	return r.asked.Err()
}

// A map whose keys go while it is copied entry by entry is given up, and is not read for as long as they go.
func TestCopySlowlyEnds(t *testing.T) {
	testutil.Root(t)
	spec := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 10}
	from, to := newMap(t, spec), newMap(t, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1000})
	put(t, from, uint32(0), uint32(0))
	ctx := &replacing{asked: endsAfter(t, 500), t: t, m: from}
	n, err := copySlowly(ctx, from, to, newGrowing(to, new(uint64)))
	if !errors.Is(err, ebpf.ErrIterationAborted) || n > 10 {
		t.Errorf("%d entries, %v", n, err)
	}
}
