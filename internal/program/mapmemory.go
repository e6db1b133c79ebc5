package program

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
)

// Types of maps that package ebpf has no names for (enum bpf_map_type in include/uapi/linux/bpf.h).
const (
	instructionArray ebpf.MapType = 34 // BPF_MAP_TYPE_INSN_ARRAY
	resizableHash    ebpf.MapType = 35 // BPF_MAP_TYPE_RHASH
)

// CheckMemory refuses an object whose maps, with what others take that are there already, in bytes, would take more than half
// of the memory that this process may have, by a [feature.Missing]: the kernel takes that of most maps when they are made. It
// returns the bytes of all. A map of a type that is not known is refused, and one that the kernel makes for too long.
func CheckMemory(there uint64, specs map[string]*ebpf.MapSpec) (sum uint64, err error) {
	limit := memory.Limit() / 2
	sum = there
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		size, err := mapMemory(specs[name])
		if err != nil {
			return sum, fmt.Errorf("map %s: %w", name, err)
		}
		if sum = plus(sum, size); sum > limit {
			return sum, tooLarge(fmt.Sprintf("with %s, of %d MiB,", name, size>>20), sum, limit)
		}
		if err := checkMaking(specs[name]); err != nil {
			return sum, fmt.Errorf("map %s: %w", name, err)
		}
	}
	return sum, nil
}

func tooLarge(with string, sum, limit uint64) error {
	return &feature.Missing{
		Feature: fmt.Sprintf("memory for the maps of the object: %s they take %d MiB", with, sum>>20),
		Help:    fmt.Sprintf("half of what this process may have is %d MiB", limit>>20),
	}
}

// growing counts what a map takes for entries that it allocates as they come, each counted as new.
type growing struct {
	each, limit uint64  // bytes: of an entry, and what all maps may have
	sum         *uint64 // of all maps
}

// newGrowing adds to what all maps take that there are, in bytes.
func newGrowing(m *ebpf.Map, sum *uint64) *growing {
	size := newMapSize(&ebpf.MapSpec{
		Type: m.Type(), KeySize: m.KeySize(), ValueSize: m.ValueSize(), MaxEntries: m.MaxEntries(), Flags: m.Flags(),
	})
	g := &growing{limit: memory.Limit() / 2, sum: sum}
	if size.written() == 0 { // else all entries are counted
		g.each = size.growth()
	}
	return g
}

// add refuses entries for which there is no room, by a [feature.Missing].
func (g *growing) add(entries int) error {
	if g.each == 0 {
		return nil
	}
	if *g.sum = plus(*g.sum, times(uint64(entries), g.each)); *g.sum > g.limit {
		return tooLarge("with its entries", *g.sum, g.limit)
	}
	return nil
}

// memoryOf is about what the maps of open objects take, in bytes.
func memoryOf(opened []*Opened) (sum uint64) {
	for _, o := range opened {
		sum += o.memory
	}
	return sum
}

// mapMemory is about what the kernel takes for a map when it makes it and while a program fills it, in bytes. With a map of maps it
// makes the inner one whole, as a template.
func mapMemory(m *ebpf.MapSpec) (uint64, error) {
	switch m.Type {
	case ebpf.SkStorage, ebpf.InodeStorage, ebpf.TaskStorage, ebpf.CgroupStorage:
		return 0, fmt.Errorf("its type, %v, has a value for each socket, file, task or cgroup, and no bound", m.Type)
	}
	of := newMapSize(m)
	size, known := of.bytes()
	if !known {
		return 0, fmt.Errorf("its type, %v, is not known, nor how much memory such a map takes", m.Type)
	}
	size = plus(size, of.written())
	objects, err := objectsOf(m.Value, of.cpus)
	if err != nil {
		return 0, err
	}
	size = plus(size, times(of.values(), objects))
	if m.InnerMap != nil {
		inner, err := mapMemory(m.InnerMap)
		if err != nil {
			return 0, fmt.Errorf("its inner map: %w", err)
		}
		size = plus(size, inner)
	}
	return plus(size, mapHead), nil
}

const (
	// mapHead is more than the structure of a map of any type: struct bpf_htab, the largest, has less than 700 bytes.
	mapHead = 1 << 10
	// word8 is the size of a pointer, bucket that of struct bucket and of struct bpf_shtab_bucket, a list with its lock.
	word8, bucket = 8, 16
	// hashElement is sizeof(struct htab_elem), trieElement sizeof(struct lpm_trie_node).
	hashElement, trieElement = 48, 24
	// deviceElement is sizeof(struct bpf_dtab_netdev), as it is allocated.
	deviceElement = 64
	// socketElement is sizeof(struct bpf_shtab_elem), socketLink what the kernel keeps of a socket that is in a map: struct
	// sk_psock_link, and struct sk_psock.
	socketElement, socketLink = 48, 1<<10 + 64
	// arenaTables are the page tables of the 4 GiB of an arena.
	arenaTables = 9 << 20
)

// mapSize is what the memory of a map depends on: numbers of entries and CPUs, and bytes as the kernel rounds them.
type mapSize struct {
	*ebpf.MapSpec
	cpus, entries, key, value uint64
}

func newMapSize(m *ebpf.MapSpec) mapSize {
	align := func(n uint32) uint64 { return (uint64(n) + 7) &^ 7 }
	return mapSize{m, uint64(ebpf.MustPossibleCPU()), uint64(m.MaxEntries), align(m.KeySize), align(m.ValueSize)}
}

// bytes are those of the map without its head, false when the type is not known. The formulas are those of the functions that
// make maps, which are named here, of Linux 7.3; what is taken as entries come is not in it.
func (m mapSize) bytes() (size uint64, known bool) {
	switch m.Type {
	case ebpf.Array: // array_map_alloc in kernel/bpf/arraymap.c
		size = times(m.slots(), m.value)
		if m.Flags&unix.BPF_F_MMAPABLE != 0 {
			size = plus(size, 2*uint64(os.Getpagesize())) // the head and the end have pages of their own
		}
	case ebpf.PerCPUArray: // array_map_alloc, bpf_array_alloc_percpu
		size = times(m.slots(), word8+m.perCPU())
	case ebpf.ProgramArray, ebpf.CGroupArray, ebpf.ArrayOfMaps: // array_map_alloc, of pointers
		size = times(m.slots(), word8)
	case ebpf.PerfEventArray, ebpf.CPUMap: // array_map_alloc; cpu_map_alloc in kernel/bpf/cpumap.c
		size = word8 * powerOfTwo(m.cpus) // package ebpf wants no more entries
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.HashOfMaps:
		size = m.hash() // htab_map_alloc and prealloc_init in kernel/bpf/hashtab.c; htab_of_map_alloc calls the first
	case resizableHash: // rhtab_map_alloc: the table is of a hint, of at most 65535
		size = plus(word8*2*powerOfTwo(min(m.MapExtra, math.MaxUint16)), m.cached())
	case ebpf.LPMTrie: // trie_alloc in kernel/bpf/lpm_trie.c
		size = m.cached()
	case ebpf.StackTrace: // stack_map_alloc and prealloc_elems_and_freelist in kernel/bpf/stackmap.c
		const element = 16 // struct stack_map_bucket
		size = plus(times(powerOfTwo(m.entries), word8), times(m.entries, element+m.value))
	case ebpf.DevMapHash: // dev_map_init_map in kernel/bpf/devmap.c
		size = times(powerOfTwo(m.entries), word8)
	case ebpf.DevMap, ebpf.SockMap, ebpf.XSKMap, ebpf.ReusePortSockArray:
		// dev_map_init_map; sock_map_alloc in net/core/sock_map.c; xsk_map_alloc in net/xdp/xskmap.c; reuseport_array_alloc in
		// kernel/bpf/reuseport_array.c
		size = times(m.entries, word8)
	case ebpf.SockHash: // sock_hash_alloc in net/core/sock_map.c
		size = times(powerOfTwo(m.entries), bucket)
	case ebpf.Queue, ebpf.Stack: // queue_stack_map_alloc in kernel/bpf/queue_stack_maps.c
		size = times(m.entries+1, uint64(m.ValueSize))
	case ebpf.RingBuf, ebpf.UserRingbuf: // bpf_ringbuf_area_alloc in kernel/bpf/ringbuf.c
		const ownPages = 3
		page := uint64(os.Getpagesize())
		size = times(ownPages+m.entries/page, page+2*word8)
	case ebpf.BloomFilter: // bloom_map_alloc in kernel/bpf/bloom_filter.c
		size = m.bloom()
	case ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage: // cgroup_storage_map_alloc in kernel/bpf/local_storage.c: the head alone
	case ebpf.StructOpsMap: // bpf_struct_ops_map_alloc in kernel/bpf/bpf_struct_ops.c: two values, a link and a symbol a function
		size = plus(times(m.value, 4), 2*uint64(os.Getpagesize()))
	case ebpf.Arena: // arena_map_alloc in kernel/bpf/arena.c
		size = arenaTables
	case instructionArray: // insn_array_map_alloc in kernel/bpf/bpf_insn_array.c
		const element = 16 // struct bpf_insn_array_value
		size = times(m.entries, element+word8)
	default:
		return 0, false
	}
	return size, true
}

// slots are the entries that an array has: without CAP_PERFMON a power of two, for speculation beyond its end (bpf_bypass_spec_v1
// in include/linux/bpf.h).
func (m mapSize) slots() uint64 {
	if feature.Capability(unix.CAP_PERFMON).Held() {
		return m.entries
	}
	return powerOfTwo(m.entries)
}

// maxMaking is how long the kernel may take to make a map.
const maxMaking = 5 * time.Second

// checkMaking refuses a map that the kernel would make for longer: no signal ends that. With a map of maps it makes the inner one.
func checkMaking(m *ebpf.MapSpec) error {
	if m.InnerMap != nil {
		if err := checkMaking(m.InnerMap); err != nil {
			return fmt.Errorf("its inner map: %w", err)
		}
	}
	if took := newMapSize(m).making(); took > maxMaking {
		return fmt.Errorf("the kernel would make its %d entries at once, for some %.0f s in which it hears no signal: at most %.0f s are "+
			"possible (--map-size gives it less)", m.MaxEntries, took.Seconds(), maxMaking.Seconds())
	}
	return nil
}

// making is about how long the kernel takes to make a map whose entries it allocates beforehand: one after the other, with an allocation
// for each that has a value for each CPU (prealloc_init in kernel/bpf/hashtab.c, bpf_array_alloc_percpu in kernel/bpf/arraymap.c).
// Measured were 0.6 to 0.8 µs for one with values on two CPUs, and 0.08 µs for any other.
func (m mapSize) making() time.Duration {
	each := 80 * time.Nanosecond
	switch m.Type {
	case ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash:
		each = 600*time.Nanosecond + time.Duration(50*m.cpus)
	case ebpf.Hash, ebpf.LRUHash, ebpf.HashOfMaps:
	default:
		return 0
	}
	if m.Type != ebpf.PerCPUArray && m.Flags&unix.BPF_F_NO_PREALLOC != 0 {
		return 0
	}
	return time.Duration(m.entries) * each // entries have 32 bits
}

// values are those that the map has at most: of one for each CPU as many for each entry.
func (m mapSize) values() uint64 {
	switch m.Type {
	case ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash:
		return times(m.entries, m.cpus)
	}
	return m.entries
}

// perCPU are the bytes of values of all CPUs, with a pointer to the memory cgroup for each four bytes (pcpu_obj_total_size in
// mm/percpu-internal.h).
func (m mapSize) perCPU() uint64 { return m.value * (m.cpus + 2) }

// element are the bytes of an entry of a hash or a trie.
func (m mapSize) element() uint64 {
	switch m.Type {
	case ebpf.LPMTrie:
		return trieElement + m.key + m.value
	case ebpf.PerCPUHash, ebpf.LRUCPUHash:
		return hashElement + m.key + word8 + m.perCPU()
	case ebpf.HashOfMaps:
		return hashElement + m.key + word8
	}
	return hashElement + m.key + m.value
}

// kmalloc are the bytes that the kernel takes for n: those of the cache that it takes them from (kmalloc_info in mm/slab_common.c), a
// power of two of pages where none is as large, and the pointer to the memory cgroup.
func kmalloc(n uint64) uint64 {
	size := max(powerOfTwo(n), 8)
	for _, between := range []uint64{96, 192} {
		if n <= between && between < size {
			size = between
		}
	}
	return size + word8
}

// growth are the bytes that the map takes for an entry when that comes; 0 where it has them already.
func (m mapSize) growth() uint64 {
	switch m.Type {
	case ebpf.LPMTrie:
		return 2 * m.allocated() // a node between two others besides (trie_update_elem)
	case ebpf.DevMap, ebpf.DevMapHash:
		return deviceElement
	case ebpf.CPUMap: // __cpu_map_entry_alloc: a queue of at most 16384 frames, a bulk for each CPU, a thread with its stack
		return 1<<14*word8 + 128*m.cpus + 32<<10
	case ebpf.SockMap: // sock_map_update_common
		return socketLink
	case ebpf.SockHash: // sock_hash_alloc_elem
		return kmalloc(socketElement+uint64(m.KeySize)) + socketLink
	case resizableHash: // and its table grows with it, by doubling
		return m.allocated() + 4*word8
	case ebpf.Hash, ebpf.PerCPUHash, ebpf.HashOfMaps:
		if m.Flags&unix.BPF_F_NO_PREALLOC != 0 {
			return m.allocated()
		}
	}
	return 0
}

// allocated are the bytes of an entry of a hash or a trie that the kernel allocates by itself, in a list of free ones (LLIST_NODE_SZ in
// kernel/bpf/memalloc.c).
func (m mapSize) allocated() uint64 {
	switch m.Type {
	case ebpf.LPMTrie:
		return kmalloc(m.element() + 2*word8) // as it is, or with the head for RCU that it has before Linux 6.13
	case ebpf.PerCPUHash:
		return kmalloc(m.element()-m.perCPU()+word8) + m.perCPU() + kmalloc(2*word8) // with a pointer to its values
	}
	return kmalloc(m.element() + word8)
}

// written are the bytes of all entries that programs may make, of a map that takes memory as they come: a program fills it in one run.
func (m mapSize) written() uint64 {
	if m.Flags&unix.BPF_F_RDONLY_PROG != 0 {
		return 0
	}
	switch m.Type {
	case ebpf.SockMap, ebpf.SockHash:
		return times(m.entries, m.growth())
	case ebpf.Hash, ebpf.PerCPUHash, ebpf.LPMTrie, resizableHash:
		// Free ones wait on each CPU (high_watermark in kernel/bpf/memalloc.c).
		waiting := max(96*256/max(m.element(), 256), 3)
		return times(m.entries+waiting*m.cpus, m.growth())
	case ebpf.Arena: // bpf_arena_alloc_pages in kernel/bpf/arena.c
		return times(m.entries, uint64(os.Getpagesize()))
	}
	return 0
}

// hash are the bytes of a hash: a bucket for each entry, rounded up, and elements for all, with one more for each CPU, or those
// that are cached.
func (m mapSize) hash() uint64 {
	buckets := times(powerOfTwo(m.entries), bucket)
	if m.Flags&unix.BPF_F_NO_PREALLOC != 0 {
		return plus(buckets, m.cached())
	}
	return plus(buckets, times(m.entries+m.cpus, m.element()))
}

// cached are the bytes of the elements that a map which allocates them one by one keeps for each CPU (prefill_mem_cache in
// kernel/bpf/memalloc.c).
func (m mapSize) cached() uint64 {
	number := uint64(1)
	if m.element() <= 256 {
		number = 4
	}
	return times(number*m.cpus, m.allocated())
}

// bloom are the bytes of a Bloom filter: 7/5 of a bit for each hash function and entry, rounded up, or 4 Gbit.
func (m mapSize) bloom() uint64 {
	functions := m.MapExtra & 0xf
	if functions == 0 {
		functions = 5
	}
	set := m.entries * functions / 5 * 7
	if m.entries*functions > math.MaxUint32 || set > 1<<31 {
		return 1 << 32 / 8
	}
	return powerOfTwo(max(set, 64)) / 8
}

// powerOfTwo is the least one that is not below n, for n up to 32 bits.
func powerOfTwo(n uint64) uint64 { return 1 << bits.Len64(max(n, 1)-1) }

// plus and times are math.MaxInt64 where there is no room for the result.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry > 0 {
		return math.MaxInt64
	}
	return min(sum, math.MaxInt64)
}

func times(a, b uint64) uint64 {
	high, product := bits.Mul64(a, b)
	if high > 0 {
		return math.MaxInt64
	}
	return min(product, math.MaxInt64)
}
