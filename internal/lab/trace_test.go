package lab

import (
	"bufio"
	"debug/elf"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/trace"
	"github.com/unthunk/unthunk/ksym"
)

// TestTrace traces guests: what functions execute adds up to what the guest's clock counts,
// and the indirect branches are those that kprobes count. Both are errors of [Run] otherwise.
func TestTrace(t *testing.T) {
	all := os.Getenv("UNTHUNK_GUEST") != ""
	plan := Plan{Kernels: []string{"debian:6.12-cloud"}, Bulks: []int{16}, Trace: true, Annotate: "dev_map_enqueue"}
	if all { // make test-kernels
		plan.Kernels = append(plan.Kernels, "debian:6.1-cloud")
		plan.Bulks = []int{1, 16, 64}
		plan.Appends = []string{"spectre_v2=retpoline", "spectre_v2=off"}
	}
	cells, err := Run(t.Context(), plan, unthunk(t), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		testutil.SkipMissing(t, c.Err)
		if c.Err != nil {
			t.Fatalf("%s: %v; console:\n%s", c.Name(), c.Err, c.Console)
		}
	}
	l := Record(cells, plan.Rows(), nil)
	for i := range l.Rows {
		checkTrace(t, &l.Rows[i])
	}
}

// TestTraceWires traces a chain over wires: the windows that most agree in add up to the row.
func TestTraceWires(t *testing.T) {
	plan := Plan{Kernels: []string{"debian:6.12-cloud"}, NICs: []string{"virtio"}, Bulks: []int{64}, Trace: true}
	if os.Getenv("UNTHUNK_GUEST") != "" { // make test-kernels
		plan.Kernels, plan.NICs = []string{"debian:6.12"}, []string{"virtio", "vmxnet3", "igb"}
		plan.Appends = []string{"spectre_v2=retpoline", "spectre_v2=off"}
	}
	cells, err := Run(t.Context(), plan, unthunk(t), nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		testutil.SkipMissing(t, c.Err)
		if c.Err != nil {
			t.Fatalf("%s: %v; console:\n%s", c.Name(), c.Err, c.Console)
		}
	}
	l := Record(cells, plan.Rows(), nil)
	for i := range l.Rows {
		row := &l.Rows[i]
		tr := row.Trace
		if tr == nil {
			t.Errorf("%s: no trace: %v", row.Name, l.Warnings)
			continue
		}
		if tr.PerPacket(tr.Executed) != *row.Instructions || tr.Windows < leastUsual || tr.Windows > tr.Among {
			t.Errorf("%s: %v instructions a packet, %v of them traced in %d of %d windows", row.Name, *row.Instructions,
				tr.PerPacket(tr.Executed), tr.Windows, tr.Among)
		}
		stages := make(map[string]uint64)
		for _, f := range tr.Functions {
			stages[f.Stage] += f.Executed
		}
		for _, stage := range []string{"receive", "program", "redirect", "bulk-queue", "transmit"} {
			if stages[stage] == 0 {
				t.Errorf("%s: nothing is executed in stage %s: %v", row.Name, stage, stages)
			}
		}
		if stages["other"] != 0 || stages["sink"] != 0 || stages["generator"] != 0 {
			t.Errorf("%s: a window holds more than its poll: %v", row.Name, stages)
		}
	}
	for _, d := range l.Differences {
		if math.Abs(d.Remainder) > 1 {
			t.Errorf("%s against %s: %v instructions a packet are unexplained", d.With, d.Without, d.Remainder)
		}
	}
}

func checkTrace(t *testing.T, row *record.LabRow) {
	t.Helper()
	tr := row.Trace
	if err := row.Check(); err != nil {
		t.Errorf("%s: %v", row.Name, err)
	}
	if tr.PerPacket(tr.Executed) != *row.Instructions {
		t.Errorf("%s: %v instructions a packet, %v of them traced", row.Name, *row.Instructions, tr.PerPacket(tr.Executed))
	}
	stages := make(map[string]uint64)
	for _, f := range tr.Functions {
		stages[f.Stage] += f.Executed
		if f.Function == trace.Unnamed {
			t.Errorf("%s: %d instructions have no name", row.Name, f.Executed)
		}
	}
	for _, stage := range []string{"generator", "receive", "program", "redirect", "bulk-queue", "transmit", "return", "softirq", "sink"} {
		if stages[stage] == 0 {
			t.Errorf("%s: nothing is executed in stage %s: %v", row.Name, stage, stages)
		}
	}
	if stages["other"] != 0 {
		t.Errorf("%s: %d instructions in no stage", row.Name, stages["other"])
	}
	// The clock's own branch, where no kprobe can stand.
	if !slices.ContainsFunc(tr.Branches, func(b record.LabTraceBranch) bool {
		return b.Function == "ktime_get_mono_fast_ns" && b.Target == "read_tsc" && b.Times == 1
	}) {
		t.Errorf("%s: the time stamp calls read_tsc: %+v", row.Name, tr.Branches)
	}
	programs := make(map[string]uint64)
	for _, f := range tr.Functions {
		if strings.HasPrefix(f.Function, "bpf_prog_") {
			programs[f.Function] += f.Executed
		}
	}
	for _, line := range tr.Lines {
		programs[line.Program] -= line.Executed
	}
	if len(programs) != 3 {
		t.Errorf("%s: programs %v", row.Name, programs)
	}
	for name, n := range programs {
		if n != 0 {
			t.Errorf("%s: lines of %s lack %d instructions", row.Name, name, n)
		}
	}
	sum, want := uint64(0), uint64(0)
	for _, a := range tr.Annotated {
		sum += a.Times
	}
	for _, f := range tr.Functions {
		if f.Function == "dev_map_enqueue" {
			want += f.Executed
		}
	}
	if sum != want || sum == 0 {
		t.Errorf("%s: instructions of dev_map_enqueue add up to %d of %d", row.Name, sum, want)
	}
}

// What a guest says of its code is checked before anything is made of it.
func TestCheckCodes(t *testing.T) {
	t.Parallel()
	for want, code := range map[string]GuestCode{
		"":                    {Symbols: []GuestSymbol{{1, 2, "f"}}, Programs: []GuestProgram{{1, 2, []GuestLine{{1, "a.c", 1, "x  =  1;"}}}}},
		"impossible name":     {Symbols: []GuestSymbol{{1, 2, "\x1b[2J"}}},
		"impossible program":  {Programs: []GuestProgram{{2, 1, nil}}},
		"impossible program ": {Programs: []GuestProgram{{1, 4, []GuestLine{{3, "", 1, ""}, {2, "", 1, ""}}}}},
		"impossible line":     {Programs: []GuestProgram{{1, 4, []GuestLine{{3, "a\n", 1, ""}}}}},
		"impossible line -1":  {Programs: []GuestProgram{{1, 4, []GuestLine{{3, "a", -1, ""}}}}},
	} {
		err := checkCodes([]GuestCode{code})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: %v, want %q", code, err, want)
		}
	}
}

// A trace that is no whole window of what the guest counted is refused with both numbers.
func TestFinish(t *testing.T) {
	t.Parallel()
	n := 3.0
	w := &trace.Window{Addrs: []uint64{0x10}, Order: []uint32{0, 0, 0, 0, 0, 0}}
	tr := &tracer{mostKept: 1 << 10}
	tr.slots = []tracedSlot{tr.keep(tracedSlot{Window: w}), {err: trace.ErrNoWindow}}
	if again := tr.keep(tracedSlot{Window: &trace.Window{Addrs: make([]uint64, 200)}}); again.err == nil || tr.kept > tr.mostKept {
		t.Errorf("%d bytes are kept: %v", tr.kept, again.err)
	}
	for want, b := range map[string]BulkCount{
		"":                            {Window: 2, Traced: &Traced{Slot: 0, Code: 1}},
		"marked no slot":              {Window: 2},
		"no trace: none of 8 slots":   {Window: 2, Untraced: "none of 8 slots\n is short"},
		"says that it marked slot 2":  {Window: 2, Traced: &Traced{Slot: 2, Code: 1}},
		"says that it marked slot -1": {Window: 2, Traced: &Traced{Slot: -1, Code: 1}},
		"says that it marked slot 0":  {Window: 2, Traced: &Traced{Slot: 0, Code: 2}},
		"no whole window":             {Window: 2, Traced: &Traced{Slot: 1, Code: 1}},
		"6 instructions were executed, but the guest's clock counts 9": {Window: 3, Traced: &Traced{Slot: 0, Code: 1}},
		"f+0x0 enters g 1 times a packet by its kprobe, and 0 times by the trace": {Window: 2, Traced: &Traced{Slot: 0, Code: 1},
			Sites: []record.LabSite{{Function: "f", Target: "g", PerPacket: 1}}},
	} {
		b.Bulk, b.Instructions = 16, &n
		m := &Measurement{Bulks: []BulkCount{b}, Codes: []GuestCode{{Symbols: []GuestSymbol{{0x10, 16, "h"}}}}}
		tr.symbols = noSymbols(t)
		tr.finish(t.Context(), m)
		got := &m.Bulks[0]
		said := strings.Join(append(got.Doubts, got.Refused), "")
		if (said == "") != (want == "") || !strings.Contains(said, want) {
			t.Errorf("%q, want %q", said, want)
		}
		if refused := strings.Contains(want, "clock counts"); refused != (got.Refused != "") || !refused && got.Instructions == nil {
			t.Errorf("%s: %+v", want, got)
		}
		if want == "" && (got.Trace.Executed != 6 || got.Trace.Functions[0].Function != "h") {
			t.Errorf("%+v", got.Trace)
		}
	}
}

// Source lines of a kernel are read once for all rows; debugging information that cannot be read takes nothing else away.
func TestAddSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, damaged := filepath.Join(dir, "program"), filepath.Join(dir, "damaged")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/forwarder").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(damaged, []byte("no vmlinux"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "main.main" })
	if i < 0 {
		t.Fatal("the program has no main.main")
	}
	all := new(images)
	for _, test := range []struct{ vmlinux, source, doubt string }{
		{program, "main.go:", ""}, {damaged, "", "no lines of the kernel's source: read debugging information"}, {"", "", ""},
		{program, "main.go:", ""},
	} {
		tr := &tracer{vmlinux: test.vmlinux, images: all}
		for range 2 {
			code := &GuestCode{Programs: []GuestProgram{{8, 16, []GuestLine{{8, "a.c", 1, "x"}}}}}
			tr.listings = append(tr.listings, listing{new(BulkCount), code, make([]record.LabTraceInstruction, 3), []uint64{8, 9, symbols[i].Value}})
		}
		tr.finish(t.Context(), new(Measurement))
		for _, l := range tr.listings {
			if first, same := l.instructions[0].Source, l.instructions[1].Source; first != "a.c:1 x" || same != "" {
				t.Errorf("%s: a program is at %q, then at %q", test.vmlinux, first, same)
			}
			if got := l.instructions[2].Source; !strings.HasPrefix(got, test.source) || (got == "") != (test.source == "") {
				t.Errorf("%s: main is at %q", test.vmlinux, got)
			}
			if got := strings.Join(l.row.Doubts, ""); !strings.HasPrefix(got, test.doubt) || (got == "") != (test.doubt == "") {
				t.Errorf("%s: %q", test.vmlinux, got)
			}
		}
		if test.vmlinux == program { // known already: it is read no more
			if err := os.RemoveAll(program); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// On wires all windows that take as many instructions as most are one trace, and how many there are has to be what the
// guest's clock says.
func TestFinishWires(t *testing.T) {
	t.Parallel()
	const stamp, first, second = 0x10, 0x20, 0x30
	var log strings.Builder
	for _, a := range []uint64{stamp, stamp, first, first, stamp, first, second, stamp, stamp, first, stamp, second, second} {
		fmt.Fprintf(&log, "Trace 0: 0x7f [0/%x/0/0] \n", a)
	}
	log.WriteString("END\n")
	middle, err := trace.ReadSome(bufio.NewReader(strings.NewReader(log.String())), stamp, "END", func(i int) bool { return i > 0 })
	if err != nil {
		t.Fatal(err)
	}
	slot := tracedSlot{Window: middle.Joined(), middle: middle}
	codes := []GuestCode{{Symbols: []GuestSymbol{{stamp, 16, "stamp"}, {first, 16, "f"}, {second, 16, "g"}}}}
	for want, traced := range map[string]Traced{
		"": {Code: 1, Usual: 2, Middle: 4},
		"2 of 4 windows have 3 instructions, but by the guest's clock 3 of 4": {Code: 1, Usual: 3, Middle: 4},
		"2 of 4 windows have 3 instructions, but by the guest's clock 2 of 5": {Code: 1, Usual: 2, Middle: 5},
		"2 of 4 windows have 3 instructions, but by the guest's clock 0 of 0": {Code: 1},
	} {
		n := 1.5
		m := &Measurement{Bulks: []BulkCount{{Bulk: 64, Window: 2, Instructions: &n, Traced: &traced}}, Codes: codes}
		tr := &tracer{slots: []tracedSlot{slot}, wires: true, symbols: noSymbols(t)}
		tr.finish(t.Context(), m)
		got := &m.Bulks[0]
		if !strings.Contains(got.Refused, want) || (got.Refused == "") != (want == "") {
			t.Errorf("%q, want %q", got.Refused, want)
		}
		if want != "" {
			continue
		}
		if got.Trace == nil {
			t.Fatal(got.Doubts)
		}
		if tr := got.Trace; tr.Packets != 4 || tr.Executed != 6 || tr.Windows != 2 || tr.Among != 4 || tr.PerPacket(tr.Executed) != n {
			t.Errorf("%+v", tr)
		}
		spreads := make(map[string]float64)
		for _, f := range got.Trace.Functions {
			spreads[f.Function] += f.Spread
		}
		// f is executed 2 times in the one window and once in the other, g once in the second: 3 and 1 in 4 packets.
		if want := (map[string]float64{"stamp": 0, "f": 0.25, "g": 0.25}); !maps.Equal(spreads, want) {
			t.Errorf("spreads %v, want %v", spreads, want)
		}
	}
}

// On wires kprobes count whole bursts: what is not in each window of a trace is not compared, and a poll may have what
// is in none.
func TestAgreeWires(t *testing.T) {
	t.Parallel()
	branches := []record.LabTraceBranch{{Function: "xmit", Target: "driver", Times: 4}, {Function: "map", Target: "iommu", Times: 64}}
	site := func(function, target, part string, per float64) record.LabSite {
		return record.LabSite{Function: function, Target: target, Part: part, PerPacket: per, Executed: 4}
	}
	for _, test := range []struct {
		want  string
		sites []record.LabSite
	}{
		{"", []record.LabSite{site("xmit", "driver", OutXmit, 0.0625), site("map", "iommu", OutXmit, 1), site("map", "iommu", InPoll, 1)}},
		{"", []record.LabSite{site("map", "iommu", InPoll, 1), site("refill", "iommu", InPoll, 2)}},
		{"", []record.LabSite{site("poll", "driver", InPoll, 0.03125), site("clean", "driver", OutPoll, 1)}},
		{"unmap+0x0 enters iommu 1 times a packet by its kprobe, and 0 times by the trace",
			[]record.LabSite{site("unmap", "iommu", OutXmit, 1)}},
		{"map+0x0 enters iommu 0.25 times a packet by its kprobe, and 1 times by the trace",
			[]record.LabSite{site("map", "iommu", InPoll, 0.25)}},
	} {
		b := &BulkCount{Window: 16, Sites: test.sites, Trace: &record.LabTrace{Packets: 64, Windows: 4, Among: 4, Branches: branches}}
		err := b.agree()
		if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
	// A refill that is in no window has no part in what a window's branches take.
	row := &record.LabRow{Window: 16, Sites: []record.LabSite{site("map", "iommu", OutXmit, 1), site("map", "iommu", InPoll, 1)}}
	if sites, _ := byBranches(row); sites != 8 {
		t.Errorf("%v instructions by branches without a trace", sites)
	}
	row.Trace = &record.LabTrace{Packets: 64, Windows: 4, Among: 4, Branches: branches}
	if sites, _ := byBranches(row); sites != 4 {
		t.Errorf("%v instructions by branches of a trace", sites)
	}
}

func noSymbols(t *testing.T) *ksym.Table {
	t.Helper()
	table, err := ksym.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A kernel without the marks cannot be traced, and one line says so.
func TestNewTracer(t *testing.T) {
	t.Parallel()
	self, err := Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newTracer(t.Context(), guest.Kernel{Image: self}, new(images), ""); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if _, err := newTracer(t.Context(), guest.Kernel{Image: t.TempDir()}, new(images), ""); err == nil {
		t.Error("a folder is traced")
	}
}
