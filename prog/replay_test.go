package prog

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// sampleProgram is a program of package sample.
func sampleProgram(t testing.TB, name string) Program {
	t.Helper()
	testutil.Root(t)
	coll, p, err := sample.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return Program{Name: name, Loaded: p}
}

// assembled is a program of these instructions, where #count is a map of one counter.
func assembled(t testing.TB, attach ebpf.AttachType, ins func(count int) asm.Instructions) Program {
	t.Helper()
	testutil.Root(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "assembled", Type: ebpf.XDP, License: "Dual BSD/GPL", AttachType: attach, Instructions: ins(m.FD()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return Program{Name: "assembled", Loaded: p}
}

// counting returns XDP_DROP for the runs of which keep says so by their number, in R2, and passes others.
func counting(keep ...asm.Instruction) func(int) asm.Instructions {
	return func(count int) asm.Instructions {
		ins := asm.Instructions{
			asm.LoadMapValue(asm.R1, count, 0),
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.Add.Imm(asm.R2, 1),
			asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, 2),
		}
		return append(append(ins, keep...), asm.Mov.Imm(asm.R0, 1), asm.Return().WithSymbol("out"))
	}
}

func made(t testing.TB, names string) *Packets {
	t.Helper()
	p, err := MakePackets(names)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// opened is a replay with one row of all packets.
func opened(t testing.TB, packets *Packets, o Options, programs ...Program) *Replay {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := New(t.Context(), packets, o, programs...)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	all := Row{Name: "all"}
	for i := range packets.Frames {
		all.Packets = append(all.Packets, i)
	}
	if err := r.SetRows([]Row{all}); err != nil {
		t.Fatal(err)
	}
	return r
}

// Programs whose packets a test run with a repeat spoils come out of each timed run as of a single one.
func TestRewriting(t *testing.T) {
	packets := made(t, "udp4,udp4:1514,tcp4,vlan-udp4,udp6,arp")
	for _, name := range []string{"encap", "ttl", "nat", "tailcall", "pass"} {
		r := opened(t, packets, Options{}, sampleProgram(t, name))
		checked, err := r.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m := checked[0][0]; m.Wrong() > 0 || m.Runs != 12 {
			t.Errorf("%s: %+v", name, m)
		}
		if _, err := r.Round(t.Context(), 200*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if m := r.Mismatches()[0][0]; m.Wrong() > 0 || m.Runs < 1000 {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// A program that keeps state is said to, and where its timed runs differ from its clean ones they are counted.
func TestState(t *testing.T) {
	packets := made(t, "udp4,tcp4")
	for _, test := range []struct {
		name              string
		keep              []asm.Instruction
		learned, unsteady int
		wrong             bool
	}{
		{"first two pass", []asm.Instruction{asm.JLE.Imm(asm.R2, 2, "out")}, 2, 0, false},
		{"every third passes", []asm.Instruction{asm.Mod.Imm(asm.R2, 3), asm.JEq.Imm(asm.R2, 0, "out")}, 1, 2, true},
		{"all after 100 drop", []asm.Instruction{asm.JLE.Imm(asm.R2, 100, "out")}, 0, 0, true},
	} {
		r := opened(t, packets, Options{}, assembled(t, ebpf.AttachXDP, counting(test.keep...)))
		clean := r.Clean()[0]
		if clean.Learned != test.learned || clean.Unsteady != test.unsteady || clean.Varying != 0 {
			t.Errorf("%s: %+v", test.name, clean)
		}
		marked := 0
		for _, o := range clean.Outcomes {
			if o.Unsteady {
				marked++
			}
		}
		if marked != test.unsteady {
			t.Errorf("%s: %d packets are marked: %+v", test.name, marked, clean)
		}
		if _, err := r.Round(t.Context(), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		m := r.Mismatches()[0][0]
		if wrong := m.Verdicts > m.Runs/10; wrong != test.wrong || m.Lengths+m.Lost > 0 || wrong != (m.First != "") {
			t.Errorf("%s: %+v", test.name, m)
		}
	}
}

// Bytes that differ in each run are not compared; the rest is.
func TestVarying(t *testing.T) {
	p := assembled(t, ebpf.AttachXDP, func(int) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.FnKtimeGetNs.Call(),
			asm.LoadMem(asm.R1, asm.R6, 0, asm.Word),
			asm.LoadMem(asm.R2, asm.R6, 4, asm.Word),
			asm.Mov.Reg(asm.R3, asm.R1),
			asm.Add.Imm(asm.R3, 14),
			asm.JGT.Reg(asm.R3, asm.R2, "out"),
			asm.StoreMem(asm.R1, 0, asm.R0, asm.Word),
			asm.Mov.Imm(asm.R0, 3).WithSymbol("out"),
			asm.Return(),
		}
	})
	r := opened(t, made(t, "udp4"), Options{}, p)
	if clean := r.Clean()[0]; clean.Varying != 1 || clean.Outcomes[0].Hash != 0 {
		t.Errorf("%+v", clean)
	}
	checked, err := r.Check(t.Context())
	if err != nil || checked[0][0].Wrong() > 0 {
		t.Errorf("%+v (%v)", checked, err)
	}
}

// Programs that no test run takes say why.
func TestKinds(t *testing.T) {
	pass := func(int) asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()} }
	for _, attach := range []ebpf.AttachType{ebpf.AttachXDPDevMap, ebpf.AttachXDPCPUMap} {
		if _, err := New(t.Context(), made(t, "udp4"), Options{}, assembled(t, attach, pass)); !errors.Is(err, ErrKind) {
			t.Errorf("attach type %v: %v", attach, err)
		}
	}
	// As libraries load it that say no attach type.
	opened(t, made(t, "udp4"), Options{}, assembled(t, ebpf.AttachNone, pass))
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: pass(0)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for name, f := range map[string]func() error{
		"another type": func() error {
			_, err := New(t.Context(), made(t, "udp4"), Options{}, Program{Name: "x", Loaded: other})
			return err
		},
		"no packets": func() error {
			_, err := New(t.Context(), &Packets{}, Options{}, sampleProgram(t, "pass"))
			return err
		},
		"no program": func() error { _, err := New(t.Context(), made(t, "udp4"), Options{}); return err },
		"no device": func() error {
			_, err := New(t.Context(), made(t, "udp4"), Options{Device: 1 << 30}, sampleProgram(t, "pass"))
			return err
		},
		"a queue of none": func() error {
			_, err := New(t.Context(), made(t, "udp4"), Options{Queue: 1}, sampleProgram(t, "pass"))
			return err
		},
		"metadata": func() error {
			_, err := New(t.Context(), made(t, "udp4"), Options{Metadata: make([]byte, 5)}, sampleProgram(t, "pass"))
			return err
		},
	} {
		if err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What keeps two programs from being replayed side by side is told by what each is alone.
func TestTwoKinds(t *testing.T) {
	testutil.Root(t)
	load := func(attach ebpf.AttachType, flags uint32) Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.XDP, License: "GPL", AttachType: attach, Flags: flags,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return Program{Name: "x", Loaded: p}
	}
	const frags = 1 << 5 // BPF_F_XDP_HAS_FRAGS
	with, without := load(ebpf.AttachXDP, 0), load(ebpf.AttachNone, 0)
	for _, test := range []struct {
		other Program
		want  string
	}{
		{load(ebpf.AttachXDP, 0), ""},
		{without, "attach type"},
		{load(ebpf.AttachXDP, frags), "fragments"},
	} {
		_, err := New(t.Context(), made(t, "udp4"), Options{}, with, test.other)
		testutil.SkipMissing(t, err)
		// Kernels differ in whether the attach type of a program array's entries matters.
		if err == nil && test.want == "attach type" {
			continue
		}
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

// Groups hold each packet once, with the same mix in each.
func TestGroups(t *testing.T) {
	t.Parallel()
	packets := &Packets{}
	var clean Clean
	row := Row{Name: "all"}
	for i := range 1000 {
		packets.Frames = append(packets.Frames, frame(60, i))
		clean.Outcomes = append(clean.Outcomes, Outcome{Verdict: uint32(i % 2), Length: 60})
		row.Packets = append(row.Packets, i)
	}
	for _, test := range []struct{ working, groups, timed int }{
		{64, 16, 1000}, {256, 4, 1000}, {1000, 4, 1000}, {4000, 4, 1000}, {1, 1000, 1000},
	} {
		r := &Replay{packets: packets, clean: []Clean{clean}, opts: Options{WorkingSet: test.working}}
		var schedule []uint32
		parts := r.parts(row.Packets)
		if len(parts) != 1 {
			t.Fatalf("%d parts of packets in one buffer", len(parts))
		}
		sizes := r.spread(parts[0], &schedule)
		seen := map[uint32]bool{}
		at := 0
		for _, size := range sizes {
			odd := 0
			for _, p := range schedule[at : at+size] {
				seen[p] = true
				odd += int(p % 2)
			}
			if size > 2 && (odd < size/2-1 || odd > size/2+1) {
				t.Errorf("%+v: a group of %d has %d odd packets", test, size, odd)
			}
			at += size
		}
		if len(sizes) != test.groups || len(seen) != test.timed || len(schedule) != test.timed {
			t.Errorf("%+v: %d groups, %d packets, %d of them once", test, len(sizes), len(schedule), len(seen))
		}
	}
}

// A program that only passes costs nothing, cold or hot; one that loops costs the more the more it turns. What
// is measured exactly is for make verify.
func TestRound(t *testing.T) {
	packets := made(t, "udp4,tcp4:1514")
	for _, o := range []Options{{}, {WorkingSet: 1}, {WorkingSet: 4096}, {Cold: 1 << 20}, {Metadata: make([]byte, 16)}} {
		r := opened(t, packets, o, sampleProgram(t, "pass"), sampleProgram(t, "loop"))
		var samples []Sample
		for range 3 {
			s, err := r.Round(t.Context(), 150*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			samples = append(samples, s...)
		}
		median := func(of func(Sample) float64) float64 {
			var xs []float64
			for _, s := range samples {
				xs = append(xs, of(s))
			}
			return stat.Median(xs)
		}
		null, loop := median(func(s Sample) float64 { return s.Cost[0] }), median(func(s Sample) float64 { return s.Cost[1] })
		between := median(func(s Sample) float64 { return s.Between })
		if math.Abs(null) > loop/4 || loop < 20 || math.Abs(between-loop+null) > loop/4 {
			t.Errorf("%+v: pass %.2f ns, loop %.2f, between %.2f", o, null, loop, between)
		}
	}
}

// moving calls a helper that moves an end of the packet by so many bytes, and passes.
func moving(t testing.TB, helper asm.BuiltinFunc, by int32) Program {
	return assembled(t, ebpf.AttachXDP, func(int) asm.Instructions {
		return asm.Instructions{asm.Mov.Imm(asm.R2, by), helper.Call(), asm.Mov.Imm(asm.R0, 2), asm.Return()}
	})
}

// To move an end of the packet costs what the call costs: what the harness does to move it back is no part of it. It
// took 9 ns where the harness made the call for such programs alone. A tail that was cut off grows again, by zeros.
func TestMovedAlike(t *testing.T) {
	for _, test := range []struct {
		name   string
		helper asm.BuiltinFunc
		by     int32
		most   float64 // ns
	}{
		{"push a header", asm.FnXdpAdjustHead, -20, 3},
		{"pull a header", asm.FnXdpAdjustHead, 20, 3},
		{"grow the tail", asm.FnXdpAdjustTail, 20, 13}, // which the call itself clears
		{"cut the tail", asm.FnXdpAdjustTail, -20, 13},
		{"make metadata", asm.FnXdpAdjustMeta, -4, 3},
	} {
		r := opened(t, made(t, "udp4:100,tcp4:100"), Options{}, moving(t, test.helper, 0), moving(t, test.helper, test.by))
		var between, still []float64
		for range 7 {
			s, err := r.Round(t.Context(), 150*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			between, still = append(between, s[0].Between), append(still, s[0].Cost[0])
		}
		t.Logf("%s: %.2f ns, and %.2f more where it moves", test.name, stat.Median(still), stat.Median(between))
		if m := r.Mismatches()[0][1]; m.Wrong() > 0 {
			t.Errorf("%s: %+v", test.name, m)
		}
		if d := stat.Median(between); d > test.most {
			t.Errorf("%s: %.2f ns more than a call that moves nothing, want at most %g", test.name, d, test.most)
		}
	}
}
