package program

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
)

// entries reads a whole map, entry by entry: key and value in hex.
func entries(t testing.TB, m *ebpf.Map) map[string]string {
	t.Helper()
	got := map[string]string{}
	it := m.Iterate()
	var key []byte
	perCPU := slices.Contains([]ebpf.MapType{ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash}, m.Type())
	for {
		var value []byte
		var values [][]byte
		if perCPU && !it.Next(&key, &values) || !perCPU && !it.Next(&key, &value) {
			break
		}
		got[fmt.Sprintf("%x", key)] = fmt.Sprintf("%x %x", value, values)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func put(t testing.TB, m *ebpf.Map, key, value any) {
	t.Helper()
	if err := m.Put(key, value); err != nil {
		t.Fatalf("put into %v: %v", m, err)
	}
}

// production loads a balancer whose maps are in use.
func production(t testing.TB, flags ...string) *Opened {
	t.Helper()
	o := open(t, compile(t, flags...)+":balance", Options{Set: map[string]string{"small": "9", "hidden": "3", "limit": "0"}})
	perCPU := func(v uint64) (all []uint64) {
		for cpu := range ebpf.MustPossibleCPU() {
			all = append(all, v+uint64(cpu))
		}
		return all
	}
	for i := range uint32(300) {
		put(t, o.Maps["flows_of_this_balancer"], []uint32{i, i + 1}, uint64(i))
		put(t, o.Maps["hash"], []uint32{i, 7}, i)
	}
	for i := range uint32(20) {
		small := []uint32{}
		for cpu := range uint32(ebpf.MustPossibleCPU()) {
			small = append(small, i*10+cpu)
		}
		put(t, o.Maps["percpu_hash"], i, small)
		put(t, o.Maps["lru_percpu"], i, perCPU(uint64(i)))
		put(t, o.Maps["array"], i, i*i)
		put(t, o.Maps["routes"], []uint32{32, i}, i)
	}
	for i := range uint32(8) {
		put(t, o.Maps["counters"], i, perCPU(1<<40))
	}
	put(t, o.Maps["ports"], uint32(3), uint32(1)) // lo
	put(t, o.Maps["cpus"], uint32(0), uint32(64))
	put(t, o.Maps["blue"], uint32(1), uint32(100))
	inner, err := ebpf.NewMap(o.Spec.Maps["shades"].InnerMap)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	put(t, inner, uint32(1), uint32(5))
	put(t, o.Maps["shades"], uint32(1), inner)
	put(t, o.Maps["stages"], uint32(2), o.stage(t))
	return o
}

// stage loads the program of the table with the maps of o, as a loader does.
func (o *Opened) stage(t testing.TB) *ebpf.Program {
	t.Helper()
	spec, err := ReadObject(t.Context(), o.path(t))
	if err != nil {
		t.Fatal(err)
	}
	spec = Prune(spec, "stage_of_the_balancer")
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"array": o.Maps["array"]}})
	if err != nil {
		t.Fatal(err)
	}
	p := c.DetachProgram("stage_of_the_balancer")
	c.Close()
	t.Cleanup(func() { p.Close() })
	return p
}

// path compiles the object again.
func (o *Opened) path(t testing.TB) string { t.Helper(); return compile(t) }

// sums is what all maps of a program hold.
func sums(t testing.TB, o *Opened) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for name, m := range o.Maps {
		switch m.Type() {
		case ebpf.RingBuf, ebpf.Queue, ebpf.XSKMap:
		default:
			all[name] = entries(t, m)
		}
	}
	return all
}

// Each map gets what the live one holds, which is as it was afterwards.
func TestCopy(t *testing.T) {
	testutil.Root(t)
	live := production(t)
	before := sums(t, live)
	path := compile(t)
	for _, from := range []string{fmt.Sprintf("id:%d", idOf(t, live.Program))} {
		o := open(t, path+":balance", Options{MapsFrom: from})
		got := sums(t, o)
		for _, name := range slices.Sorted(maps.Keys(before)) {
			switch name {
			case "colors", "shades", "stages", "cpus", "ports", "blue", "green": // below
			default:
				if !maps.Equal(got[name], before[name]) || len(got[name]) == 0 {
					t.Errorf("%s: %d entries, want %d: %.200v\n%.200v", name, len(got[name]), len(before[name]), got[name], before[name])
				}
			}
		}
		for _, c := range o.Copies {
			t.Logf("%+v", c)
		}
		why := map[string]string{}
		for _, c := range o.Copies {
			why[c.Map] = c.Why
		}
		for name, want := range map[string]string{
			"sockets": "AF_XDP sockets of another process", "waiting": "takes out what is in it", "events": "is its reader's",
			"hash": "", "flows_of_this_balancer": "", "stages": "", "shades": "", "colors": "", ".bss": "", ".rodata": "", "cpus": "", "ports": "",
		} {
			if got, ok := why[name]; !ok || !strings.Contains(got, want) || (want == "") != (got == "") {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		var port, length, value uint32
		if err := o.Maps["ports"].Lookup(uint32(3), &port); err != nil || port != 1 {
			t.Errorf("port %d, %v", port, err)
		}
		if err := o.Maps["cpus"].Lookup(uint32(0), &length); err != nil || length != 64 {
			t.Errorf("queue of a CPU: %d, %v", length, err)
		}
		for name, want := range map[string]uint32{"shades": 5, "colors": 100} {
			var inner *ebpf.Map
			if err := o.Maps[name].Lookup(uint32(1), &inner); err != nil {
				t.Fatal(err)
			}
			if err := inner.Lookup(uint32(1), &value); err != nil || value != want {
				t.Errorf("%s: %d, %v, want %d", name, value, err, want)
			}
			inner.Close()
		}
		// limit is 0, so that it goes on in the table, where the array decides.
		if v := verdict(t, o.Program); v != 2 {
			t.Errorf("verdict %d, want that of the table's program", v)
		}
		if o.Spec.Programs["stage_of_the_balancer"] == nil {
			t.Error("the program of the table is not in the spec")
		}
		// What was set is not the live one's.
		set := open(t, path+":balance", Options{MapsFrom: from, Set: map[string]string{"limit": "1000"}})
		if v := verdict(t, set.Program); v != 1 {
			t.Errorf("verdict %d with --set, want XDP_DROP", v)
		}
	}
	if after := sums(t, live); !maps.EqualFunc(before, after, maps.Equal) {
		t.Error("the live maps are not as they were")
	}
}

// An object that was changed gets what still fits, and what does not is said.
func TestCopyChanged(t *testing.T) {
	testutil.Root(t)
	live := production(t, "-DFLOWS=2048")
	path := compile(t, "-DCOUNT=__u32")
	o := open(t, path+":balance", Options{MapsFrom: fmt.Sprintf("id:%d", idOf(t, live.Program))})
	for _, c := range o.Copies {
		if c.Map == "flows_of_this_balancer" && !strings.Contains(c.Why, "values of 8 bytes, the object's a LRUHash with 8 and 4") {
			t.Errorf("%+v", c)
		}
	}
	same := open(t, compile(t)+":balance", Options{MapsFrom: fmt.Sprintf("id:%d", idOf(t, live.Program))})
	if n := same.Maps["flows_of_this_balancer"].MaxEntries(); n != 2048 {
		t.Errorf("room for %d flows, the live map has 2048", n)
	}
}

func TestCopyRefused(t *testing.T) {
	testutil.Root(t)
	path := compile(t) + ":balance"
	for from, want := range map[string]string{
		"":            "",
		"id:x":        "--maps-from",
		"dev:nosuch":  "there is no device nosuch",
		"/nosuch":     "no such file",
		t.TempDir():   "not on a BPF file system",
		"/etc/passwd": "no pinned program and no folder",
	} {
		if from == "" {
			continue
		}
		if err := refused(t, path, Options{MapsFrom: from}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", from, err, want)
		}
	}
}

// The packets of a live program go on while its maps are copied, and none of its updates fails.
func TestCopyUnderLoad(t *testing.T) {
	testutil.Root(t)
	path := compile(t)
	live := open(t, path+":busy", Options{})
	frame, err := traffic.UDPFrame(64)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	sent, interrupted, errSend := 0, 0, error(nil)
	started := make(chan struct{})
	wg.Go(func() {
		source := traffic.Live{Program: live.Program, Frame: frame, Batch: 64}
		for once := sync.OnceFunc(func() { close(started) }); ctx.Err() == nil && errSend == nil; once() {
			const frames = 1 << 14
			_, errSend = source.Send(t.Context(), frames)
			switch {
			case errors.Is(errSend, unix.EINTR): // some were sent
				interrupted, errSend = interrupted+1, nil
			case errSend == nil:
				sent += frames
			}
		}
	})
	<-started
	from := fmt.Sprintf("id:%d", idOf(t, live.Program))
	copies := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); copies++ {
		target, err := Parse(path + ":busy")
		if err != nil {
			t.Fatal(err)
		}
		o, err := target.Open(t.Context(), Options{MapsFrom: from})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range o.Copies {
			if c.Why != "" || c.Entries == 0 {
				t.Errorf("%+v", c)
			}
		}
		o.Close()
	}
	cancel()
	wg.Wait()
	if errSend != nil {
		testutil.SkipMissing(t, errSend)
		t.Fatal(errSend)
	}
	count := func(i uint32) (n uint64) {
		var all []uint64
		if err := live.Maps["counters"].Lookup(i, &all); err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			n += v
		}
		return n
	}
	t.Logf("%d copies, %d frames", copies, sent)
	if ran, failed := count(0), count(1); ran < uint64(sent) || interrupted == 0 && ran != uint64(sent) || failed != 0 {
		t.Errorf("%d frames were sent, and some %d times, %d updated the maps, %d failed", sent, interrupted, ran, failed)
	}
}

// A million entries are copied in batches, before each of which it is asked whether the context has ended, also where a bucket has many.
func TestCopyMillion(t *testing.T) {
	testutil.Root(t)
	testutil.Slow(t)
	for _, kind := range []ebpf.MapType{ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.Array, ebpf.LPMTrie} {
		t.Run(kind.String(), func(t *testing.T) {
			n := 1 << 20
			if kind == ebpf.LPMTrie {
				n >>= 3 // the kernel puts in a million in 8 s, and the test does it twice
			}
			spec := &ebpf.MapSpec{Type: kind, KeySize: 8, ValueSize: 16, MaxEntries: uint32(n)}
			if kind == ebpf.Array {
				spec.KeySize = 4
			}
			if kind == ebpf.LPMTrie {
				spec.Flags = 1 // BPF_F_NO_PREALLOC
			}
			if kind == ebpf.LRUHash {
				spec.MaxEntries *= 2 // a full one drops entries of its own
			}
			var both [2]*ebpf.Map
			for i := range both {
				m, err := ebpf.NewMap(spec)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				both[i] = m
			}
			b := newBatch(both[0])
			for at := 0; at < n; {
				k := 0
				for ; k < b.room() && at < n; k, at = k+1, at+1 {
					key := b.keys[k*b.keySize:]
					if kind == ebpf.LPMTrie {
						binary.NativeEndian.PutUint32(key, 32)
						key = key[4:]
					}
					binary.BigEndian.PutUint32(key, uint32(at)*2654435761)
					if kind == ebpf.Array {
						binary.NativeEndian.PutUint32(key, uint32(at))
					}
					binary.NativeEndian.PutUint64(b.values[k*b.valueSize:], uint64(at))
				}
				if err := b.put(both[0], k); err != nil {
					t.Fatal(err)
				}
			}
			copied, err := copyEntries(endsAfter(t, int64(n/100)), both[0], both[1], newGrowing(both[1], new(uint64)))
			if err != nil || copied != n {
				t.Fatalf("%d entries, %v", copied, err)
			}
			check := newBatch(both[0])
			check.started = false
			if _, errno := check.call(0x18, both[0], 64); errno != 0 {
				t.Fatal(errno)
			}
			for i := range 64 {
				got, err := both[1].LookupBytes(check.keys[i*check.keySize:][:check.keySize])
				if err != nil || !bytes.Equal(got, check.values[i*check.valueSize:][:check.valueSize]) {
					t.Fatalf("entry %d: %x, %v", i, got, err)
				}
			}
		})
	}
}

// Inner maps that fit one by one do not when there are many.
func TestCheckMemorySums(t *testing.T) {
	t.Parallel()
	sum, limit := uint64(0), memory.Limit()/2
	spec := map[string]*ebpf.MapSpec{"inner map 1": {Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 20, MaxEntries: uint32(limit / 3 >> 20)}}
	for i := range 4 {
		var err error
		if sum, err = CheckMemory(sum, spec); (err != nil) != (i == 3) {
			t.Errorf("map %d, %d of %d bytes: %v", i+1, sum, limit, err)
		}
	}
}

// The kernel makes the inner map of a map of maps, as a template, when it makes that.
func TestCheckMemoryInner(t *testing.T) {
	t.Parallel()
	half := uint32(memory.Limit() / 2 >> 20)
	for _, test := range []struct {
		mebibytes uint32
		fits      bool
	}{{half / 2, true}, {half + 1, false}, {math.MaxUint32, false}} {
		inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 20, MaxEntries: test.mebibytes}
		outer := &ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner}
		if _, err := CheckMemory(0, map[string]*ebpf.MapSpec{"outer": outer}); (err == nil) != test.fits {
			t.Errorf("%d MiB, where %d is the limit: %v", test.mebibytes, half, err)
		}
	}
}

// Of millions of entries that were not copied the first is told, and the others are counted.
func TestLost(t *testing.T) {
	var lost lost
	testutil.Allocates(t, 16<<20, func() {
		for i := range 1_000_000 {
			lost.add("key %d", i)
		}
	})
	if lost.n != 1_000_000 || lost.first != "key 0" {
		t.Errorf("%+v", lost)
	}
}
