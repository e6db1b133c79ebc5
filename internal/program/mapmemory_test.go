package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/release"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Each type of map takes what its kernel's formula says, with 2 CPUs, whatever is estimated has no end beyond 63 bits, and a type
// that is not known has no estimate.
func TestMapSize(t *testing.T) {
	t.Parallel()
	const million = 1 << 20
	page := uint64(os.Getpagesize())
	for _, test := range []struct {
		kind          ebpf.MapType
		key, value, n uint32
		flags         uint32
		extra         uint64
		want          uint64
	}{
		{kind: ebpf.Array, key: 4, value: 12, n: million, want: 16 * million},
		{kind: ebpf.Array, key: 4, value: math.MaxUint32, n: math.MaxUint32, want: math.MaxInt64},
		{kind: ebpf.PerCPUArray, key: 4, value: 12, n: million, want: (8 + 16*4) * million},
		{kind: ebpf.ProgramArray, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.CGroupArray, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.ArrayOfMaps, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.PerfEventArray, want: 2 * 8},
		{kind: ebpf.CPUMap, key: 4, value: 4, n: million, want: 2 * 8},
		{kind: ebpf.Hash, key: 5, value: 12, n: million + 1, want: 16*2*million + (48+8+16)*(million+3)},
		{kind: ebpf.Hash, key: 5, value: 12, n: million + 1, flags: unix.BPF_F_NO_PREALLOC, want: 16*2*million + (96+8)*8},
		{kind: ebpf.Hash, key: 4, value: 1024, n: 4, flags: unix.BPF_F_NO_PREALLOC, want: 16*4 + (2048+8)*2},
		{kind: ebpf.LRUHash, key: 5, value: 12, n: million, want: 16*million + (48+8+16)*(million+2)},
		{kind: ebpf.PerCPUHash, key: 5, value: 12, n: million, want: 16*million + (48+8+8+16*4)*(million+2)},
		{kind: ebpf.LRUCPUHash, key: 5, value: 12, n: million, want: 16*million + (48+8+8+16*4)*(million+2)},
		{kind: ebpf.HashOfMaps, key: 512, value: 4, n: million, want: 16*million + (48+512+8)*(million+2)},
		{kind: resizableHash, key: 5, value: 12, n: million, flags: unix.BPF_F_NO_PREALLOC, extra: math.MaxUint16,
			want: 8*2*65536 + (96+8)*8},
		{kind: ebpf.LPMTrie, key: 8, value: 4, n: million, flags: unix.BPF_F_NO_PREALLOC, want: (64 + 8) * 8},
		{kind: ebpf.StackTrace, key: 4, value: 1016, n: million + 1, want: 8*2*million + (16+1016)*(million+1)},
		{kind: ebpf.DevMap, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.DevMapHash, key: 4, value: 4, n: million + 1, want: 8 * 2 * million},
		{kind: ebpf.SockMap, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.SockHash, key: 4, value: 4, n: million + 1, want: 16 * 2 * million},
		{kind: ebpf.XSKMap, key: 4, value: 4, n: million, want: 8 * million},
		{kind: ebpf.ReusePortSockArray, key: 4, value: 8, n: million, want: 8 * million},
		{kind: ebpf.Queue, value: 5, n: million, want: 5 * (million + 1)},
		{kind: ebpf.Stack, value: 5, n: million, want: 5 * (million + 1)},
		{kind: ebpf.RingBuf, n: million, want: (million/page + 3) * (page + 16)},
		{kind: ebpf.UserRingbuf, n: million, want: (million/page + 3) * (page + 16)},
		{kind: ebpf.BloomFilter, value: 4, n: million, want: million},
		{kind: ebpf.BloomFilter, value: 4, n: 1, extra: 1, want: 8},
		{kind: ebpf.BloomFilter, value: 4, n: math.MaxUint32, extra: 15, want: 512 << 20},
		{kind: ebpf.CGroupStorage, key: 8, value: 64, want: 0},
		{kind: ebpf.PerCPUCGroupStorage, key: 8, value: 64, want: 0},
		{kind: ebpf.StructOpsMap, key: 4, value: 1 << 12, n: 1, want: 4<<12 + 2*page},
		{kind: ebpf.Arena, n: million, want: 9 << 20},
		{kind: instructionArray, key: 4, value: 16, n: million, want: 24 * million},
	} {
		spec := &ebpf.MapSpec{
			Type: test.kind, KeySize: test.key, ValueSize: test.value, MaxEntries: test.n, Flags: test.flags, MapExtra: test.extra,
		}
		m := newMapSize(spec)
		m.cpus = 2
		if got, known := m.bytes(); got != test.want || !known {
			t.Errorf("%v, flags %#x: %d, %v, want %d", spec, test.flags, got, known, test.want)
		}
	}
	for _, kind := range []ebpf.MapType{
		ebpf.UnspecifiedMap, resizableHash + 1, ebpf.WindowsHash,
		ebpf.SkStorage, ebpf.InodeStorage, ebpf.TaskStorage, ebpf.CgroupStorage, // no bound
	} {
		spec := &ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: 4, MaxEntries: 1}
		for _, spec := range []*ebpf.MapSpec{spec, {Type: ebpf.HashOfMaps, KeySize: 4, MaxEntries: 1, InnerMap: spec}} {
			if sum, err := CheckMemory(0, map[string]*ebpf.MapSpec{"one": spec}); err == nil {
				t.Errorf("%v: %d bytes", spec, sum)
			}
		}
	}
}

// A program may fill a map in one run: all entries count that it can make.
func TestMapSizeWritten(t *testing.T) {
	t.Parallel()
	const million = 1 << 20
	for _, test := range []struct {
		kind  ebpf.MapType
		flags uint32
		want  uint64
	}{
		{ebpf.Hash, unix.BPF_F_NO_PREALLOC, (96 + 8) * (million + 2*96)},
		{ebpf.Hash, unix.BPF_F_NO_PREALLOC | unix.BPF_F_RDONLY_PROG, 0},
		{ebpf.Hash, 0, 0},
		{ebpf.LRUHash, 0, 0},
		{ebpf.PerCPUHash, unix.BPF_F_NO_PREALLOC, (96 + 8 + 16*4 + 16 + 8) * (million + 2*96)},
		{resizableHash, unix.BPF_F_NO_PREALLOC, (96 + 8 + 32) * (million + 2*96)},
		{ebpf.SockMap, 0, (1<<10 + 64) * million},
		{ebpf.SockHash, 0, (64 + 8 + 1<<10 + 64) * million},
		{ebpf.LPMTrie, unix.BPF_F_NO_PREALLOC, 2 * (64 + 8) * (million + 2*96)},
		{ebpf.HashOfMaps, unix.BPF_F_NO_PREALLOC, 0},
		{ebpf.DevMap, 0, 0},
		{ebpf.Arena, 0, uint64(os.Getpagesize()) * million},
	} {
		m := newMapSize(&ebpf.MapSpec{Type: test.kind, KeySize: 5, ValueSize: 12, MaxEntries: million, Flags: test.flags})
		m.cpus = 2
		if got := m.written(); got != test.want {
			t.Errorf("%v, flags %#x: %d, want %d", test.kind, test.flags, got, test.want)
		}
	}
	huge := newMapSize(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 2_100_000, MaxEntries: 7, Flags: unix.BPF_F_NO_PREALLOC})
	huge.cpus = 2
	if got, want := huge.written(), uint64((4<<20+8)*(7+2*3)); got != want {
		t.Errorf("entries of 2 100 000 bytes: %d, want %d", got, want)
	}
	full := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 16 << 10, MaxEntries: math.MaxUint32, Flags: unix.BPF_F_NO_PREALLOC}
	if _, err := CheckMemory(0, map[string]*ebpf.MapSpec{"flows": full}); feature.AsMissing(err) == nil {
		t.Errorf("entries of 64 TiB: %v", err)
	}
}

// A map that the kernel would make for many seconds in one call, which no signal ends, is refused.
func TestMapMaking(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		spec    ebpf.MapSpec
		refused bool
	}{
		{ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: 1 << 20}, false},
		{ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: 30e6}, true},
		{ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: 30e6, Flags: unix.BPF_F_NO_PREALLOC}, false},
		{ebpf.MapSpec{Type: ebpf.LRUCPUHash, MaxEntries: 30e6}, true},
		{ebpf.MapSpec{Type: ebpf.PerCPUArray, MaxEntries: 30e6}, true},
		{ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: 30e6}, false},
		{ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: 100e6}, true},
		{ebpf.MapSpec{Type: ebpf.LRUHash, MaxEntries: math.MaxUint32}, true},
		{ebpf.MapSpec{Type: ebpf.Array, MaxEntries: 100e6}, false},
	} {
		test.spec.KeySize, test.spec.ValueSize = 4, 8
		err := checkMaking(&test.spec)
		if refused := err != nil && strings.Contains(err.Error(), "hears no signal"); refused != test.refused {
			t.Errorf("%v of %d entries: %v", test.spec.Type, test.spec.MaxEntries, err)
		}
	}
	outer := &ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		InnerMap: &ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 8, MaxEntries: 30e6}}
	if err := checkMaking(outer); err == nil || !strings.Contains(err.Error(), "hears no signal") {
		t.Errorf("an inner map: %v", err)
	}
}

// An array has a power of two of entries when who makes it has no CAP_PERFMON.
func TestMapSizeWithoutRights(t *testing.T) {
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1<<20 + 1}
	for _, test := range []struct {
		capability int
		want       uint64
	}{{unix.CAP_PERFMON, 8 * (1<<20 + 1)}, {unix.CAP_BPF, 8 << 21}} {
		var got uint64
		if err := testutil.Capable(t, func() (err error) {
			got, err = mapMemory(spec)
			return err
		}, test.capability); err != nil {
			t.Fatal(err)
		}
		if got -= mapHead; got != test.want {
			t.Errorf("with capability %d: %d bytes, want %d", test.capability, got, test.want)
		}
	}
}

// accounted skips the test where a map does not say what it takes.
func accounted(t *testing.T) {
	t.Helper()
	testutil.Root(t)
	here, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	const since = "6.4"
	if release.Before(string(here), since) {
		testutil.SkipMissing(t, &feature.Missing{Feature: "what a map takes, as its type says", Since: since})
	}
}

// taken is what a map says that it takes, in bytes: memlock of fdinfo, which each type computes (map_mem_usage) since Linux 6.4.
func taken(t *testing.T, m *ebpf.Map) uint64 {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	bytes, _ := info.Memlock() // not of those that take nothing yet
	return bytes
}

// Of each type that the kernel makes here the estimate is no less than 9/10 of what the map says that it takes.
func TestMapMemoryHere(t *testing.T) {
	accounted(t)
	inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	const n = 1<<12 + 1
	for _, spec := range []*ebpf.MapSpec{
		{Type: ebpf.Hash, KeySize: 5, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.Hash, KeySize: 5, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC},
		{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_MMAPABLE},
		{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.PerfEventArray},
		{Type: ebpf.PerCPUHash, KeySize: 5, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.PerCPUHash, KeySize: 5, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC},
		{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.StackTrace, KeySize: 4, ValueSize: 1016, MaxEntries: n},
		{Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.LRUHash, KeySize: 5, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.LRUHash, KeySize: 5, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_NO_COMMON_LRU},
		{Type: ebpf.LRUCPUHash, KeySize: 5, ValueSize: 12, MaxEntries: n},
		{Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC},
		{Type: ebpf.ArrayOfMaps, KeySize: 4, MaxEntries: n, InnerMap: inner},
		{Type: ebpf.HashOfMaps, KeySize: 500, MaxEntries: n, InnerMap: inner},
		{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.SockHash, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.CPUMap, KeySize: 4, ValueSize: 4},
		{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: n},
		{Type: ebpf.Queue, ValueSize: 5, MaxEntries: n},
		{Type: ebpf.Stack, ValueSize: 5, MaxEntries: n},
		{Type: ebpf.CGroupStorage, KeySize: 8, ValueSize: 4},
		{Type: ebpf.PerCPUCGroupStorage, KeySize: 8, ValueSize: 4},
		{Type: ebpf.RingBuf, MaxEntries: 1 << 16},
		{Type: ebpf.UserRingbuf, MaxEntries: 1 << 16},
		{Type: ebpf.BloomFilter, ValueSize: 4, MaxEntries: n},
		{Type: ebpf.BloomFilter, ValueSize: 4, MaxEntries: n, MapExtra: 15},
		{Type: ebpf.Arena, MaxEntries: n, Flags: unix.BPF_F_MMAPABLE},
		{Type: instructionArray, KeySize: 4, ValueSize: 16, MaxEntries: n},
		{Type: resizableHash, KeySize: 5, ValueSize: 12, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC, MapExtra: 1 << 12},
	} {
		t.Run(spec.String(), func(t *testing.T) {
			m, err := ebpf.NewMap(spec)
			if err != nil {
				missing := &feature.Missing{Feature: "maps of type " + spec.Type.String()}
				switch {
				case spec.Type >= instructionArray: // package ebpf does not know them; 6.18 has neither, 7.2 both
					missing.Since = "7.2"
					testutil.SkipMissing(t, missing)
				case errors.Is(features.HaveMapType(spec.Type), ebpf.ErrNotSupported):
					testutil.SkipMissing(t, missing)
				}
				t.Fatal(err)
			}
			defer m.Close()
			got, err := mapMemory(spec)
			if err != nil {
				t.Fatal(err)
			}
			takes := taken(t, m)
			t.Logf("%d bytes are estimated, the map takes %d", got, takes)
			if got < takes*9/10 {
				t.Errorf("%d bytes are estimated, and the map takes %d", got, takes)
			}
		})
	}
}

// caches are the objects in use of the kernel's kmalloc caches by their size, as of kmalloc-cg-8k.
func caches(t *testing.T) (active map[uint64]int) {
	t.Helper()
	testutil.Root(t)
	info, err := os.ReadFile("/proc/slabinfo")
	if errors.Is(err, os.ErrNotExist) {
		testutil.Missing(t, "/proc/slabinfo")
	}
	if err != nil {
		t.Fatal(err)
	}
	active = map[uint64]int{}
	for line := range strings.Lines(string(info)) {
		var name string
		var used, all int
		var size uint64
		if n, _ := fmt.Sscan(line, &name, &used, &all, &size); n == 4 && strings.HasPrefix(name, "kmalloc-") {
			active[size] += used
		}
	}
	return active
}

// Each cache of the kernel is one that is counted with, and no other is.
func TestKmallocHere(t *testing.T) {
	sizes := slices.Sorted(maps.Keys(caches(t)))
	for i, size := range sizes {
		if got := kmalloc(size); got != size+word8 {
			t.Errorf("%d bytes take %d, and are a cache's", size, got)
		}
		if i+1 == len(sizes) {
			break
		}
		if got := kmalloc(size + 1); got != sizes[i+1]+word8 {
			t.Errorf("%d bytes take %d, want one of the caches %v", size+1, got, sizes)
		}
	}
}

// Entries of a little more than 4 KiB, with what the kernel adds, take 8 KiB each.
func TestGrowthRounded(t *testing.T) {
	const n = 2000
	spec := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4048, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC}
	if got := newMapSize(spec).growth(); got != 8<<10+word8 {
		t.Fatalf("an entry is counted with %d bytes", got)
	}
	value, more := make([]byte, 4048), 0
	for range 5 { // others free objects meanwhile
		before := caches(t)[8<<10]
		m := newMap(t, spec)
		for i := range uint32(n) {
			put(t, m, i, value)
		}
		if more = caches(t)[8<<10] - before; more >= n*9/10 {
			return
		}
	}
	t.Errorf("%d entries are %d objects of 8 KiB", n, more)
}

// What programs have the kernel allocate for values beside a map counts; what has no bound is refused, and so is a type without end.
func TestMapObjects(t *testing.T) {
	t.Parallel()
	timer := &btf.Struct{Name: "bpf_timer", Size: 16}
	large := &btf.Struct{Name: "state", Size: 3000, Members: []btf.Member{{Name: "timer", Type: timer}}}
	kptr := func(to btf.Type, tag string) btf.Type {
		return &btf.Pointer{Target: &btf.TypeTag{Type: to, Value: tag}}
	}
	in := func(types ...btf.Type) btf.Type {
		s := &btf.Struct{Name: "value"}
		for _, t := range types {
			s.Members = append(s.Members, btf.Member{Type: t})
		}
		return &btf.Typedef{Name: "value_t", Type: s}
	}
	node := &btf.Struct{Name: "node", Size: 8}
	node.Members = []btf.Member{{Name: "next", Type: kptr(node, "kptr")}}
	for name, test := range map[string]struct {
		value btf.Type
		want  uint64
	}{
		"nothing":       {nil, 0},
		"an integer":    {&btf.Int{Size: 8}, 0},
		"a timer":       {in(&btf.Int{Size: 8}, timer), 256 + 8},
		"work":          {in(&btf.Struct{Name: "bpf_wq", Size: 16}, &btf.Struct{Name: "bpf_task_work", Size: 8}), 2 * (256 + 8)},
		"timers":        {in(&btf.Array{Type: timer, Nelems: 3}), 3 * (256 + 8)},
		"a pointer":     {in(&btf.Pointer{Target: large}), 0},
		"another tag":   {in(kptr(large, "rcu")), 0},
		"a kptr":        {in(kptr(&btf.Fwd{Name: "bpf_cpumask"}, "kptr")), 2 << 10},
		"a large one":   {in(kptr(large, "kptr")), 4<<10 + 8 + 256 + 8},
		"one of a CPU":  {in(kptr(&btf.Struct{Name: "count", Size: 8}, "percpu_kptr")), 2 * 2 << 10},
		"variables":     {&btf.Datasec{Name: ".bss", Vars: []btf.VarSecinfo{{Type: &btf.Var{Name: "t", Type: timer}}}}, 256 + 8},
		"a list":        {in(&btf.Struct{Name: "bpf_list_head", Size: 16}), 0},
		"a tree":        {in(&btf.Struct{Name: "bpf_rb_root", Size: 16}), 0},
		"pointer to it": {in(kptr(node, "kptr")), 0},
	} {
		got, err := objectsOf(test.value, 2)
		refused := name == "a list" || name == "a tree" || name == "pointer to it"
		if got != test.want || (err != nil) != refused {
			t.Errorf("%s: %d bytes, %v, want %d", name, got, err, test.want)
		}
	}
	for _, kind := range []ebpf.MapType{ebpf.Array, ebpf.Hash, ebpf.LRUHash} {
		spec := &ebpf.MapSpec{Type: kind, KeySize: 4, ValueSize: 16, MaxEntries: 1000, Value: in(timer)}
		with, err := mapMemory(spec)
		if err != nil {
			t.Fatal(err)
		}
		spec.Value = nil
		without, err := mapMemory(spec)
		if err != nil || with-without != 1000*264 {
			t.Errorf("%v: %d bytes with timers, %d without, %v", kind, with, without, err)
		}
	}
	list := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1, Value: in(&btf.Struct{Name: "bpf_list_head"})}
	const want = "map queue: it has a bpf_list_head, to which a program may add without end"
	if _, err := CheckMemory(0, map[string]*ebpf.MapSpec{"queue": list}); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Entries that a map allocates as they come take no more than what is counted for them, and half of it at least: the kernel's own
// figure leaves out what kmalloc rounds. Those that it has already take nothing.
func TestGrowthHere(t *testing.T) {
	accounted(t)
	const n = 100
	innerSpec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner := newMap(t, innerSpec)
	key := func(i int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(i)) }
	loopback := binary.NativeEndian.AppendUint32(nil, 1)
	for _, test := range []struct {
		spec  *ebpf.MapSpec
		value any
	}{
		{&ebpf.MapSpec{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: n}, loopback},
		{&ebpf.MapSpec{Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 8, MaxEntries: n}, append(loopback, 0, 0, 0, 0)},
		{&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: n}, loopback},
		{&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: n, Flags: unix.BPF_F_NO_PREALLOC}, loopback},
		{&ebpf.MapSpec{Type: ebpf.HashOfMaps, KeySize: 4, MaxEntries: n, InnerMap: innerSpec, Flags: unix.BPF_F_NO_PREALLOC}, inner},
	} {
		t.Run(fmt.Sprintf("%v flags %#x", test.spec.Type, test.spec.Flags), func(t *testing.T) {
			m := newMap(t, test.spec)
			before := taken(t, m)
			for i := range n {
				put(t, m, key(i), test.value)
			}
			takes, counted := taken(t, m)-before, n*newMapSize(test.spec).growth()
			t.Logf("%d bytes are counted, the map took %d", counted, takes)
			if takes > counted || takes < counted/2 {
				t.Errorf("%d bytes are counted, and the map took %d", counted, takes)
			}
		})
	}
}

// Entries that a map allocates as they come count against half of the memory, an entry with no value of a CPU with its values; those
// of a map that has them already do not, nor of one that programs may fill, all of whose entries are counted.
func TestGrowing(t *testing.T) {
	testutil.Root(t)
	const entry, free = `{"key":[0,0,0,0],"values":[]}`, 1 << 20
	path := filepath.Join(t.TempDir(), "dump.json")
	if err := os.WriteFile(path, []byte("["+strings.Repeat(entry+",", 99)+entry+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		flags uint32
		fits  bool
	}{{0, true}, {unix.BPF_F_NO_PREALLOC, true}, {unix.BPF_F_NO_PREALLOC | unix.BPF_F_RDONLY_PROG, false}} {
		m := newMap(t, &ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 16 << 10, MaxEntries: 8, Flags: test.flags})
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		open := fills{"m": f}
		defer open.Close()
		o := &Opened{Maps: map[string]*ebpf.Map{"m": m}}
		err = open.fill(t.Context(), o, memory.Limit()/2-free)
		if (err == nil) != test.fits || err != nil && feature.AsMissing(err) == nil {
			t.Errorf("flags %#x: %v", test.flags, err)
		}
		if test.fits {
			if n, err := copyEntries(t.Context(), m, m, newGrowing(m, new(memory.Limit()/2))); n != 1 || err != nil {
				t.Errorf("%d entries, %v", n, err)
			}
		}
	}
	const flags = unix.BPF_F_NO_PREALLOC | unix.BPF_F_RDONLY_PROG
	m := newMap(t, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 8, Flags: flags})
	put(t, m, uint32(1), uint32(1))
	for room, fits := range map[uint64]bool{104: true, 103: false} {
		_, err := copyEntries(t.Context(), m, m, newGrowing(m, new(memory.Limit()/2-room)))
		if (err == nil) != fits || err != nil && feature.AsMissing(err) == nil {
			t.Errorf("room for %d bytes: %v", room, err)
		}
	}
}
