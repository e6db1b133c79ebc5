package list

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// A process may have a million open files: a signal ends reading them.
func TestProcessInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(held).process(ctx, os.Getpid(), make(namespaces)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := processes(ctx, make(namespaces)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// load loads a program until the end of the test; instructions are those of XDP_PASS without
// any.
func load(t testing.TB, name string, at ebpf.AttachType, ins ...asm.Instruction) *ebpf.Program {
	t.Helper()
	if len(ins) == 0 {
		ins = asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, AttachType: at, License: "Dual BSD/GPL", Instructions: ins})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newMap(t testing.TB, spec ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// tailCall are instructions of a program that makes a tail call through a map, by the length
// of the packet.
func tailCall(m *ebpf.Map) []asm.Instruction {
	return []asm.Instruction{
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		asm.LoadMapPtr(asm.R2, m.FD()),
		asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 2), asm.Return(),
	}
}

func idOf(t testing.TB, p *ebpf.Program) uint32 {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return uint32(id)
}

func mapID(t testing.TB, m *ebpf.Map) uint32 {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return uint32(id)
}

// Each program is found with its device, its mode, who attached it, its maps, and the
// entries that hold it, also in a namespace that only a thread is in.
func TestRead(t *testing.T) {
	lab := veth.Namespace(t)
	a, b := veth.Pair(t, lab, "seen0", "seen1")
	tails := newMap(t, ebpf.MapSpec{Name: "tails", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	entry := load(t, "entry", 0, tailCall(tails)...)
	target, idle, generic := load(t, "target", 0), load(t, "idle", 0), load(t, "generic", 0)
	inDevmap, inHash, inCPUMap := load(t, "in_devmap", ebpf.AttachXDPDevMap), load(t, "in_hash", ebpf.AttachXDPDevMap),
		load(t, "in_cpumap", ebpf.AttachXDPCPUMap)
	if err := tails.Put(uint32(3), target); err != nil {
		t.Fatal(err)
	}
	if err := a.Attach(entry, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	devmap := newMap(t, ebpf.MapSpec{Name: "ports", Type: ebpf.DevMap, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	hash := newMap(t, ebpf.MapSpec{Name: "port_hash", Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	cpus := newMap(t, ebpf.MapSpec{Name: "cpus", Type: ebpf.CPUMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	err := lab.Do(func() error {
		l, err := netlink.LinkByName("seen1")
		if err != nil {
			return err
		}
		return cmp.Or(netlink.LinkSetXdpFdWithFlags(l, generic.FD(), nl.XDP_FLAGS_SKB_MODE),
			devmap.Put(uint32(2), []uint32{uint32(a.Index), uint32(inDevmap.FD())}),
			hash.Put(uint32(77), []uint32{uint32(a.Index), uint32(inHash.FD())}),
			cpus.Put(uint32(0), []uint32{192, uint32(inCPUMap.FD())}))
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		program  *ebpf.Program
		name     string
		attached string
		entries  []record.MapEntry
		slot     string
	}{
		{entry, "entry", fmt.Sprintf("seen0 %d veth native link", a.Index), nil, record.InDispatcher},
		{generic, "generic", fmt.Sprintf("seen1 %d veth generic netlink", b.Index), nil, record.InDispatcher},
		{target, "target", "", []record.MapEntry{{Map: mapID(t, tails), Key: 3}}, ""},
		{inDevmap, "in_devmap", "", []record.MapEntry{{Map: mapID(t, devmap), Key: 2}}, ""},
		{inHash, "in_hash", "", []record.MapEntry{{Map: mapID(t, hash), Key: 77}}, ""},
		{inCPUMap, "in_cpumap", "", []record.MapEntry{{Map: mapID(t, cpus), Key: 0}}, ""},
		{idle, "idle", "", nil, ""},
	} {
		row := find(t, got, idOf(t, tt.program))
		if row.Program != tt.name || row.Type != "xdp" || row.JitedBytes == 0 || len(row.Tag) != 16 || row.Loaded == nil {
			t.Errorf("%s: %+v", tt.name, row)
		}
		said := ""
		for _, a := range row.Attached {
			said += fmt.Sprintf("%s %d %s %s %s", a.Device, a.Index, a.Driver, a.Mode, a.By)
			if a.Namespace != uint64(lab.Inode) || (a.By == "link") != (a.Link != 0) {
				t.Errorf("%s: %+v, in the namespace %d", tt.name, a, lab.Inode)
			}
		}
		if said != tt.attached || !slices.Equal(row.Entries, tt.entries) {
			t.Errorf("%s: on %q, in %v, want %q, %v", tt.name, said, row.Entries, tt.attached, tt.entries)
		}
		if slot := row.Dispatcher; slot != tt.slot && slot != record.DispatcherUnknown && got.Dispatcher.Slots > 0 {
			t.Errorf("%s: %q the dispatcher, want %q", tt.name, slot, tt.slot)
		}
		if !slices.ContainsFunc(row.Holders, func(p record.Process) bool { return p.PID == os.Getpid() }) {
			t.Errorf("%s: open in %v", tt.name, row.Holders)
		}
	}
	m := got.Map(mapID(t, tails))
	want := record.ProgramMap{ID: mapID(t, tails), Name: "tails", Type: "prog_array", KeyBytes: 4, ValueBytes: 4, MaxEntries: 8,
		Programs: []record.HeldProgram{{Key: 3, Program: idOf(t, target)}}}
	if m == nil || fmt.Sprint(*m) != fmt.Sprint(want) || !slices.Contains(find(t, got, idOf(t, entry)).MapIDs, m.ID) {
		t.Errorf("map %+v, want %+v", m, want)
	}
	i := slices.IndexFunc(got.Namespaces, func(n record.Namespace) bool { return n.Inode == uint64(lab.Inode) })
	if i < 1 || !strings.HasPrefix(got.Namespaces[i].Name, fmt.Sprintf("process %d (", os.Getpid())) || got.Namespaces[i].Devices < 3 {
		t.Errorf("the namespace is %+v", got.Namespaces)
	}
	// The own one first, then what runs, then the rest.
	at := func(p *ebpf.Program) int {
		id := idOf(t, p)
		return slices.IndexFunc(got.Rows, func(r record.ProgramRow) bool { return r.ID == id })
	}
	if at(entry) > at(target) || at(target) > at(idle) {
		t.Errorf("out of order: %d, %d, %d", at(entry), at(target), at(idle))
	}
}

func find(t testing.TB, f *Found, id uint32) record.ProgramRow {
	t.Helper()
	i := slices.IndexFunc(f.Rows, func(r record.ProgramRow) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("program %d is not among %d rows", id, len(f.Rows))
	}
	return f.Rows[i]
}

// A program that is attached when 48 are in the dispatcher is outside of it.
func TestOutOfDispatcher(t *testing.T) {
	lab := veth.Namespace(t)
	const pairs = 25 // 50 devices
	var last *ebpf.Program
	for i := range pairs {
		a, b := veth.Pair(t, lab, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
		if err := cmp.Or(a.Attach(load(t, "first", 0), link.XDPDriverMode)); err != nil {
			t.Fatal(err)
		}
		last = load(t, "second", 0)
		if err := b.Attach(last, link.XDPDriverMode); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	if got.Dispatcher == nil || got.Dispatcher.Slots == 0 {
		testutil.Missing(t, "a BPF dispatcher that can be read")
	}
	in := 0
	for _, r := range got.Rows {
		if r.Dispatcher == record.InDispatcher {
			in++
		}
	}
	// Others' programs are in it without a device while they are test-run.
	const others = 8
	slots, out := got.Dispatcher.Slots, find(t, got, idOf(t, last)).Dispatcher == record.OutOfDispatcher
	if got.Dispatcher.Programs != slots || in > slots || in < slots-others || !out {
		t.Errorf("%d rows are in, of %+v; the last one is %s", in, got.Dispatcher, find(t, got, idOf(t, last)).Dispatcher)
	}
}

// Observers and run statistics are seen, with the process that brought them.
func TestObservers(t *testing.T) {
	testutil.Root(t)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "looker", Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_exception", Program: p})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.Observers, func(o record.Observer) bool { return o.ID == idOf(t, p) })
	if i < 0 || got.Observers[i].Tracepoint != "xdp_exception" || got.Observers[i].Name != "looker" {
		t.Fatalf("observers %+v", got.Observers)
	}
	self := func(p record.Process) bool { return p.PID == os.Getpid() }
	if !slices.ContainsFunc(got.Observers[i].Holders, self) || !slices.ContainsFunc(got.Statistics.Holders, self) || !got.Statistics.On() {
		t.Errorf("open in %v, statistics %+v", got.Observers[i].Holders, got.Statistics)
	}
}

// Without rights the devices of the own namespace are listed, and what lacks is named.
func TestWithoutRights(t *testing.T) {
	testutil.Root(t)
	var got *Found
	err := testutil.Capable(t, func() (err error) {
		got, err = Read(t.Context(), Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(got.Unseen, "\n")
	for _, want := range []string{"names and code of programs", "links and observers", "maps: ", "the BPF dispatcher: ", "CAP_SYS_ADMIN"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q lacks %q", said, want)
		}
	}
	if got.Observers != nil || len(got.Namespaces) == 0 || got.Namespaces[0].Name != "" {
		t.Errorf("%+v", got.ProgramListParts)
	}
}

// 500 programs with their maps are found, each once.
func TestMany(t *testing.T) {
	testutil.Root(t)
	ids := many(t, 500)
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[uint32]int)
	for _, r := range got.Rows {
		rows[r.ID]++
	}
	for _, id := range ids {
		if rows[id] != 1 {
			t.Errorf("program %d is there %d times", id, rows[id])
		}
	}
}

// many loads n programs, each with a map of its own.
func many(t testing.TB, n int) (ids []uint32) {
	for i := range n {
		m := newMap(t, ebpf.MapSpec{Name: fmt.Sprintf("m%d", i), Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 16})
		ids = append(ids, idOf(t, load(t, fmt.Sprintf("many%d", i), 0, tailCall(m)...)))
	}
	return ids
}

func BenchmarkRead500(b *testing.B) {
	testutil.Root(b)
	many(b, 500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(b.Context(), Options{Processes: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// An empty program without run statistics and with them: what statistics cost each run, and
// what they say of it.
func BenchmarkStatistics(b *testing.B) {
	testutil.Root(b)
	p := load(b, "empty", 0)
	const runs = 3_000_000
	run := func() time.Duration {
		_, took, err := p.Benchmark(make([]byte, 64), runs, nil)
		if err != nil {
			b.Fatal(err)
		}
		return took
	}
	var without, with, said []float64
	for b.Loop() {
		without = append(without, float64(run().Nanoseconds()))
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			b.Fatal(err)
		}
		before, err1 := p.Stats()
		with = append(with, float64(run().Nanoseconds()))
		after, err2 := p.Stats()
		if err := errors.Join(err1, err2, stats.Close()); err != nil {
			b.Fatal(err)
		}
		said = append(said, float64(after.Runtime-before.Runtime)/float64(after.RunCount-before.RunCount))
	}
	for name, xs := range map[string][]float64{"ns/run-without": without, "ns/run-with": with, "ns/run-said": said} {
		slices.Sort(xs)
		b.ReportMetric(xs[len(xs)/2], name)
	}
}

// Reading leaves no descriptor and no thread in another namespace, and changes nothing.
func TestReadLeavesNothing(t *testing.T) {
	veth.Namespace(t)
	testutil.Unchanged(t, func() {
		if _, err := Read(t.Context(), Options{Processes: true}); err != nil {
			t.Fatal(err)
		}
	})
	own, err := inodeOf(ownNamespace)
	if err != nil {
		t.Fatal(err)
	}
	here, err := inodeOf("/proc/thread-self/ns/net")
	if err != nil || here != own {
		t.Errorf("the thread is in the namespace %d, not in %d: %v", here, own, err)
	}
}

// The entries of all maps together are bounded: what was not read is said, of maps that no
// XDP program uses first.
func TestManyEntries(t *testing.T) {
	testutil.Root(t)
	r := mapReader{t.Context(), 100}
	target := load(t, "target", 0)
	tails := newMap(t, ebpf.MapSpec{Name: "tails", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 80})
	for _, key := range []uint32{0, 19, 79} {
		if err := tails.Put(key, target); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"0 19 79 ", "0 19 only 20 of its entries were read", "only 0 of its entries were read"} {
		got := ""
		found, err := r.held(tails)
		for _, h := range found {
			got += fmt.Sprintf("%d ", h.Key)
		}
		if err != nil {
			got += err.Error()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Programs, maps and links that come and go while it reads are no error.
func TestReadWhileOthersComeAndGo(t *testing.T) {
	testutil.Root(t)
	looker, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "looker", Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer looker.Close()
	come := func() error {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "tails", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 8})
		if err != nil {
			return err
		}
		defer m.Close()
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "comes", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: tailCall(m)})
		if err != nil {
			return err
		}
		defer p.Close()
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_exception", Program: looker})
		if err != nil {
			return err
		}
		return l.Close()
	}
	quit, done := make(chan struct{}), make(chan error)
	const comers = 2
	for range comers {
		go func() {
			for {
				select {
				case <-quit:
					done <- nil
					return
				default:
				}
				if err := come(); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range 15 {
		if _, err := Read(t.Context(), Options{Processes: true}); err != nil {
			t.Error(err)
		}
	}
	close(quit)
	for range comers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A program that is too large for the kernel to show is listed with its name, its maps, its device and its size; its code
// alone is not seen.
func TestLargeProgram(t *testing.T) {
	m := newMap(t, ebpf.MapSpec{Name: "of_large", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	ins := asm.Instructions{asm.LoadMapPtr(asm.R1, m.FD())}
	for range 1 << 19 { // 4 MiB of instructions
		ins = append(ins, asm.Mov.Imm(asm.R0, 2))
	}
	lab := veth.Namespace(t)
	a, _ := veth.Pair(t, lab, "large0", "large1")
	p := load(t, "large", 0, append(ins, asm.Return())...)
	if err := a.Attach(p, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.Rows, func(r record.ProgramRow) bool { return r.Program == "large" })
	if i < 0 {
		t.Fatalf("%+v", got.Rows)
	}
	row := got.Rows[i]
	if row.Tag == "" || row.JitedBytes < 1<<19 || row.Loaded == nil || !slices.Equal(row.MapIDs, []uint32{mapID(t, m)}) ||
		len(row.Attached) != 1 || row.Attached[0].Device != "large0" || row.Dispatcher != record.InDispatcher {
		t.Errorf("%+v", row)
	}
	want := fmt.Sprintf("the code of id:%d large: too large for the kernel to show: it has more than 4 MiB of instructions", row.ID)
	if !slices.Contains(got.Unseen, want) {
		t.Errorf("not %q in %q", want, got.Unseen)
	}
}
