package lab

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/trace"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// booted is the record of a plan whose guests all came to their end.
func booted(t *testing.T, plan Plan) *record.Lab {
	t.Helper()
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
	return Record(cells, plan.Rows(), nil)
}

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
	l := booted(t, plan)
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
	l := booted(t, plan)
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
	const at = 0x10
	tr := &tracer{stamp: 1, images: newImages(), symbols: noSymbols(t)}
	tr.slots = []tracedSlot{tr.read(logOf(1, 1, at, at, at, at, at, 1)), {err: trace.ErrNoWindow}}
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
		m := &Measurement{Bulks: []BulkCount{b}, Codes: []GuestCode{{Symbols: []GuestSymbol{{1, 32, "h"}}}}}
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

// logOf is QEMU's log of instructions.
func logOf(addrs ...uint64) *bufio.Reader {
	var log strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&log, "Trace 0: 0x7f [0/%x/0/0] \n", a)
	}
	return bufio.NewReader(strings.NewReader(log.String() + guest.LogEnd + "\n"))
}

// What slots take is what the budget of all guests knows of: nothing else of a log stays, on wires neither.
func TestKeep(t *testing.T) {
	const stamp, n = 1, 200_000
	addrs := []uint64{stamp, stamp}
	for i := range uint64(n) {
		addrs = append(addrs, (i*0x9e3779b97f4a7c15)&^0xfff|2) // a page each
	}
	addrs = append(addrs, stamp)
	for _, wires := range []bool{false, true} {
		all := newImages()
		var tracers []*tracer
		before := heap()
		for range 2 {
			tr := &tracer{stamp: stamp, images: all, wires: wires}
			for range 2 {
				s := tr.read(logOf(append(addrs, addrs...)...))
				if s.err != nil {
					t.Fatal(s.err)
				}
				spans := spansOf(s.Addrs())
				if got := len(spans); got < n {
					t.Fatalf("%d spans of %d pages", got, n)
				}
				if s = tr.keep(s, spans); s.err != nil {
					t.Fatal(s.err)
				}
				for range spans { // as readSnippets makes them
					s.code = append(s.code, ktext.Bytes{Code: make([]byte, trace.Longest)})
				}
				tr.slots = append(tr.slots, s)
			}
			tracers = append(tracers, tr)
		}
		if got, known := heap()-before, int64(all.windows.Taken()); got > known+known/2+16<<20 || known > maxKept {
			t.Errorf("wires %v: %d bytes are kept, of which %d are known", wires, got, known)
		}
		// A guest has no more than the others leave.
		if err := all.windows.Take(maxKept - all.windows.Taken()); err != nil {
			t.Fatal(err)
		}
		if s := tracers[0].keep(tracers[1].slots[0], nil); s.err == nil || s.Packed != nil {
			t.Errorf("wires %v: more is kept than there may be: %v", wires, s.err)
		}
		all.windows.Give(maxKept)
		for _, tr := range tracers {
			if err := all.windows.Take(tr.kept); err != nil {
				t.Fatal(err)
			}
			tr.release()
		}
		if all.windows.Taken() != 0 || len(tracers[0].slots) > 0 {
			t.Errorf("wires %v: %d bytes are not given back", wires, all.windows.Taken())
		}
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Once the run has ended no window is worked up, and each row says why it has no trace.
func TestFinishEnded(t *testing.T) {
	t.Parallel()
	for _, wires := range []bool{false, true} {
		n := 3.0
		row := BulkCount{Window: 1, Instructions: &n, Traced: &Traced{Code: 1, Usual: 1, Middle: 1}}
		m := &Measurement{Bulks: []BulkCount{row, row, row}, Codes: []GuestCode{{}}}
		tr := &tracer{stamp: 1, images: newImages(), wires: wires} // whose symbols are not asked
		tr.slots = []tracedSlot{tr.read(logOf(1, 1, 2, 2, 1))}
		if err := tr.slots[0].err; err != nil {
			t.Fatal(err)
		}
		reason := errors.New("a signal")
		ctx, end := context.WithCancelCause(t.Context())
		end(reason)
		tr.finish(ctx, m)
		for i := range m.Bulks {
			if b := &m.Bulks[i]; b.Trace != nil || !slices.Equal(b.Doubts, []string{"no trace: a signal"}) {
				t.Errorf("wires %v: row %d: %+v, %q", wires, i, b.Trace, b.Doubts)
			}
		}
		code := &GuestCode{}
		w := &trace.Window{Addrs: []uint64{1}, Order: []uint32{0}}
		if _, err := code.lines(ctx, w, nil); !errors.Is(err, reason) {
			t.Errorf("lines: %v", err)
		}
		if _, _, err := annotated(ctx, w, nil, nil, "f"); !errors.Is(err, reason) {
			t.Errorf("annotated: %v", err)
		}
		tr.listings = []listing{{code: code, addrs: []uint64{1}}}
		if err := tr.addSources(ctx); !errors.Is(err, reason) {
			t.Errorf("sources: %v", err)
		}
		m.Program, tr.named = &progcount.Counted{Traced: []progcount.TracedRun{{Ns: 3}}}, nil
		if _, err := tr.programTrees(ctx, m); !errors.Is(err, reason) {
			t.Errorf("runs of a program: %v", err)
		}
	}
}

// A slot is of one row: a guest cannot have one worked up again and again.
func TestFinishTwice(t *testing.T) {
	t.Parallel()
	n := 3.0
	row := BulkCount{Window: 1, Instructions: &n, Traced: &Traced{Code: 1}}
	m := &Measurement{Bulks: []BulkCount{row, row}, Codes: []GuestCode{{}},
		Program: &progcount.Counted{Traced: []progcount.TracedRun{{Ns: 3}, {Ns: 3}}}}
	tr := &tracer{stamp: 1, images: newImages(), symbols: noSymbols(t)}
	tr.slots = []tracedSlot{tr.read(logOf(1, 1, 2, 2, 1))}
	tr.finish(t.Context(), m)
	if m.Bulks[0].Trace == nil || !slices.Equal(m.Bulks[1].Doubts, []string{"no trace: the guest says that it marked slot 0 twice"}) {
		t.Errorf("%q, %q", m.Bulks[0].Doubts, m.Bulks[1].Doubts)
	}
	if _, err := tr.programTrees(t.Context(), m); err == nil || !strings.Contains(err.Error(), "slot 0 twice") {
		t.Errorf("runs of a program: %v", err)
	}
}

// The traces of all guests, with what is annotated and the lines of its source, have one budget.
func TestFinishBudget(t *testing.T) {
	t.Parallel()
	n := 3.0
	code := GuestCode{Symbols: []GuestSymbol{{1, 32, "h"}},
		Programs: []GuestProgram{{1, 3, []GuestLine{{1, "a.c", 1, "x"}, {2, "a.c", 2, "y"}}}}}
	all := newImages()
	row := func(annotate string) BulkCount {
		tr := &tracer{stamp: 1, images: all, symbols: noSymbols(t), annotate: annotate}
		tr.slots = []tracedSlot{tr.read(logOf(1, 1, 2, 2, 1))}
		m := &Measurement{Bulks: []BulkCount{{Window: 1, Instructions: &n, Traced: &Traced{Code: 1}}}, Codes: []GuestCode{code}}
		tr.finish(t.Context(), m)
		return m.Bulks[0]
	}
	plain := row("")
	size := all.traces.Taken()
	if plain.Trace == nil || size < 64 {
		t.Fatalf("a trace of %d bytes: %v", size, plain.Doubts)
	}
	if b := row("h"); b.Trace == nil || len(b.Trace.Annotated) != 2 || all.traces.Taken() < 2*size+2*80 {
		t.Fatalf("%d bytes with what is annotated: %+v", all.traces.Taken()-size, b.Doubts)
	}
	both := all.traces.Taken() - size
	take := func(left int) {
		if err := all.traces.Take(maxTraces - all.traces.Taken() - left); err != nil {
			t.Fatal(err)
		}
	}
	take(size - 1)
	if b := row(""); b.Trace != nil || !strings.Contains(strings.Join(b.Doubts, ""), "of traces at a time") {
		t.Errorf("a trace beyond all that there may be: %q", b.Doubts)
	}
	all.traces.Give(both)
	take(both - 1)
	if b := row("h"); b.Trace == nil || b.Trace.Annotated[0].Source == "" || b.Trace.Annotated[1].Source != "" ||
		!strings.Contains(strings.Join(b.Doubts, ""), "no lines of the kernel's source: ") {
		t.Errorf("lines beyond all that there may be: %+v", b)
	}
}

// Code is read from a guest in spans, and is given as far as it was read.
func TestSpans(t *testing.T) {
	t.Parallel()
	got := spansOf([]uint64{0x5000, 0x10ff, 0x1000, 0x11ff, math.MaxUint64, 0x5000 + 0x80})
	if want := []span{{0x1000, 0x10ff}, {0x11ff, 0x11ff}, {0x5000, 0x5080}, {math.MaxUint64, math.MaxUint64}}; !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
	var page []uint64
	for addr := uint64(0); addr < 3*4096; addr += 128 {
		page = append(page, addr)
	}
	if got, want := spansOf(page), []span{{0, 4096 - 128}, {4096, 8192 - 128}, {8192, 3*4096 - 128}}; !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
	s := snippets{{Addr: 0x1000, Code: make([]byte, 20)}, {Addr: 0x2000, Code: []byte{1, 2}}}
	for addr, want := range map[uint64]int{0xfff: 0, 0x1000: trace.Longest, 0x1005: trace.Longest, 0x1006: 14, 0x1014: 0, 0x1800: 0, 0x2001: 1,
		math.MaxUint64: 0} {
		if got := len(s.CodeAt(addr)); got != want {
			t.Errorf("%d bytes at %#x, want %d", got, addr, want)
		}
	}
}

// Source lines of a kernel are read once for all rows; debugging information that cannot be read takes nothing else away.
func TestAddSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, damaged, bare := filepath.Join(dir, "program"), filepath.Join(dir, "damaged"), filepath.Join(dir, "bare")
	self, err := os.ReadFile("/proc/self/exe") // go test leaves lines out
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/forwarder").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := errors.Join(os.WriteFile(damaged, []byte("no vmlinux"), 0o600), os.WriteFile(bare, self, 0o600)); err != nil {
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
	all := newImages()
	for _, test := range []struct{ vmlinux, source, doubt string }{
		{program, "main.go:", ""}, {damaged, "", "no lines of the kernel's source: read debugging information"}, {"", "", ""},
		{program, "main.go:", ""}, {bare, "", ""}, {bare, "", ""},
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
		if test.vmlinux == program || test.vmlinux == bare { // known already: it is read no more
			if err := os.RemoveAll(test.vmlinux); err != nil {
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
	log := logOf(stamp, stamp, first, first, stamp, first, second, stamp, stamp, first, stamp, second, second)
	middle, err := trace.ReadSome(log, stamp, guest.LogEnd, trace.NewBudget(1<<20), func(i int) bool { return i > 0 })
	if err != nil {
		t.Fatal(err)
	}
	codes := []GuestCode{{Symbols: []GuestSymbol{{stamp, 16, "stamp"}, {first, 16, "f"}, {second, 16, "g"}}}}
	for want, traced := range map[string]Traced{
		"": {Code: 1, Usual: 2, Middle: 4},
		"2 of 4 windows have 3 instructions, but by the guest's clock 3 of 4": {Code: 1, Usual: 3, Middle: 4},
		"2 of 4 windows have 3 instructions, but by the guest's clock 2 of 5": {Code: 1, Usual: 2, Middle: 5},
		"2 of 4 windows have 3 instructions, but by the guest's clock 0 of 0": {Code: 1},
	} {
		n := 1.5
		m := &Measurement{Bulks: []BulkCount{{Bulk: 64, Window: 2, Instructions: &n, Traced: &traced}}, Codes: codes}
		tr := &tracer{slots: []tracedSlot{{Packed: middle}}, images: newImages(), wires: true, symbols: noSymbols(t)}
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
		{"ndo+0x0 enters driver 0.0625 times a packet by its kprobe, and 0 times by the trace",
			[]record.LabSite{site("xmit", "driver", OutXmit, 0.0625), site("ndo", "driver", OutXmit, 0.0625)}},
		{"", []record.LabSite{site("xmit", "driver", OutXmit, 0.09375), site("map", "iommu", OutXmit, 1.0625)}},
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
	if _, err := newTracer(t.Context(), guest.Kernel{Image: self}, newImages(), ""); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if _, err := newTracer(t.Context(), guest.Kernel{Image: t.TempDir()}, newImages(), ""); err == nil {
		t.Error("a folder is traced")
	}
}

// Where no kprobe counts branches the trace has them, but for that of the time stamp; a row that has no trace says what it lacks.
func TestFromTraces(t *testing.T) {
	t.Parallel()
	trace := &record.LabTrace{Packets: 128, Functions: []record.LabTraceFunction{{Function: "bq_xmit_all", Stage: "bulk-queue"}},
		Branches: []record.LabTraceBranch{{Function: "bq_xmit_all", Offset: 0x8c, Target: "veth_ndo_xdp_xmit", Times: 16},
			{Function: record.StampFunction, Target: "read_tsc", Times: 1}}}
	m := &Measurement{Bulks: []BulkCount{
		{Bulk: 1, Unprobed: "it is missing", Trace: trace},
		{Bulk: 16, Unprobed: "it is missing", Instructions: new(1000.0)},
		{Bulk: 64, Unprobed: "it is missing", Refused: "something else"},
		{Bulk: 65, Trace: trace},
		{Bulk: 66, Unprobed: "it is missing", Doubts: []string{"no trace: none is short"}},
	}}
	m.fromTraces()
	if s := m.Bulks[0].Sites; len(s) != 1 || s[0].PerPacket != 0.125 || s[0].Stage != "bulk-queue" || s[0].Target != "veth_ndo_xdp_xmit" {
		t.Errorf("sites %+v", s)
	}
	if d := m.Bulks[0].Doubts; len(d) != 1 || !strings.Contains(d[0], "of the trace: it is missing") {
		t.Errorf("doubts %q", d)
	}
	if b := m.Bulks[1]; !strings.HasPrefix(b.Refused, "it is missing; a trace") || b.Instructions != nil || b.Failed {
		t.Errorf("without a trace: %+v", b)
	}
	if b := m.Bulks[4]; b.Refused != "it is missing; no trace: none is short" {
		t.Errorf("a trace that failed: %+v", b)
	}
	if m.Bulks[2].Refused != "something else" || len(m.Bulks[3].Sites) > 0 {
		t.Errorf("others: %+v", m.Bulks[2:])
	}
}

// Before Linux 5.12 net_rx_action is what calls the polls of drivers: what they execute has the stages that it has on other kernels.
func TestStageAround(t *testing.T) {
	t.Parallel()
	symbols := func(names ...string) *ksym.Table {
		var all []ksym.Symbol
		for i, name := range names {
			all = append(all, ksym.Symbol{Addr: uint64(0x100 * (i + 1)), Size: 0x100, Type: 't', Name: name})
		}
		table, err := ksym.New(all)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	tree := &trace.Tree{Branches: []trace.Branch{{Function: "net_rx_action", Entered: "veth_poll"}, {Function: "bq_xmit_all", Entered: "x"}}}
	for _, names := range [][]string{{"net_rx_action", "__napi_poll"}, {"net_rx_action", "napi_poll"}} {
		if got := (&tracer{symbols: symbols(names...)}).pollsWithin(tree); got != nil {
			t.Errorf("%q: %v", names, got)
		}
	}
	polls := (&tracer{symbols: symbols("net_rx_action")}).pollsWithin(tree)
	if len(polls) != 1 || !polls["veth_poll"] {
		t.Fatalf("polls %v", polls)
	}
	stage := stageAround(polls)
	for _, test := range []struct {
		calls string
		sink  bool
		want  string
	}{
		{"veth_xdp_rcv veth_poll net_rx_action __do_softirq do_softirq", false, "receive"},
		{"veth_xdp_rcv veth_poll net_rx_action __do_softirq do_softirq", true, "sink"},
		{"xdp_do_redirect veth_poll net_rx_action __do_softirq", false, "redirect"},
		{"veth_ndo_xdp_xmit bq_xmit_all xdp_do_flush veth_poll net_rx_action __do_softirq", false, "transmit"},
		{"net_rx_action __do_softirq do_softirq", false, "softirq"},
		{"__list_add_valid net_rx_action __do_softirq", false, "softirq"},
		{"packet_sendmsg __sys_sendmmsg do_syscall_64", false, "other"},
	} {
		calls := strings.Fields(test.calls)
		if got := stage(calls, test.sink); got != test.want {
			t.Errorf("%s: %s, want %s", test.calls, got, test.want)
		}
		if strings.Join(calls, " ") != test.calls {
			t.Errorf("%s became %q", test.calls, calls)
		}
	}
}

// The symbols of kernels are kept as long as they are small together.
func TestImagesKeep(t *testing.T) {
	table := func(n int) *ksym.Table {
		all := make([]ksym.Symbol, n)
		for i := range all {
			all[i] = ksym.Symbol{Addr: uint64(i), Type: 't', Name: fmt.Sprintf("a_function_of_a_long_name_%07d", i)}
		}
		table, err := ksym.New(all)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	images := newImages()
	want := func(paths ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(images.tables)); !slices.Equal(got, paths) {
			t.Errorf("kept are %q, want %q", got, paths)
		}
	}
	small, large := table(1000), table(1_000_000)
	if large.Memory() < maxSymbols {
		t.Fatalf("%d bytes are not too large", large.Memory())
	}
	images.keep("a", small)
	images.keep("b", small)
	want("a", "b")
	images.keep("c", large)
	want("c")
	images.keep("a", small)
	want("a")
}
